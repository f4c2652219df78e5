//! `openfang keygen`: a new secret, to stdout alone.

use openfang_id::{ApiKey, SharedSecret};
use openfang_node::clock;
use zeroize::Zeroizing;

use crate::error::{Exit, Failure};
use crate::render;

/// Prints an API key, or a network secret.
pub(crate) fn run(network: bool) -> Result<Exit, Failure> {
    let bytes = random()?;
    if network {
        render::line(SharedSecret::from_random(&bytes).expose())?;
    } else {
        render::line(ApiKey::from_random(&bytes).expose())?;
    }
    Ok(Exit::Ok)
}

/// Draws the bytes of a secret.
pub(crate) fn random() -> Result<Zeroizing<[u8; 32]>, Failure> {
    clock::random()
        .map(Zeroizing::new)
        .map_err(|why| Failure::new(Exit::Failure, why.to_string()))
}
