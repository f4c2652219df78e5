//! Forks: two heads of one log of which the larger does not continue the smaller, proved to anyone.
//!
//! The log itself will not prove it. But whoever has copied the one history and whoever shows the other
//! each have the hashes of a tree, and where the two trees differ is found by a walk down both
//! ([`Evidence::fork`]). Nobody has to be believed: what a source shows leads to the head or is not used.

use std::fmt::Debug;
use std::time::Duration;

use openfang_audit::cosign::{LogName, Role};
use openfang_audit::evidence::{Evidence, ForkError, Side};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::policy::assign;
use openfang_audit::tile::{TileNodes, TilePath, TileSource};
use openfang_audit::{Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Mesh, NodeView, Question, Verb, View};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::mirror;

/// The most doubts that wait to be looked into.
const DOUBTS_MAX: usize = 64;
/// How often one is looked into: mirrors come and go.
const TRIES_MAX: u32 = 8;
/// Before it is looked into again; twice as long each time.
const AGAIN: Duration = Duration::from_secs(30);
/// The most nodes that are asked for the hashes of one log.
const SOURCES_MAX: usize = 8;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Two heads of a node's log, of which nobody has shown that one continues the other.
#[derive(Debug, Clone)]
pub(crate) struct Doubt {
    pub(crate) node: NodeId,
    pub(crate) heads: [SignedHead; 2],
}

/// Looks into doubts.
#[derive(Debug)]
pub(crate) struct Forks {
    queue: mpsc::Receiver<Doubt>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    doubt: Doubt,
    tries: u32,
    due: Instant,
}

/// What looking needs.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    pub(crate) mesh: Mesh,
    /// The copies that this node keeps.
    pub(crate) copies: mirror::Desk,
}

impl Forks {
    pub(super) fn new(queue: mpsc::Receiver<Doubt>) -> Self {
        Self {
            queue,
            open: Vec::new(),
        }
    }

    /// Looks into doubts, one after the other, until the node ends.
    pub(crate) async fn run(mut self, around: Around, stop: CancellationToken) {
        loop {
            let due = self.open.iter().map(|open| open.due).min();
            tokio::select! {
                () = stop.cancelled() => return,
                doubt = self.queue.recv() => match doubt {
                    Some(doubt) => self.take(doubt),
                    None => return stop.cancelled().await,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.look(&around) => {}
                    }
                }
            }
        }
    }

    /// The newest doubt about a node takes the place of the one before.
    fn take(&mut self, doubt: Doubt) {
        self.open.retain(|open| open.doubt.node != doubt.node);
        if self.open.len() < DOUBTS_MAX {
            let (tries, due) = (0, Instant::now());
            self.open.push(Open { doubt, tries, due });
        }
    }

    /// Looks into what is due.
    async fn look(&mut self, around: &Around) {
        let now = Instant::now();
        let at = self.open.iter().position(|open| open.due <= now);
        let Some(mut open) = at.map(|at| self.open.swap_remove(at)) else {
            return;
        };
        match prove(around, open.doubt.clone()).await {
            Looked::Proved(evidence) => {
                let file = evidence.to_bytes();
                around.mesh.add_evidence(file).await;
                return;
            }
            Looked::Continues => {
                tracing::info!(node.id = %open.doubt.node, "two heads of a log continue each other after all");
                return;
            }
            Looked::Unknown => {}
        }
        open.tries += 1;
        if open.tries < TRIES_MAX {
            open.due = Instant::now() + AGAIN.saturating_mul(1 << open.tries);
            self.open.push(open);
        }
    }
}

/// What looking has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Looked {
    /// It is a fork.
    Proved(Box<Evidence>),
    /// The larger head continues the smaller one.
    Continues,
    /// The hashes of one side cannot be had.
    Unknown,
}

async fn prove(around: &Around, doubt: Doubt) -> Looked {
    let view = around.mesh.view();
    let Some(key) = key_of(&view, &doubt) else {
        return Looked::Unknown;
    };
    let origin = doubt.heads[0].checkpoint.origin.clone();
    let sources = sources(&view, around, (doubt.node, &origin));
    // Hashes are asked for one after the other, by code that knows nothing of tasks.
    let looked = tokio::task::spawn_blocking(move || compare(&key, &doubt.heads, &sources)).await;
    looked.unwrap_or_else(|why| {
        tracing::error!(error = %why, "comparing two heads of a log failed");
        Looked::Unknown
    })
}

fn key_of(view: &View, doubt: &Doubt) -> Option<Verifier> {
    let log = view.node(&doubt.node)?.record.record().log?;
    let key = VerifyingKey::from_bytes(log.key).ok()?;
    Verifier::new(doubt.heads[0].checkpoint.origin.as_str(), key)
}

/// Compares two heads by the hashes that sources show, each side from the first source that has it.
fn compare<S: TileSource + Clone>(key: &Verifier, heads: &[SignedHead; 2], sources: &[S]) -> Looked
where
    S::Error: Debug,
{
    let sides = heads.each_ref().map(|head| {
        let note: Note = head.note.parse().ok()?;
        let (size, root) = (head.checkpoint.size, head.checkpoint.root);
        let open = |source: &S| TileNodes::open(source.clone(), size, root).ok();
        Some((note, sources.iter().find_map(open)?))
    });
    let [Some((one, ones)), Some((other, others))] = &sides else {
        return Looked::Unknown;
    };
    let one = Side {
        note: one,
        nodes: ones,
    };
    let other = Side {
        note: other,
        nodes: others,
    };
    match Evidence::fork(key, one, other) {
        Ok(evidence) => Looked::Proved(Box::new(evidence)),
        Err(ForkError::Evidence(openfang_audit::evidence::EvidenceError::NoConflict)) => {
            Looked::Continues
        }
        Err(why) => {
            tracing::debug!(?why, "two heads cannot be compared");
            Looked::Unknown
        }
    }
}

/// Who may have the hashes of a log: this node, the log itself, its mirrors, and other nodes with
/// copies.
fn sources(view: &View, around: &Around, (node, origin): (NodeId, &Origin)) -> Vec<Remote> {
    let id = LogName::from(origin).id();
    let copies = format!("mirror/{id}/");
    let keeps = |node: &&NodeView| {
        let record = node.record.record();
        node.liveness.is_reachable() && record.cosigners.mirror.is_some()
    };
    let others = view
        .nodes
        .iter()
        .filter(|other| other.id != view.me && other.id != node);
    let keepers: Vec<NodeId> = others.filter(keeps).map(|node| node.id).collect();
    let assigned = assign(Role::Mirror, origin, &keepers, SOURCES_MAX);
    let from = |of: NodeId, prefix: &str| Remote {
        around: around.clone(),
        handle: Handle::current(),
        node: of,
        prefix: prefix.to_owned(),
    };
    let first = [from(view.me, &copies), from(node, "log/")];
    let rest = assigned.into_iter().map(|keeper| from(keeper, &copies));
    first.into_iter().chain(rest).take(SOURCES_MAX).collect()
}

/// The hashes of a log at another node, or at this one.
#[derive(Debug, Clone)]
struct Remote {
    around: Around,
    handle: Handle,
    node: NodeId,
    prefix: String,
}

/// A source does not answer.
#[derive(Debug, thiserror::Error)]
enum Silent {
    /// It was not reached.
    #[error("it was not reached: {0}")]
    Unreachable(#[from] openfang_mesh::AskError),
    /// It has answered with something else.
    #[error("it answered with status {0}")]
    Status(u16),
}

impl TileSource for Remote {
    type Error = Silent;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Silent> {
        let question = Question {
            verb: Verb::Get,
            path: format!("{}{path}", self.prefix),
            body: Vec::new(),
        };
        let Around { mesh, copies } = &self.around;
        let answer = if self.node == mesh.node_id() {
            self.handle.block_on(copies.ask(self.node, question))
        } else {
            let asked = mesh.ask(self.node, question, Instant::now() + ANSWER);
            Some(self.handle.block_on(asked)?)
        };
        match answer {
            Some(answer) if answer.status == 200 => Ok(Some(answer.body)),
            Some(answer) if ![404, 410].contains(&answer.status) => {
                Err(Silent::Status(answer.status))
            }
            Some(_) | None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use openfang_audit::tile::TileKind;
    use openfang_audit::{Checkpoint, Hash, tree};
    use openfang_id::{Keys, NodeSeed};

    use super::*;

    /// A copy of a log of which the entries from `fork` on are another story.
    #[derive(Clone)]
    struct Copy(Vec<Hash>);

    impl Copy {
        fn new(size: u64, fork: u64) -> Self {
            let leaf = |at: u64| tree::leaf_hash(format!("{at} {}", at >= fork).as_bytes());
            Self((0..size).map(leaf).collect())
        }

        fn head(&self, size: usize) -> SignedHead {
            let checkpoint = Checkpoint {
                origin: Origin::of(&keys().node_id(), 1),
                size: u64::try_from(size).expect("small"),
                root: tree::root_of(&self.0[..size]),
            };
            SignedHead::sign(checkpoint, &keys().log)
        }
    }

    impl TileSource for Copy {
        type Error = Infallible;

        fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Infallible> {
            let TileKind::Hashes(level) = path.kind() else {
                return Ok(None);
            };
            let span = 256_usize.pow(level.into());
            let first = usize::try_from(path.index()).expect("small") * 256 * span;
            let hashes = (0..usize::from(path.width())).map(|at| {
                let from = first + at * span;
                self.0.get(from..from + span).map(tree::root_of)
            });
            let hashes: Option<Vec<Hash>> = hashes.collect();
            Ok(hashes.map(|hashes| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()))
        }
    }

    fn keys() -> Keys {
        NodeSeed::from_bytes([5; 32]).keys()
    }

    fn key() -> Verifier {
        let origin = Origin::of(&keys().node_id(), 1);
        Verifier::new(origin.as_str(), keys().log.verifying_key()).expect("a name")
    }

    #[test]
    fn a_fork_is_proved_by_those_who_copied_each_side() {
        for (small, large, fork) in [(5, 9, 2), (300, 301, 0), (300, 900, 299), (256, 70_000, 17)] {
            let (one, other) = (Copy::new(large, u64::MAX), Copy::new(large, fork));
            let at = |size: u64| usize::try_from(size).expect("small");
            let heads = [one.head(at(small)), other.head(at(large))];
            let Looked::Proved(evidence) = compare(&key(), &heads, &[one.clone(), other.clone()])
            else {
                panic!("{small} {large} {fork}");
            };
            assert_eq!(
                Evidence::open(&evidence.to_bytes()).as_ref(),
                Ok(&*evidence)
            );
            assert_eq!(
                evidence.accused_name(),
                openfang_audit::mesh_name(&keys().node_id())
            );
            // In whatever order heads and sources come.
            let [a, b] = heads.clone();
            let again = compare(&key(), &[b, a], &[other.clone(), one.clone()]);
            assert_eq!(again, Looked::Proved(evidence));
            // One side alone proves nothing.
            assert_eq!(compare(&key(), &heads, &[one]), Looked::Unknown);
            assert_eq!(compare(&key(), &heads, &[other]), Looked::Unknown);
        }
    }

    #[test]
    fn a_log_that_only_grew_is_no_fork_whatever_was_answered() {
        let log = Copy::new(900, u64::MAX);
        for (small, large) in [(1, 900), (256, 257), (300, 301)] {
            let heads = [log.head(small), log.head(large)];
            let looked = compare(&key(), &heads, std::slice::from_ref(&log));
            assert_eq!(looked, Looked::Continues);
        }
    }

    #[test]
    fn what_a_liar_shows_is_not_used() {
        let (one, other) = (Copy::new(300, u64::MAX), Copy::new(301, 7));
        let heads = [one.head(300), other.head(301)];
        let liar = Copy::new(301, 50);
        let looked = compare(&key(), &heads, &[liar.clone(), one.clone()]);
        assert_eq!(looked, Looked::Unknown);
        let looked = compare(&key(), &heads, &[liar, one, other]);
        assert!(matches!(looked, Looked::Proved(_)));
    }

    #[tokio::test]
    async fn doubts_are_bounded_and_one_a_node_counts() {
        let (_sender, queue) = mpsc::channel(1);
        let mut forks = Forks::new(queue);
        let copy = Copy::new(3, u64::MAX);
        for byte in 0..100 {
            for _again in 0..2 {
                let node = NodeSeed::from_bytes([byte; 32]).keys().node_id();
                let heads = [copy.head(1), copy.head(2)];
                forks.take(Doubt { node, heads });
            }
        }
        assert_eq!(forks.open.len(), DOUBTS_MAX);
    }
}
