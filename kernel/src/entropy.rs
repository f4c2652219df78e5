//! The one source of random numbers of the kernel: ids, and the spread of pauses.

use rand::RngExt as _;

/// Draws 16 bytes.
#[expect(
    clippy::disallowed_methods,
    reason = "the one source of random numbers of this driver"
)]
pub(crate) fn bytes16() -> [u8; 16] {
    rand::rng().random()
}

/// Draws a number from 0 to 1, 1 excluded.
#[expect(
    clippy::disallowed_methods,
    reason = "the one source of random numbers of this driver"
)]
pub(crate) fn unit() -> f64 {
    rand::rng().random()
}
