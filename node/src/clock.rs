//! The one clock and the one random source of a node.

use std::time::{SystemTime, UNIX_EPOCH};

use openfang_audit::Clock;
use rand::TryRng as _;
use rand::rngs::SysRng;

/// The clock of the machine.
#[derive(Debug, Clone, Copy)]
pub struct MachineClock;

impl MachineClock {
    /// Returns microseconds since the beginning of 1970, UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one clock of the node")]
    pub fn now_micros(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

impl Clock for MachineClock {
    fn unix_micros(&self) -> u64 {
        self.now_micros()
    }

    fn monotonic_micros(&self) -> u64 {
        // Goes on while the machine sleeps, as the wall clock does.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
    }
}

/// The system has no random numbers to give: nothing that needs a key can go on.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers: {0}")]
pub struct NoRandom(#[source] rand::rngs::SysError);

/// Draws bytes from the system's cryptographic source.
///
/// # Errors
/// [`NoRandom`] when there is none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(NoRandom)?;
    Ok(bytes)
}

/// Writes a moment as RFC 3339, in UTC, to the second.
#[must_use]
pub fn rfc3339(unix_micros: u64) -> String {
    let seconds = i64::try_from(unix_micros / 1_000_000).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| {
            at.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_767_225_599_999_999), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn random_bytes_differ() {
        let draw = || random::<32>().expect("random bytes");
        assert_ne!(draw(), draw());
    }
}
