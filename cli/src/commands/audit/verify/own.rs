//! What the node itself knows of its log and its files alone do not tell: what the last run found to be
//! doubtful, and what a node that runs has heard from its peers.

use std::time::Duration;

use openfang_node::put_back::is_put_back;
use openfang_schema::{AuditWitnesses, SigningState, Status, path};
use serde::de::DeserializeOwned;

use super::super::files::Files;
use super::said;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// A node that takes longer to say how its log stands is not waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// The word in `audit.doubt` for a log that peers contradict.
const CONTRADICTED: &str = "contradicted";
/// What the other words there say. What is not among them counts for the last.
const DOUBTS: [(&str, &str); 5] = [
    ("gone", "the log was gone"),
    ("no floor", "its signing floor was missing"),
    ("moved", "its files are not those that this node wrote"),
    ("retired", "it was put back to an earlier state"),
    ("rolled back", "it was put back to an earlier state"),
];

/// How the log stands, beyond its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Own {
    /// Nothing is known against it.
    Fine,
    /// Part of it may be missing: why.
    InDoubt(String),
    /// Peers hold more than there is: who says so.
    Behind(String),
    /// Peers hold a head that it has signed and does not lead to: who says so.
    Contradicted(String),
}

/// Why a running node does not write its log, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failing {
    /// It tries again with the next entry.
    ForNow(String),
    /// It has stopped until the next start.
    ForGood(String),
}

/// What was found out.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) own: Own,
    /// Whether the node runs.
    pub(super) runs: bool,
    /// Whether it asks its peers right now, and signs nothing meanwhile.
    pub(super) asking: bool,
    /// How many entries enough witnesses have cosigned, as the running node says.
    pub(super) complete: Option<u64>,
    /// Why the running node does not write its log, if so.
    pub(super) failing: Option<Failing>,
}

/// Looks and asks. `unread` is told what cannot be read.
pub(super) fn load(files: &Files, context: &Context, unread: &mut Vec<String>) -> Known {
    let runs = context.daemon().is_some();
    let asked = if runs && files.enabled {
        ask(context)
    } else {
        None
    };
    let complete = asked.as_ref().and_then(|reply| reply.complete.as_ref());
    let complete = complete.map(|head| head.size);
    let signing = asked.map(|reply| (reply.signing.state, reply.signing.reason));
    let asking = matches!(signing, Some((SigningState::Asking, _)));
    let own = match signing {
        Some((SigningState::Free, _)) => Own::Fine,
        Some((SigningState::Contradicted, why)) => Own::Contradicted(says(why)),
        Some((SigningState::Behind, why)) => Own::Behind(says(why)),
        Some((SigningState::Restoring, why)) => Own::InDoubt(words(why)),
        Some((SigningState::Asking, _)) | None => match remembered(files, unread) {
            Own::Fine if !runs => in_its_place(files, context, unread),
            known @ (Own::Fine | Own::InDoubt(_) | Own::Behind(_) | Own::Contradicted(_)) => known,
        },
    };
    Known {
        own,
        runs,
        asking,
        complete,
        failing: (runs && files.enabled).then(|| failing(context)).flatten(),
    }
}

fn says(reason: Option<String>) -> String {
    format!("the running node says: {}", words(reason))
}

fn words(reason: Option<String>) -> String {
    let reason = reason.unwrap_or_default();
    render::cell(reason.trim_end_matches('.'))
}

/// Asks the running node. What it does not say is no damage, and is said.
fn ask(context: &Context) -> Option<AuditWitnesses> {
    let asked = answer(context, path::AUDIT_WITNESSES);
    asked
        .inspect_err(|why| {
            let why = said(why);
            render::message(&format!(
                "the running node was not asked what it knows of its log: {why}"
            ));
        })
        .ok()
}

/// Asks the running node whether it can write its log. One that does not answer has been told of already.
fn failing(context: &Context) -> Option<Failing> {
    let status: Status = answer(context, path::STATUS).ok()?;
    let why = words(status.audit.reason);
    match &*status.audit.state {
        "failing" => Some(Failing::ForNow(why)),
        "poisoned" => Some(Failing::ForGood(why)),
        _written => None,
    }
}

fn answer<T: DeserializeOwned>(context: &Context, path: &str) -> Result<T, Failure> {
    let client = context.client()?;
    context.block_on(async {
        let asked = tokio::time::timeout(ANSWER, client.get(path)).await;
        asked.unwrap_or_else(|_late| Err(Failure::new(Exit::Timeout, "no answer in time")))
    })
}

/// Reads what the last run remembered.
fn remembered(files: &Files, unread: &mut Vec<String>) -> Own {
    match files.doubt() {
        Ok(None) => Own::Fine,
        Ok(Some(word)) if word == CONTRADICTED => Own::Contradicted(
            "the last run of the node found that peers hold a head that this log has signed and does not lead to (audit.doubt)".to_owned(),
        ),
        Ok(Some(word)) => {
            let known = DOUBTS.iter().find(|(known, _)| *known == word);
            let what = known.map_or_else(
                || {
                    let word = render::cell(&word);
                    format!(
                        "audit.doubt holds {word:?}, which is none of the words that a node writes, and counts as that the log was put back"
                    )
                },
                |(_, what)| format!("{what} (audit.doubt)"),
            );
            Own::InDoubt(format!("{what}; {NOT_SAID}"))
        }
        Err(why) => {
            unread.push(format!("what is doubtful about the log: {}", said(&why)));
            Own::Fine
        }
    }
}

/// Looks whether the log of a stopped node is where that wrote it: the next start looks, too. A floor that is
/// gone has words of its own.
fn in_its_place(files: &Files, context: &Context, unread: &mut Vec<String>) -> Own {
    if !files.asks || files.floor_word() != "there" {
        return Own::Fine;
    }
    match is_put_back(&context.home) {
        Ok(false) => Own::Fine,
        Ok(true) => Own::InDoubt(format!("{MOVED}; {NOT_SAID}")),
        Err(why) => {
            unread.push(format!(
                "whether the files of the log are those that this node wrote: {why}"
            ));
            Own::Fine
        }
    }
}

/// What is said of a log that was put back.
const MOVED: &str =
    "its files are not those that this node wrote, as when a backup is put back or a home is moved";
/// What is to be waited for.
const NOT_SAID: &str = "the peers have not said yet what they know of it";

impl Own {
    /// Why it is not known whether the entries are all there were.
    pub(super) fn doubt(&self) -> Option<&str> {
        match self {
            Self::InDoubt(why) => Some(why),
            Self::Fine | Self::Behind(_) | Self::Contradicted(_) => None,
        }
    }

    /// Whether entries may be missing that come back, so that what stands in their place is not signed.
    pub(super) fn is_unsettled(&self) -> bool {
        match self {
            Self::InDoubt(_) | Self::Behind(_) => true,
            Self::Fine | Self::Contradicted(_) => false,
        }
    }

    /// What the node has heard that speaks against the log.
    pub(super) fn heard(&self) -> Option<&str> {
        match self {
            Self::Behind(what) | Self::Contradicted(what) => Some(what),
            Self::Fine | Self::InDoubt(_) => None,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::InDoubt(_) => "in_doubt",
            Self::Behind(_) => "behind",
            Self::Contradicted(_) => "contradicted",
        }
    }
}
