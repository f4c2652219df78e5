//! What the tests of tiles, copies and exports share: a log of made-up lines, its files and its tiles.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this module and uses its own part of it"
)]

pub mod copy;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;

use openfang_audit::note::Verifier;
use openfang_audit::tile::{
    Bundle, TILE_WIDTH, TileBuilder, TileKind, TilePath, TileSource, encode_tile,
};
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::verify::Source;
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};
use openfang_id::{Keys, NodeSeed, VerifyingKey};
use tempfile::TempDir;

/// The sizes at which something begins or ends.
pub const SIZES: [u64; 10] = [0, 1, 2, 255, 256, 257, 512, 65_535, 65_536, 65_537];

pub fn keys() -> Keys {
    NodeSeed::from_bytes([1; 32]).keys()
}

pub fn origin() -> Origin {
    Origin::of(&keys().node_id(), 1)
}

pub fn log_verifier() -> Verifier {
    Verifier::new(origin().as_str(), keys().log.verifying_key()).expect("an origin is a name")
}

/// A line as a log has them, of a length that varies.
pub fn line(seq: u64) -> Vec<u8> {
    let filling = "x".repeat(usize::try_from(seq * 7919 % 61).expect("small"));
    format!("{{\"act\":\"{filling}\",\"seq\":{seq},\"v\":1}}").into_bytes()
}

pub fn lines(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(line).collect()
}

pub fn leaves(lines: &[Vec<u8>]) -> Vec<Hash> {
    lines.iter().map(|line| leaf_hash(line)).collect()
}

pub fn text(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut text = lines.join(&b'\n');
    if !lines.is_empty() {
        text.push(b'\n');
    }
    text
}

pub fn sign(size: u64, root: Hash) -> SignedHead {
    let checkpoint = Checkpoint {
        origin: origin(),
        size,
        root,
    };
    SignedHead::sign(checkpoint, &keys().log)
}

/// The files of a log, with a head over all its lines.
pub struct Files {
    pub root: TempDir,
    pub log_path: PathBuf,
    pub dir: PathBuf,
    pub lines: Vec<Vec<u8>>,
    pub leaves: Vec<Hash>,
    pub head: SignedHead,
    key: VerifyingKey,
    origin: Origin,
}

impl Files {
    pub fn new(size: u64) -> Self {
        let root = TempDir::new().expect("a directory");
        let (log_path, dir) = (root.path().join("audit.jsonl"), root.path().join("audit.d"));
        let lines = lines(size);
        let leaves = leaves(&lines);
        let head = sign(size, root_of(&leaves));
        fs::create_dir(&dir).expect("a directory");
        fs::write(&log_path, text(&lines)).expect("written");
        for name in ["floor", "checkpoint"] {
            fs::write(dir.join(name), &head.note).expect("written");
        }
        Self {
            root,
            log_path,
            dir,
            lines,
            leaves,
            head,
            key: keys().log.verifying_key(),
            origin: origin(),
        }
    }

    pub fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }
}

/// Tiles and bundles in memory, and which of them were asked for.
#[derive(Debug, Clone, Default)]
pub struct Tiles {
    pub files: BTreeMap<TilePath, Vec<u8>>,
    pub asked: RefCell<Vec<TilePath>>,
    pub unreadable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of reach")]
pub struct OutOfReach;

impl Tiles {
    /// Every file of a log.
    pub fn of(lines: &[Vec<u8>]) -> Self {
        let mut tiles = Self::default();
        let mut builder = TileBuilder::default();
        for (index, lines) in (0..).zip(lines.chunks(usize::from(TILE_WIDTH))) {
            let mut bundle = Bundle::default();
            for line in lines {
                bundle.push(line).expect("it fits");
            }
            let path = TilePath::new(TileKind::Entries, index, bundle.len()).expect("a path");
            tiles.files.insert(path, bundle.into_bytes());
        }
        let files = &mut tiles.files;
        let mut keep = |tile: openfang_audit::tile::BuiltTile<'_>| {
            let width = u16::try_from(tile.hashes.len()).expect("256 at most");
            let path = TilePath::new(TileKind::Hashes(tile.level), tile.index, width);
            files.insert(path.expect("a path"), encode_tile(tile.hashes));
            Ok::<_, Infallible>(())
        };
        for line in lines {
            builder
                .push(leaf_hash(line), &mut keep)
                .unwrap_or_else(|never| match never {});
        }
        builder
            .finish(&mut keep)
            .unwrap_or_else(|never| match never {});
        tiles
    }

    pub fn asked_for(&self, kind: TileKind) -> Vec<u64> {
        let asked = self.asked.borrow();
        let asked = asked.iter().filter(|path| path.kind() == kind);
        asked.map(TilePath::index).collect()
    }
}

impl TileSource for Tiles {
    type Error = OutOfReach;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, OutOfReach> {
        self.asked.borrow_mut().push(*path);
        if self.unreadable {
            return Err(OutOfReach);
        }
        Ok(self.files.get(path).cloned())
    }
}
