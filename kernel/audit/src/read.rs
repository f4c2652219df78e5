//! Selection of entries from the file of a log.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;

use openfang_id::{AgentId, AgentKey};

use crate::clock::rfc3339;
use crate::scan::Passing;
use crate::verify::{Report, Source, VerifyError, verify_each};
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
    /// How many lines could not be read as entries of this version, and were left out.
    pub unreadable: u64,
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
    let mut choice = Choice::new(filter);
    let report = verify_each(source, |passing| {
        choice.see(&passing);
        ControlFlow::Continue(())
    })?;
    let parsed = choice.kept.iter().map(|bytes| Line::parse(bytes));
    let lines: Vec<_> = parsed.filter_map(Result::ok).collect();
    Ok(Selection {
        unreadable: choice.unreadable + (choice.kept.len() - lines.len()) as u64,
        lines,
        report,
    })
}

/// The entries that were wanted so far.
struct Choice<'a> {
    filter: &'a Filter,
    since: Option<String>,
    /// The ids of the agents that were created under the wanted name.
    named: BTreeSet<AgentId>,
    kept: VecDeque<Vec<u8>>,
    unreadable: u64,
}

impl<'a> Choice<'a> {
    fn new(filter: &'a Filter) -> Self {
        Self {
            filter,
            since: filter.since_unix_micros.map(rfc3339),
            named: BTreeSet::new(),
            kept: VecDeque::new(),
            unreadable: 0,
        }
    }

    fn see(&mut self, passing: &Passing<'_>) {
        let all =
            self.filter.agent.is_none() && self.filter.kinds.0.is_empty() && self.since.is_none();
        if !all {
            match Line::parse(passing.bytes) {
                Ok(line) if self.wants(&line) => {}
                Ok(_) => return,
                Err(_unreadable) => {
                    self.unreadable += 1;
                    return;
                }
            }
        }
        self.kept.push_back(passing.bytes.to_vec());
        if self
            .filter
            .limit
            .is_some_and(|limit| self.kept.len() > limit)
        {
            self.kept.pop_front();
        }
    }

    fn wants(&mut self, line: &Line) -> bool {
        let agent_fits = match &self.filter.agent {
            None => true,
            Some(AgentKey::Id(id)) => line.agent == Some(*id),
            Some(AgentKey::Name(name)) => {
                let created = line.ev == Kind::AgentCreate.as_str();
                if created && line.target.as_deref() == Some(name.as_str()) {
                    self.named.extend(line.agent);
                }
                line.agent.is_some_and(|id| self.named.contains(&id))
            }
        };
        let kinds = &self.filter.kinds.0;
        let kind_fits = kinds.is_empty() || kinds.iter().any(|kind| kind.as_str() == line.ev);
        // Times all have the same length, so that their order as texts is their order in time.
        let time_fits = self.since.as_ref().is_none_or(|since| line.ts >= *since);
        agent_fits && kind_fits && time_fits
    }
}
