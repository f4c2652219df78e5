//! What was lost of the own log, fetched from the copies of others.

use openfang_audit::inquiry::Signing;
use openfang_audit::restore::{restore, restoring_path};
use openfang_audit::tile::TileNodes;
use openfang_audit::{AgreeError, Checkpoint};
use openfang_id::NodeId;
use tokio::time::Instant;

use super::super::asking::copies_of;
use super::super::{Anew, Comparison, Found, Mark, compare};
use super::{Round, Verdict};
use crate::mirror::{Holds, PeerTiles};

impl Round<'_> {
    /// Tries to get back what leads to a head that was signed once.
    pub(super) async fn bring_back(&mut self, head: Checkpoint) -> Option<Verdict> {
        if self.try_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.try_at = Some(Instant::now() + self.own.pace.try_every);
        let holders = self.holders(&head).await;
        if holders.have.is_empty() {
            return self.without_holders(head, holders).await;
        }
        let first = match *self.shown.borrow() {
            Signing::Restoring { .. } | Signing::Contradicted { .. } => false,
            Signing::Asking { .. }
            | Signing::Waiting { .. }
            | Signing::Behind { .. }
            | Signing::Free => true,
        };
        if first {
            tracing::warn!(
                size = head.size,
                have = self.log.size(),
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
                self.shown.send_replace(asking);
                // What was put back from a backup with the log is as old: also what this node has
                // cosigned for others.
                if self.is_rolled_back() {
                    let (epoch, found) = (self.log.epoch(), Found::Back);
                    return Some(Verdict::Anew(Anew::Follow { epoch, found }));
                }
            }
            Restoring::Later => {}
            Restoring::Contradicted => self.contradicted(head.size).await,
        }
        None
    }

    /// Whether a log that misses entries was put back to an earlier state with all that is beside it.
    fn is_rolled_back(&self) -> bool {
        matches!(self.found, Found::Whole | Found::NoFloor | Found::Moved)
    }

    /// Says that nothing is signed any more, and remembers it: peers hold a head of this size that does not
    /// fit.
    pub(super) async fn contradicted(&self, size: u64) {
        let now = Signing::Contradicted { size };
        if self.shown.send_replace(now.clone()) != now {
            let home = self.own.home.clone();
            let stored = tokio::task::spawn_blocking(move || Mark::Contradicted.store(&home)).await;
            if !matches!(stored, Ok(Ok(()))) {
                let path = self.own.home.audit_doubt();
                tracing::warn!(path = %path.display(), "it cannot be remembered that this audit log is contradicted");
            }
            tracing::error!(
                size,
                "peers hold a head that this audit log has signed and does not lead to: it has two \
                 histories, and signs nothing more. Is another machine running with the key of this \
                 node? If none is: openfang audit witness status says how it \
                 goes on as the peers have it"
            );
        }
    }

    async fn without_holders(&mut self, head: Checkpoint, holders: Holders) -> Option<Verdict> {
        let Holders { part, silent, .. } = holders;
        let everyone_said_no = self.has_met_all()
            && silent.is_empty()
            && self.inquiry.silent().next().is_none()
            && self.inquiry.is_done(self.began.elapsed());
        if everyone_said_no {
            if let Some(part) = part
                && !self.has_what_is_left(part).await
            {
                return None;
            }
            tracing::error!(
                size = head.size,
                "entries of the audit log of this node are lost here and at every peer: a new log begins"
            );
            return Some(Verdict::Anew(Anew::Next { last: Some(head) }));
        }
        let size = head.size;
        let standing = Signing::Behind { size, silent };
        let before = self.shown.send_replace(standing.clone());
        if !matches!(before, Signing::Behind { .. }) {
            tracing::warn!(
                size,
                have = self.log.size(),
                "peers know a longer audit log of this node than there is, and no one who can be \
                 reached has its entries: nothing is signed until one comes"
            );
        }
        None
    }

    /// Brings back what a copy has of a log that is about to end: it is kept with the rest. Tells whether it
    /// is there.
    async fn has_what_is_left(&self, (reach, have): (Checkpoint, Vec<NodeId>)) -> bool {
        let restored = match compare(self.log, vec![reach.clone()]).await {
            Comparison::Same => return true,
            Comparison::Unknown => return false,
            Comparison::Contradicts(_) => Restoring::Contradicted,
            Comparison::Missing(_) => self.restore(&reach, have).await,
        };
        match restored {
            // It is looked at once more.
            Restoring::Done | Restoring::Later => {}
            Restoring::Contradicted => self.contradicted(reach.size).await,
        }
        false
    }

    /// Asks everyone for a copy that reaches up to a head. Who has left may have one.
    async fn holders(&self, head: &Checkpoint) -> Holders {
        let view = self.own.mesh.view();
        let copies = copies_of(&self.own.mesh, &view, (&head.origin, self.own.me.1)).await;
        let (whole, part): (Vec<_>, Vec<_>) = copies
            .heads
            .into_iter()
            .partition(|(_, copy)| copy.size >= head.size);
        let longest = part
            .iter()
            .map(|(_, copy)| copy)
            .max_by_key(|copy| copy.size);
        let part = longest.map(|reach| {
            let have = part.iter().filter(|(_, copy)| copy == reach);
            (reach.clone(), have.map(|(node, _)| *node).collect())
        });
        Holders {
            have: whole.into_iter().map(|(node, _)| node).collect(),
            part,
            silent: [copies.silent, self.left.clone()].concat(),
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
        let (log, head) = (self.log.clone(), head.clone());
        let path = restoring_path(&self.own.log_path);
        let shown = self.shown.clone();
        let (home, rolled_back) = (self.own.home.clone(), self.is_rolled_back());
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
            // From here on the log looks whole, and what this node has cosigned is as old as before.
            if rolled_back && let Err(why) = Mark::RolledBack.store(&home) {
                return Restoring::later(&why);
            }
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
    /// How far copies reach that are not complete, and who has those.
    part: Option<(Checkpoint, Vec<NodeId>)>,
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
