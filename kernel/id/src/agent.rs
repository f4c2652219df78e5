//! The identity of an agent, and the ways to point at one.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::{AgentName, NameError, NodeId, NodeName};

/// The longest reference: two names of 64 bytes and the sign between them.
const REF_BYTES_MAX: usize = 129;

/// Which agent: a UUID (RFC 9562), given when it is spawned and kept until it is deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Uuid);

impl AgentId {
    /// Makes a version 4 UUID of 16 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Takes the 16 bytes of a UUID, big-endian.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the 16 bytes of the UUID, big-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Returns the first eight characters, for a log line.
    #[must_use]
    pub fn fmt_short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl FromStr for AgentId {
    type Err = AgentRefError;

    fn from_str(text: &str) -> Result<Self, AgentRefError> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_not_a_uuid| AgentRefError::Id)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({})", self.fmt_short())
    }
}

/// An agent by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AgentKey {
    /// By UUID.
    Id(AgentId),
    /// By name.
    Name(AgentName),
}

/// A node by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeKey {
    /// By peer id.
    Id(NodeId),
    /// By the name it announces.
    Name(NodeName),
}

/// How a caller points at an agent: `UUID`, `name`, `UUID@node` or `name@node`, where `node` is a
/// node's name or id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentRef {
    /// Which agent.
    pub agent: AgentKey,
    /// On which node; `None` means wherever it is, this node first.
    pub node: Option<NodeKey>,
}

/// Why a text points at no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentRefError {
    /// Not a UUID.
    #[error("not an agent id: expected a UUID")]
    Id,
    /// Longer than any reference can be.
    #[error("not an agent: {0} bytes are more than a name and a node can have")]
    TooLong(usize),
    /// The part before `@` is neither id nor name.
    #[error("not an agent: {0}")]
    Agent(#[source] NameError),
    /// The part after `@` is neither id nor name.
    #[error("not a node: {0}")]
    Node(#[source] NameError),
}

impl From<AgentId> for AgentRef {
    fn from(id: AgentId) -> Self {
        Self {
            agent: AgentKey::Id(id),
            node: None,
        }
    }
}

impl FromStr for AgentKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match Uuid::try_parse(text) {
            Ok(id) => Ok(Self::Id(AgentId(id))),
            Err(_not_a_uuid) => text.parse().map(Self::Name),
        }
    }
}

impl FromStr for NodeKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<NodeId>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_not_an_id) => text.parse().map(Self::Name),
        }
    }
}

impl FromStr for AgentRef {
    type Err = AgentRefError;

    fn from_str(text: &str) -> Result<Self, AgentRefError> {
        if text.len() > REF_BYTES_MAX {
            return Err(AgentRefError::TooLong(text.len()));
        }
        let (agent, node) = match text.split_once('@') {
            Some((agent, node)) => (agent, Some(node)),
            None => (text, None),
        };
        Ok(Self {
            agent: agent.parse().map_err(AgentRefError::Agent)?,
            node: node
                .map(str::parse)
                .transpose()
                .map_err(AgentRefError::Node)?,
        })
    }
}

impl fmt::Display for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for AgentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{}@{node}", self.agent),
            None => self.agent.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_is_an_id_or_name_with_an_optional_node() {
        let node = crate::NodeSeed::from_bytes([3; 32]).keys().node_id();
        for text in [
            "assistant".to_owned(),
            "assistant@laptop".to_owned(),
            "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(),
            format!("67e55044-10b1-426f-9247-bb680e5fe0c8@{node}"),
        ] {
            let parsed: AgentRef = text.parse().expect("a valid reference");
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "@", "a@", "@b", "a@b@c", "a/b", "../etc"] {
            assert!(text.parse::<AgentRef>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in ".{0,140}") {
            if let Ok(parsed) = text.parse::<AgentRef>() {
                prop_assert_eq!(parsed.to_string().parse::<AgentRef>(), Ok(parsed));
            }
        }
    }
}
