//! Points in time as they are typed: RFC 3339, also in part and without a zone, or how long ago.

use openfang_node::clock::MachineClock;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Exit, Failure};

const MICROS: u64 = 1_000_000;
/// The units of a duration, in seconds.
const UNITS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', 86_400),
    ('w', 604_800),
];

/// Returns the time that is meant, in microseconds since 1970.
pub(super) fn parse(text: &str) -> Result<u64, Failure> {
    let now = MachineClock.now_micros();
    let ago = ago_of(text).map(|seconds| now.saturating_sub(seconds.saturating_mul(MICROS)));
    let at = ago.or_else(|| moment(text)).or_else(|| without_zone(text));
    at.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{text:?} is no time"))
            .mend("2026-11-21T20:46:38Z, 2026-11-21 20:46 or 2026-11-21, which are UTC where no zone is given; or how long ago: 45s, 30m, 2h, 7d, 1d12h")
    })
}

/// Reads a time that names no zone, and perhaps only the day or the minute: all times of the log are UTC.
fn without_zone(text: &str) -> Option<u64> {
    let text = text.replacen(' ', "T", 1);
    let rest = match text.len() {
        10 => "T00:00:00Z",
        16 => ":00Z",
        _whole => "Z",
    };
    moment(&format!("{text}{rest}"))
}

/// Returns the time that RFC 3339 writes so, in microseconds since 1970; 0 for one before.
pub(super) fn moment(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let micros = at.unix_timestamp_nanos() / 1_000;
    Some(u64::try_from(micros.max(0)).unwrap_or(u64::MAX))
}

/// Reads `1d12h`: numbers with their units, the largest first. Returns seconds.
fn ago_of(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut before = u64::MAX;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = rest[end..].chars().next()?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if *seconds >= before {
            return None;
        }
        before = *seconds;
        total = total.checked_add(number.checked_mul(*seconds)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (before < u64::MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_is_read_in_units() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(ago_of(text), expected, "{text}");
        check("45s", Some(45));
        check("2h", Some(7_200));
        check("1d12h", Some(129_600));
        check("1w2d3h4m5s", Some(788_645));
        for bad in [
            "",
            "2",
            "h",
            "2x",
            "1h1d",
            "1h1h",
            "-2h",
            "2 h",
            "99999999999999999999s",
        ] {
            check(bad, None);
        }
        check("18446744073709551615w", None);
    }

    #[test]
    fn a_moment_without_a_zone_is_utc() {
        let check = |text: &str, expected: &str| {
            let expected = moment(expected);
            assert!(
                expected.is_some() && without_zone(text) == expected,
                "{text}"
            );
        };
        check("2026-11-21T20:46:38", "2026-11-21T20:46:38Z");
        check("2026-11-21 20:46:38.25", "2026-11-21T20:46:38.25Z");
        check("2026-11-21 20:46", "2026-11-21T20:46:00Z");
        check("2026-11-21", "2026-11-21T00:00:00Z");
        for bad in [
            "2026-11",
            "2026-13-01",
            "20:46",
            "yesterday",
            "",
            "2026-11-21T20:46:38Z",
        ] {
            assert_eq!(without_zone(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_moment_is_read_in_every_zone() {
        let check =
            |text: &str, expected: Option<u64>| assert_eq!(moment(text), expected, "{text}");
        check("1970-01-01T00:00:01Z", Some(1_000_000));
        check("1970-01-01T02:00:00.000001+02:00", Some(1));
        check("1969-01-01T00:00:00Z", Some(0));
        for bad in ["1970-01-01", "1970-01-01T00:00:01", "yesterday", "2h"] {
            check(bad, None);
        }
    }
}
