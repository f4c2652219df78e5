//! The peers of this node as mirrors of its log.

use std::path::{Path, PathBuf};

use openfang_audit::challenge::{Demand, draw};
use openfang_audit::cosign::{CosignerKey, Role};
use openfang_audit::feed::{
    Ask, Candidate, Feeder, MirrorStatus, Mirroring, Outcome, Pace, Proven, Step, What,
};
use openfang_audit::mirror::UploadHeader;
use openfang_audit::note::Note;
use openfang_audit::witness::AddCheckpoint;
use openfang_audit::{Hash, Log, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Answer, HeadView, Mesh, NodeView, Question, Verb, View};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::packing::pack;
use super::{ADD_CHECKPOINT, ADD_ENTRIES, saved};
use crate::clock;
use crate::evidence::Quarantine;
use crate::own_log::Doubts;

/// How long a mirror may take for one request: it writes 8 MiB to its disk.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many entries one challenge demands: 459 entries, which find a loss of one in a hundred with
/// 99 % certainty, are asked for in half an hour.
const DRAWN: usize = 16;
/// It is lost: the status of HTTP.
const LOST: u16 = 410;
/// The log has contradicted itself, or does not go on from what is there.
const CONTRADICTED: [u16; 2] = [403, 422];

/// What the task needs.
pub(crate) struct Feeding {
    pub(crate) log: Log,
    /// Checks what was saved of the own log.
    pub(crate) key: VerifyingKey,
    pub(crate) mesh: Mesh,
    /// Where the heads that mirrors have cosigned are kept.
    pub(crate) folder: PathBuf,
    pub(crate) pace: Pace,
    /// Who wants to know how it stands.
    pub(crate) shown: watch::Sender<Mirroring>,
    /// Who is told that a mirror may know another head of the log.
    pub(crate) doubts: Doubts,
    /// Who is kept away.
    pub(crate) quarantine: Quarantine,
}

/// What became of a question.
struct Told {
    ask: Ask,
    heard: Heard,
}

enum Heard {
    /// To a head or to entries.
    Answer(Option<Answer>),
    /// To a challenge.
    Challenge(Outcome),
}

/// Keeps the copies of the log up to date and challenges their keepers, until the node ends.
pub(crate) async fn feed(feeding: Feeding, stop: CancellationToken) {
    let Feeding {
        log, mesh, shown, ..
    } = &feeding;
    let (head, mut heads) = watch::channel(log.head());
    log.on_head(Box::new(move |new| {
        head.send_replace(Some(new));
    }));
    let mut views = mesh.changed();
    let mut task = Task {
        feeder: Feeder::new(log.origin().clone(), feeding.pace),
        began: Instant::now(),
        asked: JoinSet::new(),
        saving: JoinSet::new(),
        unsaved: false,
        log: log.clone(),
        mesh: mesh.clone(),
        folder: feeding.folder.clone(),
        doubts: feeding.doubts.clone(),
        quarantine: feeding.quarantine.clone(),
    };
    task.remember(feeding.key).await;
    task.on_head(heads.borrow_and_update().as_ref());
    task.on_view(&views.borrow_and_update().clone());
    loop {
        task.dismiss_the_barred();
        task.ask_those_due();
        task.save_what_changed();
        let status = task.feeder.status();
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
                match told {
                    Ok(told) => task.on_told(told),
                    Err(why) => tracing::error!(error = %why, "a question to a mirror failed"),
                }
            }
            Some(saved) = task.saving.join_next() => {
                if let Err(why) = saved {
                    tracing::error!(error = %why, "the heads that mirrors have cosigned were not saved");
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
    }
    // What is being saved is saved to its end.
    loop {
        task.save_what_changed();
        if task.saving.join_next().await.is_none() {
            return;
        }
    }
}

struct Task {
    feeder: Feeder,
    began: Instant,
    asked: JoinSet<Told>,
    /// One at a time.
    saving: JoinSet<()>,
    /// Whether there is more to save than is being saved.
    unsaved: bool,
    log: Log,
    mesh: Mesh,
    folder: PathBuf,
    doubts: Doubts,
    quarantine: Quarantine,
}

impl Task {
    /// Takes up what mirrors had cosigned when the node ended.
    async fn remember(&mut self, key: VerifyingKey) {
        let (folder, origin) = (self.folder.clone(), self.log.origin().clone());
        let loaded = tokio::task::spawn_blocking(move || saved::load(&folder, &origin, &key));
        let loaded = match loaded.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(why)) => {
                tracing::warn!(error = %why, "what mirrors have cosigned before cannot be read");
                return;
            }
            Err(why) => {
                tracing::error!(error = %why, "what mirrors have cosigned before cannot be read");
                return;
            }
        };
        for (node, key, head) in loaded {
            if let Err(why) = self.feeder.remember(node, key, &head) {
                tracing::warn!(mirror = %node.fmt_short(), error = %why, "a saved cosignature does not hold");
            }
        }
    }

    fn on_head(&mut self, head: Option<&SignedHead>) {
        if let Some(head) = head {
            self.feeder.on_head(head);
        }
    }

    fn on_view(&mut self, view: &View) {
        self.feeder
            .set_candidates(candidates(view), self.began.elapsed());
    }

    /// Returns when to go on by itself; a log that is held waits for its next head.
    fn wake_at(&self) -> Option<Instant> {
        let next = self.feeder.next().filter(|_| !self.log.is_held());
        next.map(|next| self.began + next)
    }

    /// Whoever is convicted keeps no copy that counts.
    fn dismiss_the_barred(&mut self) {
        let quarantine = &self.quarantine;
        let is_barred = |node: &NodeId| quarantine.barred(node).is_some();
        self.unsaved |= self.feeder.dismiss(is_barred);
    }

    fn ask_those_due(&mut self) {
        if self.log.is_held() {
            return;
        }
        for ask in self.feeder.due(self.began.elapsed()) {
            let (log, mesh) = (self.log.clone(), self.mesh.clone());
            self.asked.spawn(async move {
                let heard = put(log, mesh, &ask).await;
                Told { ask, heard }
            });
        }
    }

    fn on_told(&mut self, told: Told) {
        let now = self.began.elapsed();
        let Told { ask, heard } = told;
        let answer = match heard {
            Heard::Challenge(outcome) => return self.on_challenged(&ask.node, outcome, now),
            Heard::Answer(answer) => answer,
        };
        let answer = answer
            .as_ref()
            .map(|answer| (answer.status, answer.body.as_slice()));
        let contradicts = answer.is_some_and(|(status, _)| CONTRADICTED.contains(&status));
        match self.feeder.on_answer(&ask, answer, now) {
            Step::None if contradicts => self.doubts.suspect(ask.node),
            Step::None => {}
            Step::Held => self.unsaved = true,
            Step::Behind { latest } => {
                tracing::warn!(
                    mirror = %ask.node.fmt_short(), size = self.log.size(), taken = latest,
                    "a mirror says that it has a longer audit log of this node than there is: it is asked for it"
                );
                self.doubts.suspect(ask.node);
            }
        }
    }

    fn on_challenged(&mut self, node: &NodeId, outcome: Outcome, now: Duration) {
        let mirror = node.fmt_short();
        let mirrors = self.feeder.status().mirrors;
        let silent =
            |status: &MirrorStatus| status.node == *node && status.proven == Proven::Unproven;
        match &outcome {
            Outcome::Shown => tracing::debug!(%mirror, "a mirror has shown what it holds"),
            // Said once, not every minute that it is away.
            Outcome::Unanswered if mirrors.iter().any(silent) => {}
            Outcome::Unanswered => {
                tracing::info!(%mirror, "unproven: a mirror did not answer a challenge");
            }
            Outcome::Wrong(indexes) => tracing::warn!(
                %mirror, first = indexes.first(), entries = indexes.len(),
                "failed challenge: a mirror has cosigned entries that it does not show"
            ),
        }
        let random = random().first().copied().unwrap_or_default();
        self.feeder.on_challenged(node, outcome, now, random);
    }

    fn save_what_changed(&mut self) {
        if !self.unsaved || !self.saving.is_empty() {
            return;
        }
        self.unsaved = false;
        let held: Vec<(NodeId, CosignerKey, Note)> = self
            .feeder
            .held()
            .map(|(node, key, held)| (*node, key.clone(), held.note.clone()))
            .collect();
        let folder = self.folder.clone();
        self.saving.spawn(async move {
            let path = folder.clone();
            let saved = tokio::task::spawn_blocking(move || saved::save(&path, &held)).await;
            if let Ok(Err(why)) = saved {
                warn_unsaved(&folder, &why);
            }
        });
    }
}

fn warn_unsaved(folder: &Path, why: &std::io::Error) {
    tracing::warn!(
        folder = %folder.display(), error = %why,
        "the heads that mirrors have cosigned cannot be written"
    );
}

/// Lists who could mirror a log.
fn candidates(view: &View) -> Vec<Candidate> {
    let candidate = |node: &NodeView| {
        let key = node.record.record().cosigners.mirror?;
        let key = VerifyingKey::from_bytes(key).ok()?;
        Some(Candidate {
            node: node.id,
            key: CosignerKey::of(&node.id, Role::Mirror, key),
            reachable: node.liveness.is_reachable(),
        })
    };
    let honest = |node: &&NodeView| !matches!(node.head, HeadView::Inconsistent { .. });
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    others.filter(honest).filter_map(candidate).collect()
}

async fn put(log: Log, mesh: Mesh, ask: &Ask) -> Heard {
    match &ask.what {
        What::Checkpoint { old, size, note } => {
            let request = checkpoint(log, *old, *size, note.clone()).await;
            Heard::Answer(carry(&mesh, ask.node, request).await)
        }
        What::Entries { start, end, ticket } => {
            let header = UploadHeader {
                origin: log.origin().to_string(),
                start: *start,
                end: *end,
                ticket: ticket.clone(),
            };
            let request = entries(log, header).await;
            Heard::Answer(carry(&mesh, ask.node, request).await)
        }
        What::Challenge { size, root, again } => {
            let id = openfang_audit::cosign::LogName::from(log.origin()).id();
            let mut indexes = again.clone();
            indexes.extend(draw(&random(), *size));
            if indexes.is_empty() {
                return Heard::Challenge(Outcome::Unanswered);
            }
            let demand = Demand {
                size: *size,
                indexes,
            };
            Heard::Challenge(challenge(&mesh, ask.node, &id, (demand, root)).await)
        }
    }
}

/// Makes the question that hands a head in. The proof is computed from the file.
async fn checkpoint(log: Log, old: u64, size: u64, note: Note) -> Option<Question> {
    let proof = if old == 0 || old == size {
        Vec::new()
    } else {
        let proved = tokio::task::spawn_blocking(move || log.consistency(old, size)).await;
        match proved {
            Ok(Ok(proof)) => proof,
            Ok(Err(why)) => {
                tracing::warn!(error = %why, "the audit log cannot prove that it has only grown");
                return None;
            }
            Err(why) => {
                tracing::error!(error = %why, "a proof of the audit log failed");
                return None;
            }
        }
    };
    let request = AddCheckpoint::new(old, proof, note).ok()?;
    Some(post(ADD_CHECKPOINT, request.to_string().into_bytes()))
}

/// Makes the question that hands entries in. They are read from the file.
async fn entries(log: Log, header: UploadHeader) -> Option<Question> {
    match tokio::task::spawn_blocking(move || pack(&log, &header)).await {
        Ok(Ok(body)) => Some(post(ADD_ENTRIES, body)),
        Ok(Err(why)) => {
            tracing::warn!(error = %why, "the audit log cannot be uploaded to a mirror");
            None
        }
        Err(why) => {
            tracing::error!(error = %why, "packing the audit log for a mirror failed");
            None
        }
    }
}

async fn carry(mesh: &Mesh, node: NodeId, question: Option<Question>) -> Option<Answer> {
    match mesh.ask(node, question?, Instant::now() + DEADLINE).await {
        Ok(answer) => Some(answer),
        Err(why) => {
            tracing::debug!(mirror = %node.fmt_short(), error = %why, "a mirror was not reached");
            None
        }
    }
}

async fn challenge(
    mesh: &Mesh,
    node: NodeId,
    id: &Hash,
    (demand, root): (Demand, &Hash),
) -> Outcome {
    let question = post(&format!("mirror/{id}/challenge"), demand.encode());
    let Some(answer) = carry(mesh, node, Some(question)).await else {
        return Outcome::Unanswered;
    };
    match answer.status {
        200 => match demand.check(root, &answer.body) {
            Ok(()) => Outcome::Shown,
            Err(why) => {
                tracing::debug!(mirror = %node.fmt_short(), error = %why, "a challenge was answered wrongly");
                Outcome::Wrong(demand.indexes)
            }
        },
        404 | LOST => Outcome::Wrong(demand.indexes),
        _not_now => Outcome::Unanswered,
    }
}

fn post(path: &str, body: Vec<u8>) -> Question {
    Question {
        verb: Verb::Post,
        path: path.to_owned(),
        body,
    }
}

/// Draws numbers that no mirror can foresee; none when the system has none, and then nothing is drawn.
fn random() -> Vec<u64> {
    const BYTES: usize = DRAWN * size_of::<u64>();
    match clock::random::<BYTES>() {
        Ok(bytes) => {
            let (numbers, _none) = bytes.as_chunks();
            numbers.iter().copied().map(u64::from_be_bytes).collect()
        }
        Err(why) => {
            tracing::error!(error = %why, "mirrors cannot be challenged");
            Vec::new()
        }
    }
}
