//! What can be written into the log: one constructor a kind, and nothing else.
//!
//! Texts are bounded to [`TEXT_BYTES_MAX`] bytes and stripped of control characters when an event is
//! made, so that an entry always fits a line and shows on a terminal as what it is. Secrets, prompts
//! and message bodies have no field to go into.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use openfang_id::{AgentId, AgentName, NodeId};

use crate::checkpoint::parse_decimal;
use crate::{Checkpoint, Hash, Origin, OriginError};

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
    Denied(&'a str),
    /// It was tried and did not work; why.
    Failed(&'a str),
}

/// A message to or from an agent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The agent of this node.
    pub agent: AgentId,
    /// The other end: an agent and its node, or the way in, such as `api`.
    pub peer: &'a str,
    /// On whose behalf.
    pub user: &'a str,
    /// The conversation it belongs to.
    pub session: Option<&'a str>,
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
    pub target: &'a str,
    /// On whose behalf.
    pub user: &'a str,
    /// The conversation it belongs to.
    pub session: Option<&'a str>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub(crate) kind: Kind,
    pub(crate) act: Option<Box<str>>,
    pub(crate) agent: Option<AgentId>,
    pub(crate) cause: Option<Box<str>>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) outcome: Box<str>,
    pub(crate) session: Option<Box<str>>,
    pub(crate) target: Option<Box<str>>,
    pub(crate) user: Option<Box<str>>,
}

impl Event {
    /// The node started; which version.
    #[must_use]
    pub fn node_start(version: &str) -> Self {
        Self::new(Kind::NodeStart).target(version)
    }

    /// The node stops; why.
    #[must_use]
    pub fn node_stop(reason: &str) -> Self {
        Self::new(Kind::NodeStop).target(reason)
    }

    /// An agent is created, on whose behalf.
    #[must_use]
    pub fn agent_create(agent: &AgentId, name: &AgentName, user: &str) -> Self {
        Self::new(Kind::AgentCreate)
            .agent(*agent)
            .target(name.as_str())
            .user(user)
    }

    /// An agent is deleted, on whose behalf.
    #[must_use]
    pub fn agent_delete(agent: &AgentId, name: &AgentName, user: &str) -> Self {
        Self::new(Kind::AgentDelete)
            .agent(*agent)
            .target(name.as_str())
            .user(user)
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
    pub fn cap_denied(agent: &AgentId, tool: &str) -> Self {
        Self::new(Kind::CapDenied)
            .agent(*agent)
            .target(tool)
            .outcome(Outcome::Denied(""))
    }

    /// Someone failed to prove who they are: at which surface (`api`, `ofp`), from where, why.
    #[must_use]
    pub fn auth_failed(surface: &str, from: &str, reason: &str) -> Self {
        Self::new(Kind::AuthFailed)
            .act(surface)
            .target(from)
            .outcome(Outcome::Denied(reason))
    }

    /// Someone was let in by the API key: from where, to do what.
    #[must_use]
    pub fn api_key(from: &str, request: &str) -> Self {
        Self::new(Kind::ApiKey).act(request).target(from)
    }

    /// A peer connected, over which transport.
    #[must_use]
    pub fn peer_connect(node: &NodeId, transport: &str) -> Self {
        Self::new(Kind::PeerConnect)
            .act(transport)
            .target(&node.to_string())
    }

    /// A peer was turned away: from where, why.
    #[must_use]
    pub fn peer_refused(from: &str, reason: &str) -> Self {
        Self::new(Kind::PeerRefused)
            .target(from)
            .outcome(Outcome::Denied(reason))
    }

    /// The configuration changed: which keys, never their values.
    #[must_use]
    pub fn config_change(what: &str) -> Self {
        Self::new(Kind::ConfigChange).target(what)
    }

    /// An agent reads or changes a file.
    #[must_use]
    pub fn file_access(call: Call<'_>, act: &str) -> Self {
        Self::call(Kind::FileAccess, call).act(act)
    }

    /// An agent reaches out to the network: to which host, with which method.
    #[must_use]
    pub fn net_request(call: Call<'_>, act: &str) -> Self {
        Self::call(Kind::NetRequest, call).act(act)
    }

    /// Someone proved who they are: at which surface (`api`, `ofp`), from where, as whom.
    #[must_use]
    pub fn auth_ok(surface: &str, from: &str, user: &str) -> Self {
        Self::new(Kind::AuthOk).act(surface).target(from).user(user)
    }

    /// Someone asked too often: at which surface, from where.
    #[must_use]
    pub fn rate_limit(surface: &str, from: &str) -> Self {
        Self::new(Kind::RateLimit)
            .act(surface)
            .target(from)
            .outcome(Outcome::Denied("too often"))
    }

    /// A key or secret was replaced: which, never its value.
    #[must_use]
    pub fn key_rotate(what: &str) -> Self {
        Self::new(Kind::KeyRotate).target(what)
    }

    /// The wall clock was set: by how many microseconds, against the clock that never steps.
    #[must_use]
    pub fn clock_step(micros: i64) -> Self {
        Self::new(Kind::ClockStep).act(&format!("{micros:+} us"))
    }

    /// What some entries commit to was erased, and why. The entries and their proofs stay.
    #[must_use]
    pub fn redact(seqs: &str, reason: &str, user: &str) -> Self {
        Self::new(Kind::Redact).act(reason).target(seqs).user(user)
    }

    /// The head of another log was seen and accepted.
    #[must_use]
    pub fn head_observed(origin: &Origin, size: u64, root: &Hash) -> Self {
        Self::new(Kind::HeadObserved)
            .act(&format!("size {size} root {root}"))
            .target(origin.as_str())
    }

    /// Another log was found out: what it did.
    #[must_use]
    pub fn peer_evidence(origin: &Origin, what: &str) -> Self {
        Self::new(Kind::PeerEvidence)
            .act(what)
            .target(origin.as_str())
    }

    /// The end of this log was cut off because it was never finished: how many bytes, and the
    /// SHA-256 under which they are kept.
    #[must_use]
    pub fn log_recovered(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(&format!("cut {bytes} bytes"))
            .target(&format!("sha256:{sha256}"))
    }

    /// The last run ended before its last entries were signed: how many there are, now taken for its.
    #[must_use]
    pub fn log_adopted(entries: u64) -> Self {
        Self::new(Kind::LogRecovered).act(&format!("kept {entries} unsigned entries"))
    }

    /// Entries that were never signed stood in the place of lost ones and were set aside: how many
    /// bytes, and the SHA-256 under which they are kept.
    #[must_use]
    pub fn log_set_aside(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(&format!("set {bytes} bytes of unsigned entries aside"))
            .target(&format!("sha256:{sha256}"))
    }

    /// This log begins because the one before could not be continued: its name, and the last head of it
    /// that is known.
    #[must_use]
    pub fn epoch_start(before: &Origin, last: Option<&Checkpoint>) -> Self {
        let event = Self::new(Kind::EpochStart).target(before.as_str());
        match last {
            Some(Checkpoint { size, root, .. }) => event.act(&format!("size {size} root {root}")),
            None => event,
        }
    }

    /// Damaged lines were replaced by the signed ones, from a copy: how many bytes were bad, and the
    /// SHA-256 under which they are kept.
    #[must_use]
    pub fn log_mended(bytes: u64, sha256: &str) -> Self {
        Self::new(Kind::LogRecovered)
            .act(&format!("replaced {bytes} damaged bytes"))
            .target(&format!("sha256:{sha256}"))
    }

    /// Entries that were signed and lost are back, from copies of the log: which.
    #[must_use]
    pub fn log_restored(seqs: &Range<u64>) -> Self {
        let Range { start, end } = seqs;
        Self::new(Kind::LogRecovered).act(&format!("restored entries {start} to {end}"))
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells whether the entry must be written even when the disk is full: it is about the end of the
    /// node, or about something that has happened already and that others rely on.
    pub(crate) fn is_essential(&self) -> bool {
        matches!(
            self.kind,
            Kind::NodeStop | Kind::PeerEvidence | Kind::LogRecovered | Kind::EpochStart
        )
    }

    /// Returns the entry that what was announced by an earlier one, this, was not done: which one, why.
    #[must_use]
    pub fn not_done(mut self, announced: &Cause, why: &str) -> Self {
        self.cause = Some(announced.to_string().into());
        self.outcome(Outcome::Denied(why))
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
        }
    }

    fn message(kind: Kind, message: Message<'_>) -> Self {
        let mut event = Self::new(kind)
            .agent(message.agent)
            .target(message.peer)
            .user(message.user)
            .outcome(message.outcome);
        event.session = message.session.map(bounded);
        event.cause = message.cause.map(|cause| cause.to_string().into());
        event
    }

    fn call(kind: Kind, call: Call<'_>) -> Self {
        let mut event = Self::new(kind)
            .agent(call.agent)
            .target(call.target)
            .user(call.user)
            .outcome(call.outcome);
        event.session = call.session.map(bounded);
        event.cause = call.cause.map(|cause| cause.to_string().into());
        event.duration_us = call.duration.map(|duration| {
            u64::try_from(duration.as_micros())
                .unwrap_or(JSON_INTEGER_MAX)
                .min(JSON_INTEGER_MAX)
        });
        event
    }

    fn act(mut self, text: &str) -> Self {
        self.act = Some(bounded(text));
        self
    }

    fn agent(mut self, agent: AgentId) -> Self {
        self.agent = Some(agent);
        self
    }

    fn target(mut self, text: &str) -> Self {
        self.target = Some(bounded(text));
        self
    }

    fn user(mut self, text: &str) -> Self {
        self.user = Some(bounded(text));
        self
    }

    fn outcome(mut self, outcome: Outcome<'_>) -> Self {
        self.outcome = match outcome {
            Outcome::Ok => "ok".into(),
            Outcome::Denied("") => "denied".into(),
            Outcome::Denied(why) => bounded(&format!("denied: {why}")),
            Outcome::Failed("") => "failed".into(),
            Outcome::Failed(why) => bounded(&format!("failed: {why}")),
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

/// Strips what could disguise a text, and cuts it at a character.
fn bounded(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for c in text.chars().filter(|c| !is_disguise(*c)) {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out.into()
}

/// Control characters, line and paragraph separators, and the marks that turn the direction of text.
fn is_disguise(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;
    use proptest::prelude::*;

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
        assert_eq!(event.target.as_deref(), Some("[2J1.2.3.4"));
        assert_eq!(&*event.outcome, "denied: é");
    }

    proptest! {
        #[test]
        fn texts_are_bounded_at_a_character(text in "\\PC{0,300}") {
            let event = Event::config_change(&text);
            let kept = event.target.unwrap_or_default();
            prop_assert!(kept.len() <= TEXT_BYTES_MAX);
            prop_assert!(text.len() <= TEXT_BYTES_MAX || kept.len() > TEXT_BYTES_MAX - 4);
        }
    }
}
