//! Export of a log, for others to keep and check.

use std::io;
use std::str::FromStr;

use crate::verify::{Report, Source, VerifyError};

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON array of the entries, each as it stands.
    Json,
    /// The lines as they stand.
    Jsonl,
}

/// Why a text names no form of export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown format: expected json or jsonl")]
pub struct UnknownFormat;

/// Why an export was not finished.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// The output cannot be written.
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            _other => Err(UnknownFormat),
        }
    }
}

/// Writes every entry, verbatim, and returns what a verification found on the way.
///
/// # Errors
/// When the log cannot be read or the output cannot be written.
pub fn export(
    source: Source<'_>,
    format: Format,
    out: &mut dyn io::Write,
) -> Result<Report, ExportError> {
    unimplemented!()
}
