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
use crate::put_back::LeftBehind;
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
    #[error("{why}\n    mend: {}", mend_audit(why))]
    Audit {
        /// What is wrong with it.
        #[from]
        why: openfang_audit::OpenError,
    },
    /// The lines of the audit log are in another file.
    #[error("{} is not there, which audit.log_path names: the signed heads are of a log whose lines seem to be in {}\n    mend: {}", left.to.display(), left.from.display(), left.mend())]
    LeftBehind {
        /// Where they are.
        left: LeftBehind,
    },
    /// The number of the audit log cannot be read or written.
    #[error(
        "audit.epoch, the number of the audit log: {why}\n    mend: {}",
        crate::audit_epoch::mend(why)
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

fn mend_mesh(why: &StartError) -> String {
    let mend = match why {
        StartError::InUse { .. } => {
            "another port in network.listen_addr, or end the process that listens there"
        }
        StartError::Listen { .. } => "network.listen_addr = \"127.0.0.1:4200\"",
        StartError::State { path, source } => return files::mend(path, source.kind()),
        StartError::Incarnation { .. } => "remove the file that is named, then: openfang start",
        StartError::Transport { .. } => {
            "check /etc/resolv.conf; network.enabled = false starts without a mesh"
        }
    };
    mend.to_owned()
}

fn mend_audit(why: &openfang_audit::OpenError) -> String {
    use openfang_audit::{FloorProblem, OpenError};
    let mend = match why {
        OpenError::Locked { .. } => "openfang stop, in the home of that process",
        OpenError::Tampered { .. } => {
            "openfang audit repair, which fetches what is bad from the copies that peers have (--from NODE: from that one alone) and cuts off what was written behind the end; openfang audit verify says what was done"
        }
        OpenError::Corrupt { .. } => {
            "openfang audit repair, which cuts it off and keeps it in audit.d/evidence"
        }
        OpenError::Floor { problem, .. } => match problem {
            FloorProblem::Missing | FloorProblem::Damaged | FloorProblem::RolledBack => {
                "openfang audit repair, which makes it again from the copies that peers have; on a node without a mesh it says what else helps"
            }
            FloorProblem::OtherLog => {
                "put back the node.key and the audit.epoch that belong to this log; or move audit.jsonl and audit.d away, and the next start begins a new log"
            }
        },
        OpenError::Io { path, source, .. } => return files::mend(path, source.kind()),
    };
    mend.to_owned()
}

fn other_port(listen: SocketAddr) -> u16 {
    listen.port().checked_add(1).unwrap_or(4200)
}
