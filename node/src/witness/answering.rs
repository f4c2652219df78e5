//! This node as a witness of its peers.
//!
//! Questions of all peers wait in one queue; whoever comes while the disk is busy shares the next
//! write. A peer hands in heads of its own log only: whose it is, the connection has said.

use std::collections::BTreeMap;
use std::sync::Arc;

use openfang_audit::cosign::LogName;
use openfang_audit::evidence::{Accused, Evidence};
use openfang_audit::inquiry::{NOTES_MAX, Signing};
use openfang_audit::note::Verifier;
use openfang_audit::tile::Bundle;
use openfang_audit::witness::{FileStore, StoreOpenError, Trust, Witness};
use openfang_audit::{Hash, Origin};
use openfang_id::{NodeId, VerifyingKey};
use openfang_mesh::{Answer, HeadView, Mesh, NodeView, Question, Verb, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{ADD_CHECKPOINT, HEADS_OF_ASKER};
use crate::clock::MachineClock;
use crate::cosigner::RoleKey;
use crate::evidence::{Desk, Quarantine};

/// Questions that wait; the mesh asks fewer at once.
const QUEUE: usize = 64;
const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// Come back later: the status of HTTP.
pub(super) const UNAVAILABLE: u16 = 503;

/// Where questions are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    queue: mpsc::Sender<Asked>,
}

/// Where they are answered.
#[derive(Debug)]
pub(crate) struct Counter {
    queue: mpsc::Receiver<Asked>,
    key: RoleKey,
    /// The logs that anyone may hand in heads of.
    public: Arc<BTreeMap<String, Trust>>,
}

#[derive(Debug)]
struct Asked {
    /// The member of the mesh that asks; `None` for anybody else.
    from: Option<NodeId>,
    what: What,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
pub(super) enum What {
    /// Cosign this.
    Add(Vec<u8>),
    /// Show the last head of a log that was cosigned.
    Show(Hash),
    /// Show the last heads of all logs of the node that asks.
    ShowOwn,
}

/// Opens a window with a counter behind it, which takes heads of these logs from anyone.
pub(crate) fn counter(key: RoleKey, public: BTreeMap<String, Trust>) -> (Window, Counter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let public = Arc::new(public);
    (Window { queue: sender }, Counter { queue, key, public })
}

impl Window {
    /// Answers a question of a peer; `None` when it is not one for a witness.
    pub(crate) async fn ask(&self, from: NodeId, question: Question) -> Option<Answer> {
        let what = what_of(question)?;
        Some(self.hand_in(Some(from), what).await)
    }

    /// Hands a question in and waits for the answer.
    pub(super) async fn hand_in(&self, from: Option<NodeId>, what: What) -> Answer {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { from, what, answer };
        if self.queue.send(asked).await.is_err() {
            return Answer::status(UNAVAILABLE);
        }
        // The counter drops what it cannot answer when the node ends.
        answered
            .await
            .unwrap_or_else(|_dropped| Answer::status(UNAVAILABLE))
    }
}

pub(super) fn what_of(question: Question) -> Option<What> {
    let Question { verb, path, body } = question;
    match verb {
        Verb::Post => (path == ADD_CHECKPOINT).then_some(What::Add(body)),
        Verb::Get if path == HEADS_OF_ASKER => Some(What::ShowOwn),
        Verb::Get => {
            let id = path.strip_prefix("witness/")?.strip_suffix("/checkpoint")?;
            id.parse().ok().map(What::Show)
        }
    }
}

/// What a witness goes by besides its state.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) quarantine: Quarantine,
    /// Where evidence against logs of no mesh is handed in.
    pub(crate) desk: Desk,
    /// Whether the own log is signed.
    pub(crate) signing: watch::Receiver<Signing>,
}

impl Rules {
    /// Refuses to cosign as long as it is not known whether this node has forgotten what it has
    /// cosigned; what is asked besides is answered.
    fn refuse_what_must_wait(&self, asked: Vec<Asked>) -> Vec<Asked> {
        if *self.signing.borrow() == Signing::Free {
            return asked;
        }
        let (waits, answered): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|asked| matches!(asked.what, What::Add(_)));
        for asked in waits {
            // Who asked may have gone.
            drop(asked.answer.send(Answer::status(UNAVAILABLE)));
        }
        answered
    }
}

impl Counter {
    /// Answers until the node ends.
    pub(crate) async fn run(mut self, mesh: Mesh, rules: Rules, stop: CancellationToken) {
        let mut witness: Option<Arc<Witness<FileStore>>> = None;
        let mut batch = Vec::new();
        loop {
            let more = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                count = self.queue.recv_many(&mut batch, QUEUE) => count > 0,
            };
            if !more {
                return;
            }
            let asked = rules.refuse_what_must_wait(std::mem::take(&mut batch));
            let peers = asked.iter().filter_map(|asked| asked.from);
            let trusted = trusted(&mesh.view(), peers, &rules.quarantine);
            let (key, opened) = (self.key.clone(), witness.clone());
            let public = Arc::clone(&self.public);
            let answered = tokio::task::spawn_blocking(move || {
                let witness = match opened {
                    Some(opened) => opened,
                    None => Arc::new(key.open()?),
                };
                // Nobody gets by what another may have.
                let is_member = |asked: &Asked| asked.from.is_some();
                let (members, others) = asked.into_iter().partition(is_member);
                let of_members = answer(&witness, members, &trusted);
                let of_others = answer(&witness, others, &public);
                Ok::<_, StoreOpenError>((witness, of_members, of_others))
            });
            match answered.await {
                Ok(Ok((opened, of_members, of_others))) => {
                    witness = Some(opened);
                    for evidence in of_members {
                        mesh.add_evidence(evidence.to_bytes()).await;
                    }
                    for evidence in of_others {
                        freeze(Arc::make_mut(&mut self.public), &evidence);
                        rules.desk.contradicted(&evidence);
                    }
                }
                Ok(Err(why)) => {
                    tracing::error!(error = %why, "this node witnesses nothing: its state as a witness cannot be used");
                }
                Err(why) => tracing::error!(error = %why, "a question to the witness failed"),
            }
        }
    }
}

/// Has nothing of a log cosigned any more that has contradicted itself.
pub(super) fn freeze(logs: &mut BTreeMap<String, Trust>, evidence: &Evidence) {
    let Accused::Log(accused) = evidence.accused() else {
        return;
    };
    let Some(trust) = logs.get_mut(evidence.origin().as_str()) else {
        return;
    };
    let is_its_key = match trust {
        Trust::Keys(keys) => keys.contains(accused),
        Trust::Unknown | Trust::Frozen => false,
    };
    if is_its_key {
        *trust = Trust::Frozen;
    }
}

/// Returns the keys of the logs of some peers.
fn trusted(
    view: &View,
    peers: impl Iterator<Item = NodeId>,
    quarantine: &Quarantine,
) -> BTreeMap<String, Trust> {
    let nodes = peers.filter_map(|peer| view.node(&peer));
    nodes
        .filter_map(|node| trust_in(node, quarantine.is_allowed(&node.id)))
        .collect()
}

/// Returns the log of a node, and what is held of it: nothing of it is cosigned any more once it has
/// contradicted itself, unless the operator allows it.
pub(crate) fn trust_in(node: &NodeView, is_allowed: bool) -> Option<(String, Trust)> {
    let log = node.record.record().log?;
    let origin = Origin::of(&node.id, log.epoch);
    let key = VerifyingKey::from_bytes(log.key).ok()?;
    let caught = matches!(node.head, HeadView::Inconsistent { .. }) || node.convicted.is_some();
    let trust = if caught && !is_allowed {
        Trust::Frozen
    } else {
        Trust::Keys(vec![Verifier::new(origin.as_str(), key)?])
    };
    Some((origin.to_string(), trust))
}

/// Answers a batch: one write for all that is cosigned. Returns what was found against those who asked.
fn answer(
    witness: &Witness<FileStore>,
    asked: Vec<Asked>,
    trusted: &BTreeMap<String, Trust>,
) -> Vec<Evidence> {
    let (mut bodies, mut waiting) = (Vec::new(), Vec::new());
    for Asked { from, what, answer } in asked {
        match what {
            What::Add(body) => {
                bodies.push(body);
                waiting.push((from, answer));
            }
            What::Show(id) => drop(answer.send(show(witness, &id))),
            What::ShowOwn => {
                let shown =
                    from.map_or_else(|| Answer::status(404), |from| show_all_of(witness, &from));
                drop(answer.send(shown));
            }
        }
    }
    let trust = |name: &LogName| {
        trusted
            .get(name.as_str())
            .cloned()
            .unwrap_or(Trust::Unknown)
    };
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let now = MachineClock.now_micros() / 1_000_000;
    let answers = witness.add_checkpoints(&bodies, &trust, now);
    let mut found = Vec::new();
    for ((from, waiting), answer) in waiting.into_iter().zip(answers) {
        let answer = match answer {
            Ok(accepted) => text(200, TEXT, accepted.to_string()),
            Err(refusal) => {
                let from = from.map_or_else(|| "elsewhere".to_owned(), |node| node.fmt_short());
                tracing::debug!(from, why = %refusal.reason, "a head was not cosigned");
                let answer = text(refusal.status(), refusal.content_type(), refusal.body());
                found.extend(refusal.evidence.map(|evidence| *evidence));
                answer
            }
        };
        // Who asked may have gone.
        drop(waiting.send(answer));
    }
    found
}

fn show(witness: &Witness<FileStore>, id: &Hash) -> Answer {
    match witness.checkpoint(id) {
        Ok(Some(note)) => text(200, TEXT, note.to_string()),
        Ok(None) => Answer::status(404),
        Err(why) => {
            tracing::error!(error = %why, "the state of the witness cannot be read");
            Answer::status(UNAVAILABLE)
        }
    }
}

/// Shows a node what is known of its logs: those of its last epochs. Where nothing is, the answer is that
/// this witness does not know: it may be new here, or have forgotten, and cannot say that there was
/// nothing.
fn show_all_of(witness: &Witness<FileStore>, node: &NodeId) -> Answer {
    let origin_of = |name: &LogName| name.as_str().parse::<Origin>().ok();
    let logs = witness.store().logs();
    let mut own: Vec<Origin> = logs.iter().filter_map(origin_of).collect();
    own.retain(|origin| origin.belongs_to(node));
    own.sort_by_key(|origin| std::cmp::Reverse(origin.epoch()));
    if own.is_empty() {
        return Answer::status(404);
    }
    let mut notes = Bundle::default();
    for origin in own.iter().take(NOTES_MAX) {
        match witness.checkpoint(&LogName::from(origin).id()) {
            Ok(Some(note)) => {
                // A note is never as long as an entry may be.
                if let Err(why) = notes.push(note.to_string().as_bytes()) {
                    tracing::error!(error = %why, %origin, "the head of a log cannot be shown");
                }
            }
            Ok(None) => {}
            Err(why) => {
                tracing::error!(error = %why, "the state of the witness cannot be read");
                return Answer::status(UNAVAILABLE);
            }
        }
    }
    Answer {
        status: 200,
        content_type: BYTES.to_owned(),
        body: notes.into_bytes(),
    }
}

fn text(status: u16, content_type: &str, body: String) -> Answer {
    Answer {
        status,
        content_type: content_type.to_owned(),
        body: body.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use openfang_audit::cosign::Role;
    use openfang_audit::evidence::EvidenceKind;
    use openfang_audit::witness::AddCheckpoint;
    use openfang_audit::{Checkpoint, SignedHead};
    use openfang_id::NodeSeed;

    use super::*;
    use crate::home::Home;

    #[test]
    fn a_second_root_for_a_size_is_refused_and_kept_as_evidence() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let seed = NodeSeed::from_bytes([1; 32]);
        let key = RoleKey::choose(&home, &seed, &seed.keys().node_id(), Role::Witness);
        let key = key.expect("looked").expect("a key");
        let witness = key.open().expect("opened");
        let log = NodeSeed::from_bytes([2; 32]).keys();
        let origin = Origin::of(&log.node_id(), 1);
        let verifier = Verifier::new(origin.as_str(), log.log.verifying_key()).expect("a name");
        let trusted = BTreeMap::from([(origin.to_string(), Trust::Keys(vec![verifier]))]);
        let hand_in = |old: u64, root: u8| {
            let checkpoint = Checkpoint {
                origin: origin.clone(),
                size: 5,
                root: Hash::from_bytes([root; 32]),
            };
            let head = SignedHead::sign(checkpoint, &log.log);
            let note = head.note.parse().expect("a note");
            let body = AddCheckpoint::new(old, Vec::new(), note).expect("a request");
            let (answer, mut answered) = oneshot::channel();
            let asked = Asked {
                from: Some(log.node_id()),
                what: What::Add(body.to_string().into_bytes()),
                answer,
            };
            let found = super::answer(&witness, vec![asked], &trusted);
            (answered.try_recv().expect("answered").status, found)
        };
        assert_eq!(hand_in(0, 7), (200, Vec::new()));
        for (old, status) in [(5, 422), (0, 409)] {
            let (answered, found) = hand_in(old, 8);
            assert_eq!(answered, status);
            let [evidence] = &found[..] else {
                panic!("{found:?}");
            };
            assert_eq!(evidence.kind(), EvidenceKind::Equivocation);
        }
    }
}
