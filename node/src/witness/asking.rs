//! The peers of this node as witnesses of its log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use openfang_audit::collect::{Collector, Offer, Step, Witnessing};
use openfang_audit::cosign::{CosignerKey, Role};
use openfang_audit::evidence::{Accused, Evidence, Watch};
use openfang_audit::note::Note;
use openfang_audit::policy::{Policy, assign, quorum_for};
use openfang_audit::witness::AddCheckpoint;
use openfang_audit::{Hash, Log, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Answer, HeadView, Mesh, NodeView, Question, Verb, View};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ADD_CHECKPOINT;
use crate::files;
use crate::own_log::Doubts;

/// How many witnesses a log has, where there are enough peers: one may be away, or lie.
pub(crate) const WITNESSES: usize = 4;
/// How long a witness may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The log has contradicted itself, or does not go on from what was cosigned: statuses of HTTP.
const CONTRADICTED: [u16; 2] = [403, 422];
/// Between two writes of the cosigned head: it is also at the witnesses.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What the task needs.
pub(crate) struct Asking {
    pub(crate) log: Log,
    pub(crate) mesh: Mesh,
    /// Where the cosigned head is kept.
    pub(crate) path: PathBuf,
    /// Where it is kept who has to cosign.
    pub(crate) policy: PathBuf,
    /// The key of the log.
    pub(crate) key: VerifyingKey,
    /// Who wants to know how it stands.
    pub(crate) shown: watch::Sender<Witnessing>,
    /// Who is told that a witness may know another head of the log.
    pub(crate) doubts: Doubts,
}

/// What became of an offer.
struct Told {
    node: NodeId,
    size: u64,
    /// The head that was offered.
    note: Note,
    answer: Option<Answer>,
}

/// Offers each head to the witnesses and gathers what they answer, until the node ends.
pub(crate) async fn collect(asking: Asking, stop: CancellationToken) {
    let Asking {
        log,
        mesh,
        path,
        policy,
        key,
        shown,
        doubts,
    } = asking;
    let (head, mut heads) = watch::channel(log.head());
    log.on_head(Box::new(move |new| {
        head.send_replace(Some(new));
    }));
    let mut views = mesh.changed();
    let mut task = Task {
        collector: Collector::new(),
        began: Instant::now(),
        asked: JoinSet::new(),
        save_at: None,
        saved: None,
        log,
        mesh,
        path,
        policy: Kept {
            path: policy,
            key,
            now: None,
            wanted: None,
            known: false,
        },
        watches: BTreeMap::new(),
        doubts,
    };
    task.on_head(heads.borrow_and_update().as_ref());
    task.on_view(&views.borrow_and_update().clone());
    loop {
        task.ask_those_due();
        let status = task.collector.status();
        shown.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
        let wake = task.wake_at();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(told) = task.asked.join_next() => {
                if let Ok(told) = told {
                    task.on_told(&told);
                    if let Some(evidence) = task.contradiction(&told) {
                        task.mesh.add_evidence(evidence.to_bytes()).await;
                    }
                }
            }
            changed = heads.changed() => match changed {
                Ok(()) => task.on_head(heads.borrow_and_update().as_ref()),
                Err(_log_is_gone) => break,
            },
            changed = views.changed() => match changed {
                Ok(()) => task.on_view(&views.borrow_and_update().clone()),
                Err(_mesh_is_gone) => break,
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        task.save_if_due();
    }
    task.save();
}

struct Task {
    collector: Collector,
    began: Instant,
    asked: JoinSet<Told>,
    /// When the newest cosigned head is to be written.
    save_at: Option<Instant>,
    saved: Option<Instant>,
    log: Log,
    mesh: Mesh,
    path: PathBuf,
    /// What each witness has cosigned.
    watches: BTreeMap<NodeId, Watch>,
    policy: Kept,
    doubts: Doubts,
}

/// The policy that others check the log with, and its file.
struct Kept {
    path: PathBuf,
    key: VerifyingKey,
    /// The one of the witnesses of now.
    now: Option<Policy>,
    /// The one that the newest cosigned head fulfils, until it is written.
    wanted: Option<Policy>,
    /// Whether the file is there. The first one is written before any head is cosigned, so that a log
    /// that never finds its quorum does not pass for one without witnesses.
    known: bool,
}

impl Kept {
    fn on_witnesses(&mut self, origin: &Origin, witnesses: &[(NodeId, CosignerKey)]) {
        let keys: Vec<_> = witnesses
            .iter()
            .map(|(id, key)| (*id, *key.key()))
            .collect();
        self.now = match keys.len() {
            0 => None,
            n => Policy::of_log(origin, self.key, &keys, quorum_for(n))
                .inspect_err(|why| tracing::error!(error = %why, "no policy can be written for the audit log"))
                .ok(),
        };
    }
}

impl Task {
    fn on_head(&mut self, head: Option<&SignedHead>) {
        if let Some(head) = head {
            self.collector.on_head(head);
        }
    }

    fn on_view(&mut self, view: &View) {
        let witnesses = witnesses(view, self.log.origin());
        self.policy.on_witnesses(self.log.origin(), &witnesses);
        if !self.policy.known
            && let Some(first) = self.policy.now.clone()
        {
            self.policy.known = true;
            keep_policy(self.policy.path.clone(), first, false);
        }
        let step = self.collector.set_witnesses(witnesses);
        self.on_step(step);
    }

    fn ask_those_due(&mut self) {
        if self.log.is_held() {
            return;
        }
        for offer in self.collector.due(self.began.elapsed()) {
            self.asked
                .spawn(ask(self.log.clone(), self.mesh.clone(), offer));
        }
    }

    fn on_told(&mut self, told: &Told) {
        let at = (&told.node, told.size);
        let now = self.began.elapsed();
        let Some(answer) = &told.answer else {
            self.collector.on_failure(at, now);
            return;
        };
        let step = self
            .collector
            .on_answer(at, (answer.status, &answer.body), now);
        self.on_step(step);
        match step {
            Step::None if CONTRADICTED.contains(&answer.status) => self.doubts.suspect(told.node),
            Step::None | Step::Quorum => {}
            Step::Behind { latest } => {
                tracing::warn!(
                    witness = %told.node.fmt_short(), size = told.size, cosigned = latest,
                    "a witness says that it has cosigned a longer audit log of this node than there is: \
                     it is asked for it"
                );
                self.doubts.suspect(told.node);
            }
        }
    }

    /// Has the newest cosigned head written, when it is another one.
    fn on_step(&mut self, step: Step) {
        if step == Step::Quorum {
            self.policy.wanted.clone_from(&self.policy.now);
            let after = self.saved.map(|saved| saved + SAVE_EVERY);
            let at = after.unwrap_or_else(Instant::now);
            self.save_at.get_or_insert(at);
        }
    }

    /// Returns evidence when a witness has contradicted what it has cosigned of this log before.
    fn contradiction(&mut self, told: &Told) -> Option<Evidence> {
        let answer = told.answer.as_ref().filter(|answer| answer.status == 200)?;
        let key = self.collector.key_of(&told.node)?.clone();
        let mut note = told.note.clone();
        let body = std::str::from_utf8(&answer.body).ok()?;
        key.collect(&mut note, body).ok()?;
        let accused = Accused::Cosigner(key);
        let watch = self.watches.entry(told.node);
        let watch = watch.or_insert_with(|| Watch::new(accused.clone(), self.log.origin().into()));
        if *watch.accused() != accused {
            *watch = Watch::new(accused, self.log.origin().into());
        }
        watch.see(&note)
    }

    fn wake_at(&self) -> Option<Instant> {
        // A log that is held waits for its next head.
        let next = self.collector.next().filter(|_| !self.log.is_held());
        let next = next.map(|next| self.began + next);
        next.into_iter().chain(self.save_at).min()
    }

    fn save_if_due(&mut self) {
        if self.save_at.is_some_and(|at| at <= Instant::now()) {
            self.save();
        }
    }

    fn save(&mut self) {
        if self.save_at.take().is_none() {
            return;
        }
        self.saved = Some(Instant::now());
        let Some(cosigned) = self.collector.status().quorum else {
            return;
        };
        if let Some(policy) = self.policy.wanted.take() {
            keep_policy(self.policy.path.clone(), policy, true);
        }
        let path = self.path.clone();
        // Nobody waits for it: it is a copy of what the witnesses have.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(why) = files::replace(&path, cosigned.note.to_string().as_bytes()) {
                tracing::warn!(path = %path.display(), error = %why, "the cosigned head cannot be written");
            }
        }));
    }
}

/// Writes the policy, unless it stands there already; over another one of the same log only when told to.
fn keep_policy(path: PathBuf, policy: Policy, replace: bool) {
    // Nobody waits for it: it is written again with the next cosigned head.
    drop(tokio::task::spawn_blocking(move || {
        let of_this_log = |there: &Policy| there.logs() == policy.logs();
        let stays = std::fs::read(&path).is_ok_and(|there| {
            let other = Policy::parse(&there).is_ok_and(|there| of_this_log(&there));
            there == policy.as_bytes() || (other && !replace)
        });
        if stays {
            return;
        }
        if let Err(why) = files::replace(&path, policy.as_bytes()) {
            tracing::warn!(path = %path.display(), error = %why, "the policy of the audit log cannot be written");
        }
    }));
}

/// Chooses who witnesses a log, of those in the mesh who do.
fn witnesses(view: &View, origin: &Origin) -> Vec<(NodeId, CosignerKey)> {
    let key = |node: &NodeView| {
        let key = node.record.record().cosigners.witness?;
        let key = VerifyingKey::from_bytes(key).ok()?;
        Some(CosignerKey::of(&node.id, Role::Witness, key))
    };
    let honest = |node: &NodeView| {
        !matches!(node.head, HeadView::Inconsistent { .. }) && node.convicted.is_none()
    };
    let there = |node: &&NodeView| node.liveness.is_reachable() && honest(node);
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    let candidates: Vec<NodeId> = others
        .filter(there)
        .filter(|node| key(node).is_some())
        .map(|node| node.id)
        .collect();
    let chosen = assign(Role::Witness, origin, &candidates, WITNESSES);
    chosen
        .into_iter()
        .filter_map(|node| Some((node, key(view.node(&node)?)?)))
        .collect()
}

async fn ask(log: Log, mesh: Mesh, offer: Offer) -> Told {
    let (node, size, note) = (offer.node, offer.size, offer.note.clone());
    let answer = answer(log, mesh, offer).await;
    Told {
        node,
        size,
        note,
        answer,
    }
}

/// Proves that the log of `size` entries begins with that of `old`, as a witness wants it.
pub(super) async fn prove(log: Log, old: u64, size: u64) -> Option<Vec<Hash>> {
    if old == 0 || old == size {
        return Some(Vec::new());
    }
    // The proof is computed from the file.
    match tokio::task::spawn_blocking(move || log.consistency(old, size)).await {
        Ok(Ok(proof)) => Some(proof),
        Ok(Err(why)) => {
            tracing::warn!(error = %why, "the audit log cannot prove that it has only grown");
            None
        }
        Err(why) => {
            tracing::error!(error = %why, "a proof of the audit log failed");
            None
        }
    }
}

async fn answer(log: Log, mesh: Mesh, offer: Offer) -> Option<Answer> {
    let Offer {
        node,
        old,
        size,
        note,
    } = offer;
    let proof = prove(log, old, size).await?;
    let request = AddCheckpoint::new(old, proof, note).ok()?;
    let question = Question {
        verb: Verb::Post,
        path: ADD_CHECKPOINT.to_owned(),
        body: request.to_string().into_bytes(),
    };
    match mesh.ask(node, question, Instant::now() + DEADLINE).await {
        Ok(answer) => Some(answer),
        Err(why) => {
            tracing::debug!(witness = %node.fmt_short(), error = %why, "a witness was not reached");
            None
        }
    }
}
