//! `network.toml`, as the API wants to keep a join.

use std::sync::{Mutex, PoisonError};

use openfang_api::{JoinStore, KeepError, Membership};
use openfang_id::SharedSecret;

use crate::home::Home;
use crate::network_state::{NetworkState, StateError};

/// Keeps joins in the home.
#[derive(Debug)]
pub(super) struct HomeStore {
    home: Home,
    /// The secret the node was started with: that of its configuration counts after a restart.
    secret: Option<SharedSecret>,
    /// One join at a time: each reads the file and writes it.
    writing: Mutex<()>,
}

impl HomeStore {
    pub(super) fn new(home: Home, secret: Option<SharedSecret>) -> Self {
        Self {
            home,
            secret,
            writing: Mutex::new(()),
        }
    }

    /// Returns what would be stored.
    fn with(&self, membership: &Membership) -> Result<NetworkState, StateError> {
        if let (Some(ours), Some((_, theirs))) = (&self.secret, &membership.secret)
            && ours.as_bytes() != theirs.as_bytes()
        {
            return Err(StateError::OtherMesh);
        }
        let mut state = NetworkState::load(&self.home)?.unwrap_or_default();
        state.add(&membership.peers, membership.secret.as_ref())?;
        Ok(state)
    }
}

impl JoinStore for HomeStore {
    fn check(&self, membership: &Membership) -> Result<(), KeepError> {
        self.with(membership).map(drop).map_err(keep_error)
    }

    fn keep(&self, membership: &Membership) -> Result<(), KeepError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with(membership)
            .and_then(|state| state.save(&self.home))
            .map_err(keep_error)
    }
}

fn keep_error(why: StateError) -> KeepError {
    match why {
        StateError::OtherMesh => KeepError::OtherNetwork,
        StateError::Io { .. }
        | StateError::Exposed { .. }
        | StateError::Form(_)
        | StateError::Secret(_)
        | StateError::Peer(_) => KeepError::Failed {
            reason: why.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_state::FIRST_EPOCH;

    #[test]
    fn a_join_is_kept_and_another_mesh_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let store = HomeStore::new(home.clone(), None);
        let membership = |byte, port| Membership {
            peers: vec![
                format!("/ip4/192.0.2.1/tcp/{port}")
                    .parse()
                    .expect("an address"),
            ],
            secret: Some((FIRST_EPOCH, SharedSecret::from_random(&[byte; 32]))),
        };
        assert_eq!(store.keep(&membership(1, 1)), Ok(()));
        assert_eq!(store.keep(&membership(1, 2)), Ok(()));
        assert_eq!(store.keep(&membership(2, 3)), Err(KeepError::OtherNetwork));
        assert_eq!(
            store.check(&membership(1, 3)),
            Ok(()),
            "and nothing is stored"
        );
        let state = NetworkState::load(&home).expect("read").expect("stored");
        assert_eq!(state.peers.len(), 2);
    }

    #[test]
    fn a_secret_of_the_configuration_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = |byte| SharedSecret::from_random(&[byte; 32]);
        let store = HomeStore::new(Home::at(folder.path()), Some(secret(1)));
        let membership = |byte| Membership {
            peers: Vec::new(),
            secret: Some((FIRST_EPOCH, secret(byte))),
        };
        assert_eq!(store.check(&membership(2)), Err(KeepError::OtherNetwork));
        assert_eq!(store.keep(&membership(2)), Err(KeepError::OtherNetwork));
        assert!(
            NetworkState::load(&Home::at(folder.path()))
                .expect("read")
                .is_none()
        );
        assert_eq!(store.keep(&membership(1)), Ok(()));
    }
}
