//! Packages, as the log makes them.

use super::wire::Package;
use crate::proof::{BuildError, Nodes, build_subtree_consistency};
use crate::tile::Bundle;

/// Why a package cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError<E> {
    /// The entries are none, of two bundles, or beyond the end of the upload.
    #[error("the entries are not those of one package")]
    Range,
    /// A hash of the tree cannot be had.
    #[error("a hash of the tree cannot be read")]
    Nodes(#[source] E),
}

/// Makes the package of some entries, which follow each other from `start` on and are of one bundle,
/// with the proof that they belong to the tree of `size` entries.
///
/// # Errors
/// When they are not of one bundle, or a hash cannot be had.
pub fn build_package<N: Nodes + ?Sized>(
    nodes: &N,
    start: u64,
    entries: Bundle,
    size: u64,
) -> Result<Package, PackageError<N::Error>> {
    let mut package = Package {
        start,
        entries,
        proof: Vec::new(),
    };
    if package.entries.is_empty() {
        return Err(PackageError::Range);
    }
    let proof = build_subtree_consistency(nodes, package.subtree(), size);
    package.proof = proof.map_err(|error| match error {
        BuildError::Range => PackageError::Range,
        BuildError::Nodes(error) => PackageError::Nodes(error),
    })?;
    Ok(package)
}
