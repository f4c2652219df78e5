//! Names, identities, keys and addresses of the mesh.
//!
//! The leaf that every other crate may use: who a node is ([`NodeId`]), what an agent is called
//! ([`AgentId`], [`AgentName`], [`AgentRef`]), which keys a node signs with ([`Keys`]), which
//! secrets it holds ([`SharedSecret`], [`ApiKey`]) and where a peer can be reached ([`PeerAddr`]).
//! Everything here is checked when it is made: a value of these types is a valid one.
//!
//! It performs no IO, reads no clock and draws no random numbers: whoever makes a key or an id
//! passes the random bytes in.

mod addr;
mod agent;
mod key;
mod name;
mod node;
mod secret;

pub use addr::{AddrError, Host, NetAddr, PeerAddr, Transport};
pub use agent::{AgentId, AgentKey, AgentRef, AgentRefError, NodeKey};
pub use key::{KeyError, Keys, NodeSeed, SigningKey, VaultKey, VerifyingKey};
pub use name::{AgentName, NameError, NodeName};
pub use node::{NodeId, NodeIdError};
pub use secret::{ApiKey, SecretError, SharedSecret};
