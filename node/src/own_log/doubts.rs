//! Where it is said that the own log may not be the newest: its signatures stop at once.
//!
//! A join says so, because somebody may be met who knows more; and whoever hears from a peer that it knows
//! another head. What a peer says is looked into before anything stops: it may be a lie.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use openfang_audit::inquiry::Signing;
use openfang_audit::{Log, SignedHead};
use openfang_id::NodeId;
use openfang_mesh::Mesh;
use tokio::sync::watch;

/// How many nodes that may know more wait to be asked: those that are lost refuse the next head, too.
const SUSPECTS_MAX: usize = 64;

/// A handle; cheap to clone, all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Doubts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Log,
    signing: watch::Sender<Signing>,
    mesh: OnceLock<Mesh>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// How many joins are under way.
    joins: usize,
    /// How often the log came into doubt.
    raised: u64,
    /// Who may know another head.
    suspects: BTreeSet<NodeId>,
}

/// A join that is under way; over when dropped.
#[derive(Debug)]
struct UnderWay(Doubts);

/// What has happened to a log that is signed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is in doubt.
    Doubt,
    /// These may know another head.
    Suspects(BTreeSet<NodeId>),
    /// Nothing.
    None,
}

impl Doubts {
    pub(crate) fn new(log: Log, signing: watch::Sender<Signing>) -> Self {
        Self(Arc::new(Inner {
            log,
            signing,
            mesh: OnceLock::new(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Connects the mesh, once: it announces the head.
    pub(crate) fn attach(&self, mesh: Mesh) {
        self.0.mesh.get_or_init(|| mesh);
    }

    /// Stops the signatures before a join. What this returns is to be kept until the join is over.
    pub(crate) async fn joining(self) -> impl Send + Sync + 'static {
        let joining = {
            let mut state = self.state();
            state.joins += 1;
            UnderWay(self.clone())
        };
        self.raise().await;
        joining
    }

    /// Stops the signatures. When this returns nothing is signed, shown or announced.
    pub(super) async fn raise(&self) {
        {
            let mut state = self.state();
            state.raised += 1;
            self.0.signing.send_if_modified(|standing| {
                let was_free = *standing == Signing::Free;
                if was_free {
                    *standing = Signing::Asking {
                        answered: 0,
                        needed: 0,
                    };
                }
                was_free
            });
        }
        let log = self.0.log.clone();
        // Waits for the batch that is being written.
        if let Err(why) = tokio::task::spawn_blocking(move || log.hold()).await {
            tracing::error!(error = %why, "the audit log could not be held");
        }
        if let Some(mesh) = self.0.mesh.get() {
            mesh.hide_head();
        }
        self.0.changed.send_replace(());
    }

    /// Has a head of the log announced, unless the log is in doubt; tells whether it was.
    pub(crate) fn announce(&self, mesh: &Mesh, head: SignedHead) -> bool {
        // Who raises a doubt takes this first, and hides what was announced before.
        let _state = self.state();
        let is_free = *self.0.signing.borrow() == Signing::Free;
        if is_free {
            mesh.set_head(head);
        }
        is_free
    }

    /// Says that a node may know a head of the own log that is larger than it, or another one.
    pub(crate) fn suspect(&self, node: NodeId) {
        let mut state = self.state();
        if state.suspects.len() < SUSPECTS_MAX {
            state.suspects.insert(node);
        }
        drop(state);
        self.0.changed.send_replace(());
    }

    /// Releases the log, unless it came into doubt again since it was seen to have done so often.
    pub(super) fn release(&self, seen: u64) -> bool {
        let state = self.state();
        if state.raised != seen || state.joins > 0 {
            return false;
        }
        self.0.signing.send_replace(Signing::Free);
        self.0.log.release();
        true
    }

    /// Returns how often the log came into doubt; `None` while a join is under way.
    pub(super) fn seen(&self) -> Option<u64> {
        let state = self.state();
        (state.joins == 0).then_some(state.raised)
    }

    /// Takes what has happened since the log was seen to be in doubt so often.
    pub(crate) fn news(&self, seen: u64) -> News {
        let mut state = self.state();
        if state.raised != seen {
            News::Doubt
        } else if state.suspects.is_empty() {
            News::None
        } else {
            News::Suspects(std::mem::take(&mut state.suspects))
        }
    }

    /// Returns a watch that wakes when there may be news.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    pub(super) fn log(&self) -> &Log {
        &self.0.log
    }

    /// Returns how it stands with signing.
    pub(crate) fn standing(&self) -> watch::Receiver<Signing> {
        self.0.signing.subscribe()
    }

    pub(super) fn signing(&self) -> &watch::Sender<Signing> {
        &self.0.signing
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.joins = state.joins.saturating_sub(1);
        drop(state);
        self.0.0.changed.send_replace(());
    }
}
