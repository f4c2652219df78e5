//! `openfang audit evidence`: proofs that a log or a cosigner has contradicted itself.

use std::path::Path;

use openfang_audit::Origin;
use openfang_audit::cosign::TreeHead;
use openfang_audit::evidence::{
    Accused, EVIDENCE_BYTES_MAX, Evidence as Found, EvidenceError, EvidenceKind, Listed,
};
use openfang_audit::note::NoteError;
use openfang_audit::survey::survey;
use serde_json::{Value, json};

use super::files::{Files, read, read_policy};
use super::verify::{damaged, lost};
use crate::args::{Evidence, EvidenceFile, EvidenceVerify};
use crate::error::{Exit, Failure};
use crate::render;

/// How many files are looked at: a node keeps fewer.
const FILES_MAX: usize = 4096;

pub(super) fn run(command: &Evidence, files: &Files) -> Result<Exit, Failure> {
    match &command.verify {
        Some(EvidenceVerify::Verify(args)) => verify(args),
        None => list(files, command.json.json),
    }
}

/// Reads what is kept beside the log.
pub(super) fn known(files: &Files) -> Result<Listed, Failure> {
    let folder = files.dir.join("evidence");
    openfang_audit::evidence::list(&folder, FILES_MAX).map_err(|why| {
        let what = format!("cannot list the evidence in {}: {why}", folder.display());
        Failure::new(Exit::Usage, what).mend(format!("ls -la {}", folder.display()))
    })
}

/// Tells whether the log with this name, in whichever epoch, or its node as a cosigner, is accused.
pub(super) fn is_against(found: &Found, origin: &Origin) -> bool {
    let stem = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let accused = match found.accused() {
        Accused::Log(key) => stem(key.name()),
        Accused::Cosigner(key) => stem(key.name()),
    };
    accused == stem(origin.as_str())
}

/// Lists what is kept. What the log tells of and is gone or damaged is not known, which is no good end.
fn list(files: &Files, as_json: bool) -> Result<Exit, Failure> {
    let known = known(files)?;
    let mut incomplete = damaged(files, &known);
    incomplete.extend(not_there(files));
    let exit = if incomplete.is_empty() {
        Exit::Ok
    } else {
        Exit::Usage
    };
    if as_json {
        render::json(&listed_json(&known, &incomplete, exit))?;
        return Ok(exit);
    }
    for (name, why) in &known.worthless {
        render::message(&format!(
            "{}: no evidence: {}",
            render::cell(name),
            render::cell(&why.to_string())
        ));
    }
    if known.left_out > 0 {
        render::message(&format!(
            "{} more files were not looked at: no node keeps so many. Move those that are no evidence out of {}",
            known.left_out,
            files.dir.join("evidence").display()
        ));
    }
    for why in &incomplete {
        render::message(&format!("INCOMPLETE: {why}"));
    }
    if known.valid.is_empty() {
        if incomplete.is_empty() {
            render::message(
                "no evidence is known: no log and no cosigner was seen to contradict itself",
            );
        }
        return Ok(exit);
    }
    let rows: Vec<Vec<String>> = known
        .valid
        .iter()
        .map(|(name, found)| {
            vec![
                found.kind().to_string(),
                accused(found),
                found.origin().to_string(),
                sizes(found),
                name.clone(),
            ]
        })
        .collect();
    render::line(&render::table(
        &["KIND", "ACCUSED", "LOG", "SIZES", "FILE"],
        &rows,
    ))?;
    Ok(exit)
}

/// Reads the log for the evidence that it tells of, and says which of it is not there.
fn not_there(files: &Files) -> Vec<String> {
    match survey(files.source(), &[], &mut |_at| {}) {
        Ok(surveyed) => lost(files, &surveyed.evidence),
        Err(why) => {
            let why = files.unreadable(&why);
            vec![format!(
                "the log cannot be read, which tells what evidence there was: {}\n    mend: openfang audit verify",
                why.what()
            )]
        }
    }
}

fn listed_json(known: &Listed, incomplete: &[String], exit: Exit) -> Value {
    let valid = known
        .valid
        .iter()
        .map(|(name, found)| object(name, found))
        .collect::<Vec<Value>>();
    let worthless = known
        .worthless
        .iter()
        .map(|(name, why)| json!({ "file": name, "reason": why.to_string() }))
        .collect::<Vec<Value>>();
    json!({
        "evidence": valid,
        "worthless": worthless,
        "left_out": known.left_out,
        "incomplete": (!incomplete.is_empty()).then(|| incomplete.join("\n")),
        "exit": exit as u8,
    })
}

/// Checks a file that was handed in, with nothing but the file and, if given, a policy.
pub(super) fn verify(args: &EvidenceFile) -> Result<Exit, Failure> {
    let bytes = read(&args.file, EVIDENCE_BYTES_MAX)?;
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    let name = args.file.display().to_string();
    let found = match Found::open(&bytes) {
        Ok(found) => found,
        Err(why) if is_unreadable(&why) => {
            return Err(Failure::new(Exit::Usage, format!("{name}: {why}")).mend(
                "the file as a node has written it, byte for byte: audit.d/evidence/*.json",
            ));
        }
        Err(why) => {
            if args.json.json {
                render::json(&json!({ "verdict": "worthless", "reason": why.to_string() }))?;
            } else {
                render::line(&format!("PROVES NOTHING: {why}"))?;
            }
            return Ok(Exit::Failure);
        }
    };
    let concerns = policy.is_none_or(|policy| found.is_known_to(&policy));
    if args.json.json {
        let mut shown = object(&found.file_name(), &found);
        let verdict = if concerns { "holds" } else { "unknown_key" };
        shown["verdict"] = verdict.into();
        render::json(&shown)?;
    } else {
        render::line(&text(&found, concerns))?;
    }
    Ok(if concerns { Exit::Ok } else { Exit::Failure })
}

/// Whether a file is no evidence in form, as opposed to one that proves nothing.
fn is_unreadable(why: &EvidenceError) -> bool {
    match why {
        EvidenceError::TooLong
        | EvidenceError::Form
        | EvidenceError::Key(_)
        | EvidenceError::Head(_)
        | EvidenceError::Note(NoteError::TooLong | NoteError::Form | NoteError::SignatureLine) => {
            true
        }
        EvidenceError::Note(NoteError::UnknownKey | NoteError::Signature)
        | EvidenceError::OtherLog
        | EvidenceError::NoConflict
        | EvidenceError::Path(_) => false,
    }
}

fn text(found: &Found, concerns: bool) -> String {
    let what = match found.kind() {
        EvidenceKind::Equivocation => "the log has signed two roots for one size",
        EvidenceKind::Fork => {
            "the log has signed two heads of which the larger one does not begin with the smaller one"
        }
        EvidenceKind::Cosigner => {
            "the cosigner has cosigned two roots for one size, or a smaller size at a later time"
        }
    };
    let verdict = if concerns {
        "proves"
    } else {
        "DOES NOT CONCERN the policy, which does not know the key; it proves"
    };
    let [a, b] = found.heads();
    let at = found.differs_at().map_or_else(String::new, |at| {
        format!(
            "\nthey differ in the part of height {} with number {}",
            at.level, at.index
        )
    });
    format!(
        "{verdict}: {what}\naccused  {}\nlog      {}\nhead a   {}\nhead b   {}{at}",
        accused(found),
        found.origin(),
        head(a),
        head(b)
    )
}

fn accused(found: &Found) -> String {
    match found.accused() {
        Accused::Log(key) => key.to_string(),
        Accused::Cosigner(key) => key.to_string(),
    }
}

fn head(head: &TreeHead) -> String {
    format!("{} entries, root {}", head.size, head.root)
}

fn sizes(found: &Found) -> String {
    let [a, b] = found.heads();
    format!("{} {}", a.size, b.size)
}

/// One evidence for programs.
pub(super) fn object(name: &str, found: &Found) -> Value {
    let heads = found
        .heads()
        .map(|head| json!({ "size": head.size, "root": head.root.to_string() }));
    json!({
        "file": name,
        "kind": found.kind().to_string(),
        "accused": accused(found),
        "origin": found.origin().to_string(),
        "heads": heads,
    })
}

/// Runs without a home.
pub(super) fn run_anywhere(command: &Evidence) -> Option<Result<Exit, Failure>> {
    let EvidenceVerify::Verify(args) = command.verify.as_ref()?;
    Some(verify(args))
}

/// Names the file of an evidence.
pub(super) fn place(files: &Files, name: &str) -> String {
    Path::new(&files.dir)
        .join("evidence")
        .join(name)
        .display()
        .to_string()
}
