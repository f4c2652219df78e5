//! What other nodes say of logs.

use super::{Book, Step};
use crate::heads::{Alarm, HeldAlarm};
use crate::roster::Key;

/// The most reporters kept for one log, those with the lowest keys: more add nothing, and all nodes
/// end with the same.
const ALARMS_MAX: usize = 4;

impl Book {
    /// Keeps an alarm. Returns whether it is news, and what its notes prove by themselves.
    pub(crate) fn alarm(&mut self, alarm: &HeldAlarm) -> (bool, Step) {
        if self.has_alarm(&alarm.accused, &alarm.reporter) {
            return (false, Step::None);
        }
        let Some(log) = self.logs.get_mut(&alarm.accused) else {
            return (false, Step::None);
        };
        log.hear(alarm.clone());
        log.alarms.sort_by_key(|heard| heard.alarm.reporter);
        log.alarms.truncate(ALARMS_MAX);
        self.alarm_changes += 1;
        (true, self.weigh(alarm))
    }

    /// Finds what the notes of an alarm prove by themselves, whoever has sent them.
    pub(crate) fn weigh(&mut self, alarm: &HeldAlarm) -> Step {
        alarm.notes.iter().fold(Step::None, |step, note| {
            match self.observe(&alarm.accused, note, false) {
                convicted @ Step::Inconsistent(..) => convicted,
                Step::None | Step::Accepted(_) | Step::Mended(_) | Step::Replaced(_) => step,
            }
        })
    }

    /// Tells whether the notes of an alarm may still convict a log, although the alarm is not kept.
    pub(crate) fn may_convict(&self, alarm: &Alarm) -> bool {
        let log = self.logs.get(&alarm.accused);
        log.is_some_and(|log| {
            let mut held = log.alarms.iter();
            let held = held.any(|held| held.alarm.reporter == alarm.reporter);
            !held && !log.is_convicted() && alarm.notes.len() > 1
        })
    }

    /// Tells whether an alarm is not to be kept: it is held, others are kept before it, or nothing
    /// is known of the log.
    pub(crate) fn has_alarm(&self, accused: &Key, reporter: &Key) -> bool {
        self.logs.get(accused).is_none_or(|log| {
            let mut reporters = log.alarms.iter().map(|heard| heard.alarm.reporter);
            let last = reporters.clone().nth(ALARMS_MAX - 1);
            reporters.any(|held| held == *reporter) || last.is_some_and(|last| last < *reporter)
        })
    }

    /// Tells whether a log that has this size is larger than all that others name against it.
    pub(crate) fn has_outgrown(&self, key: &Key, size: Option<u64>) -> bool {
        self.logs.get(key).is_none_or(|log| log.has_outgrown(size))
    }

    /// Returns how often an alarm was added.
    pub(crate) fn alarm_changes(&self) -> u64 {
        self.alarm_changes
    }

    /// Returns every alarm that is held.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = &HeldAlarm> {
        let heard = self.logs.values().flat_map(|log| &log.alarms);
        heard.map(|heard| &heard.alarm)
    }
}
