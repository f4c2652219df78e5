//! The files of a log, read from the nodes that have it.
//!
//! Nothing that comes from here is to be believed: it is checked against a trusted head, as
//! [`TileNodes`](openfang_audit::tile::TileNodes) does. Only what has the wrong length or form is
//! noticed here, and then the next node is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use openfang_audit::Origin;
use openfang_audit::cosign::{LogName, TREE_HEAD_BYTES_MAX};
use openfang_audit::note::Note;
use openfang_audit::tile::{Bundle, TileKind, TilePath, TileSource, parse_tile};
use openfang_id::NodeId;
use openfang_mesh::{Answer, AskError, Mesh, Question, Verb};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::clock;

/// How long one file may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Files that are asked for at once: one fewer than a node answers of one peer.
const AT_ONCE: usize = 3;
/// How often a node that has too much to do is asked again, and the pause before it.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// The longest note of a head: the text and the lines of all who have cosigned it.
const NOTE_BYTES_MAX: usize = 4 * TREE_HEAD_BYTES_MAX;

/// As what a node has the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It is its own.
    Own,
    /// It keeps a copy.
    Mirror,
}

/// A log that others have, as a [`TileSource`].
///
/// Used where blocking is allowed, such as in `spawn_blocking`; never on a thread of the runtime.
#[derive(Debug)]
pub struct PeerTiles {
    mesh: Mesh,
    runtime: Handle,
    origin: Origin,
    sources: Vec<(NodeId, Holds)>,
    /// Who is asked first: the last one that had something.
    first: AtomicUsize,
}

/// Why a file cannot be had from any node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerTilesError {
    /// There is nobody to ask.
    #[error("no node is known that has {origin}")]
    Nobody {
        /// The log.
        origin: Origin,
    },
    /// Nobody who was asked has given it; the last one did not because of this.
    #[error("none of {asked} nodes gives {path} of {origin}; the last one, {node}: {why}")]
    All {
        /// The log.
        origin: Origin,
        /// What was wanted.
        path: String,
        /// How many were asked.
        asked: usize,
        /// Who was asked last.
        node: NodeId,
        /// Why it did not give it.
        #[source]
        why: Box<NoTile>,
    },
}

/// Why a node did not give a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTile {
    /// It was not reached, or did not answer.
    #[error("not reached: {0}")]
    Unreached(#[source] AskError),
    /// It answers no, with this status.
    #[error("it answers {0}")]
    Status(u16),
    /// What it sent has the wrong length or form.
    #[error("what it sends is no such file")]
    Malformed,
}

impl PeerTiles {
    /// Reads a log from some nodes. Which of them is asked first is left to chance: who fails with one that
    /// lies begins with another one the next time.
    #[must_use]
    pub fn new(mesh: Mesh, runtime: Handle, origin: Origin, sources: Vec<(NodeId, Holds)>) -> Self {
        let first = clock::random().map_or(0, usize::from_be_bytes);
        Self {
            mesh,
            runtime,
            origin,
            sources,
            first: AtomicUsize::new(first),
        }
    }

    /// Returns the log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Asks another node first from now on: what came last did not belong to the log.
    pub fn distrust(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks every node for its last head of the log: of a mirror the complete one with its cosignature.
    /// Who has none, or does not answer, is left out. The notes are not checked.
    pub fn checkpoints(&self) -> Vec<(NodeId, Note)> {
        let asked = self.sources.iter().map(|source| async move {
            let path = self.place(source.1, "checkpoint");
            let answer = self.ask(source.0, path).await.ok()?;
            if answer.status != 200 || answer.body.len() > NOTE_BYTES_MAX {
                return None;
            }
            let note = std::str::from_utf8(&answer.body).ok()?.parse().ok()?;
            Some((source.0, note))
        });
        let found = futures::stream::iter(asked).buffered(AT_ONCE);
        let found = found.filter_map(std::future::ready).collect();
        self.runtime.block_on(found)
    }

    fn place(&self, holds: Holds, what: &str) -> String {
        match holds {
            Holds::Own => format!("log/{what}"),
            Holds::Mirror => format!("mirror/{}/{what}", LogName::from(&self.origin).id()),
        }
    }

    /// Asks one node after the other. `None` when all say that there is no such file.
    async fn fetch(&self, path: TilePath) -> Result<Option<Vec<u8>>, PeerTilesError> {
        let count = self.sources.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut last = None;
        let mut missing = 0;
        for at in 0..count {
            let at = first.wrapping_add(at) % count;
            let Some((node, holds)) = self.sources.get(at).copied() else {
                break;
            };
            match self.fetch_from(node, holds, path).await {
                Ok(bytes) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(Some(bytes));
                }
                Err(NoTile::Status(404)) => missing += 1,
                Err(why) => {
                    tracing::debug!(node = %node.fmt_short(), %path, error = %why, "a file of a log comes from another node");
                    last = Some((node, why));
                }
            }
        }
        let origin = self.origin.clone();
        match last {
            None if missing == 0 => Err(PeerTilesError::Nobody { origin }),
            None => Ok(None),
            Some((node, why)) => Err(PeerTilesError::All {
                origin,
                path: path.to_string(),
                asked: count,
                node,
                why: Box::new(why),
            }),
        }
    }

    async fn fetch_from(
        &self,
        node: NodeId,
        holds: Holds,
        path: TilePath,
    ) -> Result<Vec<u8>, NoTile> {
        let place = self.place(holds, &path.to_string());
        let answer = self.ask(node, place).await.map_err(NoTile::Unreached)?;
        if answer.status != 200 {
            return Err(NoTile::Status(answer.status));
        }
        if is_form(path, &answer.body) {
            Ok(answer.body)
        } else {
            Err(NoTile::Malformed)
        }
    }

    async fn ask(&self, node: NodeId, path: String) -> Result<Answer, AskError> {
        let question = Question {
            verb: Verb::Get,
            path,
            body: Vec::new(),
        };
        let deadline = Instant::now() + DEADLINE;
        for _busy in 1..BUSY_TRIES {
            let answer = self.mesh.ask(node, question.clone(), deadline).await?;
            if !matches!(answer.status, 429 | 503) {
                return Ok(answer);
            }
            sleep(BUSY_PAUSE).await;
        }
        self.mesh.ask(node, question, deadline).await
    }
}

impl TileSource for PeerTiles {
    type Error = PeerTilesError;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, PeerTilesError> {
        self.runtime.block_on(self.fetch(*path))
    }

    fn tiles(&self, paths: &[TilePath]) -> Result<Vec<Option<Vec<u8>>>, PeerTilesError> {
        let fetched = paths.iter().map(|path| self.fetch(*path));
        let fetched = futures::stream::iter(fetched).buffered(AT_ONCE);
        let fetched: Vec<_> = self.runtime.block_on(fetched.collect());
        fetched.into_iter().collect()
    }
}

/// Tells whether bytes have the form of a file.
fn is_form(path: TilePath, bytes: &[u8]) -> bool {
    match path.kind() {
        TileKind::Hashes(_) => parse_tile(bytes, path.width()).is_some(),
        TileKind::Entries => Bundle::parse(bytes.to_vec(), path.width()).is_ok(),
    }
}
