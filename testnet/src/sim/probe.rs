//! How long it takes until everyone knows.

use std::collections::BTreeSet;

use openfang_id::NodeId;
use openfang_ofp::Instant;
use openfang_ofp::roster::Event;
use serde::Serialize;

use super::model::Model;

/// What everyone is to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// That a node runs at least so many agents.
    Spawn(usize),
    /// That a process has ended.
    Kill,
    /// That a machine has vanished.
    Silence,
}

/// One change, and who does not know of it yet.
#[derive(Debug)]
struct Probe {
    kind: Kind,
    subject: NodeId,
    since: Instant,
    waiting: BTreeSet<usize>,
}

/// All changes, and how long each took to be known by all.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: Vec<Probe>,
    /// Milliseconds until the last node knew, for each spawn.
    pub(super) spawn: Vec<u64>,
    /// The same for each killed process.
    pub(super) kill: Vec<u64>,
    /// The same for each vanished machine.
    pub(super) silence: Vec<u64>,
    /// Milliseconds until all nodes agreed, for each healed partition.
    pub(super) heal: Vec<u64>,
    /// Milliseconds from the start of the last node until all agreed.
    pub(super) join: Option<u64>,
}

/// Percentiles of some durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many there were.
    pub count: usize,
    /// Half took at most this.
    pub p50_ms: u64,
    /// Ninety-nine in a hundred took at most this.
    pub p99_ms: u64,
    /// All took at most this.
    pub max_ms: u64,
}

impl Spread {
    /// Returns the percentiles; `None` when there is nothing.
    #[must_use]
    pub(super) fn of(durations: &[u64]) -> Option<Self> {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        let at = |hundredths: usize| {
            let rank = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
            sorted.get(rank).copied()
        };
        Some(Self {
            count: sorted.len(),
            p50_ms: at(50)?,
            p99_ms: at(99)?,
            max_ms: *sorted.last()?,
        })
    }
}

impl Probes {
    /// Starts to watch for a change of a node.
    pub(super) fn start(&mut self, kind: Kind, subject: usize, model: &Model, now: Instant) {
        let waiting = model.up().filter(|at| *at != subject).collect();
        self.open.push(Probe {
            kind,
            subject: model.nodes[subject].id,
            since: now,
            waiting,
        });
        self.close(now);
    }

    /// Takes note of what a node has learnt.
    pub(super) fn on_event(&mut self, model: &Model, at: usize, event: &Event, now: Instant) {
        let (about, down) = if let Event::Recorded { node, .. } = event {
            (*node, false)
        } else if let Event::NodeDown { node } = event {
            (*node, true)
        } else {
            return;
        };
        for probe in self.open.iter_mut().filter(|probe| probe.subject == about) {
            let knows = match probe.kind {
                Kind::Spawn(agents) => !down && held(model, at, &about) >= agents,
                Kind::Kill | Kind::Silence => down,
            };
            if knows {
                probe.waiting.remove(&at);
            }
        }
        self.close(now);
    }

    /// A node that does not run need not know.
    pub(super) fn excuse(&mut self, at: usize, now: Instant) {
        for probe in &mut self.open {
            probe.waiting.remove(&at);
        }
        self.close(now);
    }

    /// A node that is back need not be known as gone.
    pub(super) fn drop_of(&mut self, subject: &NodeId) -> usize {
        let before = self.open.len();
        self.open.retain(|probe| probe.subject != *subject);
        before - self.open.len()
    }

    /// Returns the changes that not everyone knows.
    pub(super) fn unseen(&self) -> impl Iterator<Item = String> + '_ {
        let since = |probe: &Probe| format!("{:?} of {:?}", probe.kind, probe.subject);
        self.open.iter().map(move |probe| {
            let waiting = probe.waiting.len();
            format!("{} is not known to {waiting} nodes", since(probe))
        })
    }

    fn close(&mut self, now: Instant) {
        let (done, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|probe| probe.waiting.is_empty());
        self.open = open;
        for probe in done {
            let took = now.0 - probe.since.0;
            match probe.kind {
                Kind::Spawn(_) => self.spawn.push(took),
                Kind::Kill => self.kill.push(took),
                Kind::Silence => self.silence.push(took),
            }
        }
    }
}

fn held(model: &Model, at: usize, of: &NodeId) -> usize {
    let state = model.nodes[at].state.as_ref();
    let record = state.and_then(|state| state.record(of));
    record.map_or(0, |record| record.record().agents.len())
}
