//! What is held of messages that are not whole yet: counted as it arrives, for each peer and for all.
//!
//! A length that is announced costs nothing; bytes that came do. Who goes over the budget is told
//! so, and gives back what it held when its [`Share`] is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openfang_id::NodeId;

/// The bytes that all may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    per_peer_max: usize,
    max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    peers: BTreeMap<NodeId, usize>,
}

/// What one message of one peer holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    peer: NodeId,
    bytes: usize,
}

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverBudget {
    /// The peer has its share.
    #[error("the peer has too much under way")]
    Peer,
    /// All have theirs.
    #[error("all peers together have too much under way")]
    All,
}

impl Budget {
    /// Makes the budget of a node.
    pub(crate) fn new(per_peer_max: usize, max: usize) -> Arc<Self> {
        Arc::new(Self {
            per_peer_max,
            max,
            held: Mutex::default(),
        })
    }

    /// Begins a message, of which nothing is held yet.
    pub(crate) fn share(self: &Arc<Self>, peer: NodeId) -> Share {
        Share {
            budget: Arc::clone(self),
            peer,
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Holds so many bytes from now on; 0 gives all back. What is over budget changes nothing.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), OverBudget> {
        if bytes == self.bytes {
            return Ok(());
        }
        let mut held = self.budget.lock();
        let all = held.all - self.bytes + bytes;
        let of_peer = held.peers.get(&self.peer).copied().unwrap_or(0);
        let of_peer = of_peer - self.bytes + bytes;
        if bytes > self.bytes {
            if of_peer > self.budget.per_peer_max {
                return Err(OverBudget::Peer);
            }
            if all > self.budget.max {
                return Err(OverBudget::All);
            }
        }
        held.all = all;
        if of_peer == 0 {
            held.peers.remove(&self.peer);
        } else {
            held.peers.insert(self.peer, of_peer);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Giving back is never over budget.
        crate::ignore_gone(self.hold(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::NodeSeed;

    fn peer(seed: u8) -> NodeId {
        NodeSeed::from_bytes([seed; 32]).keys().node_id()
    }

    #[test]
    fn each_peer_has_a_share_and_all_together_a_budget() {
        let budget = Budget::new(100, 150);
        let (mut a, mut b, mut c) = (
            budget.share(peer(1)),
            budget.share(peer(1)),
            budget.share(peer(2)),
        );
        assert_eq!(a.hold(60), Ok(()));
        assert_eq!(b.hold(41), Err(OverBudget::Peer));
        assert_eq!(b.hold(40), Ok(()));
        assert_eq!(c.hold(51), Err(OverBudget::All));
        assert_eq!(c.hold(50), Ok(()));
        drop(b);
        assert_eq!(c.hold(90), Ok(()));
        assert_eq!(a.hold(10), Ok(()));
        drop((a, c));
        let held = budget.lock();
        assert_eq!((held.all, held.peers.len()), (0, 0));
    }
}
