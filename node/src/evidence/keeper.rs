//! Writes down who was convicted: an entry of the audit log and a file, once for each node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use openfang_audit::evidence::{Evidence, file_name};
use openfang_audit::{Event, Hash, Origin, Public};
use openfang_id::NodeId;
use openfang_kernel::Auditor;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ToWrite, store};
use crate::audit_epoch;

/// Writes what is handed in at the [`Desk`](super::Desk).
#[derive(Debug)]
pub(crate) struct Keeper {
    queue: mpsc::Receiver<ToWrite>,
    folder: PathBuf,
    /// What was written before.
    written: BTreeSet<Hash>,
}

impl Keeper {
    pub(super) fn new(
        queue: mpsc::Receiver<ToWrite>,
        folder: &Path,
        written: BTreeSet<Hash>,
    ) -> Self {
        Self {
            queue,
            folder: folder.to_owned(),
            written,
        }
    }

    /// Writes until the node ends.
    pub(crate) async fn run(mut self, auditor: Auditor, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                evidence = self.queue.recv() => match evidence {
                    Some(evidence) => self.write(&auditor, evidence).await,
                    None => stop.cancelled().await,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// The entry first: without the file it is written again, at the worst; without the entry nobody
    /// would write one.
    async fn write(&mut self, auditor: &Auditor, evidence: ToWrite) {
        let ToWrite {
            log,
            kind,
            id,
            evidence,
        } = evidence;
        if self.written.contains(&id) {
            return;
        }
        let file = file_name(&id);
        if self.written.len() >= store::FILES_MAX {
            tracing::error!(%log, evidence = file, "evidence is in force and not written: there are {} files of evidence already", store::FILES_MAX);
            return;
        }
        let what = format!("{kind}, evidence {file}");
        let entry = Event::peer_evidence(log.clone(), Public::text(&what));
        if let Err(why) = auditor.record(entry).await {
            tracing::error!(%log, evidence = file, error = %why, "evidence is in force and not written: it cannot be logged");
            return;
        }
        let folder = self.folder.clone();
        let saved = tokio::task::spawn_blocking(move || store::save(&folder, &id, &evidence)).await;
        match saved {
            Ok(Ok(())) => {
                self.written.insert(id);
            }
            Ok(Err(why)) => {
                tracing::error!(%log, evidence = file, error = %why, "evidence is in force and not written");
            }
            Err(why) => {
                tracing::error!(%log, evidence = file, error = %why, "evidence is in force and not written");
            }
        }
    }
}

/// The log that an entry is about: the one that was forked, or that of the node whose cosignatures
/// contradict each other.
pub(super) fn origin(node: NodeId, evidence: &[u8]) -> Origin {
    let own = Evidence::decode(evidence)
        .ok()
        .and_then(|evidence| evidence.origin().as_str().parse::<Origin>().ok())
        .filter(|origin| origin.belongs_to(&node));
    own.unwrap_or_else(|| Origin::of(&node, audit_epoch::FIRST))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openfang_audit::{Line, Log, Options};
    use openfang_id::NodeSeed;
    use openfang_mesh::Conviction;

    use super::super::store::tests::evidence;
    use super::super::{Desk, Notice, open};
    use super::*;
    use crate::clock::MachineClock;

    fn log(folder: &Path) -> Log {
        let keys = NodeSeed::from_bytes([1; 32]).keys();
        let options = Options {
            log_path: folder.join("audit.jsonl"),
            dir: folder.join("audit.d"),
            node: keys.node_id(),
            key: keys.log,
            boot: 1,
            epoch: 1,
            held: false,
        };
        Log::open(options, Arc::new(MachineClock))
            .expect("opened")
            .0
    }

    fn notice(byte: u8) -> Notice {
        let evidence = evidence(byte, 9);
        Notice {
            node: NodeSeed::from_bytes([byte; 32]).keys().node_id(),
            conviction: Conviction {
                kind: evidence.kind(),
                evidence: evidence.id(),
            },
            evidence: evidence.to_bytes().into(),
        }
    }

    /// Hands in convictions and waits until all are dealt with.
    async fn keep(folder: &Path, auditor: &Auditor, notices: &[Notice]) -> usize {
        let me = NodeSeed::from_bytes([1; 32]).keys().node_id();
        let opened = open(&folder.join("audit.d/evidence"), me, BTreeSet::new());
        let desk: Desk = opened.desk;
        for notice in notices {
            desk.convicted(notice.clone());
            assert!(desk.quarantine().barred(&notice.node).is_some());
        }
        let stop = CancellationToken::new();
        let kept = opened.files.len();
        let mut keeper = opened.keeper;
        while let Ok(notice) = keeper.queue.try_recv() {
            keeper.write(auditor, notice).await;
        }
        stop.cancel();
        keeper.run(auditor.clone(), stop).await;
        kept
    }

    fn entries(log: &Log) -> Vec<Line> {
        let lines = log.recent(100).expect("read").into_iter();
        lines.filter(|line| line.ev == "peer_evidence").collect()
    }

    #[tokio::test]
    async fn a_conviction_is_one_entry_and_one_file_also_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(folder.path());
        let auditor = Auditor::new(log.clone());
        let told = [notice(2), notice(3), notice(2)];
        assert_eq!(keep(folder.path(), &auditor, &told).await, 0);
        assert_eq!(keep(folder.path(), &auditor, &told).await, 2);
        let entries = entries(&log);
        assert_eq!(entries.len(), 2, "{entries:?}");
        let file = file_name(&notice(2).conviction.evidence);
        let first = format!("{:?}", entries[0]);
        assert!(
            first.contains(&format!("equivocation, evidence {file}")),
            "{first}"
        );
        let at = folder.path().join("audit.d/evidence").join(file);
        assert_eq!(std::fs::read(at).expect("there"), *notice(2).evidence);
    }

    #[tokio::test]
    async fn what_cannot_be_logged_is_not_taken_for_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = log(folder.path());
        let auditor = Auditor::new(log.clone());
        log.close().expect("closed");
        keep(folder.path(), &auditor, &[notice(2)]).await;
        assert_eq!(keep(folder.path(), &auditor, &[]).await, 0);
        let off = Auditor::disabled();
        keep(folder.path(), &off, &[notice(2)]).await;
        assert_eq!(
            keep(folder.path(), &off, &[]).await,
            1,
            "without a log, the file alone"
        );
    }
}
