//! Running the `openfang` program as a child process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A command that ends by itself must do so within this time, on a busy machine too.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How to start `openfang`: the program and the arguments that come before the user's.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    prefix: Vec<OsString>,
    outliving: bool,
}

/// Why a process could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file for its output could not be made.
    #[error("cannot write {path}: {source}")]
    Output {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It did not end in time.
    #[error("`openfang {command}` did not end within {COMMAND_LIMIT:?}")]
    TooSlow {
        /// The arguments.
        command: String,
    },
}

/// What a command left when it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote as data.
    pub stdout: String,
    /// What it said beside it.
    pub stderr: String,
}

impl Finished {
    /// Returns the exit code, or -1 where a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Returns both outputs, for an error message.
    #[must_use]
    pub fn said(&self) -> String {
        format!(
            "exit {}; {} {}",
            self.code(),
            self.stdout.trim(),
            self.stderr.trim()
        )
    }
}

impl Program {
    /// The program at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            prefix: Vec::new(),
            outliving: false,
        }
    }

    /// This very program, which carries the command line of `openfang` under a subcommand.
    ///
    /// # Errors
    /// When the system cannot say which file is running.
    pub fn this() -> std::io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            prefix: vec!["openfang".into()],
            outliving: false,
        })
    }

    /// Whether nodes may go on when this program ends. Otherwise they end with it, however it ends.
    #[must_use]
    pub fn outliving(mut self, outliving: bool) -> Self {
        self.outliving = outliving;
        self
    }

    /// Returns the command as a person would type it.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = self.path.display().to_string();
        for part in &self.prefix {
            text.push(' ');
            text.push_str(&part.to_string_lossy());
        }
        text
    }

    fn command(&self, home: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.prefix)
            .args(args)
            .env_remove("OPENFANG_API_KEY")
            .env_remove("OPENFANG_LISTEN")
            .env("OPENFANG_HOME", home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end; not when it ends with a failure.
    pub async fn run(&self, home: &Path, args: &[&str]) -> Result<Finished, ProcessError> {
        let output = self.command(home, args).output();
        let output = timeout(COMMAND_LIMIT, output)
            .await
            .map_err(|_elapsed| ProcessError::TooSlow {
                command: args.join(" "),
            })?
            .map_err(|source| ProcessError::Start {
                program: self.path.clone(),
                source,
            })?;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a node, with its output in `log`.
    ///
    /// It is in a process group of its own: what is typed at a terminal reaches this program, which
    /// then ends its nodes in its own order. That this program died it sees by its standard input,
    /// a pipe whose other end the child's handle holds.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&self, home: &Path, log: &Path) -> Result<Child, ProcessError> {
        let output = |source| ProcessError::Output {
            path: log.to_owned(),
            source,
        };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(output)?;
        let copy = file.try_clone().map_err(output)?;
        let mut command = self.command(home, &["start"]);
        if !self.outliving {
            command.arg("--until-stdin-closes").stdin(Stdio::piped());
        }
        command
            .process_group(0)
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(|source| ProcessError::Start {
                program: self.path.clone(),
                source,
            })
    }
}
