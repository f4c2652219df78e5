//! How a log clears itself of what was held against it: it proves every head that was seen of it.

use openfang_audit::SignedHead;

use super::{Heard, Log};
use crate::heads::{Alarm, HeldAlarm};

/// The most heads of one log that are remembered as not proved.
pub(crate) const FAILED_MAX: usize = 64;

impl Log {
    /// Tells whether it is convicted for good.
    pub(super) fn is_convicted(&self) -> bool {
        let verdict = self.verdict.as_ref();
        verdict.is_some_and(|(why, _evidence)| why.is_for_good())
    }

    /// Keeps a head that the log has not proved. Of more than a log is asked about in a while, the first count:
    /// they have to be proved before it is trusted again, and then it is asked about all that comes.
    pub(super) fn fail(&mut self, head: SignedHead) {
        let is_held = |held: &SignedHead| held.checkpoint == head.checkpoint;
        if self.failed.len() < FAILED_MAX && !self.failed.iter().any(is_held) {
            self.failed.push(head);
        }
    }

    /// Returns what it has not proved so far, whether it was asked or not.
    pub(super) fn unproven(&self) -> Vec<SignedHead> {
        let asked = self.asked.as_ref().map(|asked| &asked.open);
        let all = self.failed.iter().chain(asked).chain(&self.open);
        all.take(FAILED_MAX).cloned().collect()
    }

    /// Finds what an alarm names. It stands until that is proved; where it is nothing, for good.
    pub(super) fn heard(&self, alarm: HeldAlarm) -> Heard {
        let heads = alarm.notes.iter().filter_map(|note| self.open_note(note));
        let unproven: Vec<SignedHead> = heads.collect();
        let largest = unproven.iter().map(|head| head.checkpoint.size).max();
        Heard {
            rank: (alarm.why.is_for_good(), largest.unwrap_or_default()),
            unproven,
            alarm,
            stands: true,
        }
    }

    /// Returns the alarms that say more than the log has proved.
    pub(super) fn standing_alarms(&self) -> impl Iterator<Item = &Alarm> {
        let standing = self.alarms.iter().filter(|heard| heard.stands);
        standing.map(|heard| heard.alarm.as_ref())
    }

    /// Takes that the log has proved a head to be one of its own, and has grown by it or not. Tells whether
    /// nothing is left that speaks against it.
    pub(super) fn proved(&mut self, head: &SignedHead, has_grown: bool) -> bool {
        let is_other = |other: &SignedHead| other.checkpoint != head.checkpoint;
        for heard in &mut self.alarms {
            let before = heard.unproven.len();
            heard.unproven.retain(is_other);
            let is_over = before > 0 && heard.unproven.is_empty();
            heard.stands &= heard.alarm.why.is_for_good() || !is_over;
        }
        self.doubted.retain(is_other);
        self.failed.retain(is_other);
        let may_end = self.verdict.is_some() && !self.is_convicted();
        let is_mended = may_end && self.failed.is_empty();
        if is_mended {
            self.verdict = None;
        } else if has_grown {
            self.doubt_again();
        }
        is_mended
    }

    /// Tells whether a log of this size is larger than all that is named against it, and nothing is for good.
    pub(super) fn has_outgrown(&self, size: Option<u64>) -> bool {
        let mut standing = self.alarms.iter().filter(|heard| heard.stands);
        standing.all(|heard| {
            let named = heard.unproven.iter().map(|head| head.checkpoint.size);
            let named = named.max();
            !heard.alarm.why.is_for_good() && named.is_some_and(|named| Some(named) < size)
        })
    }

    /// Has everything proved once more that speaks against the log.
    fn doubt_again(&mut self) {
        let standing = self.alarms.iter().filter(|heard| heard.stands);
        let named = standing.flat_map(|heard| &heard.unproven);
        let mut doubted: Vec<SignedHead> = Vec::new();
        for head in self.failed.iter().chain(named) {
            if !doubted
                .iter()
                .any(|held| held.checkpoint == head.checkpoint)
            {
                doubted.push(head.clone());
            }
        }
        self.doubted = doubted;
    }
}
