//! What a witness remembers, and the trait of whatever keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Hash;
use crate::cosign::{LogName, TreeHead, TreeHeadError};
use crate::note::Note;

/// The last head of a log that was cosigned, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    head: TreeHead,
    note: Note,
    time: u64,
}

/// What tells two states of one log apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// How many entries the log had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// When that was cosigned last, in POSIX seconds.
    pub time: u64,
}

/// A step from one state of a log to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What must stand there, or nothing.
    pub expected: Option<Version>,
    /// What stands there afterwards.
    pub new: State,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// It is durable.
    Yes,
    /// Something else stood there: nothing was changed.
    Conflict,
}

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused. Nothing was changed.
    #[error("the state of the witness cannot be written")]
    Io(#[source] io::Error),
    /// The disk did not confirm an earlier change, so what it holds is not known. Open it anew.
    #[error("the disk has not confirmed an earlier change")]
    Poisoned,
    /// A step to a smaller size, an earlier time or another root of the same size. Nothing was
    /// changed; it is a mistake of the caller.
    #[error("a step back")]
    Back,
}

/// Where the state of a witness is kept: one per key, held by one process.
pub trait WitnessStore: fmt::Debug + Send + Sync {
    /// Returns the state of a log, as it is durable.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError>;

    /// Returns the state of the log whose name has this SHA-256.
    ///
    /// # Errors
    /// When it cannot be read.
    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError>;

    /// Makes changes, in their order, each of them only where the expected version stands. When this
    /// returns, those that were made are durable. Returns as many outcomes as there are changes.
    ///
    /// # Errors
    /// When they cannot be made durable: then none of them counts.
    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError>;
}

impl State {
    /// Takes a signed head and the time it was cosigned.
    ///
    /// # Errors
    /// When the text of the note is not that of a head.
    pub fn new(note: Note, time: u64) -> Result<Self, TreeHeadError> {
        let head = note.text().parse()?;
        Ok(Self { head, note, time })
    }

    /// Returns what the head says.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Returns the head with the lines of its log, and without that of the witness.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Returns what tells it apart from other states of the log.
    #[must_use]
    pub fn version(&self) -> Version {
        Version {
            size: self.head.size,
            root: self.head.root,
            time: self.time,
        }
    }
}

impl Version {
    /// Tells whether a witness can go from here to there without contradicting itself.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        let same_root = next.size != self.size || next.root == self.root;
        next.size >= self.size && next.time >= self.time && same_root
    }
}

/// The states of a witness, by the name of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table(BTreeMap<LogName, State>);

impl Table {
    pub(super) fn get(&self, origin: &LogName) -> Option<&State> {
        self.0.get(origin)
    }

    pub(super) fn find(&self, id: &Hash) -> Option<&State> {
        self.0.values().find(|state| state.head.origin.id() == *id)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &State> {
        self.0.values()
    }

    pub(super) fn put(&mut self, state: State) {
        self.0.insert(state.head.origin.clone(), state);
    }

    /// Tells what would become of changes. Those that would be made are returned as the states of the
    /// logs that they touch.
    pub(super) fn plan<'a>(
        &self,
        changes: &'a [Change],
    ) -> Result<(Vec<Advanced>, Vec<&'a State>), StoreError> {
        let mut next: BTreeMap<&LogName, &'a State> = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(changes.len());
        for Change { expected, new } in changes {
            let origin = &new.head.origin;
            let standing = next.get(origin).copied().or_else(|| self.get(origin));
            let version = standing.map(State::version);
            if version != *expected {
                outcomes.push(Advanced::Conflict);
                continue;
            }
            if version.is_some_and(|version| !version.may_become(&new.version())) {
                return Err(StoreError::Back);
            }
            next.insert(origin, new);
            outcomes.push(Advanced::Yes);
        }
        Ok((outcomes, next.into_values().collect()))
    }
}

/// A store that forgets everything when the process ends. For tests, and for keys that end with it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    table: Mutex<Table>,
}

impl MemoryStore {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WitnessStore for MemoryStore {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        Ok(self.table().get(origin).cloned())
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        Ok(self.table().find(id).cloned())
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        let mut table = self.table();
        let (outcomes, states) = table.plan(changes)?;
        for state in states {
            table.put(state.clone());
        }
        Ok(outcomes)
    }
}
