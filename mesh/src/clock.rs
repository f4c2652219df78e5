//! The one clock of this crate.

use std::time::{Duration, SystemTime};

use openfang_ofp::Instant;

/// Counts from its making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    /// Returns the time as the state machines count it.
    pub(crate) fn now(&self) -> Instant {
        let passed = self.start.elapsed().as_millis();
        Instant(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Returns when a time of the state machines comes, rounded up: never early.
    pub(crate) fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.start + Duration::from_millis(instant.0)
    }
}

/// Returns the wall clock in Unix milliseconds; for showing, never for deciding.
#[expect(
    clippy::disallowed_methods,
    reason = "the one wall clock of the mesh: the time a record was issued is shown to people"
)]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
