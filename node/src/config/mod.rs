//! The configuration of a node: `config.toml` and a few environment variables, read once.
//!
//! [`load`] turns text into [`Config`], a value of domain types, before any port is bound. It
//! reports every problem at once, each with its place and what mends it. Nothing after it asks the
//! file or the environment again. The format is described in `docs/CONFIG.md`.

mod check;
mod fingerprint;
mod likeness;
mod log_path;
mod problem;
mod raw;

use std::collections::BTreeSet;
use std::env::VarError;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use openfang_audit::note::Verifier;
use openfang_id::{ApiKey, NodeId, NodeName, PeerAddr, SharedSecret};
pub use openfang_kernel::Durability;
use openfang_ofp::gate::Epoch;
use zeroize::Zeroizing;

use crate::files;
use crate::home::Home;
use crate::network_state::NetworkState;

pub use fingerprint::Fingerprint;
pub use problem::{ConfigErrors, Place, Problem, ProblemKind};
pub use raw::{known_keys, refused_keys};

/// Looks an environment variable up; `Ok(None)` when it is not set. A function, so that tests need
/// no process environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Result<Option<Zeroizing<String>>, NotText>;

/// An environment variable is set, and what it holds is no text: never the same as one that is not
/// set. Holds the name of the variable, not its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "environment {variable}: not valid UTF-8\n    mend: export {variable}=… with a text in UTF-8, or: unset {variable}"
)]
pub struct NotText {
    /// The name of the variable.
    pub variable: String,
}

/// Everything a node is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the node's files are.
    pub home: Home,
    /// The HTTP API.
    pub api: Api,
    /// The least important events that are written to the log.
    pub log_level: LogLevel,
    /// The mesh.
    pub network: Network,
    /// The audit log.
    pub audit: Audit,
    /// The model of agents that name none.
    pub model: Model,
    /// What is not wrong, and still most likely not meant.
    pub warnings: Vec<String>,
    /// What was written, as hashes, to notice a change from one start to the next.
    pub fingerprint: Fingerprint,
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it listens. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// The bearer key; without one only loopback is served.
    pub key: Option<ApiKey>,
    /// Whether callers on loopback need the key too.
    pub require_auth_local: bool,
}

/// The mesh.
#[derive(Debug, Clone)]
pub struct Network {
    /// `false` keeps the mesh asleep, whatever else is set.
    pub enabled: bool,
    /// Where peers connect to. Port 0 takes a free port.
    pub listen: SocketAddr,
    /// The secret of the mesh and its number, of the file, the environment or a join; without one it
    /// sleeps.
    pub secret: Option<(Epoch, SharedSecret)>,
    /// Peers to begin with: of the file, and of joins.
    pub bootstrap: Vec<PeerAddr>,
    /// What this node is called.
    pub name: NodeName,
}

/// The audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// `false` keeps no log.
    pub enabled: bool,
    /// The file of the entries.
    pub log_path: PathBuf,
    /// Where that is written.
    pub(crate) log_path_at: Place,
    /// What entries must be before what they are about is done.
    pub durability: Durability,
    /// The same for those that change the node.
    pub change_durability: Durability,
    /// Nodes that are dealt with as ever although evidence convicts them.
    pub allow_convicted: BTreeSet<NodeId>,
    /// How many bytes the copy of one log of a peer may take; 0 keeps no copies.
    pub mirror_quota_bytes: u64,
    /// Whether nothing is signed after a start before enough peers have said what they know of the log.
    pub require_peer_floor: bool,
    /// The logs that are not of the mesh and are witnessed for everybody.
    pub witness_logs: Vec<Verifier>,
}

/// The model of agents that name none.
#[derive(Clone, Default)]
pub struct Model {
    /// Who serves it, such as `openai`.
    pub provider: Option<String>,
    /// Which one.
    pub model: Option<String>,
    /// The key the provider asks for.
    pub api_key: Option<Zeroizing<String>>,
    /// Where it is served, when not at the provider's usual place.
    pub base_url: Option<String>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_key| "redacted"))
            .field("base_url", &self.base_url)
            .finish()
    }
}

/// The least important events that are written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What stops the node.
    Error,
    /// And what works less well than it should.
    Warn,
    /// And when something starts or ends.
    Info,
    /// And every change of state.
    Debug,
    /// And every message.
    Trace,
}

impl LogLevel {
    /// The words of the configuration.
    pub(crate) const WORDS: &str = "info, error, warn, debug, trace";

    /// Reads a word of the configuration.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "error" => Some(Self::Error),
            "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _other => None,
        }
    }

    /// Returns the word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads the configuration of a home, with what `openfang join` stored merged in.
///
/// # Errors
/// Every problem at once, in the order in which they stand in the file.
pub fn load(home: &Home, environment: Lookup<'_>) -> Result<Config, ConfigErrors> {
    let path = home.config();
    let mut problems = Vec::new();
    let fail = |kind| {
        ConfigErrors::new(
            &path,
            vec![Problem {
                place: Place::Whole,
                kind,
            }],
        )
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            return Err(fail(ProblemKind::Missing));
        }
        Err(why) => return Err(fail(unreadable(&why))),
    };
    let raw = raw::read(&text, &mut problems);
    let holds_secret = raw
        .api_key
        .as_ref()
        .is_some_and(|key| !key.value.is_empty())
        || raw.shared_secret.is_some();
    match files::exposed(&path) {
        Ok(Some(mode)) if holds_secret => problems.push(Problem {
            place: Place::Whole,
            kind: ProblemKind::Exposed { mode },
        }),
        Ok(Some(_) | None) => {}
        Err(why) => return Err(fail(unreadable(&why))),
    }
    let stored = match NetworkState::load(home) {
        Ok(stored) => stored,
        Err(why) => {
            problems.push(Problem {
                place: Place::NetworkState,
                kind: ProblemKind::StoredState(why.to_string()),
            });
            None
        }
    };
    check::check(
        check::Input {
            home,
            raw,
            stored,
            environment,
        },
        problems,
    )
    .map_err(|problems| ConfigErrors::new(&path, problems))
}

fn unreadable(why: &std::io::Error) -> ProblemKind {
    ProblemKind::Unreadable {
        why: why.to_string(),
        kind: why.kind(),
    }
}

/// Reads the key a client of the daemon presents: as [`load`] would, whatever else is wrong.
///
/// # Errors
/// When what should be the key is none, or a variable that should hold it holds no text.
pub fn client_key(home: &Home, environment: Lookup<'_>) -> Result<Option<ApiKey>, ConfigErrors> {
    let path = home.config();
    let text = Zeroizing::new(std::fs::read_to_string(&path).unwrap_or_default());
    let raw = raw::read(&text, &mut Vec::new());
    check::client_key(&raw, environment).map_err(|problems| ConfigErrors::new(&path, problems))
}

/// Looks a variable up in the environment of this process.
///
/// # Errors
/// When it holds no text.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub fn process_environment(name: &str) -> Result<Option<Zeroizing<String>>, NotText> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_value)) => Err(NotText {
            variable: name.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
