//! What the demonstration shows: a line while each step works, a table at the end.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::cast::Cast;
use super::steps::Failure;

/// One step that held.
#[derive(Debug)]
struct Step {
    name: &'static str,
    detail: String,
    took: Duration,
}

/// Collects and prints the steps.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    steps: Vec<Step>,
    current: &'static str,
    started: tokio::time::Instant,
    step_started: tokio::time::Instant,
}

impl Report {
    /// Starts an empty one.
    pub(crate) fn new(json: bool) -> Self {
        let now = tokio::time::Instant::now();
        Self {
            json,
            steps: Vec::new(),
            current: "start",
            started: now,
            step_started: now,
        }
    }

    /// Says what is being tried.
    pub(crate) fn begin(&mut self, name: &'static str) {
        self.current = name;
        self.step_started = tokio::time::Instant::now();
        if !self.json {
            line(&format!("… {name}"));
        }
    }

    /// Says that it held, and what was seen.
    pub(crate) fn held(&mut self, detail: impl Into<String>) {
        let step = Step {
            name: self.current,
            detail: detail.into(),
            took: self.step_started.elapsed(),
        };
        if self.json {
            line(&json!({ "step": step.name, "held": true, "detail": step.detail, "ms": millis(step.took) }).to_string());
        } else {
            line(&format!("  ✓ {} ({} ms)", step.detail, millis(step.took)));
        }
        self.steps.push(step);
    }

    /// Says something beside the steps.
    pub(crate) fn remark(&self, text: &str) {
        if self.json {
            line(&json!({ "remark": text }).to_string());
        } else {
            line(&format!("  {text}"));
        }
    }

    /// Ends with a failure.
    pub(crate) fn failed(&self, failure: &Failure) -> ExitCode {
        if self.json {
            line(
                &json!({ "step": self.current, "held": false, "detail": failure.to_string() })
                    .to_string(),
            );
            line(&json!({ "ok": false, "steps": self.steps.len(), "ms": millis(self.started.elapsed()) }).to_string());
        } else {
            line(&format!("  ✗ {}: {failure}", self.current));
            line(&format!("\n{} steps held before it.", self.steps.len()));
        }
        ExitCode::FAILURE
    }

    /// Ends because a signal came.
    pub(crate) fn interrupted(&self, name: &'static str) -> ExitCode {
        self.failed(&Failure::Interrupted(name));
        // As a shell says it of a program that a signal ended.
        ExitCode::from(match name {
            "SIGHUP" => 129,
            "SIGINT" => 130,
            _terminate => 143,
        })
    }

    /// Ends before anything was tried.
    pub(crate) fn cannot_start(&self, why: &std::io::Error) -> ExitCode {
        self.failed(&Failure::claim(why.to_string()))
    }

    /// Ends with a success.
    pub(crate) fn done(&self) -> ExitCode {
        if self.json {
            line(&json!({ "ok": true, "steps": self.steps.len(), "ms": millis(self.started.elapsed()) }).to_string());
            return ExitCode::SUCCESS;
        }
        self.table();
        line(&format!(
            "\nAll {} steps held, in {:.1} s.",
            self.steps.len(),
            self.started.elapsed().as_secs_f64()
        ));
        ExitCode::SUCCESS
    }

    /// Leaves the nodes running, and says how to talk to them.
    pub(super) fn kept(&self, mut cast: Cast, folder: &Path) {
        self.remark("The nodes are left as they are:");
        for node in cast.nodes() {
            self.say_how_to_talk(node);
            // Dropping the handle of a child that is left running would kill it.
            std::mem::forget(node.leave_running());
        }
        std::mem::forget(cast.model.map(super::model::LocalModel::leave_running));
        self.remark("courier answered through a script that was part of this program, and is silent from now on");
        let folder = folder.display();
        self.remark(&format!(
            "stop one: OPENFANG_HOME=… openfang stop; then: rm -r {folder}"
        ));
    }

    fn say_how_to_talk(&self, node: &crate::cluster::Node) {
        let (pid, home) = (node.pid(), node.home().display());
        let base = node.api().map(|client| client.base().to_owned()).ok();
        if self.json {
            line(&json!({ "node": node.name, "api": base, "api_key": node.key(), "home": node.home(), "pid": pid }).to_string());
            return;
        }
        match (pid, base) {
            (Some(pid), Some(base)) => line(&format!(
                "{} (pid {pid})\n  export OPENFANG_HOME={home}; openfang status\n  curl -H 'Authorization: Bearer {}' {base}/api/agents",
                node.name,
                node.key()
            )),
            _not_running => line(&format!(
                "{} does not run\n  export OPENFANG_HOME={home}; openfang start --detach\n  its log: {}",
                node.name,
                node.log_path().display()
            )),
        }
    }

    fn table(&self) {
        let width = self
            .steps
            .iter()
            .map(|step| step.name.chars().count())
            .max()
            .unwrap_or(0);
        line("");
        for step in &self.steps {
            line(&format!(
                "{:<width$}  {:>7} ms  {}",
                step.name,
                millis(step.took),
                step.detail
            ));
        }
    }
}

fn millis(time: Duration) -> u128 {
    time.as_millis()
}

/// Prints one line; a reader that went away is not a failure of the demonstration.
fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        tracing::debug!("nobody reads the report");
    }
}
