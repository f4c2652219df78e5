//! What may stand in a line, by type: nobody puts a personal or a secret value there by mistake.
//!
//! - [`Public`] is written as it is, after the [filter](crate::guard).
//! - [`Personal`] is about a person: the line holds a commitment, the value is sealed in the
//!   [vault](crate::vault) under a key of its subject, and can be erased there.
//! - [`Secret`] opens something: the line holds a commitment that nobody can open.

use std::fmt;
use std::net::IpAddr;

use openfang_id::AgentName;
use zeroize::Zeroizing;

use crate::Origin;

/// A text that everybody may read who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public<'a>(&'a str);

/// A text about a person, and who that is. Not in `Debug`.
#[derive(Clone, Copy)]
pub struct Personal<'a> {
    subject: &'a str,
    value: &'a str,
}

/// A value that opens something. Not in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// A text that is public or personal, as it comes.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// Everybody may read it.
    Public(Public<'a>),
    /// It is about a person.
    Personal(Personal<'a>),
}

/// A field of a line that can hold a commitment in the place of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The conversation.
    Session,
    /// To or with what.
    Target,
    /// On whose behalf.
    User,
    /// A secret. It has no text that could stand in a line.
    Value,
}

impl<'a> Public<'a> {
    /// Declares a text public: it is about no person and opens nothing.
    #[must_use]
    pub const fn text(text: &'a str) -> Self {
        Self(text)
    }

    /// Returns the text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl<'a> Personal<'a> {
    /// Takes a text and the name of whom it is about, under which it can be erased. The case of ASCII
    /// letters makes no difference in the name.
    #[must_use]
    pub const fn new(subject: &'a str, value: &'a str) -> Self {
        Self { subject, value }
    }

    pub(crate) const fn subject(self) -> &'a str {
        self.subject
    }

    pub(crate) const fn value(self) -> &'a str {
        self.value
    }
}

impl Secret {
    /// Takes the value over.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> Text<'a> {
    /// Takes where something came from: an address, a node, or a word such as `many`. The address of
    /// another machine is personal, and its subject is the machine without the port.
    #[must_use]
    pub fn place(from: &'a str) -> Self {
        let machine = machine_of(from);
        let here = machine
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        let is_word = !from.bytes().any(|byte| byte.is_ascii_digit());
        if here || is_word || is_node_id(from) {
            Self::Public(Public(from))
        } else {
            Self::Personal(Personal::new(machine, from))
        }
    }
}

impl Field {
    /// All of them, in the order in which a line has them.
    pub const ALL: [Self; 4] = [Self::Session, Self::Target, Self::User, Self::Value];

    /// Returns its key in a line, which the commitment is bound to.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "sess",
            Self::Target => "target",
            Self::User => "user",
            Self::Value => "value",
        }
    }
}

/// The machine part of `/ip4/192.0.2.7/udp/4200`, `192.0.2.7:4200`, `[2001:db8::7]:4200`, `2001:db8::/64`.
fn machine_of(from: &str) -> &str {
    if let Some(rest) = from.strip_prefix('/') {
        return rest.split('/').nth(1).unwrap_or(from);
    }
    if let Some((host, _port)) = from.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match from.rsplit_once(':') {
        Some((host, _port)) if !host.contains(':') => host,
        Some(_) | None => from,
    }
}

/// Tells whether a text has the form of a node id: the base58 of a hashed or whole Ed25519 key.
pub(crate) fn is_node_id(text: &str) -> bool {
    /// How all of them begin, and how long they are.
    const START: &str = "12D3KooW";
    const BYTES: usize = 52;
    text.len() == BYTES
        && text.starts_with(START)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl From<&'static str> for Public<'static> {
    fn from(text: &'static str) -> Self {
        Self(text)
    }
}

impl<'a> From<&'a AgentName> for Public<'a> {
    fn from(name: &'a AgentName) -> Self {
        Self(name.as_str())
    }
}

impl<'a> From<&'a Origin> for Public<'a> {
    fn from(origin: &'a Origin) -> Self {
        Self(origin.as_str())
    }
}

impl From<&'static str> for Text<'static> {
    fn from(text: &'static str) -> Self {
        Self::Public(Public(text))
    }
}

impl<'a> From<Public<'a>> for Text<'a> {
    fn from(text: Public<'a>) -> Self {
        Self::Public(text)
    }
}

impl<'a> From<Personal<'a>> for Text<'a> {
    fn from(text: Personal<'a>) -> Self {
        Self::Personal(text)
    }
}

impl fmt::Debug for Personal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Personal(redacted)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;

    #[test]
    fn an_address_of_another_machine_is_personal() {
        let check = |from: &str, subject: Option<&str>| {
            let found = match Text::place(from) {
                Text::Public(_) => None,
                Text::Personal(personal) => Some(personal.subject()),
            };
            assert_eq!(found, subject, "{from}");
        };
        check("192.0.2.7:4200", Some("192.0.2.7"));
        check("192.0.2.7", Some("192.0.2.7"));
        check("[2001:db8::7]:4200", Some("2001:db8::7"));
        check("2001:db8::7", Some("2001:db8::7"));
        check("2001:db8:0:1::/64", Some("2001:db8:0:1::/64"));
        check("/ip4/192.0.2.7/udp/4200/quic-v1", Some("192.0.2.7"));
        check("/dns4/host7.example.org/tcp/1", Some("host7.example.org"));
        check("127.0.0.1:50000", None);
        check("[::1]:4200", None);
        check("/ip4/127.0.0.1/tcp/4200", None);
        check("many", None);
        check("several addresses", None);
        let node = NodeSeed::from_bytes([3; 32]).keys().node_id().to_string();
        check(&node, None);
        check(&format!("{node}x"), Some(&format!("{node}x")));
    }

    #[test]
    fn nothing_personal_or_secret_is_shown_for_debugging() {
        let personal = Text::from(Personal::new("ada", "ada@example.org"));
        let secret = Secret::new(b"hunter2".to_vec());
        let shown = format!("{personal:?} {secret:?}");
        assert_eq!(shown, "Personal(Personal(redacted)) Secret(redacted)");
    }
}
