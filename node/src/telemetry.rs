//! The log of the process: for people on a terminal, JSON otherwise, always on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogLevel, Lookup, NotText};

/// The environment variable that overrides the level of the configuration, with the syntax of
/// `tracing_subscriber::EnvFilter`: `debug`, `openfang_mesh=trace,info`.
pub const VARIABLE: &str = "OPENFANG_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable holds no text.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// The variable holds no filter.
    #[error("environment {VARIABLE}: {0}\n    mend: export {VARIABLE}=info")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("the log of this process was set up twice")]
    Twice,
}

/// Starts the log of the process.
///
/// # Errors
/// When the variable holds no filter, or it was started before.
pub fn start(level: LogLevel, environment: Lookup<'_>) -> Result<(), TelemetryError> {
    let colours = environment("NO_COLOR")?.is_none_or(|text| text.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level, environment)?)
        .with_span_events(FmtSpan::NONE)
        // A line that cannot be written, because the disk is full or the terminal is gone, is lost;
        // complaining about it on the same stream would panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.with_ansi(colours).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.map_err(|_set_before| TelemetryError::Twice)
}

fn filter(level: LogLevel, environment: Lookup<'_>) -> Result<EnvFilter, TelemetryError> {
    match environment(VARIABLE)?.filter(|text| !text.is_empty()) {
        Some(text) => EnvFilter::try_new(text.as_str()).map_err(TelemetryError::Filter),
        // Below warnings, what libraries say is of use to their developers only.
        None => EnvFilter::try_new(match level {
            LogLevel::Error => "error".to_owned(),
            LogLevel::Warn => "warn".to_owned(),
            LogLevel::Info | LogLevel::Debug | LogLevel::Trace => {
                let level = level.as_str();
                OURS.iter().fold("warn".to_owned(), |all, ours| {
                    format!("{all},{ours}={level}")
                })
            }
        })
        .map_err(TelemetryError::Filter),
    }
}

/// The crates of the house.
const OURS: [&str; 8] = [
    "openfang",
    "openfang_node",
    "openfang_kernel",
    "openfang_mesh",
    "openfang_ofp",
    "openfang_api",
    "openfang_audit",
    "openfang_sandbox",
];

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn the_variable_wins_over_the_level() {
        let of = |text: Option<&str>| {
            let lookup = |_name: &str| Ok(text.map(|text| Zeroizing::new(text.to_owned())));
            filter(LogLevel::Info, &lookup).map(|filter| filter.to_string())
        };
        assert_eq!(
            of(Some("openfang_mesh=trace")).expect("a filter"),
            "openfang_mesh=trace"
        );
        let default = of(None).expect("a filter");
        assert!(
            default.contains("openfang_node=info") && default.contains("warn"),
            "{default}"
        );
        assert!(matches!(of(Some("=,=")), Err(TelemetryError::Filter(_))));
    }
}
