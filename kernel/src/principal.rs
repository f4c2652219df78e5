//! On whose behalf something is done: what the audit log writes into its `user` field.

use std::fmt;
use std::str::FromStr;

use openfang_audit::{Personal, Public, Text};
use openfang_id::{AgentId, NodeId};

/// The longest text of a principal: `agent:` with a UUID and a node id has 96 bytes.
const PRINCIPAL_BYTES_MAX: usize = 128;

/// Who asks: a caller of the API, the command line, an agent, or the node itself.
///
/// As text: `api:key`, `api:loopback`, `cli`, `node`, `agent:<agent id>@<node id>`; other texts
/// of printable ASCII without spaces, at most 128 bytes, are kept as they are, so that a node
/// with newer software can name kinds this one does not know. They carry no rights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    ApiKey,
    ApiLoopback,
    Cli,
    Node,
    Agent(AgentId, NodeId),
    Other(Box<str>),
}

/// Why a text names no principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// Nothing, or more than any principal has.
    #[error("a principal has 1 to {PRINCIPAL_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A byte that is not printable ASCII, or a space.
    #[error("a principal holds printable ASCII without spaces only")]
    Character,
    /// `agent:` without an agent id and a node id.
    #[error("an agent is written agent:<agent id>@<node id>")]
    Agent,
}

impl Principal {
    /// A caller of the API who presented the key.
    #[must_use]
    pub fn api_key() -> Self {
        Self(Kind::ApiKey)
    }

    /// A caller of the API on this machine, without a key.
    #[must_use]
    pub fn api_loopback() -> Self {
        Self(Kind::ApiLoopback)
    }

    /// The command line, acting on the files of the node itself.
    #[must_use]
    pub fn cli() -> Self {
        Self(Kind::Cli)
    }

    /// The node itself, for what it does at its start.
    #[must_use]
    pub fn node() -> Self {
        Self(Kind::Node)
    }

    /// An agent on a node.
    #[must_use]
    pub fn agent(agent: AgentId, node: NodeId) -> Self {
        Self(Kind::Agent(agent, node))
    }

    /// Tells apart, for the audit log, who is a person: kinds of callers and agents are public, and what another
    /// node calls its callers is personal. `text` is this principal, with more behind it or not.
    #[must_use]
    pub fn in_log<'a>(&'a self, text: &'a str) -> Text<'a> {
        match &self.0 {
            Kind::ApiKey | Kind::ApiLoopback | Kind::Cli | Kind::Node | Kind::Agent(..) => {
                Public::text(text).into()
            }
            Kind::Other(name) => Personal::new(name, text).into(),
        }
    }

    /// Returns the agent and its node, if this is an agent.
    #[must_use]
    pub fn as_agent(&self) -> Option<(AgentId, NodeId)> {
        match &self.0 {
            Kind::Agent(agent, node) => Some((*agent, *node)),
            Kind::ApiKey | Kind::ApiLoopback | Kind::Cli | Kind::Node | Kind::Other(_) => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::ApiKey => f.write_str("api:key"),
            Kind::ApiLoopback => f.write_str("api:loopback"),
            Kind::Cli => f.write_str("cli"),
            Kind::Node => f.write_str("node"),
            Kind::Agent(agent, node) => write!(f, "agent:{agent}@{node}"),
            Kind::Other(text) => f.write_str(text),
        }
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        if text.is_empty() || text.len() > PRINCIPAL_BYTES_MAX {
            return Err(PrincipalError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(PrincipalError::Character);
        }
        if let Some(place) = text.strip_prefix("agent:") {
            let (agent, node) = place.split_once('@').ok_or(PrincipalError::Agent)?;
            let agent = agent.parse().map_err(|_not_an_id| PrincipalError::Agent)?;
            let node = node.parse().map_err(|_not_an_id| PrincipalError::Agent)?;
            return Ok(Self(Kind::Agent(agent, node)));
        }
        Ok(Self(match text {
            "api:key" => Kind::ApiKey,
            "api:loopback" => Kind::ApiLoopback,
            "cli" => Kind::Cli,
            "node" => Kind::Node,
            other => Kind::Other(other.into()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;

    #[test]
    fn a_principal_round_trips_as_text() {
        let node = NodeSeed::from_bytes([3; 32]).keys().node_id();
        let agent = Principal::agent(AgentId::from_random([7; 16]), node);
        for principal in [
            Principal::api_key(),
            Principal::api_loopback(),
            Principal::cli(),
            Principal::node(),
            agent,
        ] {
            let text = principal.to_string();
            assert!(text.len() <= PRINCIPAL_BYTES_MAX, "{text}");
            assert_eq!(text.parse(), Ok(principal));
        }
    }

    #[test]
    fn texts_that_could_forge_a_log_line_are_refused() {
        let check = |text: &str, expected: PrincipalError| {
            assert_eq!(text.parse::<Principal>(), Err(expected), "{text:?}");
        };
        check("", PrincipalError::Length(0));
        check(&"x".repeat(129), PrincipalError::Length(129));
        check("api:key\n", PrincipalError::Character);
        check("a b", PrincipalError::Character);
        check("agent:me", PrincipalError::Agent);
        check("agent:me@you", PrincipalError::Agent);
    }
}
