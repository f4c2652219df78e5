//! `openfang audit verify`: whether the log is what was signed.

use openfang_audit::verify::{self, Report, Verdict};
use serde_json::json;

use super::files::Files;
use crate::error::{Exit, Failure};
use crate::render;

pub(super) fn run(files: &Files, as_json: bool) -> Result<Exit, Failure> {
    let report = verify::verify_files(&files.log_path, &files.dir, &files.key, &files.origin)
        .map_err(|why| files.unreadable(&why))?;
    let report = files.judge(report);
    if as_json {
        render::json(&report_json(files, &report))?;
    } else {
        render::line(&report_text(files, &report))?;
    }
    Ok(exit_of(&report))
}

pub(super) fn exit_of(report: &Report) -> Exit {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => Exit::Ok,
        Verdict::Tampered { .. } => Exit::Failure,
    }
}

pub(super) fn warn_if_tampered(files: &Files, report: &Report) {
    match report.verdict {
        Verdict::Empty | Verdict::Intact { .. } => {}
        Verdict::Tampered { .. } => render::message(&report_text(files, report)),
    }
}

fn report_text(files: &Files, report: &Report) -> String {
    let path = files.log_path.display();
    match &report.verdict {
        Verdict::Empty => format!("empty: {path} holds no entries, and none were ever signed"),
        Verdict::Intact {
            entries,
            root,
            unsigned,
            torn_bytes,
            ..
        } => {
            let mut text = format!("intact: {entries} entries in {path}, root {root}");
            if *unsigned > 0 {
                text.push_str(&format!(
                    "\n        {unsigned} of them are not under a signed head yet"
                ));
            }
            if *torn_bytes > 0 {
                text.push_str(&format!(
                    "\n        {torn_bytes} bytes of an unfinished line stand at the end"
                ));
            }
            text
        }
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => {
            let place =
                first_bad_seq.map_or_else(String::new, |seq| format!(", first bad entry {seq}"));
            format!(
                "TAMPERED: {kind}{place}, in {path}\n    mend: restore the file from a copy that verifies"
            )
        }
    }
}

fn report_json(files: &Files, report: &Report) -> serde_json::Value {
    let path = files.log_path.display().to_string();
    match &report.verdict {
        Verdict::Empty => json!({ "verdict": "empty", "path": path, "entries": 0 }),
        Verdict::Intact {
            entries,
            root,
            head,
            unsigned,
            torn_bytes,
        } => json!({
            "verdict": "intact",
            "path": path,
            "entries": entries,
            "root": root.to_string(),
            "checkpoint": head.as_ref().map(|head| head.note.as_str()),
            "unsigned": unsigned,
            "torn_bytes": torn_bytes,
        }),
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => json!({
            "verdict": "tampered",
            "path": path,
            "first_bad_seq": first_bad_seq,
            "what": kind.to_string(),
        }),
    }
}
