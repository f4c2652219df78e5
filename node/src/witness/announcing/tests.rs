//! The own cosignature, from the own witness, on a disk and with a log.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::cosign::Role;
use openfang_audit::evidence::{Accused, EvidenceKind, Watch};
use openfang_audit::{Checkpoint, Event, Hash, Options, Origin, tree};
use openfang_id::{Keys, NodeId, NodeSeed, SharedSecret, Transport};
use openfang_kernel::Auditor;
use openfang_mesh::call::{Failure, Frame, Request};
use openfang_mesh::{CannotProve, Cosigners, Epoch, Host, Limits, Listen, MeshEvent, Owner};

use super::super::counter;
use super::*;
use crate::clock::MachineClock;
use crate::cosigner::RoleKey;
use crate::evidence;
use crate::home::Home;

/// A host that serves nobody.
struct Nobody;

impl Host for Nobody {
    fn call(
        &self,
        _from: NodeId,
        _request: Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        std::future::ready(Err(Failure::Internal)).boxed()
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        std::future::ready(Err(CannotProve::Later)).boxed()
    }

    fn on_event(&self, _event: MeshEvent) {}
}

fn keys() -> Keys {
    NodeSeed::from_bytes([7; 32]).keys()
}

fn log(folder: PathBuf) -> Log {
    let options = Options {
        log_path: folder.join("audit.jsonl"),
        dir: folder.join("audit.d"),
        node: keys().node_id(),
        key: keys().log,
        boot: 1,
        epoch: 1,
        held: false,
    };
    Log::open(options, Arc::new(MachineClock))
        .expect("opened")
        .0
}

/// A node whose mesh is awake and alone, with a witness and a log.
struct Node {
    folder: tempfile::TempDir,
    task: Task,
    key: CosignerKey,
    _owner: Owner,
    counters: tokio::task::JoinSet<()>,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::at(folder.path());
    let log = log(folder.path().to_owned());
    let config = openfang_mesh::Config {
        keys: keys(),
        name: "a".parse().expect("a name"),
        version: "0".to_owned(),
        listen: vec![Listen {
            transport: Transport::Tcp,
            addr: ([127, 0, 0, 1], 0).into(),
        }],
        bootstrap: Vec::new(),
        secret: Some((Epoch(1), SharedSecret::from_random(&[3; 32]))),
        log_epoch: Some(1),
        cosigners: Cosigners::default(),
        evidence: Vec::new(),
        state_dir: folder.path().join("mesh"),
        limits: Limits::default(),
    };
    let (mesh, owner) = Mesh::start(config, Arc::new(Nobody))
        .await
        .expect("started");
    let seed = NodeSeed::from_bytes([7; 32]);
    let key = RoleKey::choose(&home, &seed, &keys().node_id(), Role::Witness);
    let key = key.expect("looked").expect("a key");
    let public = key.cosigner_key().clone();
    let (window, counter) = counter(key, std::collections::BTreeMap::new());
    let opened = evidence::open(&home.evidence(), keys().node_id(), [].into());
    let quarantine = opened.desk.quarantine().clone();
    let mut counters = tokio::task::JoinSet::new();
    let rules = crate::witness::Rules {
        quarantine,
        desk: opened.desk.clone(),
        signing: tokio::sync::watch::channel(openfang_audit::inquiry::Signing::Free).1,
    };
    counters.spawn(counter.run(mesh.clone(), rules, CancellationToken::new()));
    let signing = tokio::sync::watch::Sender::new(openfang_audit::inquiry::Signing::Free);
    let doubts = crate::own_log::Doubts::new(log.clone(), signing);
    let announcing = Announcing {
        log,
        mesh,
        witness: Some((window, public.clone())),
        doubts,
    };
    Node {
        folder,
        task: Task { announcing, old: 0 },
        key: public,
        _owner: owner,
        counters,
    }
}

impl Node {
    /// Adds an entry, and signs a head over all there are.
    async fn grow(&self) -> SignedHead {
        let log = &self.task.announcing.log;
        let auditor = Auditor::new(log.clone());
        auditor
            .record(Event::node_stop("test"))
            .await
            .expect("logged");
        let lines = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).expect("read");
        let leaves: Vec<Hash> = lines
            .lines()
            .map(|line| tree::leaf_hash(line.as_bytes()))
            .collect();
        head(&leaves)
    }
}

fn head(leaves: &[Hash]) -> SignedHead {
    let checkpoint = Checkpoint {
        origin: Origin::of(&keys().node_id(), 1),
        size: u64::try_from(leaves.len()).expect("few"),
        root: tree::root_of(leaves),
    };
    SignedHead::sign(checkpoint, &keys().log)
}

fn time_of(head: &SignedHead, key: &CosignerKey) -> Option<u64> {
    key.verify(&head.note.parse().expect("a note")).ok()
}

#[tokio::test]
async fn every_head_goes_out_with_the_cosignature_of_its_own_node() {
    let mut node = node().await;
    let first = node.grow().await;
    let cosigned = node.task.cosigned(first.clone()).await;
    assert_eq!(cosigned.checkpoint, first.checkpoint);
    assert!(time_of(&cosigned, &node.key).is_some(), "{}", cosigned.note);
    // Who knows only the key of the log reads it as before.
    let key = keys().log.verifying_key();
    let opened = SignedHead::open(&cosigned.note, &first.checkpoint.origin, &key);
    assert_eq!(opened.expect("a head").checkpoint, first.checkpoint);
    // A process that has forgotten what it asked goes on after the first answer.
    node.task.old = 0;
    let second = node.grow().await;
    let cosigned = node.task.cosigned(second).await;
    assert!(time_of(&cosigned, &node.key).is_some());
    assert!(node.task.old > 0);
}

#[tokio::test]
async fn a_log_that_went_back_is_not_cosigned_and_what_was_shows_it() {
    let mut node = node().await;
    let short = node.grow().await;
    let long = node.grow().await;
    let long = node.task.cosigned(long).await;
    let refused = node.task.cosigned(short.clone()).await;
    assert_eq!(refused, short, "as it was");
    // With the state of the witness rolled back as well, it is cosigned, and that is evidence.
    let cosigner =
        openfang_audit::cosign::Cosigner::of(&keys().node_id(), Role::Witness, keys().witness);
    let later = time_of(&long, &node.key).expect("cosigned") + 5;
    let mut note: Note = short.note.parse().expect("a note");
    let line = cosigner
        .cosign(&(&short.checkpoint).into(), later)
        .expect("a time");
    note.add(line).expect("room");
    let origin = (&short.checkpoint.origin).into();
    let mut watch = Watch::new(Accused::Cosigner(node.key.clone()), origin);
    assert_eq!(watch.see(&long.note.parse().expect("a note")), None);
    let evidence = watch.see(&note).expect("evidence");
    assert_eq!(evidence.kind(), EvidenceKind::Cosigner);
}

#[tokio::test]
async fn without_a_witness_or_with_one_that_is_gone_heads_go_out_as_they_are() {
    let mut node = node().await;
    let head = node.grow().await;
    node.counters.shutdown().await;
    assert_eq!(node.task.cosigned(head.clone()).await, head);
    node.task.announcing.witness = None;
    assert_eq!(node.task.cosigned(head.clone()).await, head);
}

#[tokio::test]
async fn a_head_that_comes_when_the_log_is_in_doubt_is_not_announced() {
    let node = node().await;
    let head = node.grow().await;
    let Announcing { doubts, mesh, .. } = &node.task.announcing;
    assert!(doubts.announce(mesh, head.clone()));
    let _joining = doubts.clone().joining().await;
    assert!(!doubts.announce(mesh, head));
}

#[test]
fn a_line_that_is_none_changes_nothing() {
    let head = head(&[]);
    let cosigner =
        openfang_audit::cosign::Cosigner::of(&keys().node_id(), Role::Witness, keys().witness);
    for answer in ["", "nonsense\n", "\u{2014} x AAAAAAAA\n"] {
        assert_eq!(with_line(head.clone(), cosigner.public(), answer), head);
    }
}
