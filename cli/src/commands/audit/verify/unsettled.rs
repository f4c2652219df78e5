//! What others hold of a log that is in doubt.
//!
//! Such a log takes entries and signs none. They stand where others may have entries that are missing here,
//! and make room when those come back: that the two differ is what the doubt is about, and no second history.
//! Only entries under a signed head of this log can be one.

use openfang_audit::Checkpoint;
use openfang_audit::survey::{Fit, Survey};
use openfang_audit::verify::Verdict;

/// A head of this log that is kept elsewhere, or by others.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// Who holds it.
    pub(super) holder: String,
    pub(super) head: Checkpoint,
    /// Whether it is kept beside the log, as opposed to what a peer has just said.
    pub(super) is_kept: bool,
}

/// Whether what others hold can be judged already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsettled {
    /// Whether the log is in doubt, or waits for entries that are missing.
    pub(super) is_unsettled: bool,
    /// Whether the node runs, and settles it.
    pub(super) runs: bool,
    /// How many entries are under a head that this node has signed.
    pub(super) signed: u64,
}

/// Heads, and how each stands to the entries.
pub(super) type Compared<'a> = Vec<(&'a Elsewhere, Fit)>;

impl Unsettled {
    /// Returns the heads that cannot be judged yet, and the others.
    pub(super) fn split<'a>(
        &self,
        held: &'a [Elsewhere],
        surveyed: &Survey,
    ) -> (Compared<'a>, Compared<'a>) {
        let is_good = match surveyed.report.verdict {
            Verdict::Empty | Verdict::Intact { .. } => true,
            Verdict::Tampered { .. } => false,
        };
        let compared = surveyed.compared.iter().map(|compared| compared.fit);
        held.iter()
            .zip(compared)
            .partition(|(one, fit)| is_good && self.is_open(one, *fit))
    }

    fn is_open(&self, one: &Elsewhere, fit: Fit) -> bool {
        let is_missing = match fit {
            Fit::Fits => false,
            Fit::Differs => true,
            // What this node has kept itself says for certain that entries are gone.
            Fit::Beyond => self.runs || !one.is_kept,
        };
        self.is_unsettled && is_missing && one.head.size > self.signed
    }

    /// Says what there is elsewhere.
    pub(super) fn text(&self, one: &Elsewhere) -> String {
        format!(
            "          {} has {} entries, and this log has signed {}: what is missing comes back, and what is not signed makes room for it",
            one.holder, one.head.size, self.signed
        )
    }
}

#[cfg(test)]
mod tests {
    use openfang_audit::{Hash, Origin};
    use openfang_id::NodeSeed;

    use super::*;

    #[test]
    fn only_what_is_behind_the_signed_entries_waits_for_the_doubt_to_end() {
        let node = NodeSeed::from_bytes([7; 32]).keys().node_id();
        let held = |size, is_kept| Elsewhere {
            holder: "b".to_owned(),
            head: Checkpoint {
                origin: Origin::of(&node, 1),
                size,
                root: Hash::from_bytes([1; 32]),
            },
            is_kept,
        };
        let at = |is_unsettled, runs| Unsettled {
            is_unsettled,
            runs,
            signed: 10,
        };
        let running = at(true, true);
        assert!(running.is_open(&held(11, false), Fit::Differs));
        assert!(running.is_open(&held(11, true), Fit::Beyond));
        assert!(!running.is_open(&held(11, false), Fit::Fits));
        assert!(
            !running.is_open(&held(10, false), Fit::Differs),
            "signed twice"
        );
        assert!(!at(false, true).is_open(&held(11, false), Fit::Differs));
        let stopped = at(true, false);
        assert!(stopped.is_open(&held(11, false), Fit::Beyond));
        assert!(!stopped.is_open(&held(11, true), Fit::Beyond), "it is cut");
        assert!(stopped.is_open(&held(11, true), Fit::Differs));
    }
}
