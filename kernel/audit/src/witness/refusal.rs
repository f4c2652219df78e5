//! Why a witness does not cosign, and what it answers.

use super::RequestError;
use crate::evidence::Evidence;
use crate::note::NoteError;
use crate::proof::ProofError;

/// A head that is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why not.
    #[source]
    pub reason: Reason,
    /// What proves that the log has signed two roots for one size. It is found whatever the reason is,
    /// and it is to be kept.
    pub evidence: Option<Box<Evidence>>,
}

/// Why a head is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The body of the request cannot be read.
    #[error("{0}")]
    Malformed(#[source] RequestError),
    /// Nothing is known of the log.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// The log has equivocated.
    #[error("the log has contradicted itself: nothing of it is cosigned any more")]
    Frozen,
    /// No key of the log has signed the head, or a line of such a key is false.
    #[error("{0}")]
    Untrusted(#[source] NoteError),
    /// The old size is larger than the one of the head.
    #[error("the old size is larger than the size of the checkpoint")]
    OldTooLarge,
    /// The old size is not the one that was cosigned last.
    #[error("the last cosigned size is {latest}")]
    Conflict {
        /// What was cosigned last; 0 when nothing was.
        latest: u64,
    },
    /// An empty log whose root is not that of an empty tree.
    #[error("the root of an empty log is the hash of nothing")]
    EmptyRoot,
    /// A proof from a tree without leaves.
    #[error("there is no proof from the empty log")]
    ProofFromNothing,
    /// The size was cosigned with another root.
    #[error("another root was cosigned for this size")]
    OtherRoot,
    /// The proof does not hold.
    #[error("the checkpoint does not continue the last one: {0}")]
    Inconsistent(#[source] ProofError),
    /// Too many requests are about this log at once.
    #[error("too many requests for this log: try again")]
    Overloaded,
    /// The clock reads less than the time of the last cosignature.
    #[error("the clock of this witness is behind its last cosignature")]
    Clock,
    /// The state cannot be read or written.
    #[error("the state of this witness cannot be kept")]
    Store,
}

impl Refusal {
    /// Returns the HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.reason {
            Reason::Malformed(_) | Reason::OldTooLarge => 400,
            Reason::Frozen | Reason::Untrusted(_) => 403,
            Reason::UnknownLog => 404,
            Reason::Conflict { .. } => 409,
            Reason::EmptyRoot
            | Reason::ProofFromNothing
            | Reason::OtherRoot
            | Reason::Inconsistent(_) => 422,
            Reason::Overloaded => 429,
            Reason::Clock | Reason::Store => 503,
        }
    }

    /// Returns the content type of the answer.
    #[must_use]
    pub fn content_type(&self) -> &'static str {
        match &self.reason {
            Reason::Conflict { .. } => "text/x.tlog.size",
            Reason::Malformed(_)
            | Reason::UnknownLog
            | Reason::Frozen
            | Reason::Untrusted(_)
            | Reason::OldTooLarge
            | Reason::EmptyRoot
            | Reason::ProofFromNothing
            | Reason::OtherRoot
            | Reason::Inconsistent(_)
            | Reason::Overloaded
            | Reason::Clock
            | Reason::Store => "text/plain; charset=utf-8",
        }
    }

    /// Returns the body of the answer: the last size for a 409, a sentence otherwise.
    #[must_use]
    pub fn body(&self) -> String {
        match &self.reason {
            Reason::Conflict { latest } => format!("{latest}\n"),
            reason @ (Reason::Malformed(_)
            | Reason::UnknownLog
            | Reason::Frozen
            | Reason::Untrusted(_)
            | Reason::OldTooLarge
            | Reason::EmptyRoot
            | Reason::ProofFromNothing
            | Reason::OtherRoot
            | Reason::Inconsistent(_)
            | Reason::Overloaded
            | Reason::Clock
            | Reason::Store) => format!("{reason}\n"),
        }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            evidence: None,
        }
    }
}
