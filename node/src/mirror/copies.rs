//! The copies of other logs on this node's disk.
//!
//! [`Copies`] is used where blocking is allowed. Each copy has one writer at a time; reading goes on
//! beside other readers. A copy is opened when it is first needed, because that reads what came after
//! its complete head.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openfang_audit::cosign::{LogName, TreeHead};
use openfang_audit::mirror::{
    FsMirrorStore, Mirror, MirrorHead, MirrorOpenError, OfferError, kept_heads,
};
use openfang_audit::note::Note;
use openfang_audit::witness::{FileStore, StoreError, StoreOpenError, Trust, Witness};
use openfang_audit::{Hash, Origin};
use openfang_id::NodeId;
use openfang_mesh::Answer;

use super::receiving;
use crate::cosigner::RoleKey;
use crate::mirror::answering::{TEXT, refuse, text};

/// How many logs are copied: with three mirrors each, a mesh gives each node three on average. Times the
/// quota it is what members can make this node store.
const LOGS_MAX: usize = 32;
/// How many of them may be of one node, which begins a new log with each new epoch.
const LOGS_PER_NODE: usize = 4;

/// The status of HTTP for a log that there is no room for.
const NO_ROOM: u16 = 507;
/// Come back later.
const UNAVAILABLE: u16 = 503;

/// All copies, and the key that cosigns them.
#[derive(Debug)]
pub(super) struct Copies {
    /// Which heads were accepted: a mirror is a witness that also keeps the entries.
    witness: Witness<FileStore>,
    folder: PathBuf,
    quota_bytes: u64,
    logs: Mutex<BTreeMap<Hash, Arc<Copy>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Copy {
    name: LogName,
    /// `None` until it is needed, and after a failure that only opening again makes good.
    mirror: RwLock<Option<Mirror<FsMirrorStore>>>,
}

/// Whose log it is that a peer hands something in for.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) by: NodeId,
    pub(super) origin: Origin,
    pub(super) trust: Trust,
}

/// Why the copies cannot be used at all. Each is logged; the peers are told to come back.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopiesError {
    /// What was accepted is not known.
    #[error(transparent)]
    State(#[from] StoreOpenError),
    /// The folder cannot be read.
    #[error("the copies of other logs cannot be listed")]
    Folder(#[source] io::Error),
}

/// Why one copy cannot be used. It is logged; the peer is told to come back.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// Its files.
    #[error(transparent)]
    Open(#[from] MirrorOpenError),
    /// The head that was accepted last cannot be read.
    #[error(transparent)]
    State(#[from] StoreError),
}

impl From<io::Error> for CopyError {
    fn from(why: io::Error) -> Self {
        Self::Open(why.into())
    }
}

impl Copies {
    /// Finds the copies that are there.
    pub(super) fn open(key: &RoleKey, quota_bytes: u64) -> Result<Self, CopiesError> {
        let folder = key.home().mirror_copies();
        let witness = key.open()?;
        let kept = kept_heads(&folder).map_err(CopiesError::Folder)?;
        let heads = kept.into_iter().filter_map(|kept| kept.head);
        let named = heads.filter_map(|head| head.note.lines().next()?.parse().ok());
        let names = witness.store().logs().into_iter().chain(named);
        let logs = names.map(|name: LogName| (name.id(), Arc::new(Copy::closed(name))));
        Ok(Self {
            logs: Mutex::new(logs.collect()),
            witness,
            folder,
            quota_bytes,
        })
    }

    /// Finds a copy by the hash of its name.
    pub(super) fn find(&self, id: &Hash) -> Option<Arc<Copy>> {
        self.logs().get(id).cloned()
    }

    /// Takes a head of a log. It becomes pending; the cosignature is given once the entries are there.
    pub(super) fn add_checkpoint(&self, owned: &Owned, body: &[u8], now: u64) -> Answer {
        let name = LogName::from(&owned.origin);
        if !self.has_room(&name, &owned.by) {
            return refuse(NO_ROOM, "this node keeps as many copies as it may");
        }
        let trusted = |log: &LogName| {
            if *log == name {
                owned.trust.clone()
            } else {
                Trust::Unknown
            }
        };
        if let Err(refusal) = self.witness.add_checkpoint(body, &trusted, now) {
            tracing::debug!(from = %owned.by.fmt_short(), why = %refusal.reason, "a head is not mirrored");
            return text(
                refusal.status(),
                refusal.content_type(),
                refusal.body().into_bytes(),
            );
        }
        let copy = Arc::clone(
            self.logs()
                .entry(name.id())
                .or_insert_with(|| Arc::new(Copy::closed(name))),
        );
        let offered = self.write(&copy, |mirror| match self.accepted(&copy.name)? {
            Some(head) => Ok(mirror.offer(head)),
            None => Ok(Ok(())),
        });
        match offered.and_then(|offered| offered) {
            // A larger one was accepted at the same time.
            Ok(Ok(()) | Err(OfferError::Behind { .. })) => text(200, TEXT, Vec::new()),
            Ok(Err(why @ (OfferError::Conflict | OfferError::Form))) => {
                tracing::warn!(log.origin = %copy.name, error = %why, "a head contradicts the copy of its log");
                refuse(422, &why.to_string())
            }
            Err(why) => self.unusable(&copy, &why),
        }
    }

    /// Takes entries of a log.
    pub(super) fn add_entries(&self, owned: &Owned, body: &[u8]) -> Answer {
        let (header, packages) = match receiving::header(body) {
            Ok(found) => found,
            Err(why) => return refuse(400, &why.to_string()),
        };
        if header.origin != owned.origin.as_str() {
            return refuse(404, "only the log of the node that asks is mirrored here");
        }
        match owned.trust {
            Trust::Keys(_) => {}
            Trust::Unknown => return refuse(404, "this log is not known here"),
            Trust::Frozen => {
                return refuse(
                    403,
                    "this log has contradicted itself: its copy is kept as it is",
                );
            }
        }
        let Some(copy) = self.find(&LogName::from(&owned.origin).id()) else {
            return refuse(422, "no head is pending");
        };
        let received = self.write(&copy, |mirror| {
            receiving::receive(mirror, &header, packages, self.witness.cosigner().public())
        });
        match received {
            Ok(received) => {
                if received.open_again {
                    copy.close();
                }
                received.answer
            }
            Err(why) => self.unusable(&copy, &why),
        }
    }

    /// Works with a copy, beside others who read it.
    pub(super) fn read<T>(
        &self,
        copy: &Copy,
        work: impl FnOnce(&Mirror<FsMirrorStore>) -> T,
    ) -> Result<T, CopyError> {
        let guard = copy.mirror.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(mirror) = &*guard {
            return Ok(work(mirror));
        }
        drop(guard);
        self.write(copy, |mirror| work(mirror))
    }

    /// Works with a copy alone.
    pub(super) fn write<T>(
        &self,
        copy: &Copy,
        work: impl FnOnce(&mut Mirror<FsMirrorStore>) -> T,
    ) -> Result<T, CopyError> {
        let mut guard = copy.mirror.write().unwrap_or_else(PoisonError::into_inner);
        let mirror = match guard.take() {
            Some(open) => open,
            None => self.open_copy(&copy.name)?,
        };
        Ok(work(guard.insert(mirror)))
    }

    /// Says that a copy cannot be used, to the log of this node and to the peer.
    pub(super) fn unusable(&self, copy: &Copy, why: &CopyError) -> Answer {
        tracing::error!(
            log.origin = %copy.name, error = %why, folder = %self.folder.display(),
            "the copy of a log cannot be used; when its complete head is damaged, a restart gives this \
             mirror a new key"
        );
        Answer::status(UNAVAILABLE)
    }

    fn open_copy(&self, name: &LogName) -> Result<Mirror<FsMirrorStore>, CopyError> {
        let store = FsMirrorStore::open(&self.folder, name.as_str())?;
        let (mut mirror, opened) = Mirror::open(store, name.as_str(), self.quota_bytes)?;
        tracing::debug!(
            log.origin = %name, entries = opened.next_entry, damaged = opened.damaged,
            "the copy of a log is open"
        );
        if let Some(head) = self.accepted(name)?
            && let Err(why) = mirror.offer(head)
        {
            tracing::warn!(log.origin = %name, error = %why, "the head that was accepted last does not fit the copy");
        }
        Ok(mirror)
    }

    /// Returns the head that was accepted last, with the cosignature that is given out once its entries
    /// are there: it says what held when the head was accepted, so its time never goes back.
    pub(super) fn accepted(&self, name: &LogName) -> Result<Option<MirrorHead>, StoreError> {
        let note = self.witness.checkpoint(&name.id())?;
        Ok(note.as_ref().and_then(head_of))
    }

    fn has_room(&self, name: &LogName, by: &NodeId) -> bool {
        let logs = self.logs();
        let of_node = |copy: &&Arc<Copy>| {
            let origin: Result<Origin, _> = copy.name.as_str().parse();
            origin.is_ok_and(|origin| origin.belongs_to(by))
        };
        logs.contains_key(&name.id())
            || (logs.len() < LOGS_MAX && logs.values().filter(of_node).count() < LOGS_PER_NODE)
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, BTreeMap<Hash, Arc<Copy>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copy {
    /// Returns the name of the log.
    pub(super) fn name(&self) -> &LogName {
        &self.name
    }

    fn closed(name: LogName) -> Self {
        Self {
            name,
            mirror: RwLock::new(None),
        }
    }

    /// Lets the next use open it again.
    fn close(&self) {
        *self.mirror.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn head_of(note: &Note) -> Option<MirrorHead> {
    let head: TreeHead = note.text().parse().ok()?;
    Some(MirrorHead {
        size: head.size,
        root: head.root,
        note: note.to_string(),
    })
}
