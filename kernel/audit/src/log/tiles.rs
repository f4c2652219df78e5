//! An open log as its own tiles, bundles and nodes: what it serves, and what it proves from.

use std::io;
use std::sync::Arc;

use super::nodes::{DiskNodes, NodeError};
use super::shared::lock;
use super::{Log, LogTiles, ProveError};
use crate::Hash;
use crate::proof::Nodes;
use crate::tile::{Bundle, TILE_WIDTH, TileKind, TilePath, TileSource, compute_tile, encode_tile};

/// Why something of an open log cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file cannot be read or written.
    #[error("the audit log cannot be read")]
    Io(#[source] io::Error),
    /// The log is not what was written.
    #[error("entries {first_seq} and the ones behind it are not what was written")]
    Damaged {
        /// The first entry that is known to be bad, or the first that was asked for.
        first_seq: u64,
    },
    /// The log has no such node yet.
    #[error("the audit log is shorter")]
    Range,
}

impl Log {
    /// Returns a view of the entries that are durable now: their tiles and bundles
    /// ([`TileSource`]), and the nodes that proofs and packages are built from ([`Nodes`]).
    #[must_use]
    pub fn tiles(&self) -> LogTiles {
        LogTiles {
            shared: Arc::clone(&self.inner.shared),
            size: self.size(),
        }
    }
}

impl LogTiles {
    /// Returns how many entries the view has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads entries, at most 256, each checked against the tree.
    ///
    /// # Errors
    /// When there are none, too many, or they are not what was written.
    pub fn entries(&self, start: u64, end: u64) -> Result<Bundle, ServeError> {
        if end > self.size {
            return Err(ServeError::Range);
        }
        let found = self.shared.entries(start..end);
        let lines = found.map_err(|error| match error {
            ProveError::Behind { .. } | ProveError::Range => ServeError::Range,
            ProveError::Damaged { seq } => ServeError::Damaged {
                first_seq: seq.unwrap_or(start),
            },
            ProveError::Io(error) => ServeError::Io(error),
        })?;
        let mut bundle = Bundle::default();
        for (seq, line) in (start..).zip(&lines) {
            // No line is longer than an entry may be.
            let pushed = bundle.push(line);
            pushed.map_err(|_too_long| ServeError::Damaged { first_seq: seq })?;
        }
        Ok(bundle)
    }

    /// Works with the nodes of the tree. Where the leaf hashes on disk are stale, they are computed again.
    fn with_nodes<T>(
        &self,
        work: impl Fn(&DiskNodes<'_, dyn crate::storage::Storage>) -> Result<T, NodeError>,
    ) -> Result<T, ServeError> {
        let attempt = || {
            let index = self.shared.index();
            work(&DiskNodes::new(
                &index.forest,
                &*self.shared.storage,
                &self.shared.blocks,
            ))
        };
        let mut found = attempt();
        if let Err(NodeError::Stale) = found {
            let mut rest = lock(&self.shared.rest);
            self.shared.look(&mut rest).map_err(ServeError::Io)?;
            if let Some(damage) = lock(&self.shared.condition).damage {
                let first_seq = damage.first_bad_seq.unwrap_or_default();
                return Err(ServeError::Damaged { first_seq });
            }
            self.shared.rebuild_hashes(&rest).map_err(ServeError::Io)?;
            drop(rest);
            found = attempt();
        }
        found.map_err(|error| match error {
            NodeError::Stale => ServeError::Damaged { first_seq: 0 },
            NodeError::Io(error) => ServeError::Io(error),
        })
    }
}

impl Nodes for LogTiles {
    type Error = ServeError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, ServeError> {
        let end = index
            .checked_add(1)
            .and_then(|next| next.checked_mul(1_u64.checked_shl(level)?));
        if end.is_none_or(|end| end > self.size) {
            return Err(ServeError::Range);
        }
        self.with_nodes(|nodes| nodes.node(level, index))
    }
}

impl TileSource for LogTiles {
    type Error = ServeError;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, ServeError> {
        if !path.is_within(self.size) {
            return Ok(None);
        }
        match path.kind() {
            TileKind::Hashes(level) => self
                .with_nodes(|nodes| compute_tile(nodes, level, path.index(), path.width()))
                .map(|hashes| Some(encode_tile(&hashes))),
            TileKind::Entries => {
                let start = path.index() * u64::from(TILE_WIDTH);
                let end = start + u64::from(path.width());
                self.entries(start, end)
                    .map(|bundle| Some(bundle.into_bytes()))
            }
        }
    }
}

impl std::fmt::Debug for LogTiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogTiles")
            .field("origin", &self.shared.origin)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}
