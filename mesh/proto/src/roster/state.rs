//! One node of the mesh.

use super::{Config, Crypto, In, Known, Out, Start, View};
use crate::Instant;

/// The roster of one node: who is there, what they run, who lives. See the [module](super).
#[derive(Debug)]
pub struct State {
    view: View,
}

impl State {
    /// Makes the roster of a node that has just started.
    #[must_use]
    pub fn new(config: Config, crypto: Box<dyn Crypto>, start: Start, now: Instant) -> Self {
        drop((crypto, start, now));
        Self {
            view: View {
                me: config.me,
                nodes: Vec::new(),
            },
        }
    }

    /// Takes what happened, gives what is to be done, in order.
    pub fn handle(&mut self, event: In, now: Instant) -> Vec<Out> {
        drop((event, now));
        Vec::new()
    }

    /// Returns when [`In::Timer`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Returns the mesh as this node sees it.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Returns what is to be written to disk.
    #[must_use]
    pub fn known(&self) -> Known {
        Known::default()
    }
}
