//! The heads of other nodes' audit logs, and whether each continues the one before.
//!
//! A node announces the signed head of its log to its peers. `Book` keeps, for each log, the
//! largest head that was proved to continue all earlier ones, and asks its origin for a consistency
//! proof (RFC 6962 §2.1.2) whenever it sees a head of another size. Two roots for one size, an
//! explicit refusal to prove, or a proof that does not hold make the log [inconsistent](Why). Two roots
//! do so for good. A refusal counts until the log proves again that it has grown from all that was seen
//! of it: whoever was damaged, and has its entries back, did not lie. Silence proves nothing; the
//! question is asked again.
//!
//! Heads that third parties pass on are remembered and asked about, but only the origin can prove
//! or fail to prove them. The exception needs no one's word: two notes of one size and different
//! roots, both signed by the log, convict it by themselves. That, and whatever else proves itself
//! ([`openfang_audit::evidence`]), makes a [`Conviction`]: of everyone who hears of it, for good.
//!
//! Not here: the messages ([`roster`](crate::roster)) and the log itself (`openfang-audit`).

mod book;
mod claim;
mod convicted;

use openfang_audit::{Hash, SignedHead};
use openfang_id::NodeId;

pub use convicted::Conviction;

pub(crate) use book::{Book, FAILED_MAX, KeptLog, Question, Step};
pub(crate) use claim::{Alarm, HeldAlarm};
pub(crate) use convicted::{Convicted, PROOFS_MAX, Proof, Worth};

/// Why the own log gives no consistency proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotProve {
    /// It is shorter than the head that is asked about.
    Behind {
        /// How many entries it has.
        have: u64,
    },
    /// It was altered.
    Damaged {
        /// The first entry that is not what was logged.
        first_bad: u64,
    },
    /// The sizes make no sense to it.
    Range,
    /// Not now; the question may be repeated.
    Later,
}

/// How a log contradicts what it has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Two heads of one size have different roots.
    TwoRoots,
    /// It is shorter than a head it has signed.
    Behind {
        /// How many entries it says it has.
        have: u64,
    },
    /// It says itself that it was altered.
    Damaged {
        /// The first entry that is not what was logged.
        first_bad: u64,
    },
    /// It says that it cannot prove that one head continues the other.
    NoProof,
    /// The proof it gave does not hold.
    WrongProof,
    /// The node announces another key for the same log.
    OtherLog,
    /// Evidence shows that two of its heads have different entries in one place.
    Fork,
}

impl Why {
    /// Tells whether this never ends. Otherwise it is over when the log proves again that every head that
    /// was seen of it is one of its own.
    #[must_use]
    pub fn is_for_good(self) -> bool {
        match self {
            Self::TwoRoots | Self::OtherLog | Self::Fork => true,
            Self::Behind { .. } | Self::Damaged { .. } | Self::NoProof | Self::WrongProof => false,
        }
    }

    /// Returns the name used in the API and the audit log: `two_roots`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TwoRoots => "two_roots",
            Self::Behind { .. } => "behind",
            Self::Damaged { .. } => "damaged",
            Self::NoProof => "no_proof",
            Self::WrongProof => "wrong_proof",
            Self::OtherLog => "other_log",
            Self::Fork => "fork",
        }
    }
}

/// The heads that show a contradiction: those of one size and two roots prove it to anyone; others
/// are what the log was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The head that was accepted before.
    pub accepted: Option<SignedHead>,
    /// The head that contradicts it.
    pub offending: Option<SignedHead>,
}

/// What is held of a node's audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadView {
    /// Nothing.
    None,
    /// A head was seen, and is not proved to continue what was accepted.
    Unproven {
        /// The size of the largest head that was seen.
        size: u64,
        /// The size of the last head that was accepted.
        accepted: Option<u64>,
    },
    /// The last head seen continues every earlier one that was seen here.
    Consistent {
        /// Its size.
        size: u64,
        /// Its root.
        root: Hash,
    },
    /// Others say that it contradicts itself; nothing of the kind was seen here.
    Reported {
        /// The size of the last head that was accepted.
        accepted: Option<u64>,
        /// Who says so.
        by: Vec<NodeId>,
        /// What the first of them says.
        why: Why,
    },
    /// It contradicts itself. This ends only as [`Why::is_for_good`] says.
    Inconsistent {
        /// How.
        why: Why,
        /// The size of the last head that was accepted.
        accepted: Option<u64>,
    },
}

impl HeadView {
    /// Returns the name used in the API: `consistent`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unproven { .. } => "unproven",
            Self::Consistent { .. } => "consistent",
            Self::Reported { .. } => "reported",
            Self::Inconsistent { .. } => "inconsistent",
        }
    }
}
