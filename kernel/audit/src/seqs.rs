//! Numbers of entries, written as `3,7-9`.

use std::collections::BTreeSet;
use std::fmt;

/// The longest text of numbers in one entry, in bytes.
pub const SEQS_BYTES_MAX: usize = 16 * 1024;

/// Numbers of entries, in order. Together they are not longer than a line can be: see [`Seqs::split`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seqs(Vec<(u64, u64)>);

impl Seqs {
    /// Puts numbers together in as many texts of at most [`SEQS_BYTES_MAX`] bytes as are needed.
    #[must_use]
    pub fn split(numbers: &BTreeSet<u64>) -> Vec<Self> {
        let mut all = Vec::new();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut bytes = 0;
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*number) => {
                    *last = *number;
                    continue;
                }
                Some(_) | None => {}
            }
            if bytes + RANGE_BYTES_MAX > SEQS_BYTES_MAX {
                all.push(Self(std::mem::take(&mut ranges)));
                bytes = 0;
            }
            ranges.push((*number, *number));
            bytes += RANGE_BYTES_MAX;
        }
        if !ranges.is_empty() {
            all.push(Self(ranges));
        }
        all
    }

    /// Returns each number.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// Two numbers of twenty digits, a dash and a comma.
const RANGE_BYTES_MAX: usize = 42;

impl fmt::Display for Seqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_a_range() {
        let one = |numbers: &[u64]| {
            let all = Seqs::split(&numbers.iter().copied().collect());
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(one(&[9, 3, 7, 8]), ["3,7-9"]);
        assert_eq!(one(&[0]), ["0"]);
        assert_eq!(
            one(&[u64::MAX - 1, u64::MAX]),
            [format!("{}-{}", u64::MAX - 1, u64::MAX)]
        );
        assert!(one(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn all_numbers_are_in_and_no_text_is_too_long(
            numbers in prop::collection::btree_set(any::<u64>(), 0..2000),
        ) {
            let all = Seqs::split(&numbers);
            let back: BTreeSet<u64> = all.iter().flat_map(Seqs::iter).collect();
            prop_assert_eq!(back, numbers);
            prop_assert!(all.iter().all(|one| one.to_string().len() <= SEQS_BYTES_MAX));
        }
    }
}
