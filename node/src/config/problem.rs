//! What can be wrong with a configuration, where it stands, and what mends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use openfang_audit::note::VerifierError;
use openfang_id::{AddrError, NameError, NodeIdError, SecretError};
use openfang_kernel::provider;

use super::likeness;
use crate::files;

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    Whole,
    /// A place in the file, both counted from 1; a column is a character.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable.
    Environment(&'static str),
    /// What `openfang join` stored.
    NetworkState,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub kind: ProblemKind,
}

/// Why a value is not accepted. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemKind {
    /// There is no file.
    #[error("there is no configuration")]
    Missing,
    /// The file exists and cannot be read.
    #[error("cannot be read: {why}")]
    Unreadable {
        /// What the system said.
        why: String,
        /// Of which kind that is.
        kind: io::ErrorKind,
    },
    /// The file holds a secret and others can read it.
    #[error("holds a secret and can be read by other users (mode {mode:04o})")]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key this version does not know.
    #[error("unknown key `{name}`")]
    UnknownKey {
        /// The key, with its table.
        name: String,
        /// The known key that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A key of the guides that has no effect yet.
    #[error("`{name}` is documented, not enforced by this version yet")]
    NotEnforced {
        /// The key, with its table.
        name: String,
    },
    /// A value of another type.
    #[error("`{name}` must be {expected}, not {found}")]
    Type {
        /// The key, with its table.
        name: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Not an address to listen at.
    #[error("`{name}` must be an IP address and a port, not {found:?}")]
    Listen {
        /// The key.
        name: &'static str,
        /// What was written.
        found: String,
    },
    /// The API would be open to everyone.
    #[error("`api_listen` {listen} can be reached from other machines, and there is no API key")]
    OpenToAll {
        /// Where it would listen.
        listen: SocketAddr,
    },
    /// Not one of the words that are allowed.
    #[error("`{name}` must be one of {allowed}, not {found:?}")]
    Choice {
        /// The key.
        name: &'static str,
        /// The words.
        allowed: &'static str,
        /// What was written.
        found: String,
    },
    /// A number outside its range.
    #[error("`{name}` must be a whole number, {min} to {max}, not {found}")]
    Number {
        /// The key.
        name: &'static str,
        /// The smallest that is allowed.
        min: u64,
        /// The largest that is allowed.
        max: u64,
        /// What was written.
        found: String,
        /// What it is when nothing is written.
        default: u64,
    },
    /// Not a node name.
    #[error("`network.node_name`: {0}")]
    NodeName(#[source] NameError),
    /// Not the address of a peer.
    #[error("{found:?} in `network.bootstrap_peers`: {why}")]
    Peer {
        /// What was written.
        found: String,
        /// Why it is none.
        #[source]
        why: AddrError,
    },
    /// Not the id of a node.
    #[error("{found:?} in `audit.allow_convicted`: {why}")]
    Node {
        /// What stands there.
        found: String,
        /// Why not.
        #[source]
        why: NodeIdError,
    },
    /// Not the verifier key of a log.
    #[error("{found:?} in `audit.witness_logs`: {why}")]
    WitnessLog {
        /// What was written.
        found: String,
        /// Why it is none.
        #[source]
        why: VerifierError,
    },
    /// A weak, damaged or copied secret.
    #[error("`{name}` is not usable: {why}")]
    Secret {
        /// The key.
        name: &'static str,
        /// Why.
        #[source]
        why: SecretError,
    },
    /// A key names an environment variable that is not set.
    #[error("`{name}` names the environment variable {variable}, which is not set")]
    Unset {
        /// The key.
        name: &'static str,
        /// The variable.
        variable: String,
    },
    /// An environment variable is set and holds no text.
    #[error("the environment variable {variable} is not valid UTF-8")]
    NotText {
        /// The variable.
        variable: String,
    },
    /// Two sources for one value.
    #[error("`{one}` and `{other}` are both set")]
    Both {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// An empty text where one is needed.
    #[error("`{name}` is empty")]
    Empty {
        /// The key.
        name: &'static str,
    },
    /// A path that starts with `~`, and nobody knows whose.
    #[error("`{name}` starts with ~, and HOME is not set")]
    NoHome {
        /// The key.
        name: &'static str,
    },
    /// The audit log would be written into another file of the node.
    #[error("`audit.log_path` {path} is a file or folder of the node itself")]
    LogPathOwn {
        /// What was written.
        path: String,
    },
    /// The folder beside the audit log would have its name.
    #[error("`audit.log_path` {path} ends in .d, as the folder does that is made beside the log")]
    LogPathBeside {
        /// What was written.
        path: String,
    },
    /// A folder stands where the audit log should be.
    #[error("`audit.log_path` {path} is a folder, or no plain file")]
    LogPathFolder {
        /// Where.
        path: String,
    },
    /// The way to the audit log cannot be gone.
    #[error("`audit.log_path` {path}: {why}")]
    LogPathUnusable {
        /// Where.
        path: String,
        /// What the system said.
        why: String,
        /// Of which kind that is.
        kind: io::ErrorKind,
    },
    /// Not a URL of the web.
    #[error("`default_model.base_url` must start with http:// or https://, not {found:?}")]
    Url {
        /// What was written.
        found: String,
    },
    /// A provider whose address nobody knows.
    #[error("`default_model.provider` {found:?} is not a known provider, and there is no base_url")]
    Provider {
        /// What was written.
        found: String,
    },
    /// What `openfang join` stored cannot be used.
    #[error("what `openfang join` stored cannot be used: {0}")]
    StoredState(String),
    /// The file names another mesh than the one that was joined.
    #[error("the network secret of the configuration differs from the one `openfang join` stored")]
    OtherMesh,
}

/// Every problem of one configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    path: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigErrors {
    /// Collects the problems, in the order in which they stand in the file.
    pub(crate) fn new(path: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.place);
        Self {
            path: path.to_owned(),
            problems,
        }
    }

    /// Returns the problems, in the order in which they stand in the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match problem.place {
                Place::Whole => write!(f, "{path}: ")?,
                Place::File { line, column } => write!(f, "{path}:{line}:{column}: ")?,
                Place::Environment(name) => write!(f, "environment {name}: ")?,
                Place::NetworkState => {
                    write!(
                        f,
                        "{}: ",
                        self.path.with_file_name("network.toml").display()
                    )?;
                }
            }
            write!(
                f,
                "{}\n    mend: {}",
                problem.kind,
                problem.kind.mend(&self.path)
            )?;
        }
        Ok(())
    }
}

impl ProblemKind {
    /// Returns the line or command that mends it.
    #[must_use]
    pub fn mend(&self, path: &Path) -> String {
        match self {
            Self::Missing => "openfang init --quick".to_owned(),
            Self::Unreadable { kind, .. } => files::mend(path, *kind),
            Self::Exposed { .. } => format!("chmod 600 {}", path.display()),
            Self::Syntax(_why) => "correct this line, then: openfang config check".to_owned(),
            Self::UnknownKey {
                nearest: Some(nearest),
                ..
            } => format!("did you mean {}? rename or remove it", in_table(nearest)),
            Self::UnknownKey { nearest: None, .. } => {
                "remove it; docs/CONFIG.md lists every key".to_owned()
            }
            Self::NotEnforced { .. } => {
                "remove it, so that nobody believes it is active".to_owned()
            }
            Self::Type { expected, .. } => format!("write {expected}"),
            Self::Listen { name, .. } => format!("{} = \"127.0.0.1:4200\"", last(name)),
            Self::OpenToAll { .. } => {
                "api_key = \"…\" with what `openfang keygen` prints, or api_listen = \"127.0.0.1:4200\""
                    .to_owned()
            }
            Self::Choice { name, allowed, .. } => {
                let first = allowed.split(", ").next().unwrap_or(allowed);
                format!("{} = \"{first}\"", last(name))
            }
            Self::Number { name, default, .. } => format!("{} = {default}", last(name)),
            Self::NodeName(_why) => "node_name = \"node-1\"".to_owned(),
            Self::Peer { .. } => "bootstrap_peers = [\"192.0.2.7:4200\"]".to_owned(),
            Self::Node { .. } => "allow_convicted = [\"12D3KooW…\"] with an id that `openfang peers` shows".to_owned(),
            Self::WitnessLog { .. } => {
                "witness_logs = [\"…\"], with what stands behind `log` in the policy of that log".to_owned()
            }
            Self::Secret { name, why } => mend_secret(name, *why),
            Self::Unset { name, variable } => {
                format!("export {variable}=…, or remove the line `{} = …`", last(name))
            }
            Self::NotText { variable } => {
                format!("export {variable}=… with a text in UTF-8, or: unset {variable}")
            }
            Self::Both { other, .. } => format!("keep one of the two: remove `{}`", last(other)),
            Self::Empty { name } => format!("give `{}` a value, or remove the line", last(name)),
            Self::NoHome { .. } => "write the whole path".to_owned(),
            Self::LogPathOwn { .. } | Self::LogPathBeside { .. } => {
                "log_path = \"audit.jsonl\", or remove the line".to_owned()
            }
            Self::LogPathFolder { path } => format!("log_path = \"{path}/audit.jsonl\""),
            Self::LogPathUnusable { path, kind, .. } => files::mend(Path::new(path), *kind),
            Self::Url { .. } => "base_url = \"http://127.0.0.1:8080/v1\"".to_owned(),
            Self::Provider { found } => mend_provider(found),
            Self::StoredState(_why) => {
                "remove the file, then join again: openfang join - with a ticket on stdin".to_owned()
            }
            Self::OtherMesh => {
                "remove `shared_secret` here to stay in the joined mesh, or remove network.toml to leave it"
                    .to_owned()
            }
        }
    }
}

fn mend_secret(name: &str, why: SecretError) -> String {
    let kind = if name.ends_with("shared_secret") || name.ends_with("shared_secret_env") {
        "openfang keygen --network"
    } else {
        "openfang keygen"
    };
    match why {
        SecretError::Checksum => format!("copy it again, or make a new one: {kind}"),
        SecretError::TooShort(_)
        | SecretError::TooLong(_)
        | SecretError::Placeholder
        | SecretError::Repetitive
        | SecretError::Whitespace
        | SecretError::WrongKind(_) => format!("make one: {kind}"),
    }
}

fn mend_provider(found: &str) -> String {
    const BASE_URL: &str = "base_url = \"http://127.0.0.1:8080/v1\"";
    let known = || {
        provider::PROVIDERS
            .iter()
            .filter(|known| known.base_url.is_some())
            .map(|known| known.name)
    };
    match likeness::nearest(known(), |name| likeness::of(name, found)) {
        Some(name) => format!("provider = \"{name}\", or {BASE_URL}"),
        None => {
            let names: Vec<&str> = known().collect();
            format!("one of {}; or {BASE_URL}", names.join(", "))
        }
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn in_table(name: &str) -> String {
    match name.split_once('.') {
        Some((table, key)) => format!("`{key}` in [{table}]"),
        None => format!("`{name}` at the top of the file"),
    }
}
