//! Who witnesses a log, and how many of them make a quorum.

use openfang_id::NodeId;
use sha2::{Digest as _, Sha256};

use crate::Origin;
use crate::cosign::Role;

/// Separates these hashes from all others.
const DOMAIN: &[u8] = b"openfang/audit/assign/v1\n";
/// The fewest witnesses that can lose one and still keep a split view from getting a quorum.
const WITNESSES_MIN: usize = 4;

/// What the cosignatures of `k` of `n` witnesses are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// No cosignature is asked for.
    Unwitnessed,
    /// Two views of the log can both be cosigned; whoever compares them finds out.
    Detects,
    /// No two views can both reach the quorum.
    Prevents {
        /// As long as no more witnesses than this lie.
        liars: usize,
    },
}

/// Returns how many of `n` witnesses must cosign so that no two views of a log can both be cosigned by
/// a quorum while fewer than a third lie: 1 + floor(2n/3), which is all of them up to three.
#[must_use]
pub fn quorum_for(n: usize) -> usize {
    match n {
        0 => 0,
        _ => n - n.div_ceil(3) + 1,
    }
}

impl Strength {
    /// Tells what `k` of `n` is worth.
    ///
    /// With fewer than four witnesses a quorum has no room for one that is away, so that heads are
    /// used without it and only the comparison of heads is left: that detects. The same holds for
    /// fewer than [`quorum_for`] of them.
    #[must_use]
    pub fn of(k: usize, n: usize) -> Self {
        if k == 0 || n == 0 {
            Self::Unwitnessed
        } else if n < WITNESSES_MIN || k < quorum_for(n) || k > n {
            Self::Detects
        } else {
            // Two quorums share at least 2k - n witnesses, and one of those must be honest.
            Self::Prevents {
                liars: 2 * k - n - 1,
            }
        }
    }
}

/// Chooses up to `n` nodes that witness or mirror a log, best first, by rendezvous hashing: everyone
/// who knows the same candidates chooses the same, and when one leaves only its place is filled anew.
///
/// The node of the log itself is never chosen, and nobody twice.
#[must_use]
pub fn assign(role: Role, origin: &Origin, candidates: &[NodeId], n: usize) -> Vec<NodeId> {
    let mut ranked: Vec<([u8; 32], NodeId)> = candidates
        .iter()
        .filter(|node| !origin.belongs_to(node))
        .map(|node| (weight(role, origin, node), *node))
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.dedup();
    ranked.into_iter().take(n).map(|(_, node)| node).collect()
}

fn weight(role: Role, origin: &Origin, node: &NodeId) -> [u8; 32] {
    let role: &[u8] = match role {
        Role::Witness => b"witness\n",
        Role::Mirror => b"mirror\n",
    };
    Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(role)
        .chain_update(origin.as_str())
        .chain_update(b"\n")
        .chain_update(node.as_bytes())
        .finalize()
        .into()
}
