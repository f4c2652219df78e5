//! Evidence: files that prove by themselves that a log or a cosigner has contradicted itself.
//!
//! Three kinds, each one JSON object on one line of at most 4 KiB,
//! `{"type","origin","vkey","a","b","proofs"}`, where `a` and `b` are signed heads of one log:
//!
//! - `equivocation`: the log has signed two roots for one size.
//! - `fork`: the log has signed heads of two sizes that differ in a part both must have. `proofs` names
//!   that part by its coordinate in the tree and has a path from it to each of the two roots.
//! - `cosigner`: a witness or mirror has cosigned two roots for one size, or a smaller size at a later
//!   second. `vkey` is the key of the cosigner.
//!
//! Nothing else is needed to check one: [`Evidence::open`]. Whether anyone should care about the key
//! is for a policy to say: [`Evidence::is_known_to`]. There is one form of each: notes with the one
//! line that matters, in a fixed order, in JSON without choices; so that its hash names it.

mod descent;
mod folder;
mod watch;
mod wire;

use std::cmp::Ordering;
use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

pub use descent::{Coordinate, DescentError, first_difference};
pub use folder::{Listed, Worthless, list};
pub use watch::{WATCHED_MAX, Watch};

use crate::Hash;
use crate::cosign::{CosignerKey, LogName, TreeHead, TreeHeadError};
use crate::note::{Note, NoteError, Signature, Verifier, VerifierError};
use crate::policy::Policy;
use crate::proof::{
    BuildError, Nodes, ProofError, Subtree, build_subtree_consistency, subtree_root,
    verify_subtree_consistency,
};

/// The longest evidence that is written or read.
pub const EVIDENCE_BYTES_MAX: usize = 4096;

/// Two signed statements that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    accused: Accused,
    a: Statement,
    b: Statement,
    fork: Option<Box<ForkProof>>,
}

/// What an evidence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvidenceKind {
    /// A log signed two roots for one size.
    Equivocation,
    /// A log signed heads of two sizes, of which the larger one does not begin with the smaller one.
    Fork,
    /// A cosigner went back, or cosigned two roots for one size.
    Cosigner,
}

/// Whose key signed both statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accused {
    /// The log that the heads are of.
    Log(Verifier),
    /// A witness or a mirror of it.
    Cosigner(CosignerKey),
}

/// A signed head, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    note: Note,
    head: TreeHead,
}

/// One part of the tree, as the two heads have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ForkProof {
    at: Coordinate,
    a: Path,
    b: Path,
}

/// The hash of a part of the tree, and the hashes that lead from it to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path {
    node: Hash,
    path: Vec<Hash>,
}

/// A signed head of a log, and the nodes of the tree that it is the head of.
#[derive(Debug)]
pub struct Side<'a, N: ?Sized> {
    /// The head.
    pub note: &'a Note,
    /// The nodes, from whoever has them. They need not be trusted.
    pub nodes: &'a N,
}

/// Why a file, or a pair of heads, is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Longer than is written or read.
    #[error("the evidence is longer than {EVIDENCE_BYTES_MAX} bytes")]
    TooLong,
    /// Not the one JSON form that evidence has.
    #[error("not the JSON form of evidence")]
    Form,
    /// The key cannot be read.
    #[error("the key of the evidence: {0}")]
    Key(#[source] VerifierError),
    /// A note cannot be read, or is not signed by the key.
    #[error("a head of the evidence: {0}")]
    Note(#[source] NoteError),
    /// The text of a note is not that of a head.
    #[error("a head of the evidence: {0}")]
    Head(#[source] TreeHeadError),
    /// The two heads, or the key, belong to different logs.
    #[error("the heads and the key of the evidence belong to different logs")]
    OtherLog,
    /// Both heads can be true.
    #[error("the heads of the evidence do not contradict each other")]
    NoConflict,
    /// A path does not lead to its root.
    #[error("a path of the evidence: {0}")]
    Path(#[source] ProofError),
}

/// Why no evidence of a fork can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError<E> {
    /// A node of one of the trees cannot be had.
    #[error("a hash of the tree cannot be read")]
    Nodes(#[source] E),
    /// The nodes of one source do not belong together.
    #[error("the hashes of a source contradict each other")]
    Source,
    /// The trees do not differ where both have leaves, or the nodes are not those of the heads.
    #[error("{0}")]
    Evidence(#[source] EvidenceError),
}

impl Evidence {
    /// Takes two heads of one size with different roots, both signed by the log.
    ///
    /// # Errors
    /// When they are anything else.
    pub fn equivocation(key: &Verifier, one: &Note, other: &Note) -> Result<Self, EvidenceError> {
        Self::of(Accused::Log(key.clone()), one, other, None)
    }

    /// Takes two heads that one key has cosigned and that contradict each other: two roots for one
    /// size, or a smaller size at a later second.
    ///
    /// # Errors
    /// When they are anything else.
    pub fn cosigner(key: &CosignerKey, one: &Note, other: &Note) -> Result<Self, EvidenceError> {
        Self::of(Accused::Cosigner(key.clone()), one, other, None)
    }

    /// Compares two signed heads of different sizes by the nodes of their trees, and proves that the
    /// larger one does not begin with the smaller one. A few nodes a level are asked for.
    ///
    /// # Errors
    /// When nodes are missing or false, or the one tree does begin with the other.
    pub fn fork<N: Nodes + ?Sized>(
        key: &Verifier,
        one: Side<'_, N>,
        other: Side<'_, N>,
    ) -> Result<Self, ForkError<N::Error>> {
        let size_of = |note: &Note| -> Result<u64, EvidenceError> {
            let head: TreeHead = note.text().parse().map_err(EvidenceError::Head)?;
            Ok(head.size)
        };
        let size = size_of(one.note).map_err(ForkError::Evidence)?;
        let other_size = size_of(other.note).map_err(ForkError::Evidence)?;
        let (a, b) = if size <= other_size {
            ((one, size), (other, other_size))
        } else {
            ((other, other_size), (one, size))
        };
        let differing =
            descent::descend(a.0.nodes, b.0.nodes, a.1).map_err(|error| match error {
                DescentError::Nodes(error) => ForkError::Nodes(error),
                DescentError::Source => ForkError::Source,
            })?;
        // The first leaf that differs says most; only in an immense tree are its paths too long.
        let mut refused = EvidenceError::NoConflict;
        for at in differing.iter().rev() {
            let fork = ForkProof {
                at: *at,
                a: Path::build(a.0.nodes, *at, a.1)?,
                b: Path::build(b.0.nodes, *at, b.1)?,
            };
            let accused = Accused::Log(key.clone());
            match Self::of(accused, a.0.note, b.0.note, Some(fork)) {
                Err(EvidenceError::TooLong) => refused = EvidenceError::TooLong,
                made => return made.map_err(ForkError::Evidence),
            }
        }
        Err(ForkError::Evidence(refused))
    }

    fn of(
        accused: Accused,
        one: &Note,
        other: &Note,
        fork: Option<ForkProof>,
    ) -> Result<Self, EvidenceError> {
        let a = Statement::of(&accused, one)?;
        let b = Statement::of(&accused, other)?;
        let mut made = Self {
            accused,
            a,
            b,
            fork: fork.map(Box::new),
        };
        if made.order()? == Ordering::Greater {
            std::mem::swap(&mut made.a, &mut made.b);
        }
        made.verify()?;
        if made.to_bytes().len() > EVIDENCE_BYTES_MAX {
            return Err(EvidenceError::TooLong);
        }
        Ok(made)
    }

    /// Reads evidence and checks it.
    ///
    /// # Errors
    /// When it is none.
    pub fn open(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let read = Self::decode(bytes)?;
        read.verify()?;
        Ok(read)
    }

    /// Checks that the key has signed both heads, and that not both can be true. Needs nothing but the
    /// evidence itself.
    ///
    /// # Errors
    /// When it proves nothing.
    pub fn verify(&self) -> Result<(), EvidenceError> {
        if self.a.head.origin != self.b.head.origin {
            return Err(EvidenceError::OtherLog);
        }
        if let Accused::Log(key) = &self.accused
            && key.name() != self.a.head.origin.as_str()
        {
            return Err(EvidenceError::OtherLog);
        }
        if [&self.a, &self.b]
            .iter()
            .any(|side| side.note.signatures().len() != 1)
        {
            return Err(EvidenceError::Form);
        }
        // The signatures first: what follows compares what they say.
        let times = (self.accused.time(&self.a)?, self.accused.time(&self.b)?);
        if self.order()? != Ordering::Less {
            return Err(EvidenceError::NoConflict);
        }
        let (a, b) = (&self.a.head, &self.b.head);
        let two_roots = a.size == b.size && a.root != b.root;
        match (&self.accused, &self.fork) {
            (Accused::Log(_), Some(fork)) => fork.verify(a, b),
            (Accused::Log(_), None) if two_roots => Ok(()),
            (Accused::Cosigner(_), None) if two_roots => Ok(()),
            (Accused::Cosigner(_), None) if times.1 > times.0 && b.size < a.size => Ok(()),
            (Accused::Cosigner(_), Some(_)) => Err(EvidenceError::Form),
            (Accused::Log(_) | Accused::Cosigner(_), None) => Err(EvidenceError::NoConflict),
        }
    }

    /// Tells whether a policy knows the key that is accused: as a log, or as a witness.
    #[must_use]
    pub fn is_known_to(&self, policy: &Policy) -> bool {
        match &self.accused {
            Accused::Log(key) => policy.logs().iter().any(|log| log.key == *key),
            Accused::Cosigner(key) => policy.witnesses().iter().any(|known| known.key == *key),
        }
    }

    /// Returns what it is about.
    #[must_use]
    pub fn kind(&self) -> EvidenceKind {
        match (&self.accused, &self.fork) {
            (Accused::Log(_), None) => EvidenceKind::Equivocation,
            (Accused::Log(_), Some(_)) => EvidenceKind::Fork,
            (Accused::Cosigner(_), _) => EvidenceKind::Cosigner,
        }
    }

    /// Returns the log that the heads are of.
    #[must_use]
    pub fn origin(&self) -> &LogName {
        &self.a.head.origin
    }

    /// Returns whose key signed both heads.
    #[must_use]
    pub fn accused(&self) -> &Accused {
        &self.accused
    }

    /// Returns what the two heads say.
    #[must_use]
    pub fn heads(&self) -> [&TreeHead; 2] {
        [&self.a.head, &self.b.head]
    }

    /// Returns the two heads as they were signed, with the signature of the accused.
    #[must_use]
    pub fn notes(&self) -> [&Note; 2] {
        [&self.a.note, &self.b.note]
    }

    /// Returns the part of the tree that a fork is about.
    #[must_use]
    pub fn differs_at(&self) -> Option<Coordinate> {
        self.fork.as_ref().map(|fork| fork.at)
    }

    /// Returns the SHA-256 of its bytes: what tells one evidence from another.
    #[must_use]
    pub fn id(&self) -> Hash {
        Hash::from_bytes(Sha256::digest(self.to_bytes()).into())
    }

    /// Returns the name of its file: the SHA-256 of its bytes and `.json`.
    #[must_use]
    pub fn file_name(&self) -> String {
        file_name(&self.id())
    }

    /// Returns what the names of the accused node begin with, `n-<16 hex>.openfang.mesh`, as
    /// [`mesh_name`](crate::mesh_name) has it. Whether the key is one of that node is not looked at.
    #[must_use]
    pub fn accused_name(&self) -> &str {
        let name = match &self.accused {
            Accused::Log(key) => key.name(),
            Accused::Cosigner(key) => key.name(),
        };
        name.split_once('/').map_or(name, |(node, _role)| node)
    }

    /// Tells how the two heads stand in the fixed order: by size for a fork, by time for a cosigner, by
    /// their text otherwise.
    fn order(&self) -> Result<Ordering, EvidenceError> {
        let (a, b) = (&self.a, &self.b);
        let text = a.note.text().cmp(b.note.text());
        Ok(match (&self.accused, &self.fork) {
            (Accused::Log(_), Some(_)) => a.head.size.cmp(&b.head.size),
            (Accused::Log(_), None) => text,
            (Accused::Cosigner(_), _) => {
                let times = (self.accused.time(a)?, self.accused.time(b)?);
                times.0.cmp(&times.1).then(text)
            }
        })
    }
}

/// Returns the name of the file of an evidence with a hash.
#[must_use]
pub fn file_name(id: &Hash) -> String {
    format!("{}.json", HEXLOWER.encode(id.as_bytes()))
}

/// Tells whether a name is one that evidence is kept under: the hash of a file that proved something once.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let id = name.strip_suffix(".json").and_then(|id| id.parse().ok());
    id.is_some_and(|id: Hash| file_name(&id) == name)
}

impl fmt::Display for EvidenceKind {
    /// Writes what stands in the `type` field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Equivocation => "equivocation",
            Self::Fork => "fork",
            Self::Cosigner => "cosigner",
        })
    }
}

impl Accused {
    fn is_line(&self, line: &Signature) -> bool {
        match self {
            Self::Log(key) => line.is_of(key.name(), key.key_id()),
            Self::Cosigner(key) => line.is_of(key.name(), key.key_id()),
        }
    }

    /// Checks the signature; returns the time of a cosignature, and 0 for a log, which states none.
    fn time(&self, statement: &Statement) -> Result<u64, EvidenceError> {
        match self {
            Self::Log(key) => statement.note.verify(key).map(|()| 0),
            Self::Cosigner(key) => key.verify(&statement.note),
        }
        .map_err(EvidenceError::Note)
    }
}

impl Statement {
    fn of(accused: &Accused, note: &Note) -> Result<Self, EvidenceError> {
        let note = note
            .with_only(|line| accused.is_line(line))
            .ok_or(EvidenceError::Note(NoteError::UnknownKey))?;
        let head = note.text().parse().map_err(EvidenceError::Head)?;
        Ok(Self { note, head })
    }
}

impl ForkProof {
    fn verify(&self, a: &TreeHead, b: &TreeHead) -> Result<(), EvidenceError> {
        let subtree = self.at.subtree().ok_or(EvidenceError::Form)?;
        if self.a.node == self.b.node {
            return Err(EvidenceError::NoConflict);
        }
        for (side, head) in [(&self.a, a), (&self.b, b)] {
            let Path { node, path } = side;
            verify_subtree_consistency(subtree, node, head.size, &head.root, path)
                .map_err(EvidenceError::Path)?;
        }
        Ok(())
    }
}

impl Path {
    /// Builds the path from a perfect subtree to the root of the tree of a size.
    fn build<N: Nodes + ?Sized>(
        nodes: &N,
        at: Coordinate,
        size: u64,
    ) -> Result<Self, ForkError<N::Error>> {
        let impossible = ForkError::Evidence(EvidenceError::Path(ProofError::Range));
        let Some(Subtree { start, end }) = at.subtree() else {
            return Err(impossible);
        };
        let told = |error| match error {
            BuildError::Range => ForkError::Evidence(EvidenceError::Path(ProofError::Range)),
            BuildError::Nodes(error) => ForkError::Nodes(error),
        };
        let node = subtree_root(nodes, start, end).map_err(told)?;
        let subtree = Subtree { start, end };
        let path = build_subtree_consistency(nodes, subtree, size).map_err(told)?;
        Ok(Self { node, path })
    }
}

#[cfg(test)]
mod tests;
