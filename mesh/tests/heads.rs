//! Audit heads between nodes: honest growth is accepted, a log that contradicts itself is marked.

mod common;

use std::convert::Infallible;

use common::{Node, Plan, eventually, lock, tcp};
use openfang_audit::evidence::Evidence;
use openfang_audit::note::Verifier;
use openfang_audit::proof::{Nodes, build_consistency};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead, tree};
use openfang_id::{NodeId, Transport};
use openfang_ofp::heads::{CannotProve, HeadView};
use openfang_ofp::roster::Event;

/// A log of numbered entries; what comes after entry `forked_at` is another story.
#[derive(Clone)]
struct Log {
    leaves: Vec<Hash>,
}

impl Log {
    fn new(entries: u64, forked_at: u64) -> Self {
        let entry = |n: u64| {
            let story = if n < forked_at { "true" } else { "forged" };
            tree::leaf_hash(format!("{story} {n}").as_bytes())
        };
        Self {
            leaves: (0..entries).map(entry).collect(),
        }
    }

    fn head(&self, node: &Node, size: usize) -> SignedHead {
        let checkpoint = Checkpoint {
            origin: Origin::of(&node.id(), 0),
            size: u64::try_from(size).expect("small"),
            root: tree::root_of(&self.leaves[..size]),
        };
        SignedHead::sign(checkpoint, &node.plan.keys().log)
    }

    fn answers(self, node: &Node) {
        let prover =
            move |from, to| build_consistency(&self, from, to).map_err(|_range| CannotProve::Range);
        *lock(&node.host.prover) = Some(Box::new(prover));
    }
}

impl Nodes for Log {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        let at = |index: u64| usize::try_from(index << level).expect("small");
        Ok(tree::root_of(&self.leaves[at(index)..at(index + 1)]))
    }
}

async fn three() -> (Node, Node, Node) {
    let mut plan = Plan::new(1).listen(&[tcp("127.0.0.1:0")]);
    plan.log_epoch = Some(0);
    let a = plan.start().await;
    let to_a = vec![a.anonymous(Transport::Tcp)];
    let b = Plan::new(2).bootstrap(to_a.clone()).start().await;
    let c = Plan::new(3).bootstrap(to_a).start().await;
    eventually("all are linked", || {
        let linked = |x: &Node, y: &Node| x.is_linked(y.id()) && y.is_linked(x.id());
        linked(&a, &b) && linked(&b, &c) && linked(&a, &c)
    })
    .await;
    (a, b, c)
}

fn head_of(node: &Node, of: NodeId) -> Option<HeadView> {
    let view = node.mesh.view();
    view.node(&of).map(|node| node.head.clone())
}

fn accepted(node: &Node, of: NodeId) -> Option<u64> {
    let Some(HeadView::Consistent { size, .. }) = head_of(node, of) else {
        return None;
    };
    Some(size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_grows_is_accepted() {
    let (a, b, c) = three().await;
    let log = Log::new(100, 100);
    log.clone().answers(&a);
    for size in [5, 17, 100] {
        a.mesh.set_head(log.head(&a, size));
        let size = u64::try_from(size).expect("small");
        eventually("the head is proved", || {
            accepted(&b, a.id()) == Some(size) && accepted(&c, a.id()) == Some(size)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_altered_is_marked_everywhere() {
    let (a, b, c) = three().await;
    let log = Log::new(20, 20);
    log.clone().answers(&a);
    a.mesh.set_head(log.head(&a, 10));
    eventually("the head is known", || {
        accepted(&b, a.id()) == Some(10) && accepted(&c, a.id()) == Some(10)
    })
    .await;
    // The host lies: it shows the head of another story, and a proof that fits that one.
    let forged = Log::new(20, 4);
    forged.clone().answers(&a);
    a.mesh.set_head(forged.head(&a, 20));
    let id = a.id();
    for node in [&b, &c] {
        eventually("it is marked", || {
            matches!(head_of(node, id), Some(HeadView::Inconsistent { .. }))
                && node.host.any_roster_event(
                    |event| matches!(event, Event::Inconsistent { node, .. } if *node == id),
                )
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_one_has_found_convicts_everywhere() {
    let (a, b, c) = three().await;
    let origin = Origin::of(&a.id(), 0);
    let key = a.plan.keys().log.verifying_key();
    let key = Verifier::new(origin.as_str(), key).expect("a name");
    let [one, other] =
        [9, 4].map(|fork| Log::new(9, fork).head(&a, 9).note.parse().expect("a note"));
    let evidence = Evidence::equivocation(&key, &one, &other).expect("evidence");
    b.mesh.add_evidence(evidence.to_bytes()).await;
    let id = a.id();
    for node in [&a, &b, &c] {
        eventually("it is convicted", || {
            let view = node.mesh.view();
            let held = view.node(&id).and_then(|node| node.convicted);
            held.is_some_and(|held| held.evidence == evidence.id())
        })
        .await;
        assert!(node.host.any_roster_event(|event| matches!(
            event,
            Event::Convicted { node, evidence: bytes, .. }
                if *node == id && **bytes == *evidence.to_bytes()
        )));
    }
}
