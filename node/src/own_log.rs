//! The own audit log before its first signature, and whenever it comes into doubt: peers are asked what
//! they know of it, and what was lost here comes back from their copies.
//!
//! The log is opened held: it takes entries and signs nothing. When enough peers have answered and
//! none knows more, it is released. When one knows a head that the log does not lead to, the log was
//! wiped or rolled back: its entries are fetched from the mirrors, and it goes on behind them. What
//! nobody has any more ends the log, and a new one begins in the next epoch: a second history of the
//! same log would be a lie.
//!
//! The same is done again ([`Doubts`]) when a join begins, which may lead to somebody who knows more, and
//! when a peer shows a head that this log has signed and does not lead to.

mod asking;
mod doubts;
mod mark;
mod round;
mod written;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::FutureExt as _;
use openfang_audit::inquiry::{Doubt, Inquiry, Signing};
use openfang_audit::proof::subtree_root;
use openfang_audit::tree::EMPTY_ROOT;
use openfang_audit::{Checkpoint, Log};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Mesh, Question, Status, Verb};
use tokio_util::sync::CancellationToken;

use crate::home::Home;
use crate::witness::{HEADS_OF_ASKER, WITNESSES, Window};

pub(crate) use asking::{Copies, copies_of};
pub(crate) use doubts::{Doubts, News};
pub(crate) use mark::Mark;

use asking::{DEADLINE, ask, notes_of};
use round::Round;
use written::Written;

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// A log is given up no sooner: links come up, and nodes are told of by others.
    pub(crate) meet: Duration,
    /// For how long nobody new must have come before a log is given up.
    pub(crate) quiet: Duration,
    /// How long a log lives on where there is nobody at all.
    pub(crate) lonely: Duration,
    /// Between two tries to get back what was lost.
    pub(crate) try_every: Duration,
    /// How long those who cannot be reached are waited for where there is no reason to doubt the log.
    pub(crate) patience: Duration,
    /// How long it takes at least after a join: who was met tells of others.
    pub(crate) introduction: Duration,
    /// How long a peer may take to answer.
    pub(crate) answer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            meet: Duration::from_secs(10),
            quiet: Duration::from_secs(5),
            lonely: Duration::from_secs(30),
            try_every: Duration::from_secs(2),
            patience: Duration::from_secs(10),
            introduction: Duration::from_millis(50),
            answer: DEADLINE,
        }
    }
}

/// What the task needs.
pub(crate) struct OwnLog {
    /// The log, and who says that it is in doubt.
    pub(crate) doubts: Doubts,
    pub(crate) mesh: Mesh,
    /// Whose log it is, and the key that signs it.
    pub(crate) me: (NodeId, VerifyingKey),
    /// Where it is remembered what was found, and what is written down about the log.
    pub(crate) home: Home,
    /// Where its lines are.
    pub(crate) log_path: PathBuf,
    /// What was found of it.
    pub(crate) found: Found,
    /// Whether silence is no answer, whatever was found.
    pub(crate) strict: bool,
    /// Whether there should be peers.
    pub(crate) expects_peers: bool,
    /// Whether it is released already: the mesh sleeps, and nothing is missing.
    pub(crate) released: bool,
    /// The own witness.
    pub(crate) witness: Option<Window>,
    pub(crate) pace: Pace,
}

/// What was found of a log when the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its lines and its floor.
    Whole,
    /// Nothing, and no trace of an earlier one.
    New,
    /// Nothing, although there was one.
    Gone,
    /// Its lines without the floor, as a backup has them.
    NoFloor,
    /// Its lines and its floor, in files that this node did not write there: it was moved, or put back.
    Moved,
    /// All of it, just now, from peers.
    Back,
}

/// How the log cannot go on as it is: the node starts anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Anew {
    /// With the next epoch: the entries of this one are lost everywhere.
    Next {
        /// The last head that is known of the lost one.
        last: Option<Checkpoint>,
    },
    /// With the epoch that others know: this home was wiped, or put back from a backup.
    Follow {
        /// Which.
        epoch: u32,
        /// What there is of the log now.
        found: Found,
    },
}

/// Why the peers are asked.
#[derive(Debug)]
struct Cause {
    found: Found,
    doubt: Doubt,
    /// Heads that are known already.
    heads: Vec<String>,
    /// Whether there must be peers: one was just joined.
    joined: bool,
    /// How long it takes at least.
    least: Duration,
}

/// How a round of questions ended.
enum Ended {
    /// The log is signed; so often it had come into doubt.
    Free(u64),
    Anew(Anew),
    /// With a new doubt.
    Again,
    Stopped,
}

/// What others know that the log does not lead to.
enum Comparison {
    Same,
    Missing(Checkpoint),
    /// The log has signed other entries in their place.
    Contradicts(u64),
    /// It could not be found out.
    Unknown,
}

/// Tells whether a log that was found like this is signed at once where nobody can be asked.
pub(crate) fn is_certain(found: Found, strict: bool) -> bool {
    Cause::of(found, strict).doubt == Doubt::None
}

impl Cause {
    fn of(found: Found, strict: bool) -> Self {
        let doubt = match found {
            Found::Whole | Found::New if !strict => Doubt::None,
            Found::Whole
            | Found::New
            | Found::Gone
            | Found::NoFloor
            | Found::Moved
            | Found::Back => Doubt::Reasonable,
        };
        Self {
            found,
            doubt,
            heads: Vec::new(),
            joined: false,
            least: Duration::ZERO,
        }
    }
}

impl OwnLog {
    /// Asks until the log may be signed, and again whenever it is in doubt; returns why it may not go on
    /// as it is, if so.
    pub(crate) async fn keep(self, stop: CancellationToken) -> Option<Anew> {
        let mut cause = match self.released {
            true => self.next_cause(0, &stop).await?,
            false => Cause::of(self.found, self.strict),
        };
        loop {
            match self.settle(&cause, &stop).await {
                Ended::Free(seen) => cause = self.next_cause(seen, &stop).await?,
                Ended::Again => {}
                Ended::Anew(anew) => return Some(anew),
                Ended::Stopped => return None,
            }
        }
    }

    /// Asks until the log may be signed.
    async fn settle(&self, cause: &Cause, stop: &CancellationToken) -> Ended {
        self.doubts.signing().send_replace(Signing::Asking {
            answered: 0,
            needed: 0,
        });
        let mut changes = self.doubts.changes();
        let seen = loop {
            changes.mark_unchanged();
            if let Some(seen) = self.doubts.seen() {
                break seen;
            }
            // Whom a join leads to is known when it is over.
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                Ok(()) = changes.changed() => {}
            }
        };
        if matches!(self.mesh.status(), Status::Asleep) {
            return self.asleep(cause, seen, stop).await;
        }
        Round::begin(self, cause, seen).await.run(stop).await
    }

    /// Decides for a node without a mesh. What nobody can be asked about waits until the mesh wakes.
    async fn asleep(&self, cause: &Cause, seen: u64, stop: &CancellationToken) -> Ended {
        if cause.doubt == Doubt::None {
            return self.free(seen).await;
        }
        tracing::warn!(
            found = ?cause.found,
            "nothing is signed before peers were asked what they know of the audit log of this node: \
             openfang join, or network.enabled = false when there never was a peer"
        );
        let mut changes = self.doubts.changes();
        while self.doubts.news(seen) != News::Doubt {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                Ok(()) = changes.changed() => {}
            }
        }
        Ended::Again
    }

    /// Lets the log be signed.
    async fn free(&self, seen: u64) -> Ended {
        let home = self.home.clone();
        let settled = tokio::task::spawn_blocking(move || Mark::clear(&home));
        if let Err(why) = settled
            .await
            .unwrap_or_else(|why| Err(io::Error::other(why)))
        {
            let doubt = self.home.audit_doubt();
            tracing::warn!(error = %why, doubt = %doubt.display(), "the audit log is in order, and the next start will ask about it as if it were not: a file cannot be removed");
        }
        if self.doubts.release(seen) {
            Ended::Free(seen)
        } else {
            Ended::Again
        }
    }

    /// Waits until the log is in doubt again.
    async fn next_cause(&self, seen: u64, stop: &CancellationToken) -> Option<Cause> {
        let mut changes = self.doubts.changes();
        loop {
            changes.mark_unchanged();
            match self.doubts.news(seen) {
                News::Doubt => {
                    return Some(Cause {
                        joined: true,
                        least: self.pace.introduction,
                        ..Cause::of(Found::Whole, self.strict)
                    });
                }
                News::Suspects(nodes) => {
                    let heads = self.heads_against(nodes).await;
                    if !heads.is_empty() {
                        tracing::error!(
                            "a head is known that this audit log has signed and does not lead to: \
                             nothing is signed until that is cleared up"
                        );
                        self.doubts.raise().await;
                        return Some(Cause {
                            heads,
                            ..Cause::of(Found::Whole, true)
                        });
                    }
                }
                News::None => tokio::select! {
                    () = stop.cancelled() => return None,
                    Ok(()) = changes.changed() => {}
                },
            }
        }
    }

    /// Asks some nodes for what they know of the log, and returns it where the log does not lead there.
    /// What it has not signed is nothing.
    async fn heads_against(&self, nodes: BTreeSet<NodeId>) -> Vec<String> {
        let log = self.doubts.log();
        let mut against = Vec::new();
        for node in nodes {
            let notes = if node == self.me.0 {
                self.own_notes().await
            } else {
                let asked = ask(&self.mesh, node, log.origin());
                let notes = tokio::time::timeout(self.pace.answer, asked).await;
                let notes = notes.ok().flatten().unwrap_or_default();
                [notes.cosigned, notes.copied].concat()
            };
            let mut known = self.inquiry(Doubt::None);
            known.learn(node, notes.iter().map(String::as_str));
            let later = known.later_epoch().is_some();
            let heads = known.heads().map(|(head, _)| head.clone()).collect();
            let differs = match compare(log, heads).await {
                Comparison::Same | Comparison::Unknown => false,
                Comparison::Missing(_) | Comparison::Contradicts(_) => true,
            };
            if later || differs {
                tracing::warn!(node = %node.fmt_short(), later, "a head of this audit log is not in it");
                against.extend(notes);
            } else {
                tracing::debug!(node = %node.fmt_short(), "it refuses the audit log, and shows nothing that this log has signed");
            }
        }
        against
    }

    fn inquiry(&self, doubt: Doubt) -> Inquiry {
        let mut inquiry = Inquiry::new(self.me, self.doubts.log().epoch(), doubt, WITNESSES);
        inquiry.set_patience(self.pace.patience);
        inquiry
    }

    /// Returns what this node wrote down about its log.
    async fn written(&self) -> Written {
        let (home, me) = (self.home.clone(), self.me.0);
        let read = tokio::task::spawn_blocking(move || written::read(&home, &me)).await;
        read.unwrap_or_else(|why| {
            tracing::error!(error = %why, "what this node wrote down about its audit log was not read");
            Written::default()
        })
    }

    /// Returns the heads of the log that the witness of this node has cosigned.
    fn own_notes(&self) -> impl Future<Output = Vec<String>> + Send + use<> {
        let (window, me) = (self.witness.clone(), self.me.0);
        async move {
            let question = Question {
                verb: Verb::Get,
                path: HEADS_OF_ASKER.to_owned(),
                body: Vec::new(),
            };
            let answer = tokio::time::timeout(DEADLINE, window?.ask(me, question)).await;
            let answer = answer.ok()?.filter(|answer| answer.status == 200)?;
            notes_of(&answer.body)
        }
        .map(Option::unwrap_or_default)
    }
}

/// Compares what others know with a log.
async fn compare(log: &Log, heads: Vec<Checkpoint>) -> Comparison {
    let log = log.clone();
    let compared = tokio::task::spawn_blocking(move || {
        // In this order: whatever is signed is in the tiles.
        let signed = log.signed_size();
        let tiles = log.tiles();
        for head in heads {
            if head.size > tiles.size() {
                return Comparison::Missing(head);
            }
            let root = match head.size {
                0 => EMPTY_ROOT,
                size => match subtree_root(&tiles, 0, size) {
                    Ok(root) => root,
                    Err(why) => {
                        tracing::warn!(error = %why, "the audit log cannot be compared with a head of it");
                        return Comparison::Unknown;
                    }
                },
            };
            if root != head.root {
                return match head.size <= signed {
                    true => Comparison::Contradicts(head.size),
                    false => Comparison::Missing(head),
                };
            }
        }
        Comparison::Same
    });
    match compared.await {
        Ok(compared) => compared,
        Err(why) => {
            tracing::error!(error = %why, "the audit log cannot be compared with what peers know of it: it is not signed");
            Comparison::Unknown
        }
    }
}

#[cfg(test)]
mod tests;
