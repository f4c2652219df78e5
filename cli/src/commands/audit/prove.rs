//! `openfang audit prove`: a file that shows anyone that an entry is in this log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use openfang_audit::SignedHead;
use openfang_audit::note::Note;
use openfang_audit::tlog_proof::{ProveFileError, Proved, prove_entry};
use openfang_audit::verify::Verdict;

use super::files::{Files, Kept, MEND_KEPT, cannot_write, note_missing_quorum};
use crate::args::Prove;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;
use crate::render::progress::Bar;

/// How often a second it is looked whether the witnesses have cosigned.
const LOOKS_PER_SECOND: u64 = 20;

pub(super) fn run(files: &Files, args: &Prove, context: &Context) -> Result<Exit, Failure> {
    wait_for_witnesses(files, args, context)?;
    let head = choose_head(files, args.seq)?;
    let mut bar = Bar::new("proving", "entries", false);
    let proved = prove_entry(files.source(), &head, args.seq, &mut |at| {
        bar.show(at.done, at.total);
    });
    bar.finish();
    let proved = proved.map_err(|why| refused(files, &why))?;
    warn_behind(files, &proved, &head);
    let mut proof = proved.proof;
    if args.without_line {
        proof = proof.with_extra(&[]);
    }
    let text = proof.to_string();
    match &args.out {
        None => render::piece(&text)?,
        Some(path) => write_new(path, &text)?,
    }
    Ok(Exit::Ok)
}

/// An entry that was just written is cosigned a moment later: waits for that, as long as the node runs and
/// its log has witnesses.
fn wait_for_witnesses(files: &Files, args: &Prove, context: &Context) -> Result<(), Failure> {
    for look in 0..args.wait.saturating_mul(LOOKS_PER_SECOND) {
        if !is_to_come(files, args.seq, context)? {
            break;
        }
        if look == LOOKS_PER_SECOND {
            render::message(&format!(
                "waiting up to {} s for a head over entry {} that enough witnesses have cosigned",
                args.wait, args.seq
            ));
        }
        std::thread::sleep(Duration::from_secs(1) / LOOKS_PER_SECOND as u32);
    }
    Ok(())
}

fn is_to_come(files: &Files, seq: u64, context: &Context) -> Result<bool, Failure> {
    match files.cosigned()? {
        Kept::Head(head) if head.checkpoint.size > seq => return Ok(false),
        Kept::Bad(_) => return Ok(false),
        Kept::Head(_) | Kept::Nothing => {}
    }
    let witnessed = files
        .kept_policy()?
        .is_some_and(|policy| !policy.witnesses().is_empty());
    Ok(witnessed && files.written() > seq && context.daemon().is_some())
}

/// The newest cosigned head where it covers the entry, else the newest that is signed, which is said.
fn choose_head(files: &Files, seq: u64) -> Result<SignedHead, Failure> {
    let covers = |head: &SignedHead| head.checkpoint.size > seq;
    let cosigned = files.cosigned()?;
    note_missing_quorum(&cosigned);
    let cosigned_size = match cosigned {
        Kept::Head(head) if covers(&head) => {
            render::message(&quorum_text(files, &head));
            return Ok(head);
        }
        Kept::Head(head) => Some(head.checkpoint.size),
        Kept::Nothing | Kept::Bad(_) => None,
    };
    match files.published()? {
        Kept::Head(head) if covers(&head) => {
            render::message(&match cosigned_size {
                None => format!(
                    "signed by this node alone: {}, so that the proof says nothing against this node itself",
                    why_alone(files)
                ),
                Some(size) => format!(
                    "signed by this node alone: the newest cosigned head has {size} entries, and does not \
                     cover entry {seq} yet"
                ),
            });
            Ok(head)
        }
        Kept::Head(head) => Err(not_covered(files, seq, head.checkpoint.size)),
        Kept::Nothing => Err(Failure::new(
            Exit::NotFound,
            "no head of this log is signed yet, and nothing can be proved",
        )
        .mend(files.mend_unsigned())),
        Kept::Bad(why) => Err(Failure::new(
            Exit::Failure,
            format!("the published head cannot be used: {why}"),
        )
        .mend("openfang audit repair, which makes it again from the signing floor")),
    }
}

/// Says by which policy the head has its quorum: a policy of another time may ask for other witnesses.
fn quorum_text(files: &Files, head: &SignedHead) -> String {
    const OLDER: &str = "check it with that policy (openfang audit policy): one that was handed out when the witnesses were others may ask for others";
    let policy = match files.kept_policy() {
        Ok(Some(policy)) => policy,
        Ok(None) => {
            let why = files.missing_policy().unwrap_or_default();
            return format!("who has to cosign is not known: {why}\n    mend: {MEND_KEPT}");
        }
        Err(why) => return format!("who has to cosign is not known: {}", why.what()),
    };
    let note = head.note.parse::<Note>();
    match note.ok().and_then(|note| policy.evaluate(&note).ok()) {
        Some(found) if found.reached => {
            let by: Vec<String> = found
                .cosignatures
                .iter()
                .map(|one| one.witness.to_string())
                .collect();
            format!(
                "cosigned by {} of the {} witnesses of the policy of now, which reaches its quorum: {}\n    {OLDER}",
                by.len(),
                policy.witnesses().len(),
                by.join(" ")
            )
        }
        Some(found) => format!(
            "BELOW QUORUM: {} of the {} witnesses of the policy of now have cosigned, and it asks for more",
            found.cosignatures.len(),
            policy.witnesses().len()
        ),
        None => format!("the policy of now cannot judge the cosigned head\n    mend: {MEND_KEPT}"),
    }
}

/// Why no cosigned head is there.
fn why_alone(files: &Files) -> String {
    let witnesses = files.kept_policy().ok().flatten();
    match witnesses.map_or(0, |policy| policy.witnesses().len()) {
        0 => files
            .missing_policy()
            .unwrap_or_else(|| "no witness has cosigned a head of this log".to_owned()),
        of => format!(
            "no head that enough of its {of} witnesses have cosigned is there (none was, or audit.d/cosigned is missing or damaged)"
        ),
    }
}

fn not_covered(files: &Files, seq: u64, size: u64) -> Failure {
    let what = format!(
        "entry {seq} is not under a signed head: the newest has {size} entries, the first of them is 0"
    );
    let failure = Failure::new(Exit::NotFound, what);
    if seq < files.written() {
        return failure.mend(files.mend_unsigned());
    }
    failure.mend("openfang audit show --limit 1 for the last number")
}

fn refused(files: &Files, why: &ProveFileError) -> Failure {
    match why {
        ProveFileError::Read(why) => files.unreadable(why),
        ProveFileError::NotCovered { .. } => Failure::new(Exit::NotFound, why.to_string()),
        ProveFileError::Tampered { .. } | ProveFileError::Head => {
            Failure::new(Exit::Failure, why.to_string()).mend("openfang audit verify")
        }
    }
}

fn warn_behind(files: &Files, proved: &Proved, head: &SignedHead) {
    let report = files.judge(proved.report.clone());
    if let Verdict::Tampered { kind, .. } = report.verdict {
        render::message(&format!(
            "the proof holds, and the log is TAMPERED behind its first {} entries: {kind} (openfang audit verify)",
            head.checkpoint.size
        ));
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|why| cannot_write(path, &why))
}
