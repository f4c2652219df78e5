//! The log of the process: for people on a terminal, JSON otherwise, always on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FmtSpan, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

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

/// Starts the log of a command, whose answer is what matters: sentences for people, and with `as_json` lines like
/// those that tell how far it is, `{"note":{"level","text"}}`.
///
/// # Errors
/// As [`start`].
pub fn start_of_command(
    level: LogLevel,
    environment: Lookup<'_>,
    as_json: bool,
) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level, environment)?)
        .with_span_events(FmtSpan::NONE)
        .log_internal_errors(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    let started = builder.event_format(Note { as_json }).try_init();
    started.map_err(|_set_before| TelemetryError::Twice)
}

/// How a command notes what happens on the way: one line, without spans.
struct Note {
    as_json: bool,
}

impl<S, N> FormatEvent<S, N> for Note
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let mut text = String::new();
        let fields = context.field_format();
        fields.format_fields(Writer::new(&mut text), event)?;
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        if self.as_json {
            let note = serde_json::json!({ "note": { "level": level, "text": text } });
            writeln!(out, "{note}")
        } else {
            // One line, whatever a peer has put into it.
            let text: String = text
                .chars()
                .map(|one| if one.is_control() { ' ' } else { one })
                .collect();
            writeln!(out, "{level}: {text}")
        }
    }
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

    /// What is written is kept here.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_command_notes_one_line_for_people_or_one_object_for_programs() {
        let noted = |as_json| {
            let kept = Kept::default();
            let writer = kept.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .event_format(Note { as_json })
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(size = 7, "what a\nnode says");
            });
            let bytes = kept.0.lock().expect("not poisoned").clone();
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(noted(false), "error: what a node says size=7\n");
        let line = noted(true);
        assert_eq!(line.lines().count(), 1, "{line}");
        let note: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(note["note"]["level"], "error");
        assert_eq!(note["note"]["text"], "what a\nnode says size=7");
    }

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
