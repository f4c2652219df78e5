//! Time as the state machines see it: a number the driver passes in.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment: milliseconds of a monotonic clock since an arbitrary start. Never compared between
/// machines, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Returns the time since an earlier moment; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Goes forward by whole milliseconds, up to the end of time.
    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// As [`Instant::since`].
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let now = Instant(1_000);
        assert_eq!(now + Duration::from_millis(250), Instant(1_250));
        assert_eq!(now + Duration::MAX, Instant(u64::MAX));
        assert_eq!(Instant(1_250) - now, Duration::from_millis(250));
        assert_eq!(now - Instant(1_250), Duration::ZERO);
        let mut later = now;
        later += Duration::from_secs(1);
        assert_eq!(later, Instant(2_000));
    }
}
