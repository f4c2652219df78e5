//! What `openfang join` stored: the peers to begin with, and the secret of their mesh.
//!
//! `network.toml` belongs to the program; the configuration belongs to the operator. Both are
//! merged when the node starts, and a difference in the secret is an error, never a choice.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use openfang_id::{AddrError, PeerAddr, SecretError, SharedSecret};
use openfang_ofp::gate::Epoch;
use openfang_ofp::ticket::{Ticket, TicketParseError};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::files;
use crate::home::Home;

/// How many peers are kept: the newest joins, each with two transports. The roster remembers every
/// other peer that was ever seen.
const PEERS_MAX: usize = 64;
/// The number of a mesh secret that was given without one, as in a configuration: it grows when
/// secrets are rotated.
pub const FIRST_EPOCH: Epoch = Epoch(1);
const COMMENT: &str = "# Written by `openfang join`. Remove this file to leave the mesh.\n";

/// What a node joined.
#[derive(Debug, Clone, Default)]
pub struct NetworkState {
    /// The secret of the mesh and its number, when the join brought one.
    pub secret: Option<(Epoch, SharedSecret)>,
    /// Where to begin, newest first.
    pub peers: Vec<PeerAddr>,
}

/// Where a join leads: a ticket, or an address.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to dial.
    pub peers: Vec<PeerAddr>,
    /// The secret of a ticket and its number; `None` for an address.
    pub secret: Option<(Epoch, SharedSecret)>,
}

/// Why a text is neither a ticket nor an address. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It begins like a ticket.
    #[error("{0}")]
    Ticket(#[source] TicketParseError),
    /// It does not.
    #[error("{0}")]
    Addr(#[source] AddrError),
}

impl Target {
    /// Reads a ticket, `host:port` or a multiaddr.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        match text.parse::<Ticket>() {
            Ok(ticket) => Ok(Self {
                peers: ticket.peers().to_vec(),
                secret: Some((ticket.epoch(), ticket.secret().clone())),
            }),
            Err(TicketParseError::NotATicket) => Ok(Self {
                peers: PeerAddr::parse_all(text).map_err(TargetError::Addr)?,
                secret: None,
            }),
            Err(why) => Err(TargetError::Ticket(why)),
        }
    }

    /// Whether a text holds a secret, most likely.
    #[must_use]
    pub fn looks_like_ticket(text: &str) -> bool {
        !matches!(text.parse::<Ticket>(), Err(TicketParseError::NotATicket))
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read or written.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// It holds a secret and others can read it.
    #[error("can be read by other users (mode {mode:04o}): chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what was written.
    #[error("not the file `openfang join` wrote: {0}")]
    Form(String),
    /// The secret is damaged.
    #[error("its secret is not usable: {0}")]
    Secret(#[source] SecretError),
    /// A peer is damaged.
    #[error("one of its peers is not usable: {0}")]
    Peer(#[source] AddrError),
    /// Another mesh was joined before.
    #[error("this node already belongs to another mesh")]
    OtherMesh,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    secret: Option<Zeroizing<String>>,
    secret_epoch: Option<u32>,
    #[serde(default)]
    peers: Vec<String>,
}

impl NetworkState {
    /// Reads the file; `None` when this node never joined.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub fn load(home: &Home) -> Result<Option<Self>, StateError> {
        let path = home.network_state();
        let io = |why| StateError::Io {
            path: path.clone(),
            why,
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(io(why)),
        };
        if let Some(mode) = files::exposed(&path).map_err(io)? {
            return Err(StateError::Exposed {
                path: path.clone(),
                mode,
            });
        }
        let stored: Stored =
            toml::from_str(&text).map_err(|why| StateError::Form(why.message().to_owned()))?;
        let secret = stored
            .secret
            .map(|text| SharedSecret::parse(&text))
            .transpose()
            .map_err(StateError::Secret)?;
        let epoch = stored.secret_epoch.map_or(FIRST_EPOCH, Epoch);
        let secret = secret.map(|secret| (epoch, secret));
        let peers = stored
            .peers
            .iter()
            .map(|peer| peer.parse())
            .collect::<Result<_, _>>()
            .map_err(StateError::Peer)?;
        Ok(Some(Self { secret, peers }))
    }

    /// Adds what a join brought: the peers before those known, and the secret.
    ///
    /// # Errors
    /// [`StateError::OtherMesh`] when another secret is stored; then nothing is changed.
    pub fn add(
        &mut self,
        peers: &[PeerAddr],
        secret: Option<&(Epoch, SharedSecret)>,
    ) -> Result<(), StateError> {
        if let (Some((_, ours)), Some((_, theirs))) = (&self.secret, secret)
            && ours.as_bytes() != theirs.as_bytes()
        {
            return Err(StateError::OtherMesh);
        }
        if let Some(secret) = secret {
            self.secret = Some(secret.clone());
        }
        self.peers.retain(|peer| !peers.contains(peer));
        self.peers.splice(0..0, peers.iter().cloned());
        self.peers.truncate(PEERS_MAX);
        Ok(())
    }

    /// Writes the file, for its owner alone, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; then what was stored before is untouched.
    pub fn save(&self, home: &Home) -> Result<(), StateError> {
        let path = home.network_state();
        // Secrets and addresses are of letters, digits and a few marks: none needs escaping.
        let mut text = Zeroizing::new(COMMENT.to_owned());
        if let Some((epoch, secret)) = &self.secret {
            text.push_str("secret = ");
            text.push_str(&quoted(secret.expose()));
            writeln!(text, "\nsecret_epoch = {}", epoch.0).expect("a text can be written to");
        }
        text.push_str("peers = [\n");
        for peer in &self.peers {
            writeln!(text, "    \"{peer}\",").expect("a text can be written to");
        }
        text.push_str("]\n");
        files::replace(&path, text.as_bytes()).map_err(|why| StateError::Io { path, why })
    }
}

/// Writes a text as a TOML string: a secret made by someone else may hold any mark.
fn quoted(text: &str) -> Zeroizing<String> {
    Zeroizing::new(toml::Value::String(text.to_owned()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn peer(at: u8) -> PeerAddr {
        format!("/ip4/192.0.2.{at}/tcp/4200")
            .parse()
            .expect("an address")
    }

    #[test]
    fn what_a_join_stored_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert!(NetworkState::load(&home).expect("read").is_none());
        for text in [
            "0123456789abcdef\"\\'#0123456789abcdef",
            SharedSecret::from_random(&[3; 32]).expose(),
        ] {
            let secret = SharedSecret::parse(text).expect("a secret");
            let mut state = NetworkState::default();
            state
                .add(&[peer(1)], Some(&(Epoch(7), secret)))
                .expect("added");
            state.add(&[peer(2), peer(1)], None).expect("added");
            state.save(&home).expect("saved");
            let read = NetworkState::load(&home).expect("read").expect("stored");
            assert_eq!(read.peers, [peer(2), peer(1)]);
            let (epoch, secret) = read.secret.expect("a secret");
            assert_eq!((epoch, secret.expose()), (Epoch(7), text));
        }
    }

    #[test]
    fn a_second_mesh_is_refused_and_changes_nothing() {
        let mut state = NetworkState::default();
        let secret = |byte| (FIRST_EPOCH, SharedSecret::from_random(&[byte; 32]));
        state.add(&[peer(1)], Some(&secret(1))).expect("added");
        let refused = state.add(&[peer(2)], Some(&secret(2)));
        assert!(matches!(refused, Err(StateError::OtherMesh)));
        assert_eq!(state.peers, [peer(1)]);
    }

    #[test]
    fn a_damaged_or_readable_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let path = home.network_state();
        for text in ["peer = []", "peers = [\"x\"]", "secret = \"ofn1_x\"", "["] {
            files::replace(&path, text.as_bytes()).expect("written");
            assert!(NetworkState::load(&home).is_err(), "{text}");
        }
        files::replace(&path, b"peers = []").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(
            NetworkState::load(&home),
            Err(StateError::Exposed { mode: 0o644, .. })
        ));
    }

    #[test]
    fn old_peers_make_room_for_new_ones() {
        let mut state = NetworkState::default();
        for at in 0..=255 {
            state.add(&[peer(at)], None).expect("added");
        }
        assert_eq!(state.peers.len(), PEERS_MAX);
        assert_eq!(state.peers[0], peer(255));
    }
}
