//! Whom to dial, where, and when again.
//!
//! Bootstrap addresses and every node ever met are dialed for ever, with exponential back-off and
//! full jitter (Brooker, *Exponential Backoff And Jitter*, 2015), so that a mesh whose nodes all
//! start at once does not dial in step. All addresses of one node are offered together. An address
//! that leads to this node is never dialed again.
//!
//! [`Dialer`] keeps the books; when a target is due is the roster's timer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openfang_id::{NetAddr, NodeId, PeerAddr, Transport};

use crate::roster::{DialId, Key, Rng};

/// The first ceiling of the back-off.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// The last ceiling for what should be there: bootstrap addresses and nodes of a full mesh.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The last ceiling for what may never come back.
pub(crate) const BACKOFF_LONG: Duration = Duration::from_secs(60);
/// The most dials at once.
pub(crate) const IN_FLIGHT_MAX: usize = 32;
/// The most dials at once to nodes that may not exist, so that others find a place.
const PROBES_IN_FLIGHT_MAX: usize = 8;
/// The most addresses offered in one dial.
const ADDRS_MAX: usize = 8;
/// The most addresses remembered for one node.
const GOOD_MAX: usize = 4;
/// The most own addresses remembered.
const SELVES_MAX: usize = 64;
/// The most bootstrap entries.
const ENTRIES_MAX: usize = 256;

/// What a dial is meant to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A bootstrap entry, by its number.
    Entry(u32),
    /// A node.
    Node(Key),
    /// A node that may not exist.
    Stranger(Key),
}

/// Addresses that were configured, and whom they led to.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) addrs: Vec<PeerAddr>,
    pub(crate) node: Option<NodeId>,
    /// The last dial before it.
    after: DialId,
}

/// Everything there is to know about dialing.
#[derive(Debug, Default)]
pub(crate) struct Dialer {
    entries: BTreeMap<u32, Entry>,
    good: BTreeMap<Key, (NodeId, Vec<NetAddr>)>,
    attempts: BTreeMap<Target, u32>,
    in_flight: BTreeMap<DialId, Target>,
    flying: BTreeMap<Target, DialId>,
    selves: BTreeSet<NetAddr>,
    numbers: u64,
    entry_numbers: u32,
}

impl Dialer {
    /// Adds bootstrap addresses; returns the entries that are new.
    pub(crate) fn add(&mut self, addrs: Vec<PeerAddr>) -> Vec<Target> {
        let mut added = Vec::new();
        for group in group(addrs) {
            let known = self.entries.values().any(|entry| entry.addrs == group);
            if known || self.entries.len() >= ENTRIES_MAX {
                continue;
            }
            self.entry_numbers = self.entry_numbers.wrapping_add(1);
            let node = group.iter().find_map(|addr| addr.node);
            let entry = Entry {
                addrs: group,
                node,
                after: DialId(self.numbers),
            };
            self.entries.insert(self.entry_numbers, entry);
            added.push(Target::Entry(self.entry_numbers));
        }
        added
    }

    /// Takes bootstrap addresses back; returns the entries that are gone.
    pub(crate) fn remove(&mut self, addrs: &[NetAddr]) -> Vec<Target> {
        let mut gone = Vec::new();
        self.entries.retain(|number, entry| {
            entry.addrs.retain(|addr| !addrs.contains(&addr.addr));
            if entry.addrs.is_empty() {
                gone.push(Target::Entry(*number));
            }
            !entry.addrs.is_empty()
        });
        for target in &gone {
            self.attempts.remove(target);
        }
        gone
    }

    /// Returns a bootstrap entry.
    pub(crate) fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(&number)
    }

    /// Returns the entries that led to a node, or are meant to.
    pub(crate) fn entries_of(&self, node: &NodeId) -> Vec<Target> {
        let leads = |(_, entry): &(&u32, &Entry)| entry.node.as_ref() == Some(node);
        let entries = self.entries.iter().filter(leads);
        entries.map(|(number, _)| Target::Entry(*number)).collect()
    }

    /// Returns where a node may be reached: where it answered last, where it says it is, where it
    /// was configured; TCP before QUIC, because its end shows at once.
    pub(crate) fn addrs_of(&self, node: &NodeId, announced: &[NetAddr]) -> Vec<PeerAddr> {
        let good = self.good.get(&Key::of(node)).map(|(_, addrs)| addrs);
        let configured = self.entries.values();
        let configured = configured.filter(|entry| entry.node.as_ref() == Some(node));
        let configured = configured.flat_map(|entry| entry.addrs.iter().map(|addr| &addr.addr));
        let all = good
            .into_iter()
            .flatten()
            .chain(announced)
            .chain(configured);
        let mut addrs: Vec<PeerAddr> = Vec::new();
        for addr in all {
            let known = addrs.iter().any(|known| known.addr == *addr);
            if !known && !self.selves.contains(addr) && addrs.len() < ADDRS_MAX {
                addrs.push(PeerAddr {
                    addr: addr.clone(),
                    node: Some(*node),
                });
            }
        }
        addrs.sort_by_key(|addr| addr.addr.transport != Transport::Tcp);
        addrs
    }

    /// Returns the addresses of a bootstrap entry that do not lead back here.
    pub(crate) fn addrs_of_entry(&self, number: u32) -> Vec<PeerAddr> {
        let addrs = self.entries.get(&number).map(|entry| entry.addrs.clone());
        let mut addrs = addrs.unwrap_or_default();
        addrs.retain(|addr| !self.selves.contains(&addr.addr));
        addrs
    }

    /// Returns where nodes answered last, to be kept on disk.
    pub(crate) fn good(&self) -> impl Iterator<Item = &(NodeId, Vec<NetAddr>)> {
        self.good.values()
    }

    /// Remembers where a node answered, the last first.
    pub(crate) fn remember(&mut self, node: &NodeId, addr: NetAddr) {
        let (_, addrs) = self
            .good
            .entry(Key::of(node))
            .or_insert_with(|| (*node, Vec::new()));
        addrs.retain(|known| *known != addr);
        addrs.insert(0, addr);
        addrs.truncate(GOOD_MAX);
    }

    /// Forgets a node.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.good.remove(key);
        self.attempts.remove(&Target::Node(*key));
    }

    /// Remembers an address that leads to this node. Returns whether that is news.
    pub(crate) fn is_self(&mut self, addr: &NetAddr) -> bool {
        self.selves.len() < SELVES_MAX && self.selves.insert(addr.clone())
    }

    /// Tells whether a dial is under way.
    pub(crate) fn is_flying(&self, target: Target) -> bool {
        self.flying.contains_key(&target)
    }

    /// Tells whether a node is being dialed at the addresses of an entry as well: those of a later one are
    /// not among them.
    pub(crate) fn is_flying_with(&self, target: Target, entry: &Entry) -> bool {
        let dial = self.flying.get(&target);
        dial.is_some_and(|dial| *dial > entry.after)
    }

    /// Returns what is being dialed.
    pub(crate) fn flying(&self) -> impl Iterator<Item = Target> {
        self.flying.keys().copied()
    }

    /// Tells whether no more dials may be started now.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight.len() >= IN_FLIGHT_MAX
    }

    /// Tells whether no more dials to nodes that may not exist may be started now.
    pub(crate) fn probes_full(&self) -> bool {
        let probe = |target: &&Target| matches!(target, Target::Stranger(_));
        self.in_flight.values().filter(probe).count() >= PROBES_IN_FLIGHT_MAX
    }

    /// Starts a dial.
    pub(crate) fn start(&mut self, target: Target) -> DialId {
        self.numbers += 1;
        let dial = DialId(self.numbers);
        self.in_flight.insert(dial, target);
        self.flying.insert(target, dial);
        dial
    }

    /// Ends a dial that failed, and counts it.
    pub(crate) fn failed(&mut self, dial: DialId) -> Option<Target> {
        let target = self.end(dial)?;
        let attempts = self.attempts.entry(target).or_default();
        *attempts = attempts.saturating_add(1);
        Some(target)
    }

    /// Ends the dial of a target that was never reported.
    pub(crate) fn give_up(&mut self, target: Target) -> Option<DialId> {
        let dial = *self.flying.get(&target)?;
        self.failed(dial).map(|_target| dial)
    }

    /// Ends a dial that led to a node.
    pub(crate) fn succeeded(&mut self, dial: DialId, node: &NodeId) -> Option<Target> {
        let target = self.end(dial)?;
        if let Target::Entry(number) = target
            && let Some(entry) = self.entries.get_mut(&number)
        {
            entry.node = Some(*node);
        }
        Some(target)
    }

    fn end(&mut self, dial: DialId) -> Option<Target> {
        let target = self.in_flight.remove(&dial)?;
        self.flying.remove(&target);
        Some(target)
    }

    /// Counts failures against a target.
    pub(crate) fn blame(&mut self, target: Target, failures: u32) {
        let attempts = self.attempts.entry(target).or_default();
        *attempts = attempts.saturating_add(failures);
    }

    /// Forgets earlier failures: the target has been reached for a while.
    pub(crate) fn calm(&mut self, target: Target) {
        self.attempts.remove(&target);
    }

    /// Returns how often a target was tried in vain.
    pub(crate) fn attempts(&self, target: Target) -> u32 {
        self.attempts.get(&target).copied().unwrap_or(0)
    }

    /// Draws how long to wait before the next attempt: anything up to a ceiling that doubles with
    /// every failure.
    pub(crate) fn backoff(&self, target: Target, longest: Duration, rng: &mut Rng) -> Duration {
        let doublings = self.attempts(target).saturating_sub(1).min(16);
        let ceiling = BACKOFF_FIRST.saturating_mul(1 << doublings).min(longest);
        rng.between(Duration::from_millis(20), ceiling)
    }
}

/// Sorts addresses into those that are tried together: of one node, or of one host and port.
fn group(addrs: Vec<PeerAddr>) -> Vec<Vec<PeerAddr>> {
    let mut groups: Vec<Vec<PeerAddr>> = Vec::new();
    for addr in addrs {
        let same = |other: &PeerAddr| match (other.node, addr.node) {
            (Some(one), Some(two)) => one == two,
            (None, None) => other.addr.host == addr.addr.host && other.addr.port == addr.addr.port,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match groups.iter_mut().find(|group| group.iter().any(same)) {
            Some(group) if group.contains(&addr) => {}
            Some(group) => group.push(addr),
            None => groups.push(vec![addr]),
        }
    }
    for group in &mut groups {
        group.sort_by_key(|addr| addr.addr.transport != Transport::Tcp);
        group.truncate(ADDRS_MAX);
    }
    groups
}
