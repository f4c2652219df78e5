//! Why a node does not start, or ends.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use openfang_mesh::StartError;

use crate::clock::NoRandom;
use crate::config::{ConfigErrors, NotText};
use crate::files;
use crate::home::HomeError;
use crate::keys::KeyFileError;
use crate::tasks::TaskFailure;

/// Why a node did not start, or did not run to its end. Every message ends with what mends it.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A variable of the environment holds no text.
    #[error(transparent)]
    Environment(#[from] NotText),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// No random numbers.
    #[error("{0}\n    mend: check that getrandom(2) is allowed here")]
    Random(#[from] NoRandom),
    /// The audit log cannot be used.
    #[error(
        "{0}\n    mend: openfang audit verify says what is wrong with it; openfang audit repair mends it from copies that peers have"
    )]
    Audit(#[from] openfang_audit::OpenError),
    /// The number of the audit log cannot be read or written.
    #[error(
        "audit.epoch, the number of the audit log: {why}\n    mend: check its permissions and df -h; when it is damaged, write the number at the end of the first line of audit.d/floor into it"
    )]
    Epoch {
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// What is remembered of the audit log cannot be read or written.
    #[error("{path}, what is doubtful about the audit log: {why}\n    mend: {}", files::mend(path, why.kind()))]
    Doubt {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// The start could not be logged.
    #[error("the start cannot be logged: {0}\n    mend: openfang audit verify, df -h")]
    NotLogged(#[source] openfang_kernel::AuditError),
    /// The kernel did not open.
    #[error("{0}\n    mend: check the folder data in the home, df -h")]
    Kernel(#[from] openfang_kernel::OpenError),
    /// The mesh did not start.
    #[error("{why}\n    mend: {}", mend_mesh(why))]
    Mesh {
        /// What went wrong.
        #[from]
        why: StartError,
    },
    /// The address of the API is taken.
    #[error("api_listen {listen} is in use by another process\n    mend: openfang stop if it is an openfang daemon of another home, or api_listen = \"127.0.0.1:{}\"", other_port(*.listen))]
    ApiInUse {
        /// Where it would have listened.
        listen: SocketAddr,
    },
    /// The API cannot listen.
    #[error("api_listen {listen}: {why}\n    mend: api_listen = \"127.0.0.1:4200\"")]
    ApiListen {
        /// Where it would have listened.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// A file of the home cannot be written.
    #[error("{path} cannot be written: {why}\n    mend: {}", files::mend(path, why.kind()))]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// A part of the node failed while it ran.
    #[error("{0}\n    mend: openfang start, and report what the log says before this")]
    Task(#[from] TaskFailure),
    /// Told to stop a second time.
    #[error("ended at once: turns that ran were cut\n    mend: openfang start")]
    Interrupted,
}

impl RunError {
    /// Whether the configuration has to be changed: exit code 64.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Environment(_))
    }
}

fn mend_mesh(why: &StartError) -> &'static str {
    match why {
        StartError::InUse { .. } => {
            "another port in network.listen_addr, or end the process that listens there"
        }
        StartError::Listen { .. } => "network.listen_addr = \"127.0.0.1:4200\"",
        StartError::State { .. } => "make the folder mesh in the home writable",
        StartError::Incarnation { .. } => "remove the file that is named, then: openfang start",
        StartError::Transport { .. } => {
            "check /etc/resolv.conf; network.enabled = false starts without a mesh"
        }
    }
}

fn other_port(listen: SocketAddr) -> u16 {
    listen.port().checked_add(1).unwrap_or(4200)
}
