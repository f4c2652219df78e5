//! What other nodes say of logs.

use super::{Book, Heard, Log, Rank, Step};
use crate::heads::{Alarm, HeldAlarm};
use crate::roster::Key;

/// The most reporters kept for one log, those with the lowest keys: more add nothing, and all nodes
/// end with the same.
const ALARMS_MAX: usize = 4;

impl Book {
    /// Keeps an alarm. Returns whether it is news, and what its notes prove by themselves.
    pub(crate) fn alarm(&mut self, alarm: &HeldAlarm) -> (bool, Step) {
        if self.has_alarm(alarm) {
            return (false, Step::None);
        }
        let Some(log) = self.logs.get_mut(&alarm.accused) else {
            return (false, Step::None);
        };
        let heard = log.heard(alarm.clone());
        let held = log.of_reporter(&alarm.reporter);
        if held.is_some_and(|held| held.rank >= heard.rank) {
            return (false, Step::None);
        }
        log.alarms
            .retain(|held| held.alarm.reporter != alarm.reporter);
        log.alarms.push(heard);
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
            let held = log.of_reporter(&alarm.reporter).is_some();
            !held && !log.is_convicted() && alarm.notes.len() > 1
        })
    }

    /// Tells whether an alarm is not to be kept: it is held, others are kept before it, or nothing
    /// is known of the log. Another one of the same reporter may have to be.
    pub(crate) fn has_alarm(&self, alarm: &Alarm) -> bool {
        self.logs.get(&alarm.accused).is_none_or(|log| {
            if let Some(held) = log.of_reporter(&alarm.reporter) {
                return *held.alarm == *alarm;
            }
            let last = log.alarms.get(ALARMS_MAX - 1);
            last.is_some_and(|last| last.alarm.reporter < alarm.reporter)
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

    /// Returns which alarms are held: against whom, by whom, and which of theirs.
    pub(crate) fn alarm_ranks(&self) -> impl Iterator<Item = (&Key, &Key, Rank)> {
        let heard = self.logs.values().flat_map(|log| &log.alarms);
        heard.map(|heard| (&heard.alarm.accused, &heard.alarm.reporter, heard.rank))
    }

    /// Returns every alarm that is held.
    pub(crate) fn alarms(&self) -> impl Iterator<Item = &HeldAlarm> {
        let heard = self.logs.values().flat_map(|log| &log.alarms);
        heard.map(|heard| &heard.alarm)
    }
}

impl Log {
    fn of_reporter(&self, reporter: &Key) -> Option<&Heard> {
        let mut held = self.alarms.iter();
        held.find(|held| held.alarm.reporter == *reporter)
    }
}
