//! Selection of entries from the file of a log.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use openfang_id::AgentKey;

use crate::verify::{Report, Source, VerifyError};
use crate::{Kind, Line, UnknownKind};

/// Which entries are wanted. The default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this agent. A name stands for every agent that was ever created under it.
    pub agent: Option<AgentKey>,
    /// Only of these kinds; empty for all.
    pub kinds: Kinds,
    /// Only from this time on, in microseconds since 1970.
    pub since_unix_micros: Option<u64>,
    /// Only the last so many of them.
    pub limit: Option<usize>,
}

/// A set of kinds, written `auth_failed|api_key`. Empty for all kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kinds(Vec<Kind>);

/// The entries that were wanted, and what a verification of the whole log found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Oldest first.
    pub lines: Vec<Line>,
    /// They are worth what this says.
    pub report: Report,
}

/// Why entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("the audit log {path} cannot be read")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line is not what was written.
    #[error("entry {seq} of the audit log is not what was written")]
    Damaged {
        /// Its number.
        seq: u64,
    },
}

impl FromStr for Kinds {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        text.split(['|', ','])
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Verifies the whole log and returns the entries that are wanted.
///
/// # Errors
/// When a file cannot be read.
pub fn select(source: Source<'_>, filter: &Filter) -> Result<Selection, VerifyError> {
    unimplemented!()
}
