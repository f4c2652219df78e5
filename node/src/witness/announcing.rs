//! The heads of the own log, announced with the cosignature of this node beside the signature of its
//! log.
//!
//! A signature of the log states no time, a cosignature does: so a node that shows a smaller log later
//! than a larger one has signed the proof of that itself. The witness of this node is asked like
//! any other, and keeps its promises the same way, on the disk before it signs: whatever happens to
//! the clock or the process, it does not contradict itself. Where it says no, the head goes out without.

use std::time::Duration;

use openfang_audit::cosign::CosignerKey;
use openfang_audit::note::Note;
use openfang_audit::witness::AddCheckpoint;
use openfang_audit::{Log, SignedHead};
use openfang_mesh::{Mesh, Question, Status, Verb};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::own_log::Doubts;

use super::asking::prove;
use super::{ADD_CHECKPOINT, Window};

/// Between two heads: each costs a write, and the mesh announces two a second.
const EVERY: Duration = Duration::from_millis(250);

/// What the task needs.
pub(crate) struct Announcing {
    pub(crate) log: Log,
    pub(crate) mesh: Mesh,
    /// The own witness, and the key it cosigns with.
    pub(crate) witness: Option<(Window, CosignerKey)>,
    /// Who is told that the own witness knows a longer log.
    pub(crate) doubts: Doubts,
}

/// Announces each head of the log, the newest ones where they come fast, until the node ends.
pub(crate) async fn announce(announcing: Announcing, stop: CancellationToken) {
    let (sender, mut heads) = watch::channel(announcing.log.head());
    announcing.log.on_head(Box::new(move |new| {
        sender.send_replace(Some(new));
    }));
    let mut task = Task { announcing, old: 0 };
    loop {
        let began = Instant::now();
        let newest = heads.borrow_and_update().clone();
        if let Some(head) = newest {
            tokio::select! {
                () = stop.cancelled() => return,
                head = task.cosigned(head) => task.announce(head),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = heads.changed() => if changed.is_err() {
                return stop.cancelled().await;
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(began + EVERY) => {}
        }
    }
}

struct Task {
    announcing: Announcing,
    /// What the own witness has cosigned last, as far as is known.
    old: u64,
}

impl Task {
    /// Announces a head. Nobody is met while the mesh sleeps, and before it wakes the log is held: the
    /// head is shown again when it is released.
    fn announce(&self, head: SignedHead) {
        let Announcing { doubts, mesh, .. } = &self.announcing;
        if matches!(mesh.status(), Status::Awake { .. }) {
            let size = head.checkpoint.size;
            if !doubts.announce(mesh, head) {
                tracing::debug!(size, "the log is in doubt: its head is not announced");
            }
        }
    }

    /// Puts the own cosignature under a head, if it can be had.
    async fn cosigned(&mut self, head: SignedHead) -> SignedHead {
        let Announcing { mesh, witness, .. } = &self.announcing;
        let (Some((window, key)), Status::Awake { .. }) = (witness.clone(), mesh.status()) else {
            return head;
        };
        // What it has cosigned before the start is known after the first answer.
        for _attempt in 0..2 {
            let Some(question) = self.question(&head).await else {
                return head;
            };
            let answer = window.ask(self.announcing.mesh.node_id(), question).await;
            let Some(answer) = answer else {
                return head;
            };
            let body = String::from_utf8_lossy(&answer.body);
            match answer.status {
                200 => {
                    self.old = head.checkpoint.size;
                    return with_line(head, &key, &body);
                }
                409 => match body.trim_end().parse() {
                    Ok(latest) if latest <= head.checkpoint.size => self.old = latest,
                    latest => {
                        tracing::error!(
                            size = head.checkpoint.size,
                            cosigned = latest.unwrap_or_default(),
                            "this node has itself cosigned a longer audit log than there is: it was rolled back"
                        );
                        let me = self.announcing.mesh.node_id();
                        self.announcing.doubts.suspect(me);
                        return head;
                    }
                },
                status => {
                    tracing::debug!(status, "the own head was not cosigned");
                    return head;
                }
            }
        }
        head
    }

    async fn question(&self, head: &SignedHead) -> Option<Question> {
        let old = self.old.min(head.checkpoint.size);
        let log = self.announcing.log.clone();
        let proof = prove(log, old, head.checkpoint.size).await?;
        let note = head.note.parse().ok()?;
        let request = AddCheckpoint::new(old, proof, note).ok()?;
        Some(Question {
            verb: Verb::Post,
            path: ADD_CHECKPOINT.to_owned(),
            body: request.to_string().into_bytes(),
        })
    }
}

/// Returns the head with the line of the key out of an answer, or as it is.
fn with_line(head: SignedHead, key: &CosignerKey, answer: &str) -> SignedHead {
    let Ok(mut note) = head.note.parse::<Note>() else {
        return head;
    };
    match key.collect(&mut note, answer) {
        Ok(_time) => SignedHead {
            note: note.to_string(),
            ..head
        },
        Err(why) => {
            tracing::error!(error = %why, "the own cosignature is none");
            head
        }
    }
}

#[cfg(test)]
mod tests;
