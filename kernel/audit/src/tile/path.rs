//! The paths of tiles and bundles, and which of them exist.

use std::fmt;
use std::iter;
use std::str::FromStr;

use super::{LEVEL_MAX, TILE_HEIGHT, TILE_WIDTH};
use crate::checkpoint::parse_decimal;
use crate::tree::SIZE_MAX;

/// The longest path: an index of seven groups at a level of two digits, and partial.
const PATH_BYTES_MAX: usize = 64;
/// An index is written in groups of so many digits.
const GROUP_DIGITS: usize = 3;
const GROUP: u64 = 1000;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of this level, at most 63; level 0 has those of the leaves.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The path of a tile or a bundle: `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`.
///
/// Its text has no `/` in front. Parsing is strict: every accepted path is written back as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// Why a text is not the path of a tile or bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the path of a tile: expected tile/<level or entries>/<index>[.p/<width>]")]
pub struct TilePathError;

impl TileKind {
    /// Returns how many hashes or entries of this kind there are in a tree of a size.
    #[must_use]
    pub fn count_at(self, size: u64) -> u64 {
        match self {
            Self::Hashes(level) => size
                .checked_shr(u32::from(level) * TILE_HEIGHT)
                .unwrap_or(0),
            Self::Entries => size,
        }
    }
}

impl TilePath {
    /// Names a file. Returns `None` for a level above 63, an index above 2^63 - 1 and a width that is
    /// not 1 to 256.
    #[must_use]
    pub fn new(kind: TileKind, index: u64, width: u16) -> Option<Self> {
        let level_fits = match kind {
            TileKind::Hashes(level) => level <= LEVEL_MAX,
            TileKind::Entries => true,
        };
        let fits = level_fits && index <= SIZE_MAX && (1..=TILE_WIDTH).contains(&width);
        fits.then_some(Self { kind, index, width })
    }

    /// Names the file that a tree of a size has at this place; `None` when it has none there.
    #[must_use]
    pub fn at(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let count = kind.count_at(size);
        let width = u64::from(TILE_WIDTH);
        let width = if index < count / width {
            TILE_WIDTH
        } else if index == count / width {
            u16::try_from(count % width).unwrap_or_default()
        } else {
            0
        };
        Self::new(kind, index, width)
    }

    /// Returns what the file holds.
    #[must_use]
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Returns the number of the file in its row.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns how many hashes or entries it holds.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Tells whether the file is a partial one.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// Names the full file at the same place.
    #[must_use]
    pub fn full(&self) -> Self {
        Self {
            width: TILE_WIDTH,
            ..*self
        }
    }

    /// Tells whether a tree of a size has all that the file holds.
    #[must_use]
    pub fn is_within(&self, size: u64) -> bool {
        Self::at(self.kind, self.index, size).is_some_and(|there| self.width <= there.width)
    }
}

/// Names every file of a tree: the tiles level by level, then the bundles.
pub fn tile_paths(size: u64) -> impl Iterator<Item = TilePath> {
    (0..=LEVEL_MAX)
        .map(TileKind::Hashes)
        .chain(iter::once(TileKind::Entries))
        .flat_map(move |kind| {
            let row = kind.count_at(size).div_ceil(u64::from(TILE_WIDTH));
            (0..row).filter_map(move |index| TilePath::at(kind, index, size))
        })
}

impl FromStr for TilePath {
    type Err = TilePathError;

    fn from_str(text: &str) -> Result<Self, TilePathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(TilePathError);
        }
        let rest = text.strip_prefix("tile/").ok_or(TilePathError)?;
        let (kind, rest) = rest.split_once('/').ok_or(TilePathError)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => parse_decimal(level)
                .and_then(|level| u8::try_from(level).ok())
                .map(TileKind::Hashes)
                .ok_or(TilePathError)?,
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => {
                let width = parse_decimal(width).and_then(|width| u16::try_from(width).ok());
                let partial = width.filter(|width| *width < TILE_WIDTH);
                (index, partial.ok_or(TilePathError)?)
            }
        };
        let index = parse_index(index).ok_or(TilePathError)?;
        Self::new(kind, index, width).ok_or(TilePathError)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let mut divisor = 1;
        while self.index / divisor >= GROUP {
            divisor *= GROUP;
        }
        while divisor > 1 {
            write!(f, "x{:03}/", self.index / divisor % GROUP)?;
            divisor /= GROUP;
        }
        write!(f, "{:03}", self.index % GROUP)?;
        if self.is_partial() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// Reads `x001/x234/067`.
fn parse_index(text: &str) -> Option<u64> {
    let mut groups = text.split('/').peekable();
    let mut index: u64 = 0;
    let mut first = true;
    while let Some(group) = groups.next() {
        let last = groups.peek().is_none();
        let digits = if last {
            group
        } else {
            group.strip_prefix('x')?
        };
        let well_formed =
            digits.len() == GROUP_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        // A longer index than needed would name one file twice.
        if !well_formed || (first && !last && digits == "000") {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        index = index.checked_mul(GROUP)?.checked_add(number)?;
        first = false;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(kind: TileKind, index: u64, width: u16) -> TilePath {
        TilePath::new(kind, index, width).expect("a path")
    }

    #[test]
    fn paths_are_written_as_the_document_says() {
        let check = |path: TilePath, text: &str| {
            assert_eq!(path.to_string(), text);
            assert_eq!(text.parse(), Ok(path), "{text}");
        };
        check(path(TileKind::Hashes(0), 0, 256), "tile/0/000");
        check(path(TileKind::Hashes(3), 999, 1), "tile/3/999.p/1");
        check(
            path(TileKind::Hashes(63), 1000, 255),
            "tile/63/x001/000.p/255",
        );
        check(
            path(TileKind::Entries, 1_234_067, 256),
            "tile/entries/x001/x234/067",
        );
        check(path(TileKind::Entries, 273, 112), "tile/entries/273.p/112");
        check(
            path(TileKind::Hashes(0), SIZE_MAX, 7),
            "tile/0/x009/x223/x372/x036/x854/x775/807.p/7",
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/00/000",
            "tile/+1/000",
            "tile/-1/000",
            "tile/64/000",
            "tile/256/000",
            "tile/99999999999999999999/000",
            "tile/Entries/000",
            "tile/data/000",
            "tile/8/0/000",
            "tile/0/0",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/x000/000",
            "tile/0/x000/x001/000",
            "tile/0/001/000",
            "tile/0/x01/000",
            "tile/0/x1000/000",
            "tile/0/X001/000",
            "tile/0/x001/x000",
            "tile/0/x001//000",
            "tile/0/000/",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/65536",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/x001.p/1/000",
            "tile/0/000 ",
            "tile/0/٠٠٠",
            "tile/0/x009/x223/x372/x036/x854/x775/808",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(text.parse::<TilePath>(), Err(TilePathError), "{text:?}");
        }
        let long = format!("tile/0/{}000", "x999/".repeat(100_000));
        assert_eq!(long.parse::<TilePath>(), Err(TilePathError));
    }

    #[test]
    fn a_path_that_cannot_be_is_not_made() {
        assert_eq!(TilePath::new(TileKind::Hashes(64), 0, 1), None);
        assert_eq!(TilePath::new(TileKind::Hashes(0), 0, 0), None);
        assert_eq!(TilePath::new(TileKind::Entries, 0, 257), None);
        assert_eq!(TilePath::new(TileKind::Entries, SIZE_MAX + 1, 1), None);
    }

    /// The check values of tlog-tiles.
    #[test]
    fn a_tree_of_70_000_entries_has_the_tiles_of_the_document() {
        let of = |size: u64, kind: TileKind| -> (usize, Vec<u16>) {
            let row: Vec<_> = tile_paths(size).filter(|path| path.kind == kind).collect();
            assert!(
                row.iter()
                    .enumerate()
                    .all(|(at, path)| path.index == at as u64)
            );
            let partial = row.iter().filter(|path| path.is_partial());
            let partial: Vec<_> = partial.map(TilePath::width).collect();
            (row.len() - partial.len(), partial)
        };
        assert_eq!(of(70_000, TileKind::Hashes(0)), (273, vec![112]));
        assert_eq!(of(70_000, TileKind::Hashes(1)), (1, vec![17]));
        assert_eq!(of(70_000, TileKind::Hashes(2)), (0, vec![1]));
        assert_eq!(of(70_000, TileKind::Hashes(3)), (0, vec![]));
        assert_eq!(of(70_000, TileKind::Entries), (273, vec![112]));
        assert_eq!(tile_paths(70_000).count(), 2 * 274 + 2 + 1);
        assert_eq!(of(256, TileKind::Hashes(0)), (1, vec![]));
        assert_eq!(of(256, TileKind::Hashes(1)), (0, vec![1]));
        assert_eq!(tile_paths(256).count(), 3);
        assert_eq!(tile_paths(0).count(), 0);
    }

    #[test]
    fn no_size_and_level_overflows() {
        for level in 0..=LEVEL_MAX {
            for size in [0, 1, 255, 256, 257, SIZE_MAX, u64::MAX] {
                let kind = TileKind::Hashes(level);
                for index in [0, 1, SIZE_MAX] {
                    let at = TilePath::at(kind, index, size);
                    assert!(at.is_none_or(|path| path.is_within(size)));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_path_reads_back(
            level in prop::option::of(0..=LEVEL_MAX),
            index in prop_oneof![0..2000_u64, 0..=SIZE_MAX],
            width in 1..=TILE_WIDTH,
        ) {
            let kind = level.map_or(TileKind::Entries, TileKind::Hashes);
            let path = path(kind, index, width);
            prop_assert!(path.to_string().len() <= PATH_BYTES_MAX);
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }

        #[test]
        fn parsing_never_panics_and_writes_back(
            text in "tile/(entries|[0-9]{0,3})/(x[0-9]{3}/){0,8}x?[0-9]{0,4}(\\.p/[0-9]{0,4})?|.{0,40}"
        ) {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }
    }
}
