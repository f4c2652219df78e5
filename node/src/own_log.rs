//! The own audit log before its first signature: peers are asked what they know of it, and what was
//! lost here comes back from their copies.
//!
//! The log is opened held: it takes entries and signs nothing. When enough peers have answered and
//! none knows more, it is released. When one knows a head that the log does not lead to, the log was
//! wiped or rolled back: its entries are fetched from the mirrors, and it goes on behind them. What
//! nobody has any more ends the log, and a new one begins in the next epoch: a second history of the
//! same log would be a lie.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use openfang_audit::cosign::LogName;
use openfang_audit::inquiry::{Acquaintance, Doubt, Inquiry, NOTES_MAX, Signing};
use openfang_audit::proof::subtree_root;
use openfang_audit::restore::{restore, restoring_path};
use openfang_audit::tile::{TileNodes, split_entry};
use openfang_audit::{AgreeError, Checkpoint, Log, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Answer, Liveness, Mesh, Question, Status, Verb, View};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::mirror::{Holds, PeerTiles};
use crate::witness::{HEADS_OF_ASKER, WITNESSES};

/// How long a peer may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// A log is given up no sooner: links come up, and nodes are told of by others.
const MEET: Duration = Duration::from_secs(10);
/// For how long nobody new must have come before a log is given up.
const QUIET: Duration = Duration::from_secs(5);
/// The same where there is nobody at all.
const LONELY: Duration = Duration::from_secs(30);
/// Between two tries to get back what was lost.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// What the task needs.
pub(crate) struct OwnLog {
    pub(crate) log: Log,
    pub(crate) mesh: Mesh,
    /// Whose log it is, and the key that signs it.
    pub(crate) me: (NodeId, VerifyingKey),
    /// Where its lines are.
    pub(crate) log_path: PathBuf,
    /// What was found of it.
    pub(crate) found: Found,
    /// Whether silence is no answer, whatever was found.
    pub(crate) strict: bool,
    /// Whether there should be peers.
    pub(crate) expects_peers: bool,
    /// Who wants to know how it stands.
    pub(crate) shown: watch::Sender<Signing>,
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

/// What became of a question.
struct Told {
    node: NodeId,
    notes: Option<Vec<String>>,
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

impl OwnLog {
    /// Asks until the log may be signed; returns why it may not go on as it is, if so.
    pub(crate) async fn settle(self, stop: CancellationToken) -> Option<Anew> {
        if matches!(self.mesh.status(), Status::Asleep) {
            return self.alone();
        }
        let doubt = match self.found {
            Found::Whole | Found::New if !self.strict => Doubt::None,
            Found::Whole | Found::New | Found::Gone | Found::NoFloor | Found::Back => {
                Doubt::Reasonable
            }
        };
        let (node, key) = self.me;
        self.shown.send_replace(Signing::Asking {
            answered: 0,
            needed: 0,
        });
        let mut views = self.mesh.changed();
        let mut task = Task {
            inquiry: Inquiry::new((node, key), self.log.epoch(), doubt, WITNESSES),
            began: Instant::now(),
            asked: JoinSet::new(),
            try_at: None,
            met: (BTreeSet::new(), Instant::now()),
            tries: 0,
            compared: false,
            own: self,
        };
        task.on_view(&views.borrow_and_update().clone());
        loop {
            task.ask_those_due();
            match task.judge().await {
                Some(Verdict::Sign) => {
                    task.own.shown.send_replace(Signing::Free);
                    task.own.log.release();
                    return None;
                }
                Some(Verdict::Anew(anew)) => return Some(anew),
                None => {}
            }
            let wake = task.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                Some(told) = task.asked.join_next() => {
                    if let Ok(told) = told {
                        task.on_told(told);
                    }
                }
                changed = views.changed() => match changed {
                    Ok(()) => task.on_view(&views.borrow_and_update().clone()),
                    Err(_mesh_is_gone) => return None,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Decides for a node without a mesh: nobody else can know anything.
    fn alone(&self) -> Option<Anew> {
        if self.found == Found::Gone {
            return Some(Anew::Next { last: None });
        }
        self.shown.send_replace(Signing::Free);
        self.log.release();
        None
    }
}

enum Verdict {
    Sign,
    Anew(Anew),
}

struct Task {
    own: OwnLog,
    inquiry: Inquiry,
    began: Instant,
    asked: JoinSet<Told>,
    /// When what was lost is looked for next.
    try_at: Option<Instant>,
    /// Who is known, and since when there was nobody new.
    met: (BTreeSet<NodeId>, Instant),
    /// How often what was lost was looked for.
    tries: usize,
    /// Whether all known heads were compared with the log.
    compared: bool,
}

impl Task {
    fn on_view(&mut self, view: &View) {
        let others = view.nodes.iter().filter(|node| node.id != view.me);
        let there = others.filter(|node| node.liveness != Liveness::Left);
        let known = Acquaintance {
            nodes: there
                .map(|node| (node.id, node.liveness.is_reachable()))
                .collect(),
            more: self.own.expects_peers,
        };
        self.inquiry.set_known(&known);
        let met: BTreeSet<NodeId> = self.inquiry.known().copied().collect();
        if met != self.met.0 {
            self.met = (met, Instant::now());
        }
        self.show();
    }

    fn show(&self) {
        let (answered, needed) = self.inquiry.answered();
        self.own.shown.send_if_modified(|standing| {
            let now = Signing::Asking { answered, needed };
            let asking = matches!(standing, Signing::Asking { .. }) && *standing != now;
            if asking {
                *standing = now;
            }
            asking
        });
    }

    fn ask_those_due(&mut self) {
        for node in self.inquiry.due(self.began.elapsed()) {
            let origin = self.own.log.origin().clone();
            self.asked.spawn(ask(self.own.mesh.clone(), node, origin));
        }
    }

    fn on_told(&mut self, told: Told) {
        match told.notes {
            Some(notes) => {
                let notes = notes.iter().map(String::as_str);
                self.inquiry.on_answer(told.node, notes);
                self.compared = false;
            }
            None => self.inquiry.on_failure(&told.node, self.began.elapsed()),
        }
        self.show();
    }

    fn wake_at(&self) -> Option<Instant> {
        let next = self.inquiry.next(self.began.elapsed());
        let next = next.map(|next| self.began + next);
        let met = Some(self.all_met_at()).filter(|at| *at > Instant::now());
        next.into_iter().chain(self.try_at).chain(met).min()
    }

    /// Returns from when on those who are known count for all there are.
    fn all_met_at(&self) -> Instant {
        let (met, since) = &self.met;
        let least = if met.is_empty() { LONELY } else { MEET };
        (self.began + least).max(*since + QUIET)
    }

    fn has_met_all(&self) -> bool {
        Instant::now() >= self.all_met_at()
    }

    async fn judge(&mut self) -> Option<Verdict> {
        let is_known = self.inquiry.heads().next().is_some();
        if let Some(epoch) = self.inquiry.later_epoch() {
            let found = Found::Gone;
            return Some(Verdict::Anew(Anew::Follow { epoch, found }));
        }
        if self.own.found == Found::New && is_known {
            let (epoch, found) = (self.own.log.epoch(), Found::Gone);
            return Some(Verdict::Anew(Anew::Follow { epoch, found }));
        }
        if !self.compared && is_known {
            match self.compare().await {
                Comparison::Same => {
                    self.compared = true;
                    self.try_at = None;
                }
                Comparison::Missing(head) => return self.bring_back(head).await,
                Comparison::Unknown => return None,
                Comparison::Contradicts(size) => {
                    self.contradicted(size);
                    return None;
                }
            }
        }
        let is_done = self.inquiry.is_done(self.began.elapsed());
        if self.own.found == Found::Gone && !is_known {
            let alone = self.met.0.is_empty();
            let nobody_has_it = self.has_met_all() && (alone || is_done);
            return nobody_has_it.then_some(Verdict::Anew(Anew::Next { last: None }));
        }
        is_done.then_some(Verdict::Sign)
    }

    /// Compares what others know with the log.
    async fn compare(&self) -> Comparison {
        let heads: Vec<Checkpoint> = self.inquiry.heads().map(|(head, _)| head.clone()).collect();
        let log = self.own.log.clone();
        let compared = tokio::task::spawn_blocking(move || {
            let (tiles, signed) = (log.tiles(), log.signed_size());
            let leads_to = |head: &Checkpoint| {
                head.size <= tiles.size()
                    && subtree_root(&tiles, 0, head.size).ok() == Some(head.root)
            };
            match heads.into_iter().find(|head| !leads_to(head)) {
                None => Comparison::Same,
                Some(head) if head.size <= signed => Comparison::Contradicts(head.size),
                Some(head) => Comparison::Missing(head),
            }
        });
        match compared.await {
            Ok(compared) => compared,
            Err(why) => {
                tracing::error!(error = %why, "the audit log cannot be compared with what peers know of it: it is not signed");
                Comparison::Unknown
            }
        }
    }

    /// Tries to get back what leads to a head that was signed once.
    async fn bring_back(&mut self, head: Checkpoint) -> Option<Verdict> {
        if self.try_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.try_at = Some(Instant::now() + TRY_EVERY);
        let holders = self.holders(&head).await;
        if holders.have.is_empty() {
            return self.without_holders(head, holders.silent);
        }
        let first = !matches!(*self.own.shown.borrow(), Signing::Restoring { .. });
        if first {
            tracing::warn!(
                size = head.size,
                have = self.own.log.size(),
                "peers know a longer audit log of this node than there is: it is restored from their copies"
            );
        }
        let mut have = holders.have;
        // A copy that lies spoils a try: the next begins with another.
        have.sort_unstable();
        let first = self.tries % have.len();
        have.rotate_left(first);
        self.tries += 1;
        match self.restore(&head, have).await {
            Restoring::Done => {
                // It is compared once more, at once.
                self.try_at = Some(Instant::now());
                let (answered, needed) = self.inquiry.answered();
                let asking = Signing::Asking { answered, needed };
                self.own.shown.send_replace(asking);
                // What was put back from a backup with the log is as old: also what this node has
                // cosigned for others.
                if matches!(self.own.found, Found::Whole | Found::NoFloor) {
                    let (epoch, found) = (self.own.log.epoch(), Found::Back);
                    return Some(Verdict::Anew(Anew::Follow { epoch, found }));
                }
            }
            Restoring::Later => {}
            Restoring::Contradicted => self.contradicted(head.size),
        }
        None
    }

    /// Says that nothing is signed any more: peers hold a head of this size that does not fit.
    fn contradicted(&self, size: u64) {
        let now = Signing::Contradicted { size };
        if self.own.shown.send_replace(now.clone()) != now {
            tracing::error!(
                size,
                "peers hold a head that this audit log has signed and does not lead to: it has two \
                 histories, and signs nothing more. Is another machine running with the key of this \
                 node?"
            );
        }
    }

    fn without_holders(&mut self, head: Checkpoint, silent: Vec<NodeId>) -> Option<Verdict> {
        let everyone_said_no = self.has_met_all()
            && silent.is_empty()
            && self.inquiry.silent().next().is_none()
            && self.inquiry.is_done(self.began.elapsed());
        if everyone_said_no {
            tracing::error!(
                size = head.size,
                "entries of the audit log of this node are lost here and at every peer: a new log begins"
            );
            return Some(Verdict::Anew(Anew::Next { last: Some(head) }));
        }
        let size = head.size;
        let standing = Signing::Behind { size, silent };
        let before = self.own.shown.send_replace(standing.clone());
        if !matches!(before, Signing::Behind { .. }) {
            tracing::warn!(
                size,
                have = self.own.log.size(),
                "peers know a longer audit log of this node than there is, and no one who can be \
                 reached has its entries: nothing is signed until one comes"
            );
        }
        None
    }

    /// Asks everyone for a copy that reaches up to a head.
    async fn holders(&self, head: &Checkpoint) -> Holders {
        let view = self.own.mesh.view();
        let copies = copies_of(&self.own.mesh, &view, (&head.origin, self.own.me.1)).await;
        let reach = copies.heads.into_iter();
        let reach = reach.filter(|(_, copy)| copy.size >= head.size);
        Holders {
            have: reach.map(|(node, _)| node).collect(),
            silent: copies.silent,
        }
    }

    async fn restore(&self, head: &Checkpoint, holders: Vec<NodeId>) -> Restoring {
        let tiles = PeerTiles::new(
            self.own.mesh.clone(),
            tokio::runtime::Handle::current(),
            head.origin.clone(),
            holders
                .into_iter()
                .map(|node| (node, Holds::Mirror))
                .collect(),
        );
        let (log, head) = (self.own.log.clone(), head.clone());
        let path = restoring_path(&self.own.log_path);
        let shown = self.own.shown.clone();
        let restored = tokio::task::spawn_blocking(move || {
            let nodes = TileNodes::open(&tiles, head.size, head.root);
            let common = match nodes.as_ref().map(|nodes| log.agreement(nodes)) {
                Ok(Ok(common)) => common,
                Ok(Err(AgreeError::TwoHistories { .. })) => return Restoring::Contradicted,
                Ok(Err(why)) => return Restoring::later(&why),
                Err(why) => return Restoring::later(why),
            };
            let mut progress = |now: openfang_audit::tile::Progress| {
                shown.send_replace(Signing::Restoring {
                    done: now.done,
                    total: now.total,
                });
            };
            let restored = match restore(&tiles, &head, (common, &path), &mut progress) {
                Ok(restored) => restored,
                Err(why) => return Restoring::later(&why),
            };
            match log.take_back(restored, head) {
                Ok(taken) => {
                    tracing::info!(
                        entries = taken.entries.end - taken.entries.start,
                        "the audit log is whole again"
                    );
                    if let Err(why) = crate::files::remove(&path) {
                        tracing::warn!(path = %path.display(), error = %why, "the fetched entries are left behind");
                    }
                    Restoring::Done
                }
                Err(why) => Restoring::later(&why),
            }
        });
        restored.await.unwrap_or_else(|why| {
            tracing::error!(error = %why, "restoring the audit log failed");
            Restoring::Later
        })
    }
}

/// Who has a copy of what is missing.
#[derive(Default)]
struct Holders {
    have: Vec<NodeId>,
    /// Those who did not say.
    silent: Vec<NodeId>,
}

/// How a try ended.
enum Restoring {
    Done,
    Later,
    Contradicted,
}

impl Restoring {
    fn later(why: &dyn std::error::Error) -> Self {
        let source = why.source().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(error = %why, source, "the audit log cannot be restored yet");
        Self::Later
    }
}

/// Why a peer does not say how far its copy reaches.
#[derive(Clone, Copy)]
enum Silence {
    /// It does not answer, or not now.
    NoAnswer,
    /// It had more, and is mending it.
    Lost,
}

/// Asks a node what it has cosigned of the log, and what it has copied.
async fn ask(mesh: Mesh, node: NodeId, origin: Origin) -> Told {
    let heads = get(&mesh, node, HEADS_OF_ASKER.to_owned()).await;
    let notes = match heads {
        Some(answer) if answer.status == 404 => Some(Vec::new()),
        Some(answer) if answer.status == 200 => notes_of(&answer.body),
        Some(_) | None => None,
    };
    let Some(mut notes) = notes else {
        return Told { node, notes: None };
    };
    let notes = match note_of_copy(&mesh, node, &origin).await {
        Ok(note) => {
            notes.extend(note);
            Some(notes)
        }
        // What is left of it says nothing.
        Err(Silence::Lost) => Some(notes),
        Err(Silence::NoAnswer) => None,
    };
    Told { node, notes }
}

async fn get(mesh: &Mesh, node: NodeId, path: String) -> Option<Answer> {
    let question = Question {
        verb: Verb::Get,
        path,
        body: Vec::new(),
    };
    let answer = mesh.ask(node, question, Instant::now() + DEADLINE).await;
    answer.ok()
}

/// Reads the notes of an answer: a bundle of them.
fn notes_of(body: &[u8]) -> Option<Vec<String>> {
    let mut notes = Vec::new();
    let mut rest = body;
    while !rest.is_empty() && notes.len() < NOTES_MAX {
        let (note, behind) = split_entry(rest)?;
        notes.push(String::from_utf8(note.to_vec()).ok()?);
        rest = behind;
    }
    Some(notes)
}

/// What peers have of a log.
#[derive(Default)]
pub(crate) struct Copies {
    /// The heads up to which their copies are complete.
    pub(crate) heads: Vec<(NodeId, Checkpoint)>,
    /// Those who did not say.
    pub(crate) silent: Vec<NodeId>,
}

/// Asks all nodes of the mesh how far their copies of a log reach.
pub(crate) async fn copies_of(
    mesh: &Mesh,
    view: &View,
    (origin, key): (&Origin, VerifyingKey),
) -> Copies {
    let mut asked = JoinSet::new();
    let mut copies = Copies::default();
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    for node in others.filter(|node| node.liveness != Liveness::Left) {
        if node.liveness.is_reachable() {
            asked.spawn(head_of_copy(mesh.clone(), node.id, origin.clone(), key));
        } else {
            copies.silent.push(node.id);
        }
    }
    while let Some(told) = asked.join_next().await {
        match told {
            Ok((node, Ok(Some(head)))) => copies.heads.push((node, head)),
            Ok((_, Ok(None))) => {}
            Ok((node, Err(Silence::NoAnswer | Silence::Lost))) => copies.silent.push(node),
            Err(why) => tracing::error!(error = %why, "a question about copies failed"),
        }
    }
    copies.heads.sort_unstable_by_key(|(node, _)| *node);
    copies
}

/// Asks how far the copy of a peer reaches. Whatever is no head of the log is no copy of it.
async fn head_of_copy(
    mesh: Mesh,
    node: NodeId,
    origin: Origin,
    key: VerifyingKey,
) -> (NodeId, Result<Option<Checkpoint>, Silence>) {
    let note = note_of_copy(&mesh, node, &origin).await;
    let head = note.map(|note| {
        let opened = SignedHead::open(&note?, &origin, &key).ok()?;
        Some(opened.checkpoint)
    });
    (node, head)
}

/// Asks a peer for the head of its copy of a log; `None` when it has none.
async fn note_of_copy(
    mesh: &Mesh,
    node: NodeId,
    origin: &Origin,
) -> Result<Option<String>, Silence> {
    let id = LogName::from(origin).id();
    let answer = get(mesh, node, format!("mirror/{id}/checkpoint")).await;
    let answer = answer.ok_or(Silence::NoAnswer)?;
    match answer.status {
        200 => Ok(String::from_utf8(answer.body).ok()),
        404 => Ok(None),
        410 => Err(Silence::Lost),
        _not_now => Err(Silence::NoAnswer),
    }
}
