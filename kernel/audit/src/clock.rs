//! Time as the log writes it: the wall clock, and a hybrid clock that never goes back.
//!
//! Nothing here reads a clock: [`Clock`] is handed in.

use std::fmt;

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// The last microsecond of the year 9999: RFC 3339 has no year with five digits.
const MICROS_MAX: u64 = 253_402_300_799_999_999;
/// How far ahead of the own wall clock the hybrid clock of another node is followed.
const AHEAD_MICROS_MAX: u64 = 60 * MICROS_PER_SECOND;
/// The part of the hybrid clock that holds milliseconds.
const HYBRID_MILLIS_BITS: u32 = 48;

/// The clocks of the machine.
pub trait Clock: Send + Sync {
    /// Returns the time since 1970-01-01T00:00:00Z, in microseconds: it can be set, and can step.
    fn unix_micros(&self) -> u64;

    /// Returns the time since some fixed moment, in microseconds: it never steps.
    fn monotonic_micros(&self) -> u64;
}

/// A step of the wall clock that is shorter is none: it is how clocks are corrected.
const STEP_MICROS_MIN: u64 = 500_000;

/// Notices when the wall clock was set.
#[derive(Debug, Default)]
pub(crate) struct StepWatch {
    last: Option<Look>,
}

/// A look at both clocks, in microseconds. They cannot be read in one moment, and a thread or a whole
/// machine may stand still between two reads: so it is known only between what the wall clock was read.
#[derive(Debug, Clone, Copy)]
struct Look {
    before: u64,
    wall: u64,
    after: u64,
}

impl Look {
    fn at(clock: &dyn Clock) -> Self {
        let before = clock.monotonic_micros();
        let wall = clock.unix_micros();
        let after = clock.monotonic_micros();
        Self {
            before,
            wall,
            after,
        }
    }

    /// Returns by how much the wall clock has stepped at least since an earlier look.
    fn step_since(self, last: Self) -> i128 {
        let moved = i128::from(self.wall) - i128::from(last.wall);
        let shortest = i128::from(self.before.saturating_sub(last.after));
        let longest = i128::from(self.after.saturating_sub(last.before));
        moved - moved.clamp(shortest, longest)
    }
}

impl StepWatch {
    /// Returns by how much the wall clock has stepped since the last look, in microseconds, when it has.
    pub(crate) fn look(&mut self, clock: &dyn Clock) -> Option<i64> {
        let now = Look::at(clock);
        let step = now.step_since(self.last.replace(now)?);
        let large = step.unsigned_abs() >= u128::from(STEP_MICROS_MIN);
        large.then(|| i64::try_from(step).unwrap_or(i64::MAX))
    }
}

/// A point of the hybrid clock (Kulkarni et al., 2014): 48 bits of milliseconds and 16 of a counter.
/// Along a log it only grows, whatever the wall clock does. Written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hybrid(u64);

impl Hybrid {
    /// Takes the number that its text form writes.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number that its text form writes.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// Tells whether a point that somebody else has sent can be merged: one that is far ahead of the wall
    /// clock would take the clocks of everybody with it.
    pub(crate) fn is_believable(self, unix_micros: u64) -> bool {
        self <= Self::default().next(unix_micros.saturating_add(AHEAD_MICROS_MAX))
    }

    /// Returns the next point: the wall clock where that is ahead, the smallest step elsewhere.
    #[must_use]
    pub fn next(self, unix_micros: u64) -> Self {
        let millis = (unix_micros / 1_000).min((1 << HYBRID_MILLIS_BITS) - 1);
        let wall = millis << (u64::BITS - HYBRID_MILLIS_BITS);
        Self(wall.max(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Hybrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Writes a time as RFC 3339 in UTC with six digits of the second: `2026-11-21T20:46:38.000001Z`.
/// All have the same length, so that their order as texts is their order in time.
#[must_use]
pub fn rfc3339(unix_micros: u64) -> String {
    let mut out = Vec::with_capacity(27);
    write_rfc3339(&mut out, unix_micros);
    String::from_utf8(out).unwrap_or_default()
}

pub(crate) fn write_rfc3339(out: &mut Vec<u8>, unix_micros: u64) {
    let micros = unix_micros.min(MICROS_MAX);
    let seconds = micros / MICROS_PER_SECOND;
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let of_day = seconds % SECONDS_PER_DAY;
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (of_day / 3600, 2, b':'),
        (of_day / 60 % 60, 2, b':'),
        (of_day % 60, 2, b'.'),
        (micros % MICROS_PER_SECOND, 6, b'Z'),
    ];
    for (number, digits, mark) in parts {
        for place in (0..digits).rev() {
            let digit = number / 10_u64.pow(place) % 10;
            out.push(b'0' + u8::try_from(digit).unwrap_or_default());
        }
        out.push(mark);
    }
}

/// Returns year, month and day of a number of days since 1970-01-01 (Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    struct At(u64, u64);

    impl Clock for At {
        fn unix_micros(&self) -> u64 {
            self.0
        }

        fn monotonic_micros(&self) -> u64 {
            self.1
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_is_noticed_and_one_that_runs_is_not() {
        let mut watch = StepWatch::default();
        for (wall, steady, expected) in [
            (1_000_000, 5, None),
            (2_000_000, 1_000_005, None),
            // A correction of less than half a second.
            (3_400_000, 2_000_005, None),
            (13_400_000, 2_000_005, Some(10_000_000)),
            (3_900_000, 2_500_005, Some(-10_000_000)),
            (4_900_000, 3_500_005, None),
            // An hour of sleep, by both clocks.
            (3_604_900_000, 3_603_500_005, None),
        ] {
            assert_eq!(watch.look(&At(wall, steady)), expected, "at {wall}");
        }
    }

    /// Both clocks run alike, and each read of one takes a while.
    struct Slow {
        now: AtomicU64,
        pauses: [u64; 4],
        reads: AtomicUsize,
    }

    impl Slow {
        fn read(&self) -> u64 {
            let pause = self.pauses[self.reads.fetch_add(1, Ordering::Relaxed) % 4];
            self.now.fetch_add(pause, Ordering::Relaxed) + pause
        }
    }

    impl Clock for Slow {
        fn unix_micros(&self) -> u64 {
            self.read() + 1_795_294_798_000_000
        }

        fn monotonic_micros(&self) -> u64 {
            self.read()
        }
    }

    #[test]
    fn standing_still_between_two_reads_is_no_step() {
        let clock = Slow {
            now: AtomicU64::new(0),
            pauses: [0, 30_000_000, 5, 700_000],
            reads: AtomicUsize::new(0),
        };
        let mut watch = StepWatch::default();
        for look in 0..20 {
            assert_eq!(watch.look(&clock), None, "look {look}");
        }
    }

    #[test]
    fn times_are_written_in_rfc_3339() {
        let check = |micros: u64, expected: &str| assert_eq!(rfc3339(micros), expected);
        check(0, "1970-01-01T00:00:00.000000Z");
        check(951_782_400_000_001, "2000-02-29T00:00:00.000001Z");
        check(1_795_294_798_123_456, "2026-11-21T20:59:58.123456Z");
        check(4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z");
        check(4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z");
        check(u64::MAX, "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_point_of_another_node_is_believed_up_to_a_minute_ahead() {
        let now = 1_795_294_798_000_000;
        let at = |micros: u64| Hybrid::default().next(micros);
        for (micros, believed) in [
            (0, true),
            (now, true),
            (now + 60_000_000, true),
            (now + 60_001_000, false),
            (u64::MAX, false),
        ] {
            assert_eq!(at(micros).is_believable(now), believed, "at {micros}");
        }
        assert!(!Hybrid::from_u64(u64::MAX).is_believable(now));
    }

    #[test]
    fn the_hybrid_clock_follows_the_wall_clock_and_never_goes_back() {
        let first = Hybrid::default().next(5_000_000);
        assert_eq!(first.to_string(), "0000000013880000");
        let stepped_back = first.next(4_000_000);
        assert_eq!(stepped_back.to_string(), "0000000013880001");
        assert_eq!(stepped_back.next(5_000_999).to_string(), "0000000013880002");
        assert_eq!(stepped_back.next(5_001_000).to_string(), "0000000013890000");
        assert_eq!(
            Hybrid::from_u64(u64::MAX).next(0),
            Hybrid::from_u64(u64::MAX)
        );
    }
}
