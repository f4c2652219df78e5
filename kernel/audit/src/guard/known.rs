//! The secrets of this node, found wherever any part of one stands in a text.

use std::fmt;
use std::ops::Range;

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use zeroize::Zeroizing;

use super::filter::Kind;
use super::plain::{fold, folded};

/// The shortest secret that is looked for: shorter ones are words.
pub const KNOWN_BYTES_MIN: usize = 8;
/// How much of a longer one gives it away.
const PART_BYTES: usize = 16;
/// The shortest secret that is looked for by its letters and digits alone.
const FOLDED_BYTES_MIN: usize = 12;
/// What is looked up at each place of a text.
const WINDOW_BYTES: usize = 8;
/// The bits of the first look: with ten secrets of 64 bytes, one place in fifty is looked at twice.
const SIEVE_BITS: usize = 1 << 15;
/// Odd, with its ones spread: multiplying by it mixes a window into the upper bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Secrets that must not reach a line, whole or in part, also when written in hexadecimal or base64, in groups, or
/// in other case. The values are wiped when this is dropped, and never shown.
#[derive(Clone, Default)]
pub struct Known {
    exact: Values,
    /// Their letters and digits alone, in lower case.
    folded: Values,
}

/// Values, found by their windows.
#[derive(Clone, Default)]
struct Values {
    values: Vec<Zeroizing<Vec<u8>>>,
    /// Which windows there are, by their upper bits.
    sieve: Zeroizing<Vec<u64>>,
    /// Each window, and where it is: value, offset. Sorted.
    windows: Zeroizing<Vec<(u64, u32, u32)>>,
}

impl Known {
    /// Adds secrets. Those that are shorter than [`KNOWN_BYTES_MIN`] are passed over.
    #[must_use]
    pub fn with<'a>(mut self, secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        for secret in secrets {
            if secret.len() < KNOWN_BYTES_MIN {
                continue;
            }
            let hex = HEXLOWER.encode(secret).into_bytes();
            let base64 = BASE64_NOPAD.encode(secret).into_bytes();
            for value in [secret.to_vec(), hex, base64] {
                let value = Zeroizing::new(value);
                let folded = Zeroizing::new(fold(&value).0);
                // What is left of others is too little to tell them from words.
                if folded.len() >= FOLDED_BYTES_MIN {
                    self.folded.add(folded);
                }
                self.exact.add(value);
            }
        }
        self.exact.windows.sort_unstable();
        self.folded.windows.sort_unstable();
        self
    }

    /// Finds every part of a secret: the whole of a short one, 16 bytes of a longer one.
    pub(crate) fn find(&self, text: &[u8], found: &mut Vec<(Range<usize>, Kind)>) {
        self.exact
            .find(text, |range| found.push((range, Kind::Known)));
    }

    /// Tells whether [`Known::find_folded`] may find anything, without the places of a text.
    pub(crate) fn may_be_folded(&self, text: &[u8]) -> bool {
        if self.folded.values.is_empty() {
            return false;
        }
        let mut last = 0_u64;
        let mut seen = 0_usize;
        text.iter().filter_map(|byte| folded(*byte)).any(|byte| {
            last = last >> 8 | u64::from(byte) << 56;
            seen += 1;
            seen >= WINDOW_BYTES && self.folded.has_window(last.wrapping_mul(MIX))
        })
    }

    /// As [`Known::find`], in the letters and digits of a text that stand at these places.
    pub(crate) fn find_folded(
        &self,
        folded: &[u8],
        places: &[usize],
        found: &mut Vec<(Range<usize>, Kind)>,
    ) {
        self.folded.find(folded, |range| {
            if let (Some(first), Some(last)) = (places.get(range.start), places.get(range.end - 1))
            {
                found.push((*first..last + 1, Kind::Known));
            }
        });
    }
}

impl Values {
    fn add(&mut self, value: Zeroizing<Vec<u8>>) {
        self.sieve.resize(SIEVE_BITS / 64, 0);
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        for (at, window) in (0..).zip(value.windows(WINDOW_BYTES)) {
            let mixed = mix(window);
            let (word, bit) = place(mixed);
            self.sieve[word] |= bit;
            self.windows.push((mixed, number, at));
        }
        self.values.push(value);
    }

    fn has_window(&self, mixed: u64) -> bool {
        let (word, bit) = place(mixed);
        let before = |window: &(u64, u32, u32)| window.0 < mixed;
        self.sieve[word] & bit != 0 && {
            let first = self.windows.partition_point(before);
            matches!(self.windows.get(first), Some((same, _, _)) if *same == mixed)
        }
    }

    fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        if self.values.is_empty() {
            return;
        }
        let mut behind = 0;
        for (at, window) in text.windows(WINDOW_BYTES).enumerate() {
            let mixed = mix(window);
            let (word, bit) = place(mixed);
            // Where one part ends, another one may overlap with it.
            if self.sieve[word] & bit == 0 || at + PART_BYTES <= behind {
                continue;
            }
            if let Some(end) = self.longest(text, at, mixed)
                && end > behind
            {
                found(at..end);
                behind = end;
            }
        }
    }

    /// Returns the end of the longest part of a secret that begins here, when it is long enough.
    fn longest(&self, text: &[u8], at: usize, mixed: u64) -> Option<usize> {
        let first = self.windows.partition_point(|(seen, _, _)| *seen < mixed);
        let same = self.windows[first..].iter();
        let ends =
            same.take_while(|(seen, _, _)| *seen == mixed)
                .filter_map(|(_, value, offset)| {
                    let value = self.values.get(usize::try_from(*value).ok()?)?;
                    let part = value.get(usize::try_from(*offset).ok()?..)?;
                    let same = part.iter().zip(&text[at..]).take_while(|(a, b)| a == b);
                    let len = same.count();
                    (len >= PART_BYTES.min(value.len())).then_some(at + len)
                });
        ends.max()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known(redacted)")
    }
}

fn mix(window: &[u8]) -> u64 {
    let bytes = window.try_into().unwrap_or_default();
    u64::from_le_bytes(bytes).wrapping_mul(MIX)
}

fn place(mixed: u64) -> (usize, u64) {
    let bit = usize::try_from(mixed >> (64 - SIEVE_BITS.ilog2())).unwrap_or_default();
    (bit / 64, 1 << (bit % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(known: &Known, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        known.find(text, &mut found);
        found.into_iter().map(|(range, _)| range).collect()
    }

    #[test]
    fn a_short_secret_is_found_whole_and_a_word_is_none() {
        let known = Known::default().with([&b"hunter22"[..], b"pass"]);
        let found = ranges(&known, b"it is hunter22, not hunter2");
        assert_eq!((found.len(), found.first()), (1, Some(&(6..14))));
        assert!(ranges(&known, b"pass").is_empty());
        assert!(ranges(&Known::default(), b"hunter22").is_empty());
    }

    #[test]
    fn nothing_is_shown_for_debugging() {
        let known = Known::default().with([&b"hunter22"[..]]);
        assert_eq!(format!("{known:?}"), "Known(redacted)");
    }

    proptest! {
        #[test]
        fn every_long_part_of_a_secret_is_found_at_every_place(
            secret in prop::collection::vec(any::<u8>(), 16..80),
            before in prop::collection::vec(any::<u8>(), 0..40),
            after in prop::collection::vec(any::<u8>(), 0..40),
            cut in (0_usize..64, 16_usize..80),
        ) {
            let known = Known::default().with([&secret[..], b"another secret of this node"]);
            let from = cut.0.min(secret.len() - PART_BYTES);
            let to = (from + cut.1).min(secret.len()).max(from + PART_BYTES);
            let mut text = before.clone();
            text.extend_from_slice(&secret[from..to]);
            text.extend_from_slice(&after);
            let found = ranges(&known, &text);
            let planted = before.len()..before.len() + (to - from);
            prop_assert!(
                planted.clone().all(|at| found.iter().any(|range| range.contains(&at))),
                "{found:?} {planted:?}"
            );
            for encoded in [HEXLOWER.encode(&secret), BASE64_NOPAD.encode(&secret)] {
                prop_assert!(!ranges(&known, encoded.as_bytes()).is_empty());
            }
        }

        #[test]
        fn what_is_no_secret_is_not_found(text in "[a-z0-9 ]{0,200}") {
            let known = Known::default().with([&b"AN UPPER CASE SECRET"[..]]);
            prop_assert!(ranges(&known, text.as_bytes()).is_empty());
        }
    }
}
