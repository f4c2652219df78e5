//! How much of a limit is used up in its period.

use std::time::Duration;

/// Counts what was used since a period began; the next one begins with the first use after its end.
#[derive(Debug)]
pub(crate) struct Meter {
    period: Duration,
    began: Duration,
    used: u64,
}

impl Meter {
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            began: Duration::ZERO,
            used: 0,
        }
    }

    /// Uses so much; `now` is the time since any fixed point.
    pub(crate) fn add(&mut self, now: Duration, amount: u64) {
        if now.saturating_sub(self.began) >= self.period {
            self.began = now;
            self.used = 0;
        }
        self.used = self.used.saturating_add(amount);
    }

    /// Returns `None` while less than `max` is used up, else the time until the period ends. A
    /// `max` of 0 is no limit.
    pub(crate) fn over(&self, now: Duration, max: u64) -> Option<Duration> {
        let ends = self.began + self.period;
        (max > 0 && self.used >= max && now < ends).then(|| ends.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_until_its_period_ends() {
        let at = Duration::from_secs;
        let mut meter = Meter::new(at(60));
        assert_eq!(meter.over(at(100), 2), None);
        meter.add(at(100), 1);
        assert_eq!(meter.over(at(101), 2), None);
        meter.add(at(110), 5);
        assert_eq!(meter.over(at(130), 2), Some(at(30)));
        assert_eq!(meter.over(at(130), 0), None);
        assert_eq!(meter.over(at(160), 2), None);
        meter.add(at(161), 1);
        assert_eq!(meter.over(at(161), 2), None);
    }
}
