//! `network.toml`, as the API wants to keep a join.

use std::sync::{Mutex, PoisonError};

use openfang_api::{JoinStore, KeepError, Membership};

use crate::home::Home;
use crate::network_state::{NetworkState, StateError};

/// Keeps joins in the home.
#[derive(Debug)]
pub(super) struct HomeStore {
    home: Home,
    /// One join at a time: each reads the file and writes it.
    writing: Mutex<()>,
}

impl HomeStore {
    pub(super) fn new(home: Home) -> Self {
        Self {
            home,
            writing: Mutex::new(()),
        }
    }
}

impl JoinStore for HomeStore {
    fn keep(&self, membership: &Membership) -> Result<(), KeepError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = NetworkState::load(&self.home).and_then(|state| {
            let mut state = state.unwrap_or_default();
            state.add(&membership.peers, membership.secret.as_ref())?;
            state.save(&self.home)
        });
        kept.map_err(|why| match why {
            StateError::OtherMesh => KeepError::OtherNetwork,
            StateError::Io { .. }
            | StateError::Exposed { .. }
            | StateError::Form(_)
            | StateError::Secret(_)
            | StateError::Peer(_) => KeepError::Failed {
                reason: why.to_string(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_state::FIRST_EPOCH;
    use openfang_id::SharedSecret;

    #[test]
    fn a_join_is_kept_and_another_mesh_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let store = HomeStore::new(home.clone());
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
        let state = NetworkState::load(&home).expect("read").expect("stored");
        assert_eq!(state.peers.len(), 2);
    }
}
