//! The one wall clock of the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the milliseconds since 1970, UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "the one wall clock of this driver"
)]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
