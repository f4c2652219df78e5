//! Export of a log, for others to keep and check.
//!
//! [`export()`] writes the entries into one stream, [`export_directory`] the whole log as a C2SP tlog-tiles
//! directory, and [`check_directory`] checks such a directory from nothing but its files and a key.

mod check;
mod directory;

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::str::FromStr;

pub use check::{CheckError, Checked, check_directory};
pub use directory::{DirectoryError, Exported, export_directory};

use crate::verify::{Report, Source, VerifyError, verify_each};

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

/// Writes every entry, verbatim, and returns what a verification found on the way. A line of a
/// tampered log that is no JSON stands in an array as a text.
///
/// # Errors
/// When the log cannot be read or the output cannot be written.
pub fn export(
    source: Source<'_>,
    format: Format,
    out: &mut dyn io::Write,
) -> Result<Report, ExportError> {
    let mut failure = None;
    let mut write = |bytes: &[u8]| match out.write_all(bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    };
    let report = match format {
        Format::Jsonl => verify_each(source, |passing| {
            write(passing.bytes)?;
            write(b"\n")
        })?,
        Format::Json => {
            let mut separator: &[u8] = b"[\n";
            let report = verify_each(source, |passing| {
                write(separator)?;
                separator = b",\n";
                write(&as_json(passing.bytes))
            })?;
            let any = separator == b",\n";
            if write(if any { b"\n]\n" } else { b"[]\n" }).is_break() {
                tracing::debug!("the output of an export ended early");
            }
            report
        }
    };
    match failure {
        Some(error) => Err(ExportError::Write(error)),
        None => Ok(report),
    }
}

fn as_json(bytes: &[u8]) -> Cow<'_, [u8]> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Ok(_) => Cow::Borrowed(bytes),
        Err(_not_json) => {
            let text = serde_json::Value::from(String::from_utf8_lossy(bytes));
            Cow::Owned(text.to_string().into_bytes())
        }
    }
}
