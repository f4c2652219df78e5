//! What helps when a log is not what was signed: by what was done to it, and who has a copy.

use openfang_audit::storage::without_name;
use openfang_audit::survey::Fit;
use openfang_audit::verify::{DamageKind, Report, Verdict};
use openfang_audit::{Checkpoint, HEAD_BYTES_MAX, HeadError, SignedHead};
use openfang_node::files::read_plain;

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
    /// Whether evidence against this very node is known: its peers have it, or will.
    pub(super) convicted: bool,
    /// What the node itself knows.
    pub(super) own: &'a Known,
}

/// Where a node was convicted of two histories, and its log has two: putting it aside alone takes nothing back.
pub(crate) const MEND_SPENT: &str = "evidence convicts this node (openfang audit evidence): for every peer that has it its identity is spent, and putting the log aside does not change that. For a new identity: openfang stop, move the home away, openfang init, openfang join. To go on with this one, the operator of each peer has to put the id of this node into audit.allow_convicted there, then: openfang restart, there. When all have: openfang stop, move audit.jsonl and audit.d away, make a new audit.d and copy the folder vault of the old one into it, openfang start";

/// Where a node was convicted, and its log is one history: what peers did not copy since is nowhere else.
pub(crate) const MEND_CONVICTED: &str = "evidence convicts this node (openfang audit evidence): for every peer that has it its identity is spent. For a new identity: openfang stop, move the home away, openfang init, openfang join. To go on with this one, the operator of each peer has to put the id of this node into audit.allow_convicted there, then: openfang restart, there. This log goes on as it is: leave its files where they are, as peers have copied nothing of it since";

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
    if let Some(left) = &files.left {
        return format!(
            "    mend: audit.log_path names {}, and the lines seem to be in {}: {}",
            left.to.display(),
            left.from.display(),
            left.mend()
        );
    }
    if lost && files.network_on {
        return "    mend: openfang start, which asks the peers for the log before anything is signed"
            .to_owned();
    }
    if lost {
        return "    mend: put the log back from a backup that verifies; openfang start begins a new one, in the next epoch".to_owned();
    }
    let gone = |name: &str| !files.dir.join(name).exists();
    if kind == DamageKind::Head && files.network_on && gone("floor") && gone("checkpoint") {
        return format!(
            "    mend: openfang start, which asks the peers what was signed before it signs anything; or {STOP}"
        );
    }
    let first_bad = match report.verdict {
        Verdict::Tampered { first_bad_seq, .. } => first_bad_seq,
        Verdict::Empty | Verdict::Intact { .. } => None,
    };
    if !files.network_on {
        return alone(files, kind, first_bad);
    }
    if is_unread(report) {
        return format!(
            "    mend: {STOP}: it makes the damaged head again, from the other one or from the head that the copies of peers have"
        );
    }
    let first_bad = first_bad.unwrap_or(0);
    let signed = files.signed().ok().flatten();
    let is_signed = signed.is_some_and(|signed| first_bad < signed);
    match copies.iter().max_by_key(|copy| copy.size) {
        Some(best) if best.size <= first_bad && is_signed => format!(
            "    mend: start the other nodes that mirror this one, then {STOP}: the longest copy of those that answer, that of {}, has {} entries, and entry {first_bad} is bad",
            best.name, best.size
        ),
        None => format!(
            "    mend: {STOP}: it fetches what is bad from the peers that hold a copy, or with --from NODE from that one, and cuts off what was written behind the end"
        ),
        Some(best) => {
            let all: Vec<String> = copies
                .iter()
                .map(|copy| format!("{} has {} entries", copy.name, copy.size))
                .collect();
            format!(
                "    mend: {STOP}: it fetches what is bad from the peers that hold a copy ({}), or with --from {} from that one, and cuts off what was written behind the end",
                all.join(", "),
                best.name
            )
        }
    }
}

/// What helps a node that is in no mesh.
fn alone(files: &Files, kind: DamageKind, first_bad: Option<u64>) -> String {
    let signed = files.signed().ok().flatten();
    let is_behind = |seq| signed.is_some_and(|signed| seq >= signed);
    if first_bad.is_some_and(is_behind) {
        return format!(
            "    mend: {STOP}: it cuts off what stands behind the last entry that is signed, and keeps it in audit.d/evidence"
        );
    }
    match kind {
        DamageKind::Head => format!(
            "    mend: {STOP}: it says what helps a node that is in no mesh"
        ),
        DamageKind::Inserted => format!(
            "    mend: {STOP}: it cuts off what was written behind the last signed entry, and keeps it. This node is in no mesh: lines that were put between others need a backup that verifies"
        ),
        DamageKind::Altered
        | DamageKind::Removed
        | DamageKind::Truncated
        | DamageKind::Sequence
        | DamageKind::Missing => {
            "    mend: put the files back from a backup that verifies: this node is in no mesh, so that nobody else has a copy".to_owned()
        }
    }
}

/// What helps first.
const STOP: &str = "openfang audit repair, while the node is stopped";

fn of_rollback(files: &Files, standing: Standing<'_>) -> String {
    if standing.two_histories && standing.convicted {
        return format!("    mend: {MEND_SPENT}");
    }
    if standing.two_histories {
        let how = if files.network_on {
            ": it goes on as the peers have it"
        } else {
            ", in the mesh: it goes on as the peers have it"
        };
        return format!(
            "    mend: is another machine running with the key of this node? When none is: openfang stop, move {} and {} away, make a new {} and copy the folder vault of the old one into it, which has what entries conceal, openfang start{how}",
            files.log_path.display(),
            files.dir.display(),
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

/// Tells whether the entries were not looked at, because a head is damaged: no other head was compared with them.
pub(super) fn is_unread(report: &Report) -> bool {
    match report.verdict {
        Verdict::Tampered { kind, .. } => kind == DamageKind::Head && report.bytes == 0,
        Verdict::Empty | Verdict::Intact { .. } => false,
    }
}

/// Says what is wrong. A head that is not there is not one that does not hold.
pub(super) fn what(files: &Files, kind: DamageKind) -> String {
    let gone = |name: &str| !files.dir.join(name).exists();
    if kind == DamageKind::Head && gone("floor") && gone("checkpoint") {
        "the signed heads are missing, so that nothing tells what the entries were".to_owned()
    } else {
        kind.to_string()
    }
}

/// Says that the signing floor is missing from a log that is intact.
pub(super) fn missing_floor(files: &Files, report: &Report) -> Option<String> {
    let signed = matches!(report.verdict, Verdict::Intact { head: Some(_), .. });
    let there = files.dir.join("floor").exists();
    (signed && !there).then(|| {
        let mend = if files.network_on {
            "openfang start, which asks the peers what was signed before it signs anything"
        } else {
            "openfang audit repair, which says what helps: as it is the node does not start"
        };
        format!("its signing floor is missing, as in a backup: whether entries were signed behind these is not known\n    mend: {mend}")
    })
}

/// Says which of the signed heads beside the log is missing or damaged.
pub(super) fn heads_text(files: &Files) -> String {
    let says = |name: &str, what: &str| {
        let path = files.dir.join(name);
        let bytes = match read_plain(&path, HEAD_BYTES_MAX as u64) {
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
