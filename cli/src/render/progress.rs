//! How far long work has come: a line on the terminal, or lines of JSON for programs.
//!
//! Both go to stderr: the result alone goes to stdout. Work that is done within a moment shows nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;

/// What is over sooner is not worth a line.
const QUIET_FOR: Duration = Duration::from_millis(500);
/// Between two lines.
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// The progress of one piece of work.
#[derive(Debug)]
pub(crate) struct Bar {
    what: &'static str,
    unit: &'static str,
    form: Form,
    began: Instant,
    shown: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Over and over in one line.
    Terminal,
    /// One object a line.
    Json,
    /// Nobody looks.
    Silent,
}

impl Bar {
    /// Begins to measure. `as_json`: whether a program asked for JSON.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long somebody has been waiting is a matter of the real clock"
    )]
    pub(crate) fn new(what: &'static str, unit: &'static str, as_json: bool) -> Self {
        let form = match (as_json, io::stderr().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Silent,
        };
        Self {
            what,
            unit,
            form,
            began: Instant::now(),
            shown: None,
        }
    }

    /// Takes note of how much is done, of all there is.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let elapsed = self.began.elapsed();
        let recent = self.shown.is_some_and(|at| at.elapsed() < SHOW_EVERY);
        if self.form == Form::Silent || elapsed < QUIET_FOR || recent {
            return;
        }
        let text = match self.form {
            Form::Terminal => format!("\r\x1b[K{}", text(self, done, total, elapsed)),
            Form::Json | Form::Silent => format!("{}\n", object(self, done, total, elapsed)),
        };
        self.shown = Some(self.began + elapsed);
        write(&text);
    }

    /// Wipes the line: what follows is the result.
    pub(crate) fn finish(&mut self) {
        if self.form == Form::Terminal && self.shown.take().is_some() {
            write("\r\x1b[K");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn text(bar: &Bar, done: u64, total: u64, elapsed: Duration) -> String {
    let Bar { what, unit, .. } = bar;
    let percent = percent(done, total);
    let left = left(done, total, elapsed).map_or_else(String::new, |left| {
        format!(", about {} s left", left.as_secs().saturating_add(1))
    });
    format!("{what}: {percent} % ({done} of {total} {unit}{left})")
}

fn object(bar: &Bar, done: u64, total: u64, elapsed: Duration) -> serde_json::Value {
    json!({ "progress": {
        "what": bar.what,
        "unit": bar.unit,
        "done": done,
        "total": total,
        "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    } })
}

fn percent(done: u64, total: u64) -> u64 {
    let hundredths = u128::from(done.min(total)) * 100;
    let percent = hundredths.checked_div(u128::from(total)).unwrap_or(100);
    u64::try_from(percent).unwrap_or(100)
}

fn left(done: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    let rest = u128::from(total.saturating_sub(done));
    let millis = elapsed.as_millis() * rest;
    let millis = millis.checked_div(u128::from(done))?;
    Some(Duration::from_millis(u64::try_from(millis).ok()?))
}

/// Nobody can be told that stderr is closed.
fn write(text: &str) {
    let mut err = io::stderr().lock();
    match err.write_all(text.as_bytes()).and_then(|()| err.flush()) {
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_percent_and_time() {
        let bar = Bar {
            form: Form::Terminal,
            ..Bar::new("verifying", "entries", false)
        };
        let shown = text(&bar, 250, 1000, Duration::from_secs(2));
        assert_eq!(
            shown,
            "verifying: 25 % (250 of 1000 entries, about 7 s left)"
        );
        assert_eq!(percent(0, 0), 100, "nothing is done at once");
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(left(0, 10, Duration::from_secs(1)), None);
    }

    #[test]
    fn programs_get_one_object_a_line() {
        let bar = Bar::new("verifying", "entries", true);
        assert_eq!(bar.form, Form::Json);
        let line = object(&bar, 1, 2, Duration::from_millis(1500)).to_string();
        assert!(!line.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["progress"]["done"], 1);
        assert_eq!(read["progress"]["elapsed_ms"], 1500);
    }
}
