//! `openfang audit export`: the whole log, for others to keep and check.

use std::io;

use openfang_audit::export::{self, ExportError};

use super::files::Files;
use super::verify::{exit_of, warn_if_tampered};
use crate::args::{Export, Format};
use crate::error::{Exit, Failure};

pub(super) fn run(files: &Files, args: &Export) -> Result<Exit, Failure> {
    let format = match args.format {
        Format::Json => export::Format::Json,
        Format::Jsonl => export::Format::Jsonl,
    };
    let report = export::export(files.source(), format, &mut io::stdout().lock()).map_err(
        |why| match why {
            ExportError::Write(why) => why.into(),
            ExportError::Read(why) => files.unreadable(&why),
        },
    )?;
    let report = files.judge(report);
    warn_if_tampered(files, &report);
    Ok(exit_of(&report))
}
