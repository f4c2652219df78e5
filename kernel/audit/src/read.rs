//! Selection of entries from the file of a log, once or as they are written.

mod follow;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;

use openfang_id::{AgentId, AgentKey, NodeId};

pub use follow::{Follow, FollowError, select_and_follow};

use crate::clock::rfc3339;
use crate::scan::Passing;
use crate::verify::{Report, Source, VerifyError, verify_each};
use crate::{Kind, Line, Origin, UnknownKind};

/// Which entries are wanted. The default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this agent. A name stands for every agent that was ever created under it.
    pub agent: Option<AgentKey>,
    /// Only of these kinds; empty for all.
    pub kinds: Kinds,
    /// Only what names this node: by its id, or by its log.
    pub node: Option<NodeId>,
    /// Only what names this log, in whichever epoch: for a node whose id is not known.
    pub log: Option<Origin>,
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
    /// How many were wanted in all, whatever the limit.
    pub matched: u64,
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
    Ok(choice.into_selection(report))
}

/// The entries that were wanted so far.
#[derive(Debug)]
struct Choice {
    filter: Filter,
    since: Option<String>,
    /// The id of the wanted node, and the beginning of the name of its log.
    node: Option<[String; 2]>,
    /// The beginning of the name of the wanted log.
    log: Option<String>,
    /// The ids of the agents that were created under the wanted name.
    named: BTreeSet<AgentId>,
    kept: VecDeque<Vec<u8>>,
    matched: u64,
    unreadable: u64,
}

impl Choice {
    fn new(filter: &Filter) -> Self {
        Self {
            since: filter.since_unix_micros.map(rfc3339),
            node: filter.node.as_ref().map(names_of),
            log: filter.log.as_ref().map(stem_of),
            filter: filter.clone(),
            named: BTreeSet::new(),
            kept: VecDeque::new(),
            matched: 0,
            unreadable: 0,
        }
    }

    fn into_selection(mut self, report: Report) -> Selection {
        let (matched, before) = (self.matched, self.unreadable);
        let lines = self.take();
        Selection {
            lines,
            matched,
            unreadable: before + self.unreadable,
            report,
        }
    }

    /// Gives what was kept away, and begins anew.
    fn take(&mut self) -> Vec<Line> {
        let kept = std::mem::take(&mut self.kept);
        let parsed = kept.iter().map(|bytes| Line::parse(bytes));
        let lines: Vec<_> = parsed.filter_map(Result::ok).collect();
        self.unreadable = (kept.len() - lines.len()) as u64;
        self.matched = 0;
        lines
    }

    fn wants_all(&self) -> bool {
        let Filter { agent, kinds, .. } = &self.filter;
        let names = self.node.is_none() && self.log.is_none();
        agent.is_none() && kinds.0.is_empty() && self.since.is_none() && names
    }

    fn see(&mut self, passing: &Passing<'_>) {
        if !self.wants_all() {
            match Line::parse(passing.bytes) {
                Ok(line) if self.wants(&line) => {}
                Ok(_) => return,
                Err(_unreadable) => {
                    self.unreadable += 1;
                    return;
                }
            }
        }
        self.matched += 1;
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
        let node_fits = self.node.as_ref().is_none_or(|names| {
            // Both are plain letters and digits, which stand in the line as they are.
            names.iter().any(|name| line.raw.contains(name.as_str()))
        });
        let log_fits = self.log.as_ref().is_none_or(|log| line.raw.contains(log));
        agent_fits && kind_fits && time_fits && node_fits && log_fits
    }
}

fn names_of(node: &NodeId) -> [String; 2] {
    [node.to_string(), stem_of(&Origin::of(node, 0))]
}

/// Returns the name of a log without its epoch.
fn stem_of(log: &Origin) -> String {
    let stem = log.as_str().rsplit_once('/').map(|(stem, _epoch)| stem);
    stem.unwrap_or(log.as_str()).to_owned()
}
