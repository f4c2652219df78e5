//! A witness refuses the heads of a log that is signed.

use openfang_audit::collect::Collector;

use super::*;
use crate::witness::{Asking, collect};

impl Node {
    /// Hands its heads to its witnesses, for as long as the test runs.
    fn offers_heads(&self) -> tokio::task::JoinSet<()> {
        let asking = Asking {
            log: self.log.clone(),
            mesh: self.mesh.clone(),
            path: self.home.cosigned_head(),
            policy: self.home.audit_policy(),
            key: keys(ME).log.verifying_key(),
            shown: watch::Sender::new(Collector::new().status()),
            doubts: self.doubts.clone(),
        };
        let mut offering = tokio::task::JoinSet::new();
        offering.spawn(collect(asking, CancellationToken::new()));
        offering
    }
}

fn refusing(status: u16, knows: Knowledge) -> Knowledge {
    Knowledge {
        refusal: Some((status, "1000\n")),
        ..knows
    }
}

#[test]
fn a_witness_that_knows_more_stops_the_log_and_brings_it_back() {
    run(async {
        let history = History::new(5, 20).await;
        for status in [403, 409, 422] {
            let peer = Peer::start(2, Knowledge::default()).await;
            let old = folder();
            copy(history.old.path(), old.path());
            let mut node = Node::start(old, Found::Whole, &[&peer]).await;
            node.is_free().await;
            peer.learn(refusing(status, history.knowledge(true)));
            let _offering = node.offers_heads();
            let (epoch, found) = (1, Found::Back);
            assert_eq!(node.anew().await, Anew::Follow { epoch, found }, "{status}");
            assert!(node.has_all_of(&history));
        }
    });
}

#[test]
fn a_witness_that_lies_stops_nothing() {
    run(async {
        let history = History::new(5, 0).await;
        let peer = Peer::start(2, Knowledge::default()).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let node = Node::start(old, Found::Whole, &[&peer]).await;
        node.is_free().await;
        for status in [403, 409, 422] {
            let liar = Knowledge {
                cosigned: lies(),
                ..Knowledge::default()
            };
            peer.learn(refusing(status, liar));
            let asked = peer.fake.asked();
            let _offering = node.offers_heads();
            eventually("it is asked what it knows", || {
                peer.fake.asked() > asked + 1
            })
            .await;
            let size = node.log.signed_size();
            grow(&node.log, 3, "on").await;
            eventually("it is signed on", || node.log.signed_size() > size).await;
            assert_eq!(node.standing(), Signing::Free, "{status}");
        }
    });
}
