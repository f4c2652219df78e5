//! Which links are kept: one to a peer, a place for newcomers, and in a large mesh not more than it
//! needs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::config::{
    FULL_MESH_NODES, FULL_MESH_SLACK, LINK_GRACE, LINK_LASTING, LINKS_LASTING, PICKS, SETTLE_AFTER,
    TRIM_EVERY,
};
use super::state::State;
use super::timers::Timer;
use super::{CloseReason, Key, LinkId};
use crate::dial::Target;

/// How long a link of another's choice is safe from being closed for a newcomer.
const SHED_AFTER: Duration = Duration::from_secs(3);
/// How much longer than a first settling the node with the higher id waits for the other.
const SETTLE_PATIENCE: u32 = 10;

impl State {
    /// Closes the oldest link that this node did not ask for, so that a newcomer finds a place:
    /// those who came before have learnt of others. Returns whether there was one.
    pub(super) fn shed(&mut self) -> bool {
        let old = |since| self.now.since(since) >= SHED_AFTER;
        let links = self.links.iter();
        let shed = links
            .filter(|(_, link)| !link.dialed && old(link.since))
            .min_by_key(|(id, link)| (link.since, *id));
        let shed = shed.map(|(id, _)| id);
        if let Some(id) = shed {
            self.close(id, CloseReason::Surplus);
        }
        shed.is_some()
    }

    pub(super) fn settle_later(&mut self, key: &Key) {
        let lower = self.me < *key;
        let after = SETTLE_AFTER * if lower { 1 } else { SETTLE_PATIENCE };
        self.timers
            .set_earlier(Timer::Settle(*key), self.now + after);
    }

    /// Keeps one of several connections to a peer. The node with the lower id decides; the other
    /// only if nothing happens for long, by the same rule.
    pub(super) fn on_settle_timer(&mut self, key: &Key) {
        let Some(best) = self.links.best(&self.config.me, key) else {
            return;
        };
        for id in self.links.of_peer(key).to_vec() {
            if id != best {
                self.close(id, CloseReason::Surplus);
            }
        }
    }

    /// Closes own links that a large mesh does not need: all but to those it prefers of its
    /// neighbours, and the oldest. Nobody loses a link to one that there is none with.
    pub(super) fn on_trim_timer(&mut self) {
        self.timers.set(Timer::Trim, self.now + TRIM_EVERY);
        if self.full || self.present() <= FULL_MESH_NODES + FULL_MESH_SLACK {
            return;
        }
        let old = |since| self.now.since(since) >= LINK_GRACE;
        let linked = self.table.ranked().filter(|key| self.is_linked(key));
        let mut kept: BTreeSet<Key> = linked.take(PICKS).collect();
        kept.extend(self.lasting());
        let links = self.links.iter();
        let surplus: Vec<LinkId> = links
            .filter(|(_, link)| link.dialed && old(link.since))
            .filter(|(_, link)| !kept.contains(&Key::of(&link.peer)))
            .map(|(id, _)| id)
            .collect();
        for id in surplus {
            self.close(id, CloseReason::Surplus);
        }
    }

    /// Returns the oldest of the neighbours that this node has dialed, of those it had for long when
    /// the mesh outgrew links to all.
    fn lasting(&self) -> Vec<Key> {
        let Some(large) = self.large_since else {
            return Vec::new();
        };
        let links = self.links.iter().map(|(_, link)| link);
        let lasting = links.filter(|link| link.dialed && large.since(link.since) >= LINK_LASTING);
        let mut lasting: Vec<_> = lasting
            .map(|link| (link.since, Key::of(&link.peer)))
            .collect();
        lasting.sort_unstable();
        let oldest = lasting.into_iter().take(LINKS_LASTING);
        oldest.map(|(_since, key)| key).collect()
    }

    /// Looks at a random node without a link, in a large mesh: nobody else may be watching it.
    pub(super) fn on_rove_timer(&mut self) {
        self.rove_later();
        if self.full {
            return;
        }
        self.probe_one();
        let keys: Vec<Key> = self.table.ranked().collect();
        // This node vouches for those it has met; such as name no address cost no dial.
        let nowhere = |key: &&Key| {
            let node = self.table.get(key);
            node.is_some_and(|node| node.met && node.record.record().addrs.is_empty())
        };
        let met: Vec<Key> = keys.iter().filter(nowhere).copied().collect();
        for key in met {
            self.on_nowhere(&key);
        }
        let at = self.rng.index(keys.len());
        if let Some(key) = keys.get(at).filter(|key| !self.is_linked(key)) {
            self.start_dial(Target::Node(*key));
        }
    }
}
