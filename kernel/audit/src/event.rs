//! What can be written into the log: one constructor a kind, and nothing else.
//!
//! What a field takes says its type: [`Public`] texts, texts about persons ([`Personal`](crate::Personal)), and
//! [`Secret`]s. Texts are stripped of control characters when an event is made; the [guard](crate::guard) of the
//! log takes secrets out of them and cuts them to [`TEXT_BYTES_MAX`] bytes, so that an entry always fits a line
//! and shows on a terminal as what it is. Prompts and message bodies have no field to go into.

mod slot;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use openfang_id::{AgentId, AgentName, NodeId};

use crate::checkpoint::parse_decimal;
use crate::cosign::LogName;
use crate::seqs::Seqs;
use crate::value::{Public, Secret, Text};
use crate::{Checkpoint, Hash, Origin, OriginError};

use slot::stripped;
pub(crate) use slot::{Hidden, Slot, cut};

/// The longest text of a field, in bytes. Longer ones are cut at a character.
pub const TEXT_BYTES_MAX: usize = 256;
/// The largest integer that every JSON reader keeps exactly (RFC 8785 §3.2.2.3).
const JSON_INTEGER_MAX: u64 = 1 << 53;

/// The number of an entry: its index in the log, and its leaf index in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// The entry that led to this one, in this log or in another: `ORIGIN#SEQ`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which log.
    pub origin: Origin,
    /// Which of its entries.
    pub seq: u64,
}

/// Why a text is not a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CauseError {
    /// No `#` between origin and number, or no number behind it.
    #[error("not a cause: expected ORIGIN#SEQ")]
    Form,
    /// The part before `#` is not the origin of a log.
    #[error("not a cause: {0}")]
    Origin(#[source] OriginError),
}

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It was done, or is about to be done.
    Ok,
    /// It was not allowed; why.
    Denied(Public<'a>),
    /// It was tried and did not work; why.
    Failed(Public<'a>),
}

/// A message to or from an agent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The agent of this node.
    pub agent: AgentId,
    /// The other end: an agent and its node, or the way in, such as `api`.
    pub peer: Text<'a>,
    /// On whose behalf.
    pub user: Text<'a>,
    /// The conversation it belongs to.
    pub session: Option<Text<'a>>,
    /// The entry, here or at the other node, that led to it.
    pub cause: Option<&'a Cause>,
    /// How it ended.
    pub outcome: Outcome<'a>,
}

/// The use of a tool or a model by an agent.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The agent.
    pub agent: AgentId,
    /// The tool, or `provider/model`.
    pub target: Text<'a>,
    /// On whose behalf.
    pub user: Text<'a>,
    /// The conversation it belongs to.
    pub session: Option<Text<'a>>,
    /// The entry that led to it.
    pub cause: Option<&'a Cause>,
    /// How it ended.
    pub outcome: Outcome<'a>,
    /// How long it took; `None` for an entry that is written before it begins.
    pub duration: Option<Duration>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal,)+) => {
        /// The kinds of events. Their names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Tells whether it changes what the node is, lets in or may do: such an entry is signed
            /// at once.
            #[must_use]
            pub fn is_change(self) -> bool {
                matches!(
                    self,
                    Self::ConfigChange
                        | Self::KeyRotate
                        | Self::AgentCreate
                        | Self::AgentDelete
                        | Self::Redact
                )
            }

            /// Returns the name that stands in the field `ev`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)+
                }
            }
        }
    };
}

kinds! {
    /// The node started.
    NodeStart = "node_start",
    /// The node stops.
    NodeStop = "node_stop",
    /// An agent is created.
    AgentCreate = "agent_create",
    /// An agent is deleted.
    AgentDelete = "agent_delete",
    /// A message for an agent of this node.
    MessageIn = "message_in",
    /// A message from an agent of this node.
    MessageOut = "message_out",
    /// An agent uses a tool.
    ToolInvoke = "tool_invoke",
    /// An agent calls a model.
    ModelCall = "model_call",
    /// An agent asked for a tool it may not use.
    CapDenied = "cap_denied",
    /// Someone failed to prove who they are.
    AuthFailed = "auth_failed",
    /// Someone was let in by the API key.
    ApiKey = "api_key",
    /// A peer connected.
    PeerConnect = "peer_connect",
    /// A peer was turned away.
    PeerRefused = "peer_refused",
    /// An agent read or changed a file.
    FileAccess = "file_access",
    /// An agent reached out to the network.
    NetRequest = "net_request",
    /// Someone proved who they are.
    AuthOk = "auth_ok",
    /// Someone asked too often.
    RateLimit = "rate_limit",
    /// The configuration changed.
    ConfigChange = "config_change",
    /// A key or secret was replaced.
    KeyRotate = "key_rotate",
    /// The wall clock was set.
    ClockStep = "clock_step",
    /// The opening of a commitment was erased.
    Redact = "redact",
    /// The head of another log was seen.
    HeadObserved = "head_observed",
    /// Another log was found out.
    PeerEvidence = "peer_evidence",
    /// This log was repaired, or got lost entries back.
    LogRecovered = "log_recovered",
    /// This log begins, after one that could not be continued.
    EpochStart = "epoch_start",
}

/// Why a text names no kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such kind of event")]
pub struct UnknownKind;

/// Something that happened, ready to be written.
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) kind: Kind,
    pub(crate) act: Option<Box<str>>,
    pub(crate) agent: Option<AgentId>,
    pub(crate) cause: Option<Box<str>>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) outcome: Box<str>,
    pub(crate) session: Option<Slot>,
    pub(crate) target: Option<Slot>,
    pub(crate) user: Option<Slot>,
    /// A value that stands in the line as a commitment only.
    pub(crate) value: Option<Box<Slot>>,
    /// Whether it says that what another entry announced was not done.
    pub(crate) takes_back: bool,
}

impl Event {
    /// The node started; which version.
    #[must_use]
    pub fn node_start<'a>(version: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::NodeStart).target(Text::Public(version.into()))
    }

    /// The node stops; why.
    #[must_use]
    pub fn node_stop<'a>(reason: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::NodeStop).target(Text::Public(reason.into()))
    }

    /// An agent is created, on whose behalf.
    #[must_use]
    pub fn agent_create<'a>(agent: &AgentId, name: &AgentName, user: impl Into<Text<'a>>) -> Self {
        Self::new(Kind::AgentCreate)
            .agent(*agent)
            .target(Public::from(name).into())
            .user(user.into())
    }

    /// An agent is deleted, on whose behalf.
    #[must_use]
    pub fn agent_delete<'a>(agent: &AgentId, name: &AgentName, user: impl Into<Text<'a>>) -> Self {
        Self::new(Kind::AgentDelete)
            .agent(*agent)
            .target(Public::from(name).into())
            .user(user.into())
    }

    /// A message for an agent of this node.
    #[must_use]
    pub fn message_in(message: Message<'_>) -> Self {
        Self::message(Kind::MessageIn, message)
    }

    /// A message from an agent of this node.
    #[must_use]
    pub fn message_out(message: Message<'_>) -> Self {
        Self::message(Kind::MessageOut, message)
    }

    /// An agent uses a tool.
    #[must_use]
    pub fn tool_invoke(call: Call<'_>) -> Self {
        Self::call(Kind::ToolInvoke, call)
    }

    /// An agent calls a model.
    #[must_use]
    pub fn model_call(call: Call<'_>) -> Self {
        Self::call(Kind::ModelCall, call)
    }

    /// An agent asked for a tool it may not use.
    #[must_use]
    pub fn cap_denied<'a>(agent: &AgentId, tool: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::CapDenied)
            .agent(*agent)
            .target(Text::Public(tool.into()))
            .outcome(Outcome::Denied("".into()))
    }

    /// Someone failed to prove who they are: at which surface (`api`, `ofp`), from where, why.
    #[must_use]
    pub fn auth_failed<'a, 'b, 'c>(
        surface: impl Into<Public<'a>>,
        from: impl Into<Text<'b>>,
        reason: impl Into<Public<'c>>,
    ) -> Self {
        Self::new(Kind::AuthFailed)
            .act(surface.into())
            .target(from.into())
            .outcome(Outcome::Denied(reason.into()))
    }

    /// Someone was let in by the API key: from where, to do what.
    #[must_use]
    pub fn api_key<'a, 'b>(from: impl Into<Text<'a>>, request: impl Into<Public<'b>>) -> Self {
        Self::new(Kind::ApiKey)
            .act(request.into())
            .target(from.into())
    }

    /// A peer connected, over which transport.
    #[must_use]
    pub fn peer_connect<'a>(node: &NodeId, transport: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::PeerConnect)
            .act(transport.into())
            .target(Public::text(&node.to_string()).into())
    }

    /// A peer was turned away: from where, why.
    #[must_use]
    pub fn peer_refused<'a, 'b>(from: impl Into<Text<'a>>, reason: impl Into<Public<'b>>) -> Self {
        Self::new(Kind::PeerRefused)
            .target(from.into())
            .outcome(Outcome::Denied(reason.into()))
    }

    /// The configuration changed: which keys, never their values.
    #[must_use]
    pub fn config_change<'a>(what: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::ConfigChange).target(Text::Public(what.into()))
    }

    /// As [`Event::config_change`], on somebody's behalf.
    #[must_use]
    pub fn config_change_by<'a, 'b>(
        what: impl Into<Public<'a>>,
        user: impl Into<Text<'b>>,
    ) -> Self {
        Self::config_change(what).user(user.into())
    }

    /// An agent reads or changes a file.
    #[must_use]
    pub fn file_access<'a>(call: Call<'_>, act: impl Into<Public<'a>>) -> Self {
        Self::call(Kind::FileAccess, call).act(act.into())
    }

    /// An agent reaches out to the network: to which host, with which method.
    #[must_use]
    pub fn net_request<'a>(call: Call<'_>, act: impl Into<Public<'a>>) -> Self {
        Self::call(Kind::NetRequest, call).act(act.into())
    }

    /// Someone proved who they are: at which surface (`api`, `ofp`), from where, as whom.
    #[must_use]
    pub fn auth_ok<'a, 'b, 'c>(
        surface: impl Into<Public<'a>>,
        from: impl Into<Text<'b>>,
        user: impl Into<Text<'c>>,
    ) -> Self {
        Self::new(Kind::AuthOk)
            .act(surface.into())
            .target(from.into())
            .user(user.into())
    }

    /// Someone asked too often: at which surface, from where.
    #[must_use]
    pub fn rate_limit<'a, 'b>(surface: impl Into<Public<'a>>, from: impl Into<Text<'b>>) -> Self {
        Self::new(Kind::RateLimit)
            .act(surface.into())
            .target(from.into())
            .outcome(Outcome::Denied("too often".into()))
    }

    /// A key or secret was replaced: which. The line commits to the new value, and nobody can open that.
    #[must_use]
    pub fn key_rotate<'a>(what: impl Into<Public<'a>>, value: Option<Secret>) -> Self {
        let mut event = Self::new(Kind::KeyRotate).target(Text::Public(what.into()));
        event.value = value.map(|value| Box::new(Slot::Secret(Box::new(value))));
        event
    }

    /// The wall clock was set: by how many microseconds, against the clock that never steps.
    #[must_use]
    pub fn clock_step(micros: i64) -> Self {
        Self::new(Kind::ClockStep).act(Public::text(&format!("{micros:+} us")))
    }

    /// What some entries commit to was erased, and why. The entries and their proofs stay.
    #[must_use]
    pub fn redact<'a, 'b>(
        seqs: &Seqs,
        reason: impl Into<Public<'a>>,
        user: impl Into<Public<'b>>,
    ) -> Self {
        Self::redact_again(&seqs.to_string(), reason.into(), user)
    }

    /// As [`Event::redact`], with the numbers as they were written down before, or with what stands in their place.
    pub(crate) fn redact_again<'a>(
        numbers: &str,
        reason: Public<'_>,
        user: impl Into<Public<'a>>,
    ) -> Self {
        let mut event = Self::new(Kind::Redact).act(reason);
        event.target = Some(Slot::Open(numbers.into()));
        event.user(Text::Public(user.into()))
    }

    /// The head of another log was seen and accepted.
    #[must_use]
    pub fn head_observed(origin: &Origin, size: u64, root: &Hash) -> Self {
        Self::new(Kind::HeadObserved)
            .act(Public::text(&format!("size {size} root {root}")))
            .target(Public::from(origin).into())
    }

    /// Another log was found out: what it did.
    #[must_use]
    pub fn peer_evidence<'a>(log: impl Into<LogName>, what: impl Into<Public<'a>>) -> Self {
        Self::new(Kind::PeerEvidence)
            .act(what.into())
            .target(Public::text(log.into().as_str()).into())
    }

    /// The end of this log was cut off because it was never finished: how many bytes, and the
    /// SHA-256 under which they are kept.
    #[must_use]
    pub fn log_recovered(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(Public::text(&format!("cut {bytes} bytes")))
            .target(Public::text(&format!("sha256:{sha256}")).into())
    }

    /// The last run ended before its last entries were signed: how many there are, now taken for its.
    #[must_use]
    pub fn log_adopted(entries: u64) -> Self {
        let what = format!("kept {entries} unsigned entries");
        Self::new(Kind::LogRecovered).act(Public::text(&what))
    }

    /// Entries that were never signed stood in the place of lost ones and were set aside: how many
    /// bytes, and the SHA-256 under which they are kept.
    #[must_use]
    pub fn log_set_aside(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(Public::text(&format!(
                "set {bytes} bytes of unsigned entries aside"
            )))
            .target(Public::text(&format!("sha256:{sha256}")).into())
    }

    /// This log begins because the one before could not be continued: its name, and the last head of it
    /// that is known.
    #[must_use]
    pub fn epoch_start(before: &Origin, last: Option<&Checkpoint>) -> Self {
        let event = Self::new(Kind::EpochStart).target(Public::from(before).into());
        match last {
            Some(Checkpoint { size, root, .. }) => {
                event.act(Public::text(&format!("size {size} root {root}")))
            }
            None => event,
        }
    }

    /// Damaged lines were replaced by the signed ones, from a copy: how many bytes were bad, and the
    /// SHA-256 under which they are kept.
    #[must_use]
    pub fn log_mended(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(Public::text(&format!("replaced {bytes} damaged bytes")))
            .target(Public::text(&format!("sha256:{sha256}")).into())
    }

    /// Entries that were signed and lost are back, from copies of the log: which.
    #[must_use]
    pub fn log_restored(seqs: &Range<u64>) -> Self {
        let Range { start, end } = seqs;
        let what = format!("restored entries {start} to {}", end.saturating_sub(1));
        Self::new(Kind::LogRecovered).act(Public::text(&what))
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells whether the entry must be written even when the disk is full: it is about the end of the
    /// node, or about something that has happened already and that others rely on.
    pub(crate) fn is_essential(&self) -> bool {
        let is_last_or_learned = matches!(
            self.kind,
            Kind::NodeStop | Kind::PeerEvidence | Kind::LogRecovered | Kind::EpochStart
        );
        is_last_or_learned || self.takes_back
    }

    /// Returns the entry that what was announced by an earlier one, this, was not done: which one, and how that
    /// came.
    #[must_use]
    pub fn not_done(mut self, announced: &Cause, outcome: Outcome<'_>) -> Self {
        self.cause = Some(announced.to_string().into());
        self.takes_back = true;
        self.outcome(outcome)
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            act: None,
            agent: None,
            cause: None,
            duration_us: None,
            outcome: "ok".into(),
            session: None,
            target: None,
            user: None,
            value: None,
            takes_back: false,
        }
    }

    fn message(kind: Kind, message: Message<'_>) -> Self {
        let mut event = Self::new(kind)
            .agent(message.agent)
            .target(message.peer)
            .user(message.user)
            .outcome(message.outcome);
        event.session = message.session.map(Slot::from);
        event.cause = message.cause.map(|cause| cause.to_string().into());
        event
    }

    fn call(kind: Kind, call: Call<'_>) -> Self {
        let mut event = Self::new(kind)
            .agent(call.agent)
            .target(call.target)
            .user(call.user)
            .outcome(call.outcome);
        event.session = call.session.map(Slot::from);
        event.cause = call.cause.map(|cause| cause.to_string().into());
        event.duration_us = call.duration.map(|duration| {
            u64::try_from(duration.as_micros())
                .unwrap_or(JSON_INTEGER_MAX)
                .min(JSON_INTEGER_MAX)
        });
        event
    }

    fn act(mut self, text: Public<'_>) -> Self {
        self.act = Some(stripped(text.as_str()));
        self
    }

    fn agent(mut self, agent: AgentId) -> Self {
        self.agent = Some(agent);
        self
    }

    fn target(mut self, text: Text<'_>) -> Self {
        self.target = Some(Slot::from(text));
        self
    }

    fn user(mut self, text: Text<'_>) -> Self {
        self.user = Some(Slot::from(text));
        self
    }

    fn outcome(mut self, outcome: Outcome<'_>) -> Self {
        let (word, why) = match outcome {
            Outcome::Ok => ("ok", ""),
            Outcome::Denied(why) => ("denied", why.as_str()),
            Outcome::Failed(why) => ("failed", why.as_str()),
        };
        self.outcome = if why.is_empty() {
            word.into()
        } else {
            stripped(&format!("{word}: {why}"))
        };
        self
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let same = |kind: &&Self| kind.as_str() == text;
        Self::ALL.iter().find(same).copied().ok_or(UnknownKind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Cause {
    type Err = CauseError;

    fn from_str(text: &str) -> Result<Self, CauseError> {
        let (origin, seq) = text.split_once('#').ok_or(CauseError::Form)?;
        Ok(Self {
            origin: origin.parse().map_err(CauseError::Origin)?,
            seq: parse_decimal(seq).ok_or(CauseError::Form)?,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;

    fn text_of(slot: &Option<Slot>) -> Option<&str> {
        slot.as_ref().and_then(Slot::text)
    }

    #[test]
    fn the_names_of_kinds_round_trip() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        assert_eq!("Node_Start".parse::<Kind>(), Err(UnknownKind));
    }

    #[test]
    fn a_cause_names_a_log_and_an_entry() {
        let origin = Origin::of(&NodeSeed::from_bytes([1; 32]).keys().node_id(), 1);
        let cause = Cause { origin, seq: 42 };
        assert_eq!(cause.to_string().parse(), Ok(cause.clone()));
        let text = cause.to_string();
        assert_eq!(
            text.replace('#', "").parse::<Cause>(),
            Err(CauseError::Form)
        );
        assert_eq!(
            text.replace("42", "042").parse::<Cause>(),
            Err(CauseError::Form)
        );
        assert_eq!("x#1".parse::<Cause>(), Err(CauseError::Origin(OriginError)));
    }

    #[test]
    fn texts_lose_what_could_disguise_them() {
        let event = Event::auth_failed("api\r\n\0", "\u{1b}[2J1.2.3.4\u{202e}", "é\u{2028}\u{85}");
        assert_eq!(event.act.as_deref(), Some("api"));
        assert_eq!(text_of(&event.target), Some("[2J1.2.3.4"));
        assert_eq!(&*event.outcome, "denied: é");
        let event = Event::node_stop("sk-\u{200b}a\u{ad}b\u{feff}c");
        assert_eq!(text_of(&event.target), Some("sk-abc"));
    }
}
