//! What helps when a log is not what was signed: by what was done to it, and who has a copy.

use openfang_audit::storage::without_name;
use openfang_audit::survey::Fit;
use openfang_audit::verify::{DamageKind, Report, Verdict};
use openfang_audit::{Checkpoint, HeadError, SignedHead};

use super::super::files::Files;
use super::own::{Known, Own};
use crate::render;

/// A peer that holds a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// What it is called.
    pub(super) name: String,
    /// How many entries it holds.
    pub(super) size: u64,
}

/// What the advice depends on beside the damage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    /// Who has a copy.
    pub(super) copies: &'a [Copy],
    /// Whether the log has signed other entries than others hold, and not only more or fewer.
    pub(super) two_histories: bool,
    /// What the node itself knows.
    pub(super) own: &'a Known,
}

/// Says what to do about a log that is not what was signed.
pub(super) fn of_damage(files: &Files, report: &Report, standing: Standing<'_>) -> String {
    let copies = standing.copies;
    let (kind, lost) = match report.verdict {
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => (kind, first_bad_seq.is_none() && kind == DamageKind::Missing),
        // It is what was signed, and not what others hold.
        Verdict::Empty | Verdict::Intact { .. } => return of_rollback(files, standing),
    };
    if lost && files.network_on {
        return "    mend: openfang start, which asks the peers for the log before anything is signed"
            .to_owned();
    }
    if lost {
        return "    mend: put the log back from a backup that verifies; openfang start begins a new one, in the next epoch".to_owned();
    }
    let stop = "openfang audit repair, while the node is stopped";
    let gone = |name: &str| !files.dir.join(name).exists();
    if kind == DamageKind::Head && files.network_on && gone("floor") && gone("checkpoint") {
        return format!(
            "    mend: openfang start, which asks the peers what was signed before it signs anything; or {stop}"
        );
    }
    if !files.network_on {
        return match kind {
            DamageKind::Head => format!(
                "    mend: {stop}: it says what helps a node that is in no mesh"
            ),
            DamageKind::Inserted => format!(
                "    mend: {stop}: it cuts off what was written behind the last signed entry, and keeps it. This node is in no mesh: lines that were put between others need a backup that verifies"
            ),
            DamageKind::Altered
            | DamageKind::Removed
            | DamageKind::Truncated
            | DamageKind::Sequence
            | DamageKind::Missing => {
                "    mend: put the files back from a backup that verifies: this node is in no mesh, so that nobody else has a copy".to_owned()
            }
        };
    }
    match copies.iter().max_by_key(|copy| copy.size) {
        None => format!(
            "    mend: {stop}: it fetches what is bad from the peers that hold a copy, or with --from NODE from that one, and cuts off what was written behind the end"
        ),
        Some(best) => {
            let all: Vec<String> = copies
                .iter()
                .map(|copy| format!("{} has {} entries", copy.name, copy.size))
                .collect();
            format!(
                "    mend: {stop}: it fetches what is bad from the peers that hold a copy ({}), or with --from {} from that one, and cuts off what was written behind the end",
                all.join(", "),
                best.name
            )
        }
    }
}

fn of_rollback(files: &Files, standing: Standing<'_>) -> String {
    if standing.two_histories {
        let how = if files.network_on {
            ": it goes on as the peers have it"
        } else {
            ", in the mesh: it goes on as the peers have it"
        };
        return format!(
            "    mend: is another machine running with the key of this node? When none is: openfang stop, move {} and {} away, openfang start{how}",
            files.log_path.display(),
            files.dir.display()
        );
    }
    if !files.network_on {
        return "    mend: put the newest files back, from a backup that has all of them"
            .to_owned();
    }
    let copies = standing.copies;
    let from = if copies.is_empty() {
        String::new()
    } else {
        let names: Vec<&str> = copies.iter().map(|copy| &*copy.name).collect();
        format!(" ({})", names.join(", "))
    };
    let how = match (&standing.own.own, standing.own.runs) {
        (Own::Behind(_), _) => {
            return format!(
                "    mend: start the nodes that have a copy{from}: this one fetches what is missing by itself; openfang audit witness status says whom it waits for"
            );
        }
        (Own::InDoubt(_), true) => {
            return "    mend: wait: the node is asking its peers, and fetches what is missing by itself; openfang audit witness status says what it waits for".to_owned();
        }
        (Own::Fine | Own::InDoubt(_) | Own::Contradicted(_), false) => "start",
        (Own::Fine | Own::Contradicted(_), true) => "restart",
    };
    format!(
        "    mend: openfang {how}: a node that starts asks its peers what they know of its log, and fetches what is missing from their copies{from} before it signs anything"
    )
}

/// Says that it is not known whether the entries are all there were, and what helps.
pub(super) fn doubt_text(files: &Files, report: &Report, why: &str, runs: bool) -> String {
    let entries = match &report.verdict {
        Verdict::Intact {
            entries,
            root,
            unsigned,
            ..
        } => format!(
            ": {entries} entries, root {root}, {unsigned} of them not under a signed head yet"
        ),
        Verdict::Empty | Verdict::Tampered { .. } => ": no entries".to_owned(),
    };
    let mend = if !files.network_on {
        "openfang join, to ask those who may know of it; or, when there never was a peer, network.enabled = false in config.toml, then openfang restart"
    } else if runs {
        "wait: nothing is signed before enough peers have answered; openfang audit witness status says what it waits for"
    } else {
        "openfang start, which asks the peers what they know of the log before it signs anything"
    };
    format!(
        "IN DOUBT: {why}\n          what is in {} agrees with itself{entries}; whether it is all there was is not known\n    mend: {mend}",
        files.log_path.display()
    )
}

/// Says that the signing floor is missing from a log that is intact.
pub(super) fn missing_floor(files: &Files, report: &Report) -> Option<String> {
    let signed = matches!(report.verdict, Verdict::Intact { head: Some(_), .. });
    let there = files.dir.join("floor").exists();
    (signed && !there).then(|| {
        let next = if files.network_on {
            "openfang start asks the peers what was signed"
        } else {
            "openfang audit repair says what helps"
        };
        format!("        its signing floor is missing, as in a backup: {next}")
    })
}

/// Says which of the signed heads beside the log is missing or damaged.
pub(super) fn heads_text(files: &Files) -> String {
    let says = |name: &str, what: &str| {
        let path = files.dir.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
                return Some(format!("{what} {} is missing", path.display()));
            }
            Err(why) => return Some(format!("{what} {} cannot be read: {why}", path.display())),
        };
        let note = String::from_utf8_lossy(without_name(&bytes));
        match SignedHead::open(&note, &files.origin, &files.key) {
            Ok(_) => None,
            Err(HeadError::OtherOrigin) => {
                let first = render::cell(note.lines().next().unwrap_or_default());
                Some(format!(
                    "{what} {} is that of another log, {first}",
                    path.display()
                ))
            }
            Err(why) => Some(format!("{what} {} is damaged: {why}", path.display())),
        }
    };
    let bad: Vec<String> = [
        says("floor", "the signing floor"),
        says("checkpoint", "the published head"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if bad.is_empty() {
        return "the signing floor and the published head contradict each other: one of them was put back to an older one, or signed elsewhere".to_owned();
    }
    bad.join("\n")
}

/// Tells whether a head covers entries that are bad here: it says what was signed.
pub(super) fn is_good_there(head: &Checkpoint, fit: Fit, report: &Report) -> bool {
    match report.verdict {
        Verdict::Tampered { first_bad_seq, .. } => {
            fit == Fit::Differs && first_bad_seq.unwrap_or(0) < head.size
        }
        Verdict::Empty | Verdict::Intact { .. } => false,
    }
}

/// Says in what way the entries contradict a head that this log has signed.
pub(super) fn contradiction(
    holder: &str,
    head: &Checkpoint,
    fit: Fit,
    report: &Report,
) -> Option<String> {
    let size = head.size;
    let is_bad = match report.verdict {
        Verdict::Tampered { .. } => true,
        Verdict::Empty | Verdict::Intact { .. } => false,
    };
    match (fit, is_bad) {
        (Fit::Fits, _) => None,
        (Fit::Beyond, false) => Some(format!(
            "{holder} has {size} entries, more than there are: this log was put back to an older state, or \
             cut, or another machine has the key of this node"
        )),
        (Fit::Differs, false) => Some(format!(
            "{holder} has another root for the first {size} entries: this log was signed twice, with other \
             entries, here or on another machine that has the key of this node"
        )),
        (Fit::Beyond, true) => Some(format!("{holder} has {size} entries, more than are left")),
        (Fit::Differs, true) => Some(format!(
            "{holder} has another root for the first {size} entries"
        )),
    }
}

/// Tells whether a log that is what was signed here was signed with other entries elsewhere.
pub(super) fn is_second_history(mut fits: impl Iterator<Item = Fit>, report: &Report) -> bool {
    match report.verdict {
        Verdict::Tampered { .. } => false,
        Verdict::Empty | Verdict::Intact { .. } => fits.any(|fit| fit == Fit::Differs),
    }
}
