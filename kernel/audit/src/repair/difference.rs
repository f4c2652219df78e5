//! Which of the entries that were fetched differ from what stood there: a whole bundle is replaced where
//! one byte of it was bad.

use std::collections::BTreeMap;

use super::Patch;

/// What was wrong with the lines that a patch replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The number of the first entry that differed, or in front of which something was put.
    pub first_seq: u64,
    /// The number behind the last one.
    pub end_seq: u64,
    /// How many of those between differed, or were missing; 0 when lines were only put in.
    pub entries: u64,
    /// How many bytes were wrong, were missing or too many, as far as lines can be told apart.
    pub bytes: u64,
    /// What stood in the place of the entries that differed: what there is to be kept.
    pub bad: &'a [u8],
}

impl Patch {
    /// Compares what stands there with what must.
    #[must_use]
    pub fn difference(&self) -> Difference<'_> {
        let bad: Vec<&[u8]> = lines(&self.bad);
        let good: Vec<&[u8]> = lines(&self.good);
        let same = |(a, b): &(&&[u8], &&[u8])| a == b;
        let before = bad.iter().zip(&good).take_while(same).count();
        let (bad, good) = (&bad[before..], &good[before..]);
        let behind = bad.iter().rev().zip(good.iter().rev());
        let behind = behind.take_while(same).count();
        let bad = &bad[..bad.len() - behind];
        let good = &good[..good.len() - behind];
        let first_seq = self.first_seq + before as u64;
        let start = self.bad.len() - bytes_of(bad) - self.tail(behind);
        let (entries, bytes) = count(bad, good);
        Difference {
            first_seq,
            end_seq: first_seq + good.len() as u64,
            entries,
            bytes,
            bad: &self.bad[start..start + bytes_of(bad)],
        }
    }

    /// Returns how many bytes the last so many lines have that stand there.
    fn tail(&self, count: usize) -> usize {
        let lines = lines(&self.bad);
        bytes_of(&lines[lines.len() - count..])
    }
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn bytes_of(lines: &[&[u8]]) -> usize {
    lines.iter().map(|line| line.len()).sum()
}

/// Counts entries and bytes that differ. Where as many lines stand there as must, each is compared with the
/// one in its place; otherwise, what stands there in some place behind the last that did is no difference.
fn count(bad: &[&[u8]], good: &[&[u8]]) -> (u64, u64) {
    if bad.len() != good.len() {
        let places: BTreeMap<&[u8], usize> = bad.iter().copied().zip(0..).collect();
        let (mut from, mut same, mut same_bytes) = (0, 0, 0);
        for line in good {
            if let Some(at) = places.get(line).filter(|at| **at >= from) {
                from = at + 1;
                same += 1;
                same_bytes += line.len();
            }
        }
        let bytes = bytes_of(bad).max(bytes_of(good)) - same_bytes;
        return ((good.len() - same) as u64, bytes as u64);
    }
    let pairs = bad.iter().zip(good);
    pairs
        .filter(|(bad, good)| bad != good)
        .fold((0, 0), |(entries, bytes), (bad, good)| {
            (entries + 1, bytes + differing(bad, good))
        })
}

fn differing(bad: &[u8], good: &[u8]) -> u64 {
    let unlike =
        |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    if bad.len() == good.len() {
        return bad.iter().zip(good).filter(|(a, b)| a != b).count() as u64;
    }
    let before = unlike(&mut bad.iter().zip(good));
    let most = bad.len().min(good.len()) - before;
    let behind = unlike(&mut bad.iter().rev().zip(good.iter().rev())).min(most);
    (bad.len().max(good.len()) - before - behind) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        bad: &str,
        good: &str,
        (first, end, entries, bytes): (u64, u64, u64, u64),
        kept: &str,
    ) {
        let patch = Patch {
            first_seq: 256,
            entries: good.lines().count() as u64,
            offset: 7,
            bad: bad.as_bytes().to_vec(),
            good: good.as_bytes().to_vec(),
        };
        let found = patch.difference();
        let expected = Difference {
            first_seq: first,
            end_seq: end,
            entries,
            bytes,
            bad: kept.as_bytes(),
        };
        assert_eq!(found, expected, "{bad:?} for {good:?}");
    }

    #[test]
    fn only_what_differs_is_named() {
        check("a\nbxx\nc\n", "a\nbyy\nc\n", (257, 258, 1, 2), "bxx\n");
        check(
            "x\nb\ny\nd\n",
            "a\nb\nc\nd\n",
            (256, 259, 2, 2),
            "x\nb\ny\n",
        );
        check("a\nlonger\n", "a\nlong\n", (257, 258, 1, 2), "longer\n");
        check("a\nc\n", "a\nb\nc\n", (257, 258, 1, 2), "");
        check("a\nput in\nb\n", "a\nb\n", (257, 257, 0, 7), "put in\n");
        check("", "a\nb\n", (256, 258, 2, 4), "");
        check("a\nb", "a\nb\n", (257, 258, 1, 1), "b");
        // One altered, one missing, and something behind the end.
        check(
            "a\nx\nc\nd\ny\nz\n",
            "a\nb\nc\nd\ne\n",
            (257, 261, 2, 6),
            "x\nc\nd\ny\nz\n",
        );
        check("aab\n", "ab\n", (256, 257, 1, 1), "aab\n");
    }
}
