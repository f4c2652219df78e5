//! One line of the log: written canonically, read verbatim.
//!
//! RFC 8785: keys in order, no white space, integers only. The fields are `act agent boot c cause
//! dur_us ev hlc node outcome seq sess target ts user v`; an absent field is left out. `c` holds the
//! commitments to what does not stand in the line, by its field ([`commit`](crate::commit)). The leaf of the
//! tree is the exact bytes of the line without its line feed: a verifier never writes a line again,
//! so that no change of a library can break an old entry.

use std::io::Write as _;

use memchr::memmem;
use openfang_id::AgentId;
use serde::Deserialize;

use crate::clock::{Hybrid, write_rfc3339};
use crate::event::Slot;
use crate::tree::leaf_hash;
use crate::value::Field;
use crate::{Event, Hash, Seq};

/// The longest line, without its line feed: an entry bundle of C2SP tlog-tiles gives it 16 bits.
pub const LINE_BYTES_MAX: usize = 65_535;
/// The version of the line format.
const VERSION: u64 = 1;

/// One verified or parsed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub seq: Seq,
    /// The bytes of the line, without its line feed.
    pub raw: String,
    /// The leaf hash of these bytes.
    pub leaf: Hash,
    /// When, by the wall clock of the node: RFC 3339, UTC, microseconds.
    pub ts: String,
    /// When, by the hybrid clock of the log.
    pub hlc: Hybrid,
    /// The node that wrote it.
    pub node: String,
    /// Which run of the node wrote it: 16 hexadecimal digits.
    pub boot: String,
    /// What happened: the name of a [`Kind`](crate::Kind), or one that this version does not know.
    pub ev: String,
    /// The agent it is about.
    pub agent: Option<AgentId>,
    /// More about what happened.
    pub act: Option<String>,
    /// To or with what.
    pub target: Option<String>,
    /// How it ended: `ok`, `denied…`, `failed…`.
    pub outcome: String,
    /// How long it took, in microseconds.
    pub dur_us: Option<u64>,
    /// The conversation it belongs to.
    pub sess: Option<String>,
    /// On whose behalf.
    pub user: Option<String>,
    /// The entry that led to it: `ORIGIN#SEQ`.
    pub cause: Option<String>,
    /// What it commits to.
    pub commitments: Commitments,
}

/// What a line commits to, by field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Commitments([Option<Hash>; Field::ALL.len()]);

impl Commitments {
    /// Returns the commitment of a field.
    #[must_use]
    pub fn of(&self, field: Field) -> Option<Hash> {
        self.iter()
            .find(|(at, _)| *at == field)
            .map(|(_, found)| found)
    }

    /// Returns each, with its field.
    pub fn iter(&self) -> impl Iterator<Item = (Field, Hash)> + '_ {
        let all = Field::ALL.into_iter().zip(&self.0);
        all.filter_map(|(field, found)| found.map(|found| (field, found)))
    }

    /// Tells whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Why bytes are not a line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than 65,535 bytes.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not UTF-8, not JSON, or a field that is missing, double or of the wrong kind.
    #[error("the line is not an entry")]
    Form,
    /// A version of the format that is not known.
    #[error("the line is of format version {0}, this program knows version {VERSION}")]
    Version(u64),
}

/// What the fields of a line hold besides the event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) seq: u64,
    pub(crate) unix_micros: u64,
    pub(crate) hybrid: Hybrid,
    pub(crate) node: &'a str,
    pub(crate) boot: u64,
}

/// Writes a line without its line feed.
pub(crate) fn render(out: &mut Vec<u8>, context: Context<'_>, event: &Event) {
    let mut object = Object { out, first: true };
    object.text("act", event.act.as_deref());
    if let Some(agent) = event.agent {
        object.display("agent", format_args!("\"{agent}\""));
    }
    object.display("boot", format_args!("\"{:016x}\"", context.boot));
    render_commitments(&mut object, event);
    object.text("cause", event.cause.as_deref());
    if let Some(duration_us) = event.duration_us {
        object.display("dur_us", format_args!("{duration_us}"));
    }
    object.text("ev", Some(event.kind.as_str()));
    object.display("hlc", format_args!("\"{}\"", context.hybrid));
    object.text("node", Some(context.node));
    object.text("outcome", Some(&event.outcome));
    object.display("seq", format_args!("{}", context.seq));
    object.text("sess", event.session.as_ref().and_then(Slot::text));
    object.text("target", event.target.as_ref().and_then(Slot::text));
    object.key("ts");
    object.out.push(b'"');
    write_rfc3339(object.out, context.unix_micros);
    object.out.push(b'"');
    object.text("user", event.user.as_ref().and_then(Slot::text));
    object.display("v", format_args!("{VERSION}"));
    object.out.push(b'}');
}

fn render_commitments(object: &mut Object<'_>, event: &Event) {
    let slots = [
        (Field::Session, event.session.as_ref()),
        (Field::Target, event.target.as_ref()),
        (Field::User, event.user.as_ref()),
        (Field::Value, event.value.as_deref()),
    ];
    let slots = slots.map(|(field, slot)| (field, slot.and_then(Slot::commitment)));
    if slots.iter().all(|(_, commitment)| commitment.is_none()) {
        return;
    }
    object.key("c");
    let mut inner = Object {
        out: object.out,
        first: true,
    };
    for (field, commitment) in slots {
        if let Some(commitment) = commitment {
            inner.display(field.as_str(), format_args!("\"{commitment}\""));
        }
    }
    inner.out.push(b'}');
}

/// Finds the number in the field `seq`, without reading the rest of the line.
#[derive(Debug)]
pub(crate) struct SeqFinder(memmem::Finder<'static>);

impl SeqFinder {
    /// In a canonical line these bytes can only be that key: inside a text every quotation mark
    /// follows a backslash.
    const KEY: &'static str = ",\"seq\":";

    pub(crate) fn new() -> Self {
        Self(memmem::Finder::new(Self::KEY))
    }

    /// Returns the number, when it is written as it must be.
    pub(crate) fn find(&self, line: &[u8]) -> Option<u64> {
        let digits = &line[self.0.find(line)? + Self::KEY.len()..];
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        if end == 0 || end > 19 || (digits[0] == b'0' && end > 1) {
            return None;
        }
        let number = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
        Some(digits[..end].iter().fold(0, number))
    }
}

#[derive(Deserialize)]
struct Fields {
    act: Option<String>,
    agent: Option<String>,
    boot: String,
    c: Option<CommitmentFields>,
    cause: Option<String>,
    dur_us: Option<u64>,
    ev: String,
    hlc: String,
    node: String,
    outcome: String,
    seq: u64,
    sess: Option<String>,
    target: Option<String>,
    ts: String,
    user: Option<String>,
    v: u64,
}

#[derive(Deserialize)]
struct CommitmentFields {
    sess: Option<String>,
    target: Option<String>,
    user: Option<String>,
    value: Option<String>,
}

impl CommitmentFields {
    fn read(self) -> Result<Commitments, LineError> {
        let read = |text: Option<String>| text.map(|text| text.parse::<Hash>()).transpose();
        let [sess, target, user, value] = [self.sess, self.target, self.user, self.value].map(read);
        let form = |_not_a_hash| LineError::Form;
        Ok(Commitments([
            sess.map_err(form)?,
            target.map_err(form)?,
            user.map_err(form)?,
            value.map_err(form)?,
        ]))
    }
}

impl Line {
    /// Reads a line, without its line feed. Fields that are not known are passed over.
    ///
    /// # Errors
    /// When the bytes are no line of a log.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        let raw = std::str::from_utf8(bytes).map_err(|_not_utf8| LineError::Form)?;
        let fields: Fields = serde_json::from_str(raw).map_err(|_not_json| LineError::Form)?;
        if fields.v != VERSION {
            return Err(LineError::Version(fields.v));
        }
        let agent = fields.agent.map(|agent| agent.parse()).transpose();
        let hlc = u64::from_str_radix(&fields.hlc, 16);
        Ok(Self {
            seq: Seq(fields.seq),
            raw: raw.to_owned(),
            leaf: leaf_hash(bytes),
            ts: fields.ts,
            hlc: hlc.map(Hybrid::from_u64).map_err(|_bad| LineError::Form)?,
            node: fields.node,
            boot: fields.boot,
            ev: fields.ev,
            agent: agent.map_err(|_not_an_id| LineError::Form)?,
            act: fields.act,
            target: fields.target,
            outcome: fields.outcome,
            dur_us: fields.dur_us,
            sess: fields.sess,
            user: fields.user,
            cause: fields.cause,
            commitments: fields
                .c
                .map_or(Ok(Commitments::default()), CommitmentFields::read)?,
        })
    }
}

/// A JSON object that is being written. The caller gives the keys in their order.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.out.push(if self.first { b'{' } else { b',' });
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.key(key);
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    fn display(&mut self, key: &str, value: std::fmt::Arguments<'_>) {
        self.key(key);
        self.out
            .write_fmt(value)
            .expect("writing into memory does not fail");
    }
}

/// RFC 8785 §3.2.2.2.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            0x00..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                continue;
            }
            _plain => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Call, Cause, Kind, Message, Origin, Outcome, Public, Seqs};
    use openfang_id::{AgentName, NodeId, NodeSeed};
    use proptest::prelude::*;

    fn node() -> NodeId {
        NodeSeed::from_bytes([1; 32]).keys().node_id()
    }

    fn write(seq: u64, event: &Event) -> String {
        let node = node().to_string();
        let context = Context {
            seq,
            unix_micros: 1_795_294_798_123_456,
            hybrid: Hybrid::default().next(1_795_294_798_123_456),
            node: &node,
            boot: 0xabc,
        };
        let mut out = Vec::new();
        render(&mut out, context, event);
        String::from_utf8(out).expect("a line is UTF-8")
    }

    fn events() -> Vec<Event> {
        let agent = AgentId::from_bytes([0x11; 16]);
        let name: AgentName = "researcher".parse().expect("a name");
        let cause = Cause {
            origin: Origin::of(&node(), 1),
            seq: 7,
        };
        let message = Message {
            agent,
            peer: "writer@b".into(),
            user: "api:key".into(),
            session: Some("s1".into()),
            cause: Some(&cause),
            outcome: Outcome::Ok,
        };
        let call = Call {
            agent,
            target: "memory_store".into(),
            user: "cli".into(),
            session: None,
            cause: None,
            outcome: Outcome::Failed("no space".into()),
            duration: Some(Duration::from_micros(1500)),
        };
        let origin = Origin::of(&node(), 1);
        let seqs = Seqs::split(&[3, 7].into()).remove(0);
        vec![
            Event::node_start("0.1.0"),
            Event::node_stop("SIGTERM"),
            Event::agent_create(&agent, &name, "api:loopback"),
            Event::agent_delete(&agent, &name, "cli"),
            Event::message_in(message),
            Event::message_out(Message {
                session: None,
                cause: None,
                ..message
            }),
            Event::tool_invoke(call),
            Event::model_call(Call {
                target: "openai/gpt".into(),
                outcome: Outcome::Ok,
                duration: None,
                ..call
            }),
            Event::cap_denied(&agent, "shell_exec"),
            Event::auth_failed("ofp", "192.0.2.7:4200", "wrong secret"),
            Event::api_key("127.0.0.1:50000", "POST /api/agents"),
            Event::peer_connect(&node(), "quic"),
            Event::peer_refused("192.0.2.7:4200", "version"),
            Event::config_change("network.shared_secret"),
            Event::head_observed(&origin, 9, &Hash::from_bytes([7; 32])),
            Event::peer_evidence(&origin, "two roots for size 9"),
            Event::log_recovered(13, "00ff"),
            Event::epoch_start(&origin, None),
            Event::file_access(call, "read"),
            Event::net_request(call, "GET"),
            Event::auth_ok("api", "192.0.2.7:4200", "ada"),
            Event::rate_limit("api", "192.0.2.7"),
            Event::key_rotate("network.shared_secret", None),
            Event::clock_step(-1_500_000),
            Event::redact(&seqs, "asked by the subject", "cli"),
        ]
    }

    /// `NODE`, `AGENT`, `ORIGIN` and `ROOT` stand for long values. A change here makes the lines of
    /// different versions of the program differ.
    const LINES: &str = r#"
{"boot":"0000000000000abc","ev":"node_start","hlc":"HLC","node":"NODE","outcome":"ok","seq":0,"target":"0.1.0","ts":"TS","v":1}
{"boot":"0000000000000abc","ev":"node_stop","hlc":"HLC","node":"NODE","outcome":"ok","seq":1,"target":"SIGTERM","ts":"TS","v":1}
{"agent":"AGENT","boot":"0000000000000abc","ev":"agent_create","hlc":"HLC","node":"NODE","outcome":"ok","seq":2,"target":"researcher","ts":"TS","user":"api:loopback","v":1}
{"agent":"AGENT","boot":"0000000000000abc","ev":"agent_delete","hlc":"HLC","node":"NODE","outcome":"ok","seq":3,"target":"researcher","ts":"TS","user":"cli","v":1}
{"agent":"AGENT","boot":"0000000000000abc","cause":"ORIGIN#7","ev":"message_in","hlc":"HLC","node":"NODE","outcome":"ok","seq":4,"sess":"s1","target":"writer@b","ts":"TS","user":"api:key","v":1}
{"agent":"AGENT","boot":"0000000000000abc","ev":"message_out","hlc":"HLC","node":"NODE","outcome":"ok","seq":5,"target":"writer@b","ts":"TS","user":"api:key","v":1}
{"agent":"AGENT","boot":"0000000000000abc","dur_us":1500,"ev":"tool_invoke","hlc":"HLC","node":"NODE","outcome":"failed: no space","seq":6,"target":"memory_store","ts":"TS","user":"cli","v":1}
{"agent":"AGENT","boot":"0000000000000abc","ev":"model_call","hlc":"HLC","node":"NODE","outcome":"ok","seq":7,"target":"openai/gpt","ts":"TS","user":"cli","v":1}
{"agent":"AGENT","boot":"0000000000000abc","ev":"cap_denied","hlc":"HLC","node":"NODE","outcome":"denied","seq":8,"target":"shell_exec","ts":"TS","v":1}
{"act":"ofp","boot":"0000000000000abc","ev":"auth_failed","hlc":"HLC","node":"NODE","outcome":"denied: wrong secret","seq":9,"target":"192.0.2.7:4200","ts":"TS","v":1}
{"act":"POST /api/agents","boot":"0000000000000abc","ev":"api_key","hlc":"HLC","node":"NODE","outcome":"ok","seq":10,"target":"127.0.0.1:50000","ts":"TS","v":1}
{"act":"quic","boot":"0000000000000abc","ev":"peer_connect","hlc":"HLC","node":"NODE","outcome":"ok","seq":11,"target":"NODE","ts":"TS","v":1}
{"boot":"0000000000000abc","ev":"peer_refused","hlc":"HLC","node":"NODE","outcome":"denied: version","seq":12,"target":"192.0.2.7:4200","ts":"TS","v":1}
{"boot":"0000000000000abc","ev":"config_change","hlc":"HLC","node":"NODE","outcome":"ok","seq":13,"target":"network.shared_secret","ts":"TS","v":1}
{"act":"size 9 root ROOT","boot":"0000000000000abc","ev":"head_observed","hlc":"HLC","node":"NODE","outcome":"ok","seq":14,"target":"ORIGIN","ts":"TS","v":1}
{"act":"two roots for size 9","boot":"0000000000000abc","ev":"peer_evidence","hlc":"HLC","node":"NODE","outcome":"ok","seq":15,"target":"ORIGIN","ts":"TS","v":1}
{"act":"cut 13 bytes","boot":"0000000000000abc","ev":"log_recovered","hlc":"HLC","node":"NODE","outcome":"ok","seq":16,"target":"sha256:00ff","ts":"TS","v":1}
{"boot":"0000000000000abc","ev":"epoch_start","hlc":"HLC","node":"NODE","outcome":"ok","seq":17,"target":"ORIGIN","ts":"TS","v":1}
{"act":"read","agent":"AGENT","boot":"0000000000000abc","dur_us":1500,"ev":"file_access","hlc":"HLC","node":"NODE","outcome":"failed: no space","seq":18,"target":"memory_store","ts":"TS","user":"cli","v":1}
{"act":"GET","agent":"AGENT","boot":"0000000000000abc","dur_us":1500,"ev":"net_request","hlc":"HLC","node":"NODE","outcome":"failed: no space","seq":19,"target":"memory_store","ts":"TS","user":"cli","v":1}
{"act":"api","boot":"0000000000000abc","ev":"auth_ok","hlc":"HLC","node":"NODE","outcome":"ok","seq":20,"target":"192.0.2.7:4200","ts":"TS","user":"ada","v":1}
{"act":"api","boot":"0000000000000abc","ev":"rate_limit","hlc":"HLC","node":"NODE","outcome":"denied: too often","seq":21,"target":"192.0.2.7","ts":"TS","v":1}
{"boot":"0000000000000abc","ev":"key_rotate","hlc":"HLC","node":"NODE","outcome":"ok","seq":22,"target":"network.shared_secret","ts":"TS","v":1}
{"act":"-1500000 us","boot":"0000000000000abc","ev":"clock_step","hlc":"HLC","node":"NODE","outcome":"ok","seq":23,"ts":"TS","v":1}
{"act":"asked by the subject","boot":"0000000000000abc","ev":"redact","hlc":"HLC","node":"NODE","outcome":"ok","seq":24,"target":"3,7","ts":"TS","user":"cli","v":1}
"#;

    #[test]
    fn the_canonical_line_of_every_kind_does_not_change() {
        let expected = LINES
            .replace("\"AGENT\"", "\"11111111-1111-1111-1111-111111111111\"")
            .replace("NODE", &node().to_string())
            .replace("ORIGIN", Origin::of(&node(), 1).as_str())
            .replace("ROOT", &"07".repeat(32))
            .replace("HLC", "01a1ffe8a12b0000")
            .replace("TS", "2026-11-21T20:59:58.123456Z");
        let events = events();
        assert_eq!(events.len(), Kind::ALL.len());
        let written = (0..).zip(&events).map(|(seq, event)| write(seq, event));
        for (line, expected) in written.zip(expected.trim().split('\n')) {
            assert_eq!(line, expected);
        }
    }

    #[test]
    fn keys_are_in_canonical_order_and_the_line_reads_back() {
        for (seq, event) in (0..).zip(events()) {
            let raw = write(seq, &event);
            let value: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
            // serde_json keeps objects sorted, and the keys are ASCII: that is the canonical order.
            assert_eq!(value.to_string(), raw);
            let line = Line::parse(raw.as_bytes()).expect("an entry");
            assert_eq!(line.seq, Seq(seq));
            assert_eq!(line.ev, event.kind().as_str());
            assert_eq!(line.agent, event.agent);
            assert_eq!(
                line.target.as_deref(),
                event.target.as_ref().and_then(Slot::text)
            );
            assert!(line.commitments.is_empty());
            assert_eq!(line.leaf, leaf_hash(raw.as_bytes()));
            assert_eq!(SeqFinder::new().find(raw.as_bytes()), Some(seq));
        }
    }

    #[test]
    fn commitments_stand_in_the_line_in_the_place_of_their_texts() {
        let mut event = Event::auth_ok("api", "192.0.2.7:4200", "ada");
        event.target = Some(Hash::from_bytes([7; 32]).into());
        event.user = Some(Hash::from_bytes([8; 32]).into());
        let raw = write(4, &event);
        let (target, user) = ("07".repeat(32), "08".repeat(32));
        let expected = format!("\"c\":{{\"target\":\"{target}\",\"user\":\"{user}\"}},\"ev\"");
        assert!(raw.contains(&expected), "{raw}");
        let value: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
        assert_eq!(value.to_string(), raw);
        let line = Line::parse(raw.as_bytes()).expect("an entry");
        assert_eq!((line.target, line.user), (None, None));
        assert_eq!(
            line.commitments.of(Field::Target),
            Some(Hash::from_bytes([7; 32]))
        );
        assert_eq!(line.commitments.of(Field::Session), None);
        let fields: Vec<Field> = line.commitments.iter().map(|(field, _)| field).collect();
        assert_eq!(fields, [Field::Target, Field::User]);
        assert_eq!(SeqFinder::new().find(raw.as_bytes()), Some(4));
        for bad in [
            raw.replace(&target, &target[2..]),
            raw.replace(&target, &target.to_uppercase().replace('0', "G")),
            raw.replace("\"user\":", "\"target\":"),
        ] {
            assert_eq!(
                Line::parse(bad.as_bytes()).map(|_| ()),
                Err(LineError::Form)
            );
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = write(3, &Event::node_start("1"));
        let check = |text: &str, expected: LineError| {
            assert_eq!(
                Line::parse(text.as_bytes()).map(|_| ()),
                Err(expected),
                "{text}"
            );
        };
        check("", LineError::Form);
        check("{}", LineError::Form);
        check(&good[..good.len() - 1], LineError::Form);
        check(&format!("{good}x"), LineError::Form);
        check(&format!("{good}{good}"), LineError::Form);
        check(
            &good.replace("\"seq\":3", "\"seq\":3,\"seq\":4"),
            LineError::Form,
        );
        check(&good.replace("\"seq\":3", "\"seq\":-3"), LineError::Form);
        check(&good.replace("\"seq\":3", "\"seq\":3.0"), LineError::Form);
        check(&good.replace("\"v\":1", "\"v\":2"), LineError::Version(2));
        check(
            &good.replace("\"hlc\":\"01", "\"hlc\":\"zz"),
            LineError::Form,
        );
        check(
            &format!("{}{good}", " ".repeat(LINE_BYTES_MAX)),
            LineError::TooLong,
        );
        assert_eq!(Line::parse(b"\xff").map(|_| ()), Err(LineError::Form));
    }

    #[test]
    fn the_number_is_found_only_where_it_stands() {
        let check = |line: &str, expected: Option<u64>| {
            assert_eq!(SeqFinder::new().find(line.as_bytes()), expected, "{line}");
        };
        check(
            "{\"a\":\"\\\",\\\"seq\\\":9,\",\"seq\":12,\"v\":1}",
            Some(12),
        );
        check("{\"a\":1,\"seq\":0,\"v\":1}", Some(0));
        check("{\"a\":1,\"seq\":01,\"v\":1}", None);
        check("{\"a\":1,\"seq\":,\"v\":1}", None);
        check("{\"a\":1,\"seq\":12", None);
        check("{\"a\":1,\"seq\":12345678901234567890,\"v\":1}", None);
        check("{\"a\":1}", None);
    }

    proptest! {
        #[test]
        fn any_text_is_written_canonically(text in "\\PC{0,80}") {
            let text = Public::text(&text);
            let event = Event::auth_failed(text, text, text);
            let raw = write(1, &event);
            let value: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
            prop_assert_eq!(value.to_string(), raw.clone());
            let line = Line::parse(raw.as_bytes()).expect("an entry");
            prop_assert_eq!(line.act.as_deref(), event.act.as_deref());
        }

        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..400) {
            let mut raw = write(5, &Event::node_start("x")).into_bytes();
            let at = at % raw.len();
            raw.splice(at..at, bytes);
            if let Ok(line) = Line::parse(&raw) {
                prop_assert_eq!(line.raw.as_bytes(), &raw[..]);
            }
            if let Some(seq) = SeqFinder::new().find(&raw) {
                prop_assert!(seq < 10_u64.pow(19));
            }
        }
    }
}
