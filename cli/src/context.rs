//! What every command starts from: the home, the environment, and a runtime when one is needed.

use std::future::Future;

use openfang_node::config::{self, Config, process_environment};
use openfang_node::daemon::Daemon;
use openfang_node::home::Home;

use crate::client::Client;
use crate::error::{Exit, Failure};

/// Where the command works.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) home: Home,
}

impl Context {
    /// Finds the home. Nothing is created.
    pub(crate) fn new() -> Result<Self, Failure> {
        let home = Home::from_environment(&process_environment)?;
        Ok(Self { home })
    }

    /// Reads the configuration.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        Ok(config::load(&self.home, &process_environment)?)
    }

    /// Checks all that would keep a node from starting, as far as it stands in files: what is wrong is
    /// better said here than in a log, and before a healthy node is stopped.
    pub(crate) fn check_start(&self) -> Result<(), Failure> {
        self.config()?.check_log_path()?;
        self.home.check_private()?;
        openfang_node::keys::load(&self.home.node_key())
            .map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
        Ok(())
    }

    /// Returns the running daemon of this home, if there is one.
    pub(crate) fn daemon(&self) -> Option<Daemon> {
        let holder = self.home.held_by().ok().flatten();
        Daemon::load(&self.home).filter(|daemon| Some(daemon.pid) == holder)
    }

    /// Returns a client of the running daemon.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let Some(daemon) = self.daemon() else {
            return Err(match self.home.held_by()? {
                Some(pid) => starting(pid),
                None => self.not_running(),
            });
        };
        let key = config::client_key(&self.home, &process_environment)?;
        Client::new(daemon.listen_addr, key.as_ref())
    }

    /// No daemon holds this home.
    pub(crate) fn not_running(&self) -> Failure {
        let what = format!("no daemon runs in {}", self.home.path().display());
        let mend = if self.home.config().exists() {
            "openfang start"
        } else {
            "openfang init --quick && openfang start"
        };
        Failure::new(Exit::Unreachable, what).mend(mend)
    }

    /// Runs a command that waits for the network.
    pub(crate) fn block_on<T>(
        &self,
        task: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(task)
    }
}

/// The home is held, and nobody says how to reach the holder.
fn starting(pid: u32) -> Failure {
    let what = format!("the daemon (pid {pid}) is starting or stopping and does not serve");
    Failure::new(Exit::Unreachable, what).mend("try again in a moment; openfang stop ends it")
}
