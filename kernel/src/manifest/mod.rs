//! The manifest of an agent (`agent.toml`): what it is, what runs it and what it may do.
//!
//! [`Manifest::parse`] turns the text into checked values. What is wrong is an error with line and
//! column; what is merely unknown, or accepted without effect, is a warning with the same.

mod fields;
mod read;

use std::collections::BTreeMap;
use std::fmt;

use openfang_id::AgentName;

/// The modules of this program.
pub const MODULES: [&str; 2] = ["builtin:chat", "builtin:echo"];

/// The longest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;

/// The most requests to its model a turn may make, whatever the manifest says.
pub const ITERATIONS_MAX: u32 = 100;

/// An agent, as its author describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Unique on its node.
    pub name: AgentName,
    /// Its version, `0.1.0` by default.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// Who wrote it.
    pub author: String,
    /// What runs it, `builtin:chat` by default. Checked when it is spawned.
    pub module: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Free notes of the author; values that are no texts in TOML notation.
    pub metadata: BTreeMap<String, String>,
    /// When not empty, no tool outside it is granted.
    pub tool_allowlist: Vec<String>,
    /// Tools that are never granted.
    pub tool_blocklist: Vec<String>,
    /// How many messages of its session an agent is shown, 20 by default.
    pub max_history_messages: u32,
    /// Which model it thinks with.
    pub model: Model,
    /// Models to try in this order when the first gives no answer.
    pub fallback_models: Vec<Model>,
    /// What it may use up.
    pub resources: Resources,
    /// What it may do.
    pub capabilities: Capabilities,
    /// How many requests to its model a turn may make: 1 to [`ITERATIONS_MAX`], 50 by default.
    pub max_iterations: u32,
    text: String,
}

/// A model, as a manifest names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// A provider; empty for the node's default.
    pub provider: String,
    /// The model; empty for the node's default.
    pub model: String,
    /// The longest answer, in tokens; 4096 by default.
    pub max_tokens: u32,
    /// 0 to 2, 0.7 by default.
    pub temperature: f64,
    /// What the agent is told before anything else.
    pub system_prompt: String,
    /// The environment variable of the node its key is kept in, when not the provider's own.
    pub api_key_env: Option<String>,
    /// Where its server is, when not where the provider's is.
    pub base_url: Option<String>,
}

/// What an agent may use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// 60 by default.
    pub max_tool_calls_per_minute: u32,
    /// Read and written tokens together; 0, the default, is no limit.
    pub max_llm_tokens_per_hour: u64,
}

/// What an agent may do. Lists hold names with `*` for any text.
///
/// `tools` decides alone when a narrower list is absent; a narrower list that is present narrows,
/// and an empty one grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The tools it may use. Empty means none.
    pub tools: Vec<String>,
    /// Whom it may send messages to.
    pub agent_message: Option<Vec<String>>,
    /// Which keys of its memory it may read.
    pub memory_read: Option<Vec<String>>,
    /// Which keys of its memory it may write.
    pub memory_write: Option<Vec<String>>,
    /// Whether it is told of agents of other nodes.
    pub ofp_discover: Option<bool>,
    /// To which other nodes it may send messages.
    pub ofp_connect: Option<Vec<String>>,
}

impl Manifest {
    /// Reads a manifest. `source` is the name of the file, for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn parse(toml: &str, source: &str) -> Result<(Self, Vec<ManifestWarning>), ManifestError> {
        fields::parse(toml, source)
    }

    /// Returns the text it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Something in a manifest that does not do what its author may think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestWarning {
    /// The file.
    pub source: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The full key.
    pub key: String,
    /// What is the matter.
    pub what: WarningKind,
}

/// What is the matter with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarningKind {
    /// No manifest has it.
    UnknownKey {
        /// The known key it is most like.
        nearest: Option<String>,
    },
    /// This program has no such tool.
    UnknownTool {
        /// The name.
        tool: String,
        /// The known tool it is most like.
        nearest: Option<String>,
    },
    /// It is understood and has no effect in this program.
    NotInForce {
        /// Why.
        why: &'static str,
    },
    /// It is above what is possible and was lowered.
    Lowered {
        /// To this.
        to: u64,
    },
}

impl ManifestWarning {
    /// Returns what is the matter with what, without the place.
    #[must_use]
    pub fn sentence(&self) -> impl fmt::Display + '_ {
        Sentence(self)
    }
}

impl fmt::Display for ManifestWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            line,
            column,
            key: _,
            what: _,
        } = self;
        write!(f, "{source}:{line}:{column}: {}", self.sentence())
    }
}

struct Sentence<'a>(&'a ManifestWarning);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestWarning { key, what, .. } = self.0;
        let hint = |f: &mut fmt::Formatter<'_>, nearest: &Option<String>| match nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        };
        match what {
            WarningKind::UnknownKey { nearest } => {
                write!(f, "unknown key `{key}` is ignored")?;
                hint(f, nearest)
            }
            WarningKind::UnknownTool { tool, nearest } => {
                write!(
                    f,
                    "`{key}` names {tool:?}, which is no tool of this program"
                )?;
                hint(f, nearest)
            }
            WarningKind::NotInForce { why } => write!(f, "`{key}` has no effect: {why}"),
            WarningKind::Lowered { to } => {
                write!(f, "`{key}` is lowered to {to}, the most possible")
            }
        }
    }
}

/// One thing that is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong, in a sentence.
    pub what: String,
}

/// Why a manifest cannot be used: at least one problem, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file.
    pub source_name: String,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let Problem { line, column, what } = problem;
            write!(f, "{}:{line}:{column}: {what}", self.source_name)?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}
