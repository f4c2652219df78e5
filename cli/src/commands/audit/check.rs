//! `openfang audit check`: a proof that somebody handed in, checked with nothing but the file and a policy.

use std::path::Path;

use openfang_audit::cosign::TreeHead;
use openfang_audit::policy::Policy;
use openfang_audit::rfc3339;
use openfang_audit::tile::ENTRY_BYTES_MAX;
use openfang_audit::tlog_proof::{CheckError, Shown, TLOG_PROOF_BYTES_MAX, TlogProof, Verdict};
use serde_json::{Value, json};

use super::files::{read, read_policy};
use crate::args::Check;
use crate::error::{Exit, Failure};
use crate::render;

/// Checks a proof under the given policy, or the one of this node.
pub(super) fn run(
    args: &Check,
    own_policy: impl FnOnce() -> Result<Policy, Failure>,
) -> Result<Exit, Failure> {
    let file = read(&args.file, TLOG_PROOF_BYTES_MAX)?;
    let proof = TlogProof::parse(&file).map_err(|why| {
        Failure::new(Exit::Usage, format!("{}: {why}", args.file.display()))
            .mend("openfang audit prove SEQ makes one")
    })?;
    let policy = match &args.policy {
        Some(path) => read_policy(path)?,
        None => own_policy().map_err(|why| {
            let what = format!(
                "no policy was given, and there is none of a node here: {}",
                why.what()
            );
            Failure::new(Exit::Usage, what).mend(
                "--policy FILE, with what `openfang audit policy` prints on the node of the log",
            )
        })?,
    };
    let entry = match (&args.line, proof.extra()) {
        (Some(line), _) => line_of(line)?,
        (None, Some(extra)) => extra.to_vec(),
        (None, None) => {
            let what =
                "the proof does not hold the entry itself, so that there is nothing to check";
            return Err(Failure::new(Exit::Usage, what)
                .mend("--line with the line of the entry, as a file or a text"));
        }
    };
    let judged = proof.check(&entry, &policy);
    if args.json.json {
        render::json(&as_json(&proof, &entry, &judged))?;
    } else {
        render::line(&as_text(&proof, &entry, &judged))?;
    }
    Ok(match judged {
        Ok(Verdict::Proven(_)) => Exit::Ok,
        Ok(Verdict::BelowQuorum(_)) | Err(_) => Exit::Failure,
    })
}

/// Reads the line, from a file or as it was typed. One line feed at its end belongs to the file.
fn line_of(given: &str) -> Result<Vec<u8>, Failure> {
    let mut line = if given.starts_with('{') {
        given.as_bytes().to_vec()
    } else {
        read(Path::new(given), ENTRY_BYTES_MAX + 1).map_err(|why| {
            Failure::new(why.exit(), format!("--line: {}", why.what())).mend(
                "--line with the line itself, which begins with {, or with a file that holds it",
            )
        })?
    };
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > ENTRY_BYTES_MAX {
        let what = format!("{given}: no entry is longer than {ENTRY_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, what)
            .mend("--line with the one line of the entry, not the whole log"));
    }
    Ok(line)
}

fn as_text(proof: &TlogProof, entry: &[u8], judged: &Result<Verdict, CheckError>) -> String {
    let shown = render::cell(&String::from_utf8_lossy(entry));
    match judged {
        Ok(Verdict::Proven(found)) => {
            let under = match found.evaluation.cosignatures.len() {
                0 => "signed by the log alone: the policy asks for no witness".to_owned(),
                _some => cosigners(found),
            };
            format!("holds: {}\n{under}\n{shown}", place(found))
        }
        Ok(Verdict::BelowQuorum(found)) => format!(
            "DOES NOT HOLD: below the quorum of the policy, so that the log may show others something else\n\
             {}\n{}\n{shown}",
            place(found),
            cosigners(found)
        ),
        Err(why) => format!(
            "DOES NOT HOLD: {why}\nsaid to be entry {} of {}\n{shown}",
            proof.index(),
            proof.head().origin
        ),
    }
}

fn place(found: &Shown) -> String {
    let TreeHead {
        origin, size, root, ..
    } = &found.evaluation.head;
    format!(
        "entry {} of {origin}, under its head of {size} entries, root {root}",
        found.index
    )
}

fn cosigners(found: &Shown) -> String {
    let all = &found.evaluation.cosignatures;
    if all.is_empty() {
        return "cosigned by no witness of the policy".to_owned();
    }
    let each: Vec<String> = all
        .iter()
        .map(|one| format!("  {} at {}", one.witness, time_of(one.time)))
        .collect();
    format!("cosigned by\n{}", each.join("\n"))
}

fn time_of(seconds: u64) -> String {
    rfc3339(seconds.saturating_mul(1_000_000))
}

fn as_json(proof: &TlogProof, entry: &[u8], judged: &Result<Verdict, CheckError>) -> Value {
    let head = proof.head();
    let (verdict, reason) = match judged {
        Ok(Verdict::Proven(_)) => ("holds", None),
        Ok(Verdict::BelowQuorum(_)) => ("below_quorum", None),
        Err(why) => ("fails", Some(why.to_string())),
    };
    let cosigned: Vec<Value> = match judged {
        Ok(Verdict::Proven(found) | Verdict::BelowQuorum(found)) => found
            .evaluation
            .cosignatures
            .iter()
            .map(|one| {
                let witness = one.witness.to_string();
                json!({ "witness": witness, "key": one.key.to_string(), "time": time_of(one.time) })
            })
            .collect(),
        Err(_) => Vec::new(),
    };
    json!({
        "verdict": verdict,
        "reason": reason,
        "origin": head.origin.to_string(),
        "index": proof.index(),
        "size": head.size,
        "root": head.root.to_string(),
        "cosigned": cosigned,
        "line": String::from_utf8_lossy(entry),
    })
}
