//! A small seeded generator, so that a run can be repeated exactly.
//!
//! xoshiro256++ (Blackman and Vigna 2019). For jitter and choice of peers only, never for keys.

use std::time::Duration;

/// Draws numbers that follow from a seed.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// Starts from 32 bytes.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = u64::from_be_bytes(bytes.try_into().unwrap_or_default());
        }
        // The generator cannot leave the all-zero state.
        if state == [0; 4] {
            state[0] = 0x9e37_79b9_7f4a_7c15;
        }
        Self { state }
    }

    /// Starts from one number, spread with SplitMix64.
    #[must_use]
    pub fn from_number(seed: u64) -> Self {
        let mut at = seed;
        Self {
            state: [(); 4].map(|()| {
                at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(at)
            }),
        }
    }

    /// Draws 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [mut a, mut b, mut c, mut d] = self.state;
        let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        c ^= a;
        d ^= b;
        b ^= c;
        a ^= d;
        c ^= shifted;
        self.state = [a, b, c, d.rotate_left(45)];
        drawn
    }

    /// Draws a number below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Draws an index into something of length `len`; zero when it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        let bound = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// Draws a duration from `low` to `high`, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low);
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1);
        low + Duration::from_millis(self.below(millis.saturating_add(1)))
    }

    /// Says yes with the probability `parts` in 65,536.
    pub fn chance(&mut self, parts: u32) -> bool {
        self.below(1 << 16) < u64::from(parts)
    }

    /// Moves `count` random elements to the front.
    pub fn choose<T>(&mut self, from: &mut [T], count: usize) {
        for at in 0..count.min(from.len()) {
            let with = at + self.index(from.len() - at);
            from.swap(at, with);
        }
    }

    /// Draws 32 bytes, the seed of another generator.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        for bytes in seed.chunks_exact_mut(8) {
            bytes.copy_from_slice(&self.bits().to_be_bytes());
        }
        seed
    }
}

/// The finaliser of SplitMix64: spreads every bit over all others.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
