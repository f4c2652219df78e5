//! `openfang audit export`: the whole log, for others to keep and check.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use openfang_audit::SignedHead;
use openfang_audit::export::{self, DirectoryError, ExportError, Exported, export_directory};
use serde_json::json;

use super::files::{Files, Kept, cannot_write, note_missing_quorum};
use super::verify::{exit_of, warn_if_tampered};
use crate::args::{Export, Format};
use crate::error::{Exit, Failure};
use crate::render;
use crate::render::progress::Bar;

pub(super) fn run(files: &Files, args: &Export) -> Result<Exit, Failure> {
    let format = match (args.format, &args.out) {
        (Format::Json, _) => export::Format::Json,
        (Format::Jsonl, _) => export::Format::Jsonl,
        (Format::Tlog, Some(out)) => return directory(files, out, args.json.json),
        (Format::Tlog, None) => {
            let what = "a directory is not written to stdout";
            return Err(Failure::new(Exit::Usage, what).mend("--out DIR, empty or new"));
        }
    };
    match &args.out {
        None => stream(files, format, args.json.json, &mut io::stdout().lock()),
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.map_err(|why| cannot_write(path, &why))?;
            let mut out = io::BufWriter::new(file);
            let exit = stream(files, format, args.json.json, &mut out)?;
            out.flush().map_err(|why| unwritten(path, &why))?;
            if args.json.json {
                render::json(&json!({ "out": path.display().to_string() }))?;
            }
            Ok(exit)
        }
    }
}

/// Writes the entries one behind the other.
fn stream(
    files: &Files,
    format: export::Format,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let mut counted = Counted {
        out,
        bar: Bar::new("exporting", "bytes", as_json),
        done: 0,
        total: files.bytes(),
    };
    let exported = export::export(files.source(), format, &mut counted);
    counted.bar.finish();
    let report = exported.map_err(|why| match why {
        ExportError::Write(why) => why.into(),
        ExportError::Read(why) => files.unreadable(&why),
    })?;
    let report = files.judge(report);
    warn_if_tampered(files, &report);
    Ok(exit_of(&report))
}

/// Tells how much was written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bar: Bar,
    done: u64,
    total: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.done += u64::try_from(written).unwrap_or_default();
        self.bar.show(self.done, self.total.max(self.done));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a directory under the newest cosigned head, or where there is none, the newest that is signed.
fn directory(files: &Files, out: &Path, as_json: bool) -> Result<Exit, Failure> {
    let head = choose_head(files)?;
    let signed = files.signed()?;
    // The head of no entries is signed before there is any.
    if head.is_none() && signed == Some(0) && files.written() > 0 {
        return Err(refused(files, out, &DirectoryError::Unsigned));
    }
    let mut bar = Bar::new("exporting", "entries", as_json);
    let exported = export_directory(files.source(), head.as_ref(), out, &mut |at| {
        bar.show(at.done, at.total);
    });
    bar.finish();
    let exported = exported.map_err(|why| refused(files, out, &why))?;
    let unsigned = files.written().saturating_sub(signed.unwrap_or(u64::MAX));
    if unsigned > 0 {
        render::message(&format!(
            "{unsigned} entries are left out: no signed head covers them yet"
        ));
    }
    if head.is_none() {
        render::message(
            "signed by this node alone: no head that enough witnesses have cosigned is there",
        );
    }
    tell(out, &exported, head.is_some(), as_json)?;
    Ok(Exit::Ok)
}

fn choose_head(files: &Files) -> Result<Option<SignedHead>, Failure> {
    let kept = files.cosigned()?;
    note_missing_quorum(&kept);
    let size = |kept: &Kept| match kept {
        Kept::Head(head) => head.checkpoint.size,
        Kept::Nothing | Kept::Bad(_) => 0,
    };
    let left_out = size(&files.published()?).saturating_sub(size(&kept));
    match kept {
        Kept::Head(head) => {
            if left_out > 0 {
                render::message(&format!(
                    "{left_out} entries are left out: they are signed, and not under the cosigned head yet"
                ));
            }
            Ok(Some(head))
        }
        Kept::Nothing | Kept::Bad(_) => Ok(None),
    }
}

fn tell(out: &Path, exported: &Exported, cosigned: bool, as_json: bool) -> Result<(), Failure> {
    let head = &exported.head.checkpoint;
    let out = out.display().to_string();
    if as_json {
        render::json(&json!({
            "out": out,
            "origin": head.origin.to_string(),
            "entries": head.size,
            "root": head.root.to_string(),
            "files": exported.files,
            "cosigned": cosigned,
        }))?;
    } else {
        render::line(&format!(
            "exported {} entries to {out}: checkpoint and {} files below tile/, root {}",
            head.size, exported.files, head.root
        ))?;
    }
    Ok(())
}

fn refused(files: &Files, out: &Path, why: &DirectoryError) -> Failure {
    match why {
        DirectoryError::Read(why) => files.unreadable(why),
        DirectoryError::NotEmpty { .. } => {
            Failure::new(Exit::Usage, why.to_string()).mend("--out DIR, empty or new")
        }
        DirectoryError::Unsigned => {
            Failure::new(Exit::NotFound, why.to_string()).mend(files.mend_unsigned())
        }
        DirectoryError::Tampered(_) | DirectoryError::OtherHead => {
            let mend = "openfang audit verify; --format jsonl exports the lines as they are";
            Failure::new(Exit::Failure, why.to_string()).mend(mend)
        }
        DirectoryError::Write { source, .. } => unwritten(out, source),
    }
}

fn unwritten(out: &Path, why: &io::Error) -> Failure {
    let what = format!("cannot write {}: {why}", out.display());
    Failure::new(Exit::Usage, what).mend(format!("df -h, ls -ld {}", out.display()))
}
