//! Entries of the own log, packed for a mirror.

use openfang_audit::mirror::{
    PACKAGES_MAX, PackageError, UploadHeader, WireError, build_package, package_ranges,
};
use openfang_audit::{Log, ServeError};
use openfang_ofp::exchange::QUESTION_BODY_MAX;

/// Why entries cannot be packed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ServeError),
    /// A proof cannot be made.
    #[error(transparent)]
    Package(#[from] PackageError<ServeError>),
    /// What was asked for cannot be written as a request.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The entries of one bundle are longer than a question may be.
    #[error("entry {seq} and the ones behind it are too long to be uploaded")]
    TooLong {
        /// The first of them.
        seq: u64,
    },
}

/// Packs as many entries as one request may hold, from the start of the upload on. Reads the file.
pub(super) fn pack(log: &Log, header: &UploadHeader) -> Result<Vec<u8>, PackError> {
    let tiles = log.tiles();
    let mut body = Vec::new();
    header.encode(&mut body)?;
    for (start, end) in package_ranges(header.start, header.end).take(PACKAGES_MAX) {
        let entries = tiles.entries(start, end)?;
        let package = build_package(&tiles, start, entries, header.end)?;
        let before = body.len();
        package.encode(&mut body)?;
        if body.len() > QUESTION_BODY_MAX {
            body.truncate(before);
            if start == header.start {
                return Err(PackError::TooLong { seq: start });
            }
            break;
        }
    }
    Ok(body)
}
