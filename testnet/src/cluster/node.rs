//! One node of a testnet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Child;

use super::http::{ApiError, Client};
use super::process::{Finished, ProcessError, Program};
use super::wait::{Expired, NotYet};

/// A node must answer within this time after it was started, on a busy machine too.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A node that was told to stop must be gone within this time.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Why a node does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The program could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The node did not answer as it should.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It took too long.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// A file of its home could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A command ended with a failure.
    #[error("`openfang {command}` on {node} failed: {said}")]
    Command {
        /// On which node.
        node: String,
        /// The arguments.
        command: String,
        /// What it said.
        said: String,
    },
}

/// How a node is set up.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// What other nodes call it.
    pub name: String,
    /// The mesh secret; `None` leaves the network asleep until it joins.
    pub secret: Option<String>,
    /// Lines that come before the first table of its configuration.
    pub extra: String,
    /// Tables that come after the others.
    pub tables: String,
}

/// A node: its home, and its process while it runs.
#[derive(Debug)]
pub struct Node {
    /// What other nodes call it.
    pub name: String,
    home: PathBuf,
    key: String,
    program: Program,
    child: Option<Child>,
    client: Option<Client>,
}

impl Node {
    /// Makes the home of a node under `root`: `openfang init`, then its configuration on free ports.
    ///
    /// # Errors
    /// When the home cannot be made.
    pub async fn create(program: &Program, root: &Path, setup: &Setup) -> Result<Self, NodeError> {
        let home = root.join(&setup.name);
        let made = program.run(&home, &["init", "--quick"]).await?;
        let mut node = Self {
            name: setup.name.clone(),
            home,
            key: String::new(),
            program: program.clone(),
            child: None,
            client: None,
        };
        node.expect_success("init --quick", &made)?;
        node.key = node.cli(&["keygen"]).await?.trim().to_owned();
        node.write_config(setup)?;
        Ok(node)
    }

    fn write_config(&self, setup: &Setup) -> Result<(), NodeError> {
        let secret = setup.secret.as_ref();
        let secret = secret.map_or(String::new(), |text| {
            format!("shared_secret = \"{text}\"\n")
        });
        let text = format!(
            "api_key = \"{}\"\napi_listen = \"127.0.0.1:0\"\n{}\n[network]\nlisten_addr = \"127.0.0.1:0\"\nnode_name = \"{}\"\n{secret}\n{}",
            self.key, setup.extra, self.name, setup.tables
        );
        let path = self.home.join("config.toml");
        // Written over the file that `init` made, so that it keeps its permissions.
        std::fs::write(&path, text).map_err(|source| NodeError::File { path, source })
    }

    /// Returns the node of a copy of its home; it does not run.
    #[must_use]
    pub fn moved_to(&self, home: &Path) -> Self {
        Self {
            name: self.name.clone(),
            home: home.to_owned(),
            key: self.key.clone(),
            program: self.program.clone(),
            child: None,
            client: None,
        }
    }

    /// Starts it and waits until its API answers.
    ///
    /// # Errors
    /// When it ends instead, or does not answer in time.
    pub async fn start(&mut self) -> Result<Duration, NodeError> {
        let daemon = self.home.join("daemon.json");
        remove_if_there(&daemon)?;
        let child = self.program.start_node(&self.home, &self.log_path())?;
        // Known from now on: whoever stops waiting here can still end it.
        let child = self.child.insert(child);
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        let started = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                let said = std::fs::read_to_string(self.log_path()).unwrap_or_default();
                return Err(self.command_error("start", &format!("{status}: {}", tail(&said))));
            }
            match healthy(&daemon, &self.key).await {
                Ok(client) => {
                    self.client = Some(client);
                    return Ok(started.elapsed());
                }
                Err(NotYet(seen)) if tokio::time::Instant::now() > deadline => {
                    let what = format!("{} to answer on /api/health", self.name);
                    return Err(Expired {
                        what,
                        waited: START_LIMIT,
                        seen,
                    }
                    .into());
                }
                Err(_not_yet) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Returns the client of the running node.
    ///
    /// # Errors
    /// When it does not run.
    pub fn api(&self) -> Result<&Client, NodeError> {
        let running = self.client.as_ref();
        running.ok_or_else(|| self.command_error("start", "it is not running"))
    }

    /// Returns the process id of the running node.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Ends it, if it runs: with SIGTERM, and with SIGKILL when that does not help.
    pub async fn end(&mut self) {
        if let Err(why) = self.stop().await {
            tracing::warn!(node = self.name, %why, "killed");
            if let Err(why) = self.kill().await {
                tracing::error!(node = self.name, %why, "it may still run");
            }
        }
    }

    /// Ends it with SIGKILL: no farewell, nothing flushed.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub async fn kill(&mut self) -> Result<(), NodeError> {
        self.client = None;
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let path = self.home.clone();
        child
            .kill()
            .await
            .map_err(|source| NodeError::File { path, source })?;
        self.child = None;
        Ok(())
    }

    /// Ends it with SIGTERM and returns its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<i32, NodeError> {
        self.client = None;
        let Some(child) = &mut self.child else {
            return Ok(0);
        };
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(|errno| {
                NodeError::File {
                    path: self.home.clone(),
                    source: errno.into(),
                }
            })?;
        }
        let Ok(Ok(status)) = tokio::time::timeout(STOP_LIMIT, child.wait()).await else {
            return Err(self.command_error("stop", "it did not end after SIGTERM"));
        };
        self.child = None;
        Ok(status.code().unwrap_or(-1))
    }

    /// Gives the process away, to be left running after this program ends.
    #[must_use]
    pub fn leave_running(&mut self) -> Option<Child> {
        self.client = None;
        self.child.take()
    }

    /// Runs a command of `openfang` on its home and returns what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub async fn cli(&self, args: &[&str]) -> Result<String, NodeError> {
        let finished = self.program.run(&self.home, args).await?;
        self.expect_success(&args.join(" "), &finished)?;
        Ok(finished.stdout)
    }

    /// Runs a command of `openfang` on its home, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn try_cli(&self, args: &[&str]) -> Result<Finished, NodeError> {
        Ok(self.program.run(&self.home, args).await?)
    }

    /// Spawns an agent from a manifest and returns its id.
    ///
    /// # Errors
    /// When the node refuses it.
    pub async fn spawn(&self, manifest: &str) -> Result<String, NodeError> {
        let body = serde_json::json!({ "manifest_toml": manifest });
        let made = self.api()?.ok("POST", "/api/agents", Some(&body)).await?;
        Ok(made["agent_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns what this node says of the peer called `name`, or `Null`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn peer(&self, name: &str) -> Result<Value, NodeError> {
        let peers = self.api()?.get("/api/peers").await?;
        let list = peers["peers"].as_array().cloned().unwrap_or_default();
        Ok(list
            .into_iter()
            .find(|peer| peer["node_name"] == name)
            .unwrap_or(Value::Null))
    }

    /// Returns its id as it says it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn id(&self) -> Result<String, NodeError> {
        let status = self.api()?.get("/api/network/status").await?;
        Ok(status["node_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Returns the path of its audit log.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.home.join("audit.jsonl")
    }

    /// Returns its home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns its API key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the file that its process writes to.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home.join("process.log")
    }

    fn expect_success(&self, command: &str, finished: &Finished) -> Result<(), NodeError> {
        if finished.status.success() {
            return Ok(());
        }
        Err(self.command_error(command, &finished.said()))
    }

    fn command_error(&self, command: &str, said: &str) -> NodeError {
        NodeError::Command {
            node: self.name.clone(),
            command: command.to_owned(),
            said: said.to_owned(),
        }
    }
}

async fn healthy(daemon: &Path, key: &str) -> Result<Client, NotYet> {
    let text = std::fs::read_to_string(daemon).map_err(NotYet::saw)?;
    let daemon: Value = serde_json::from_str(&text).map_err(NotYet::saw)?;
    let address = daemon["listen_addr"]
        .as_str()
        .ok_or_else(|| NotYet::saw("no listen_addr in daemon.json"))?;
    let client = Client::new(address, key).map_err(NotYet::saw)?;
    client.get("/api/health").await.map_err(NotYet::saw)?;
    Ok(client)
}

fn remove_if_there(path: &Path) -> Result<(), NodeError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(NodeError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
