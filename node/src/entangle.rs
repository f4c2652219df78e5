//! The heads of other logs in the own one, once a minute.
//!
//! What stands in a log is no older than the newest head of another log that stands before it. With
//! the heads of all peers in every log, no node can rewrite when something happened without the others.

use std::collections::BTreeMap;
use std::time::Duration;

use openfang_audit::{Event, Hash, Origin};
use openfang_id::NodeId;
use openfang_kernel::Auditor;
use openfang_mesh::{HeadView, Mesh, View};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// The most heads that are written at one look: the rest follow at the next ones.
const HEADS_AT_ONCE: usize = 64;

/// Writes what is seen of other logs into the own one, until the node ends.
pub(crate) async fn entangle(auditor: Auditor, mesh: Mesh, stop: CancellationToken) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _tick = every.tick() => {}
        }
        for (origin, size, root) in seen.news(&mesh.view()) {
            auditor.note(Event::head_observed(&origin, size, &root));
        }
    }
}

/// The heads that were written last.
#[derive(Debug, Default)]
struct Seen(BTreeMap<NodeId, (Origin, u64)>);

impl Seen {
    /// Returns the heads that have changed, those that were never written first.
    fn news(&mut self, view: &View) -> Vec<(Origin, u64, Hash)> {
        let mut news: Vec<_> = view
            .nodes
            .iter()
            .filter(|node| node.id != view.me)
            .filter_map(|node| {
                let HeadView::Consistent { size, root } = node.head else {
                    return None;
                };
                let log = node.record.record().log?;
                Some((node.id, Origin::of(&node.id, log.epoch), size, root))
            })
            .filter(|(id, origin, size, _)| {
                self.0
                    .get(id)
                    .is_none_or(|before| *before != (origin.clone(), *size))
            })
            .collect();
        self.0.retain(|id, _| view.node(id).is_some());
        news.sort_by_key(|(id, ..)| self.0.contains_key(id));
        news.truncate(HEADS_AT_ONCE);
        for (id, origin, size, _) in &news {
            self.0.insert(*id, (origin.clone(), *size));
        }
        let heads = news.into_iter();
        heads
            .map(|(_, origin, size, root)| (origin, size, root))
            .collect()
    }
}
