//! The one source of random bytes of this crate: the operating system's.

use rand::TryRng as _;
use rand::rngs::SysRng;

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gave no random bytes")]
pub(crate) struct NoEntropy;

/// Draws 32 bytes.
///
/// # Errors
/// When the system has none to give; nothing that needs them may go on then.
pub(crate) fn bytes() -> Result<[u8; 32], NoEntropy> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_why| NoEntropy)?;
    Ok(bytes)
}
