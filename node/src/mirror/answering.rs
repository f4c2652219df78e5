//! Questions of peers about copies of logs, and about this node's own.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openfang_audit::challenge::{AnswerError, Demand};
use openfang_audit::inquiry::Signing;
use openfang_audit::mirror::{FsMirrorStore, Mirror, MirrorReadError};
use openfang_audit::proof::{BuildError, subtree_root};
use openfang_audit::tile::{TilePath, TileSource as _};
use openfang_audit::{Hash, Log, Origin, ServeError};
use openfang_id::NodeId;
use openfang_mesh::{Answer, Mesh, QUESTIONS_MAX, Question, Verb, View};
use tokio::sync::{Semaphore, mpsc, watch};

use super::copies::{Copies, Copy, Owned};
use super::mending::{self, Damaged, Mender};
use super::{ADD_CHECKPOINT, ADD_ENTRIES};
use crate::clock::MachineClock;
use crate::cosigner::RoleKey;
use crate::evidence::Quarantine;
use crate::witness::trust_in;

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// Nothing of that name is kept here: the status of HTTP.
const NOT_HERE: u16 = 404;
/// It was kept here, and is lost.
const LOST: u16 = 410;
/// Too many at once.
const TOO_MANY: u16 = 429;
/// Come back later.
const UNAVAILABLE: u16 = 503;

/// Where such questions are answered.
#[derive(Debug, Clone)]
pub(crate) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` when this node mirrors nothing.
    keeping: Option<Keeping>,
    log: Option<Log>,
    /// Whose logs are copied no further, unless the operator allows it.
    quarantine: Quarantine,
    mesh: OnceLock<Mesh>,
    /// Whether the own log is signed; nothing is taken before.
    signing: OnceLock<watch::Receiver<Signing>>,
    /// Where copies go that turn out to be damaged.
    damaged: mpsc::Sender<Damaged>,
    /// Until it runs.
    mender: Mutex<Option<Mender>>,
    /// What is answered at once. The mesh gives up waiting before a slow disk does; the work goes on.
    places: Arc<Semaphore>,
}

/// How copies are kept.
#[derive(Debug)]
struct Keeping {
    key: RoleKey,
    quota_bytes: u64,
    /// Opened by the first question, and again by the next one when that failed.
    copies: Mutex<Option<Arc<Copies>>>,
}

/// What a peer wants.
#[derive(Debug)]
enum What {
    AddCheckpoint(Vec<u8>),
    AddEntries(Vec<u8>),
    /// Of a copy.
    Copy(Hash, Wanted),
    /// Of the own log.
    Own(Wanted),
}

/// What is to be shown of a log.
#[derive(Debug)]
enum Wanted {
    Checkpoint,
    /// The head that was accepted last: its entries may not all be here.
    Accepted,
    Tile(TilePath),
    Entries(Demand),
}

impl Desk {
    /// Makes a desk: it serves a log, and keeps copies when there is a key for it.
    pub(crate) fn new(
        key: Option<RoleKey>,
        quota_bytes: u64,
        log: Option<Log>,
        quarantine: Quarantine,
    ) -> Self {
        let keeping = key.map(|key| Keeping {
            key,
            quota_bytes,
            copies: Mutex::new(None),
        });
        let (damaged, mender) = mending::mender();
        Self(Arc::new(Inner {
            keeping,
            log,
            quarantine,
            mesh: OnceLock::new(),
            signing: OnceLock::new(),
            damaged,
            mender: Mutex::new(Some(mender)),
            places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        }))
    }

    /// Returns who mends the copies, once; the node has to run it.
    pub(crate) fn mender(&self) -> Option<Mender> {
        let mut mender = self.0.mender.lock().unwrap_or_else(PoisonError::into_inner);
        mender.take()
    }

    /// Has nothing taken before the own log is signed: who forgot the one may have forgotten the other.
    pub(crate) fn wait_for(&self, signing: watch::Receiver<Signing>) {
        self.0.signing.get_or_init(|| signing);
    }

    /// Connects the mesh, once: it knows whose log is whose.
    pub(crate) fn attach(&self, mesh: Mesh) {
        self.0.mesh.get_or_init(|| mesh);
    }

    /// Answers a question of a peer; `None` when it is not one for this desk.
    pub(crate) async fn ask(&self, from: NodeId, question: Question) -> Option<Answer> {
        let what = what_of(question)?;
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else {
            return Some(Answer::status(TOO_MANY));
        };
        let is_allowed = self.0.quarantine.is_allowed(&from);
        let mesh = self.0.mesh.get();
        let owned = mesh.and_then(|mesh| owned(&mesh.view(), from, is_allowed));
        let inner = Arc::clone(&self.0);
        let answered = tokio::task::spawn_blocking(move || {
            let answer = inner.answer(what, owned);
            drop(place);
            answer
        });
        Some(answered.await.unwrap_or_else(|why| {
            tracing::error!(error = %why, "a question to the mirror failed");
            Answer::status(UNAVAILABLE)
        }))
    }
}

fn what_of(question: Question) -> Option<What> {
    let Question { verb, path, body } = question;
    let copy = || {
        let (id, rest) = path.strip_prefix("mirror/")?.split_once('/')?;
        Some((id.parse::<Hash>().ok()?, rest))
    };
    match verb {
        Verb::Post if path == ADD_CHECKPOINT => Some(What::AddCheckpoint(body)),
        Verb::Post if path == ADD_ENTRIES => Some(What::AddEntries(body)),
        Verb::Post => {
            let (id, rest) = copy()?;
            let demand = Demand::parse(&body).ok().filter(|_| rest == "challenge")?;
            Some(What::Copy(id, Wanted::Entries(demand)))
        }
        Verb::Get => match path.strip_prefix("log/") {
            Some(rest) => wanted(rest).map(What::Own),
            None => {
                let (id, rest) = copy()?;
                wanted(rest).map(|wanted| What::Copy(id, wanted))
            }
        },
    }
}

fn wanted(path: &str) -> Option<Wanted> {
    match path {
        "checkpoint" => Some(Wanted::Checkpoint),
        "accepted" => Some(Wanted::Accepted),
        path => path.parse().ok().map(Wanted::Tile),
    }
}

/// Returns the log of a peer, as its record says, and what is held of it.
fn owned(view: &View, from: NodeId, is_allowed: bool) -> Option<Owned> {
    let node = view.node(&from)?;
    let (origin, trust) = trust_in(node, is_allowed)?;
    let origin: Origin = origin.parse().ok()?;
    let by = from;
    Some(Owned { by, origin, trust })
}

impl Inner {
    fn answer(&self, what: What, owned: Option<Owned>) -> Answer {
        let what = match what {
            What::Own(wanted) => return self.own(&wanted),
            what @ (What::AddCheckpoint(_) | What::AddEntries(_) | What::Copy(..)) => what,
        };
        let Some(keeping) = &self.keeping else {
            return Answer::status(NOT_HERE);
        };
        let takes = matches!(what, What::AddCheckpoint(_) | What::AddEntries(_));
        let signing = self.signing.get().map(|signing| signing.borrow().clone());
        if takes && signing.is_some_and(|signing| signing != Signing::Free) {
            return Answer::status(UNAVAILABLE);
        }
        let Some(copies) = keeping.open() else {
            return Answer::status(UNAVAILABLE);
        };
        match (what, owned) {
            (What::AddCheckpoint(_) | What::AddEntries(_), None) => {
                refuse(NOT_HERE, "the record of this node names no audit log")
            }
            (What::AddCheckpoint(body), Some(owned)) => {
                let now = MachineClock.now_micros() / 1_000_000;
                copies.add_checkpoint(&owned, &body, now)
            }
            (What::AddEntries(body), Some(owned)) => copies.add_entries(&owned, &body),
            (What::Copy(id, wanted), _) => match copies.find(&id) {
                Some(copy) => {
                    let answer = show(&copies, &copy, &wanted);
                    // A copy that is shorter than it was is not mended but uploaded again.
                    let of_entries = matches!(wanted, Wanted::Tile(_) | Wanted::Entries(_));
                    let rotten = answer.status == LOST && of_entries;
                    if rotten {
                        // When there is no room in the queue it is noticed again.
                        drop(self.damaged.try_send(Damaged { id, copies }));
                    }
                    answer
                }
                None => Answer::status(NOT_HERE),
            },
            (What::Own(_), _) => Answer::status(NOT_HERE),
        }
    }

    /// Shows something of the own log.
    fn own(&self, wanted: &Wanted) -> Answer {
        let Some(log) = &self.log else {
            return Answer::status(NOT_HERE);
        };
        match wanted {
            Wanted::Checkpoint => match log.head() {
                Some(head) => text(200, TEXT, head.note.into_bytes()),
                None => Answer::status(NOT_HERE),
            },
            Wanted::Tile(path) => match log.tiles().tile(path) {
                Ok(Some(bytes)) => text(200, BYTES, bytes),
                Ok(None) | Err(ServeError::Range) => Answer::status(NOT_HERE),
                Err(why @ ServeError::Damaged { .. }) => refuse(LOST, &why.to_string()),
                Err(ServeError::Io(why)) => {
                    tracing::warn!(error = %why, "the audit log cannot be read for a peer");
                    Answer::status(UNAVAILABLE)
                }
            },
            Wanted::Accepted | Wanted::Entries(_) => Answer::status(NOT_HERE),
        }
    }
}

impl Keeping {
    /// Returns the copies; `None` when they cannot be had now.
    fn open(&self) -> Option<Arc<Copies>> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*copies {
            return Some(Arc::clone(open));
        }
        match Copies::open(&self.key, self.quota_bytes) {
            Ok(open) => Some(Arc::clone(copies.insert(Arc::new(open)))),
            Err(why) => {
                tracing::error!(error = %why, "this node mirrors nothing: its state as a mirror cannot be used");
                None
            }
        }
    }
}

/// Shows something of a copy.
fn show(copies: &Copies, copy: &Copy, wanted: &Wanted) -> Answer {
    if matches!(wanted, Wanted::Accepted) {
        return match copies.accepted(copy.name()) {
            Ok(Some(head)) => text(200, TEXT, head.note.into_bytes()),
            Ok(None) => Answer::status(NOT_HERE),
            Err(why) => copies.unusable(copy, &why.into()),
        };
    }
    let shown = copies.read(copy, |mirror| match wanted {
        Wanted::Checkpoint | Wanted::Accepted => complete(mirror),
        Wanted::Tile(path) => match mirror.tile(path) {
            Ok(Some(bytes)) => text(200, BYTES, bytes),
            Ok(None) => Answer::status(NOT_HERE),
            Err(why) => unread(mirror, &why),
        },
        Wanted::Entries(demand) => entries(mirror, demand),
    });
    shown.unwrap_or_else(|why| copies.unusable(copy, &why))
}

/// Shows entries. They are looked at first: what rotted on the disk is lost, not shown.
fn entries(mirror: &Mirror<FsMirrorStore>, demand: &Demand) -> Answer {
    let body = match demand.answer(mirror) {
        Ok(body) => body,
        Err(AnswerError::Source(why)) => return unread(mirror, &why),
        Err(AnswerError::Range) => return Answer::status(NOT_HERE),
        Err(why @ AnswerError::Lost) => return refuse(LOST, &why.to_string()),
    };
    let root = match subtree_root(mirror, 0, demand.size) {
        Ok(root) => root,
        Err(BuildError::Nodes(why)) => return unread(mirror, &why),
        Err(BuildError::Range) => return Answer::status(NOT_HERE),
    };
    match demand.check(&root, &body) {
        Ok(()) => text(200, BYTES, body),
        Err(why) => {
            tracing::error!(log.origin = mirror.origin(), error = %why, "the copy of a log has rotted");
            refuse(LOST, "an entry of this copy is not what was stored")
        }
    }
}

/// Shows the head up to which a copy is complete. One whose entries are not all there any more is not
/// shown.
fn complete(mirror: &Mirror<FsMirrorStore>) -> Answer {
    match mirror.complete() {
        Some(head) if head.size <= mirror.next_entry() => {
            text(200, TEXT, head.note.clone().into_bytes())
        }
        Some(_) => refuse(LOST, "entries of this copy are lost"),
        None => Answer::status(NOT_HERE),
    }
}

fn unread(mirror: &Mirror<FsMirrorStore>, why: &MirrorReadError) -> Answer {
    tracing::error!(log.origin = mirror.origin(), error = %why, "the copy of a log cannot be shown");
    match why {
        MirrorReadError::Io(_) => Answer::status(UNAVAILABLE),
        MirrorReadError::Corrupt { .. } => refuse(LOST, &why.to_string()),
    }
}

pub(super) fn text(status: u16, content_type: &str, body: Vec<u8>) -> Answer {
    Answer {
        status,
        content_type: content_type.to_owned(),
        body,
    }
}

/// Says no, with one sentence.
pub(super) fn refuse(status: u16, why: &str) -> Answer {
    text(status, TEXT, format!("{why}\n").into_bytes())
}
