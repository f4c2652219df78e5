//! The evidence that is known, and what of it is damaged or gone.

use openfang_audit::Origin;
use openfang_audit::evidence::{Listed, is_file_name};
use openfang_audit::survey::Told;
use serde_json::Value;

use super::super::evidence;
use super::super::files::Files;

/// Names the files that were evidence once, and are not any more: what they have proved is not known.
pub(in crate::commands::audit) fn damaged(files: &Files, evidence: &Listed) -> Vec<String> {
    let named = evidence.worthless.iter();
    let named = named.filter(|(name, _)| is_file_name(name));
    named
        .map(|(name, why)| {
            let place = evidence::place(files, name);
            format!(
                "{place} has the name of evidence, and is damaged: {why}\n    mend: {MEND_EVIDENCE}"
            )
        })
        .collect()
}

/// Names the evidence that the log tells of and that is not there.
pub(in crate::commands::audit) fn lost(files: &Files, told: &[Told]) -> Vec<String> {
    let folder = files.dir.join("evidence");
    let lost = told.iter().filter(|told| !folder.join(&told.file).exists());
    lost.map(|told| {
        let about = told.about.as_deref().unwrap_or_default();
        let own = about
            .parse()
            .is_ok_and(|origin: Origin| origin.belongs_to(&files.node));
        let whom = if own { "THIS NODE" } else { about };
        format!(
            "the log tells of evidence against {whom}, and {} is not there\n    mend: {MEND_EVIDENCE}",
            evidence::place(files, &told.file)
        )
    })
    .collect()
}

/// Whoever has the same evidence tells it again.
const MEND_EVIDENCE: &str = "put the file back from a backup; or move it away, if it is there, and: openfang restart, with another node of the mesh running: nodes tell each other what they know";

/// The evidence for programs.
pub(super) fn evidence_json(known: &Listed) -> Value {
    let valid = known.valid.iter();
    valid
        .map(|(name, found)| evidence::object(name, found))
        .collect()
}

/// The evidence in sentences.
pub(super) fn evidence_text(files: &Files, known: &Listed) -> Vec<String> {
    let mut lines: Vec<String> = known
        .valid
        .iter()
        .map(|(name, found)| {
            let whom = if evidence::is_against(found, &files.origin) {
                "THIS NODE".to_owned()
            } else {
                found.origin().to_string()
            };
            let place = evidence::place(files, name);
            format!("EVIDENCE against {whom}: {} ({place})", found.kind())
        })
        .collect();
    if !known.worthless.is_empty() {
        lines.push(format!(
            "{} files beside the evidence prove nothing: openfang audit evidence",
            known.worthless.len()
        ));
    }
    lines
}
