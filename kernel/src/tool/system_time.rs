//! `system_time`: date and time of the node.

use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Definition;
use crate::clock;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {}

pub(super) fn definition() -> Definition {
    Definition {
        description: "Tells the current date and time in UTC (RFC 3339).",
        parameters: json!({ "type": "object", "properties": {}, "additionalProperties": false }),
    }
}

pub(super) fn run(_arguments: &Arguments) -> String {
    at(clock::unix_ms())
}

fn at(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(0);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_rfc_3339() {
        assert_eq!(at(1_795_294_798_123), "2026-11-21T20:59:58Z");
        assert_eq!(at(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
