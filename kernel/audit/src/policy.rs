//! Trust policies: which logs and which cosignatures make a head believable. C2SP tlog-policy.
//!
//! A policy is a file of lines: `log VKEY [URL]`, `witness NAME VKEY [URL]`,
//! `group NAME K|any|all MEMBER...` and one `quorum NAME|none`. Keys are counted, not names: no key
//! can stand in two witness lines, and no name in two groups. Supported keys are plain Ed25519 (0x01)
//! for logs and Ed25519 cosignatures (0x04) for witnesses; a policy with another kind is refused.
//!
//! [`Policy::of_log`] writes the policy of a log of this system. Who its witnesses are is decided by
//! [`assign`], how many of them are needed by [`quorum_for`], and what that is worth is told by
//! [`Strength`].

mod parse;
mod quorum;

use std::fmt;
use std::ops::RangeInclusive;

use openfang_id::{NodeId, VerifyingKey};

pub use parse::{POLICY_BYTES_MAX, PolicyError, PolicyProblem};
pub use quorum::{Strength, assign, quorum_for};

use crate::Origin;
use crate::cosign::{CosignerKey, Role, TreeHead, TreeHeadError};
use crate::note::{Note, NoteError, Verifier};

/// What must be true of a head to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    source: Box<[u8]>,
    logs: Vec<KnownLog>,
    witnesses: Vec<KnownWitness>,
    groups: Vec<Group>,
    quorum: Quorum,
}

/// A name or an address in a policy: bytes without white space and control characters, usually UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word(Box<[u8]>);

/// A log that a policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLog {
    /// Its key. The name of the key is the origin of the log.
    pub key: Verifier,
    /// Where it is, if that is said.
    pub url: Option<Word>,
}

/// A witness that a policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownWitness {
    /// Its name in the policy.
    pub name: Word,
    /// Its key.
    pub key: CosignerKey,
    /// Where it is, if that is said.
    pub url: Option<Word>,
}

/// Some members, of which a number must have cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    needed: usize,
    members: Vec<Member>,
}

/// A witness, or a group that was defined before; by its place in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    Nobody,
    Of(Member),
}

/// A cosignature that holds, by a witness that the policy knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature {
    /// The name of the witness in the policy.
    pub witness: Word,
    /// The key that signed.
    pub key: CosignerKey,
    /// When, in POSIX seconds, by the clock of the witness.
    pub time: u64,
}

/// What a policy found about a head that its log has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The head.
    pub head: TreeHead,
    /// Who has cosigned it, in the order of the policy.
    pub cosignatures: Vec<Cosignature>,
    /// Whether those are enough.
    pub reached: bool,
}

/// Why a policy cannot say anything about a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The text of the note is not that of a head.
    #[error("{0}")]
    Head(#[source] TreeHeadError),
    /// No log of the policy has signed it under the name that the head states.
    #[error("the head is not signed by a log of the policy")]
    UnknownLog,
    /// A line of a key that the policy knows does not verify, or there are two of one key. The whole
    /// note is refused then.
    #[error("a signature by a key of the policy does not verify")]
    Signature,
}

/// Why no policy can be written for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyBuildError {
    /// A node cannot vouch for itself.
    #[error("a node is no witness of its own log")]
    OwnNode,
    /// Two witnesses with one key or one name, or one with the key of the log.
    #[error("every key counts once: two of the keys are the same")]
    SameKey,
    /// More are needed than there are, or none although there are some.
    #[error("the number of witnesses needed must be between 1 and their number")]
    Quorum,
    /// The policy would be longer than is parsed.
    #[error("too many witnesses for one policy")]
    TooLong,
}

impl Policy {
    /// Writes the policy of a log of this system: `k` of the given nodes must have cosigned. Without
    /// witnesses, and `k` = 0, the signature of the log is all that is asked for.
    ///
    /// # Errors
    /// When the witnesses cannot be counted as they are given.
    pub fn of_log(
        origin: &Origin,
        key: VerifyingKey,
        witnesses: &[(NodeId, VerifyingKey)],
        k: usize,
    ) -> Result<Self, PolicyBuildError> {
        let n = witnesses.len();
        if k > n || (k == 0 && n > 0) {
            return Err(PolicyBuildError::Quorum);
        }
        if witnesses.iter().any(|(node, _)| origin.belongs_to(node)) {
            return Err(PolicyBuildError::OwnNode);
        }
        if witnesses.iter().any(|(_, witness)| *witness == key) {
            return Err(PolicyBuildError::SameKey);
        }
        let log = Verifier::new(origin.as_str(), key).ok_or(PolicyBuildError::SameKey)?;
        let mut text = format!("log {log}\n");
        for (node, witness) in witnesses {
            let vkey = CosignerKey::of(node, Role::Witness, *witness);
            text.push_str(&format!("witness {node} {vkey}\n"));
        }
        if n > 0 {
            text.push_str(&format!("group witnesses {k}"));
            for (node, _) in witnesses {
                text.push_str(&format!(" {node}"));
            }
            text.push_str("\nquorum witnesses\n");
        } else {
            text.push_str("quorum none\n");
        }
        Self::parse(text.as_bytes()).map_err(|refused| match refused.problem {
            PolicyProblem::TooLong => PolicyBuildError::TooLong,
            PolicyProblem::Octets
            | PolicyProblem::Unterminated
            | PolicyProblem::Words
            | PolicyProblem::LogKey(_)
            | PolicyProblem::WitnessKey(_)
            | PolicyProblem::SameKey
            | PolicyProblem::NameTaken
            | PolicyProblem::NameUnknown
            | PolicyProblem::SecondMembership
            | PolicyProblem::Threshold
            | PolicyProblem::SecondQuorum
            | PolicyProblem::NoQuorum => PolicyBuildError::SameKey,
        })
    }

    /// Returns the policy as it was read, byte for byte.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.source
    }

    /// Returns the logs, in the order of the file.
    #[must_use]
    pub fn logs(&self) -> &[KnownLog] {
        &self.logs
    }

    /// Returns the witnesses, in the order of the file.
    #[must_use]
    pub fn witnesses(&self) -> &[KnownWitness] {
        &self.witnesses
    }

    /// Judges a note by its own signatures. A log must have signed it, under a key named like the
    /// origin of the head.
    ///
    /// Times are reported and not judged: see [`Policy::is_reached_within`].
    ///
    /// # Errors
    /// When it is no head, no log of the policy has signed it, or a line by a known key is false.
    pub fn evaluate(&self, note: &Note) -> Result<Evaluation, EvaluateError> {
        let head: TreeHead = note.text().parse().map_err(EvaluateError::Head)?;
        let mut signed = false;
        for log in &self.logs {
            let holds = log.key.name() == head.origin.as_str() && is_by(note.verify(&log.key))?;
            signed |= holds;
        }
        if !signed {
            return Err(EvaluateError::UnknownLog);
        }
        self.cosignatures_of(head, note)
    }

    /// Judges a note whose log is known from elsewhere: this key must have signed it, and the logs of
    /// the policy are not asked.
    ///
    /// # Errors
    /// As [`Policy::evaluate`].
    pub fn evaluate_of(&self, log: &Verifier, note: &Note) -> Result<Evaluation, EvaluateError> {
        let head: TreeHead = note.text().parse().map_err(EvaluateError::Head)?;
        if log.name() != head.origin.as_str() || !is_by(note.verify(log))? {
            return Err(EvaluateError::UnknownLog);
        }
        self.cosignatures_of(head, note)
    }

    /// Tells whether cosignatures of a range of times alone are enough. A head is fresh when those
    /// of the last minutes are, and none of them from a time that has not come yet.
    #[must_use]
    pub fn is_reached_within(&self, found: &Evaluation, times: &RangeInclusive<u64>) -> bool {
        self.is_reached(|witness| {
            let by = |one: &Cosignature| one.key == witness.key && times.contains(&one.time);
            found.cosignatures.iter().any(by)
        })
    }

    fn cosignatures_of(&self, head: TreeHead, note: &Note) -> Result<Evaluation, EvaluateError> {
        let mut cosignatures = Vec::new();
        for witness in &self.witnesses {
            let time = match witness.key.verify(note) {
                Ok(time) => time,
                Err(NoteError::UnknownKey) => continue,
                Err(
                    NoteError::TooLong
                    | NoteError::Form
                    | NoteError::SignatureLine
                    | NoteError::Signature,
                ) => return Err(EvaluateError::Signature),
            };
            cosignatures.push(Cosignature {
                witness: witness.name.clone(),
                key: witness.key.clone(),
                time,
            });
        }
        let reached = self.is_reached(|witness| {
            let by = |one: &Cosignature| one.key == witness.key;
            cosignatures.iter().any(by)
        });
        Ok(Evaluation {
            head,
            cosignatures,
            reached,
        })
    }

    fn is_reached(&self, has_cosigned: impl Fn(&KnownWitness) -> bool) -> bool {
        let mut of_groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        let counts = |member: &Member, of_groups: &[bool]| match member {
            Member::Witness(at) => self.witnesses.get(*at).is_some_and(&has_cosigned),
            Member::Group(at) => of_groups.get(*at).copied().unwrap_or(false),
        };
        for group in &self.groups {
            let members = group.members.iter();
            let found = members.filter(|member| counts(member, &of_groups)).count();
            of_groups.push(found >= group.needed);
        }
        match &self.quorum {
            Quorum::Nobody => true,
            Quorum::Of(member) => counts(member, &of_groups),
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Policy({} logs, {} witnesses)",
            self.logs.len(),
            self.witnesses.len()
        )
    }
}

impl Evaluation {
    /// Returns the time of the oldest cosignature that holds, in POSIX seconds.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.cosignatures.iter().map(|one| one.time).min()
    }

    /// Returns the time of the newest cosignature that holds, in POSIX seconds.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.cosignatures.iter().map(|one| one.time).max()
    }
}

impl Word {
    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Word({self})")
    }
}

/// Tells whether a note is signed by a key; a false signature is an error.
fn is_by(verified: Result<(), NoteError>) -> Result<bool, EvaluateError> {
    match verified {
        Ok(()) => Ok(true),
        Err(NoteError::UnknownKey) => Ok(false),
        Err(
            NoteError::TooLong | NoteError::Form | NoteError::SignatureLine | NoteError::Signature,
        ) => Err(EvaluateError::Signature),
    }
}

#[cfg(test)]
mod tests;
