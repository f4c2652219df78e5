//! The tiles and bundles of a log, read from peers that have them.
//!
//! Nothing that comes is trusted here: [`openfang_audit::tile::TileNodes`] checks it.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use openfang_audit::Origin;
use openfang_audit::cosign::LogName;
use openfang_audit::tile::{TilePath, TileSource};
use openfang_id::NodeId;
use openfang_mesh::{Mesh, Question, Verb};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// How long one file may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// How many files a source is asked for at once: as many as it answers.
const AT_ONCE: usize = 4;
/// How often each source is asked for a file before it is given up.
const ROUNDS: usize = 3;
/// How long to wait for a source that is busy.
const PAUSE: Duration = Duration::from_millis(100);

/// What a peer has of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The log itself.
    Own,
    /// A copy.
    Mirror,
}

/// Reads files of one log from several peers. To be used where blocking is allowed.
#[derive(Debug)]
pub(crate) struct PeerTiles {
    mesh: Mesh,
    runtime: Handle,
    sources: Vec<(NodeId, String)>,
}

/// No peer could give a file.
#[derive(Debug, thiserror::Error)]
#[error("no peer gives this file; {last}")]
pub struct Unanswered {
    /// What the last one said.
    last: String,
}

impl PeerTiles {
    /// Reads the log of a name from some peers; the first is asked first.
    pub(crate) fn new(
        mesh: Mesh,
        runtime: Handle,
        origin: &Origin,
        sources: impl IntoIterator<Item = (NodeId, Source)>,
    ) -> Self {
        let id = LogName::from(origin).id();
        let folder = |source| match source {
            Source::Own => "log".to_owned(),
            Source::Mirror => format!("mirror/{id}"),
        };
        let sources = sources.into_iter();
        Self {
            mesh,
            runtime,
            sources: sources
                .map(|(node, source)| (node, folder(source)))
                .collect(),
        }
    }

    /// Asks one source after the other, from the one with this number on.
    async fn fetch(&self, path: TilePath, first: usize) -> Result<Option<Vec<u8>>, Unanswered> {
        let mut missing = false;
        let mut last = "there is none to ask".to_owned();
        for round in 0..ROUNDS {
            let mut busy = false;
            for at in 0..self.sources.len() {
                let (node, folder) = &self.sources[(first + at) % self.sources.len()];
                let question = Question {
                    verb: Verb::Get,
                    path: format!("{folder}/{path}"),
                    body: Vec::new(),
                };
                match self
                    .mesh
                    .ask(*node, question, Instant::now() + DEADLINE)
                    .await
                {
                    Ok(answer) if answer.status == 200 => return Ok(Some(answer.body)),
                    Ok(answer) if answer.status == 404 => missing = true,
                    Ok(answer) => {
                        busy = busy || matches!(answer.status, 429 | 503);
                        last = format!("{} says {}", node.fmt_short(), answer.status);
                    }
                    Err(why) => last = format!("{}: {why}", node.fmt_short()),
                }
            }
            if !busy || round + 1 == ROUNDS {
                break;
            }
            sleep(PAUSE).await;
        }
        if missing {
            return Ok(None);
        }
        Err(Unanswered { last })
    }
}

impl TileSource for PeerTiles {
    type Error = Unanswered;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Unanswered> {
        self.runtime.block_on(self.fetch(*path, 0))
    }

    fn tiles(&self, paths: &[TilePath]) -> Result<Vec<Option<Vec<u8>>>, Unanswered> {
        let at_once = (AT_ONCE * self.sources.len()).max(1);
        let fetched = paths.iter().enumerate();
        let fetched = fetched.map(|(number, path)| self.fetch(*path, number));
        let fetched = futures::stream::iter(fetched).buffered(at_once);
        self.runtime.block_on(fetched.try_collect())
    }
}
