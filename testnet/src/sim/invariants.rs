//! What must hold after every step, and at the end.

use std::collections::BTreeMap;

use openfang_id::NodeId;
use openfang_ofp::Instant;
use openfang_ofp::roster::{Event, FULL_MESH_NODES, Liveness, PICKS, State, Version};

use super::model::{Model, Run};

/// What does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A record that its origin has not signed was stored.
    #[error("node {at} holds a record of {of} that does not verify")]
    Forged {
        /// Where.
        at: usize,
        /// Whose.
        of: NodeId,
    },
    /// A record was replaced by an older one.
    #[error("node {at} went from {before:?} to {after:?} of {of}")]
    Back {
        /// Where.
        at: usize,
        /// Whose.
        of: NodeId,
        /// What it had.
        before: Version,
        /// What it has.
        after: Version,
    },
    /// A node that lives was held for dead.
    #[error("node {at} holds the steady node {of} for dead at {when:?}")]
    FalseDeath {
        /// Where.
        at: usize,
        /// Whom.
        of: usize,
        /// When.
        when: Instant,
    },
    /// Nodes do not agree although nothing has happened for long.
    #[error("node {at} does not see node {of} as it is: {what}")]
    Diverged {
        /// Where.
        at: usize,
        /// Of whom.
        of: usize,
        /// How.
        what: &'static str,
    },
    /// A node that was made up counts as alive.
    #[error("node {at} holds the made-up node {of} for alive")]
    MadeUp {
        /// Where.
        at: usize,
        /// Whom.
        of: NodeId,
    },
    /// A node has dialed addresses of made-up nodes too often.
    #[error("node {at} has dialed made-up addresses {dials} times")]
    DialsInVain {
        /// Which.
        at: usize,
        /// How often.
        dials: u64,
    },
    /// Two nodes of a small mesh are not linked.
    #[error("nodes {at} and {with} have no link")]
    Apart {
        /// One.
        at: usize,
        /// The other.
        with: usize,
    },
    /// A node found that another broke the protocol, where all are honest.
    #[error("node {at} says that {of} broke the protocol: {what}")]
    Accused {
        /// Where.
        at: usize,
        /// Whom.
        of: NodeId,
        /// How.
        what: String,
    },
}

/// The versions every running node has shown so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Vec<BTreeMap<NodeId, Version>>,
    /// How often a steady node was held for dead.
    pub(super) false_deaths: u64,
}

impl Watch {
    /// Starts watching a number of nodes.
    #[must_use]
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            seen: vec![BTreeMap::new(); nodes],
            false_deaths: 0,
        }
    }

    /// Forgets what a node had: it starts from its disk.
    pub(super) fn restarted(&mut self, at: usize) {
        self.seen[at].clear();
    }

    /// Checks what one event of a node says.
    ///
    /// # Errors
    /// When an invariant does not hold.
    pub(super) fn check(
        &mut self,
        model: &Model,
        at: usize,
        event: &Event,
        now: Instant,
    ) -> Result<(), Violation> {
        match event {
            Event::Recorded { node, version } => self.on_recorded(model, at, (*node, *version)),
            Event::NodeDown { node } => self.on_down(model, at, node, now),
            Event::Violation { node, offence } => Err(Violation::Accused {
                at,
                of: *node,
                what: format!("{offence:?}"),
            }),
            Event::NodeUp { node, .. } => on_up(model, at, node),
            Event::NodeSuspected { .. }
            | Event::NodeLeft { .. }
            | Event::NodeForgotten { .. }
            | Event::AgentsChanged { .. }
            | Event::Linked { .. }
            | Event::Unlinked { .. }
            | Event::HeadAccepted { .. }
            | Event::Inconsistent { .. }
            | Event::Convicted { .. }
            | Event::Unanswered { .. }
            | Event::InconsistencyReported { .. }
            | Event::Mended { .. }
            | Event::LogReplaced { .. }
            | Event::RecordEquivocation { .. }
            | Event::SelfDial { .. }
            | Event::DuplicateIdentity { .. }
            | Event::Refuted
            | Event::AgentsCut { .. } => Ok(()),
        }
    }

    fn on_recorded(
        &mut self,
        model: &Model,
        at: usize,
        (of, after): (NodeId, Version),
    ) -> Result<(), Violation> {
        let before = self.seen[at].insert(of, after);
        if let Some(before) = before.filter(|before| *before > after) {
            return Err(Violation::Back {
                at,
                of,
                before,
                after,
            });
        }
        let state = model.nodes[at].state.as_ref();
        let record = state.and_then(|state| state.record(&of));
        let holds = record.is_some_and(|record| record.verify(model.crypto(at).as_ref()));
        if holds {
            Ok(())
        } else {
            Err(Violation::Forged { at, of })
        }
    }

    fn on_down(
        &mut self,
        model: &Model,
        at: usize,
        of: &NodeId,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(of) = model.number(of) else {
            return Ok(());
        };
        if model.must_see(at, of, now) {
            self.false_deaths += 1;
            return Err(Violation::FalseDeath { at, of, when: now });
        }
        Ok(())
    }
}

/// The largest mesh in which all are linked with all.
const ALL_LINKED: usize = FULL_MESH_NODES;

/// Checks that a node that is up exists. Where there are two nodes, one can make up the rest.
fn on_up(model: &Model, at: usize, of: &NodeId) -> Result<(), Violation> {
    if model.number(of).is_none() && model.up().count() > 2 {
        return Err(Violation::MadeUp { at, of: *of });
    }
    Ok(())
}

/// Checks that nodes of a small mesh are linked with all others, and those of a large one with some.
///
/// # Errors
/// With the first two that are not.
pub(super) fn linked(model: &Model) -> Result<(), Violation> {
    let up: Vec<usize> = model.up().collect();
    for at in &up {
        let view = model.nodes[*at].state.as_ref().map(State::view);
        let is_linked = |with: &&usize| {
            let node = view.as_ref()?.node(&model.nodes[**with].id)?;
            node.link.as_ref().map(|_link| ())
        };
        let others = || up.iter().filter(|with| *with != at);
        let count = others().filter(|with| is_linked(with).is_some()).count();
        let wanted = if up.len() <= ALL_LINKED {
            up.len() - 1
        } else {
            PICKS
        };
        let apart = others().find(|with| is_linked(with).is_none());
        if let Some(with) = apart.filter(|_| count < wanted) {
            return Err(Violation::Apart {
                at: *at,
                with: *with,
            });
        }
    }
    Ok(())
}

/// Checks that every running node sees every node as it is.
///
/// # Errors
/// With the first difference.
pub(super) fn converged(model: &Model) -> Result<(), Violation> {
    for at in model.up() {
        let Some(state) = model.nodes[at].state.as_ref() else {
            continue;
        };
        for (of, node) in model.nodes.iter().enumerate() {
            let what = difference(state, model, of);
            if of != at && node.run != Run::New {
                what.map_or(Ok(()), |what| Err(Violation::Diverged { at, of, what }))?;
            }
        }
    }
    Ok(())
}

fn difference(state: &State, model: &Model, of: usize) -> Option<&'static str> {
    let node = &model.nodes[of];
    let liveness = state.liveness(&node.id);
    match node.run {
        Run::New => None,
        Run::Killed | Run::Hung => {
            let gone = matches!(liveness, Some(Liveness::Dead) | None);
            (!gone).then_some("it is gone and not held for dead")
        }
        Run::Left => {
            let gone = matches!(liveness, Some(Liveness::Left | Liveness::Dead) | None);
            (!gone).then_some("it has left and is not held for gone")
        }
        Run::Up => {
            let own = node.state.as_ref().and_then(|own| own.record(&node.id));
            let held = state.record(&node.id);
            if liveness != Some(Liveness::Alive) {
                return Some("it lives and is not held for alive");
            }
            if own.map(|own| own.bytes()) != held.map(|held| held.bytes()) {
                return Some("its record is not its latest");
            }
            let told = held.map(|held| &held.record().agents);
            (told != Some(&node.agents)).then_some("its record is not what it runs")
        }
    }
}
