//! A token bucket: so many a second, so many at once.

use std::time::Duration;

use crate::Instant;

/// Thousandths of a token, so that a rate per second and a clock in milliseconds fit.
const MILLI: u64 = 1_000;

/// Tokens left, and when they were counted. The limits are passed in: they are the same for many.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    spent: u32,
    at: Instant,
}

impl Bucket {
    /// Tells whether a token is left.
    pub(super) fn has(&self, (rate, burst): (u32, u32), now: Instant) -> bool {
        self.spent_at(rate, now) + MILLI <= u64::from(burst) * MILLI
    }

    /// Takes a token. Returns whether there was one.
    pub(super) fn take(&mut self, limits: (u32, u32), now: Instant) -> bool {
        if !self.has(limits, now) {
            return false;
        }
        let spent = self.spent_at(limits.0, now) + MILLI;
        self.spent = u32::try_from(spent).unwrap_or(u32::MAX);
        self.at = now;
        true
    }

    /// Returns when there will be a token.
    pub(super) fn ready(&self, (rate, burst): (u32, u32), now: Instant) -> Instant {
        let over = (self.spent_at(rate, now) + MILLI).saturating_sub(u64::from(burst) * MILLI);
        now + Duration::from_millis(over.div_ceil(u64::from(rate.max(1))))
    }

    fn spent_at(&self, rate: u32, now: Instant) -> u64 {
        let millis = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        u64::from(self.spent).saturating_sub(millis.saturating_mul(u64::from(rate)))
    }
}
