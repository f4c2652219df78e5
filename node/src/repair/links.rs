//! Reaching those who may have a copy of the log.

use std::sync::Arc;
use std::time::Duration;

use openfang_id::NodeId;
use openfang_mesh::{Mesh, View};
use tokio::time::{Instant, timeout_at};

use super::RepairError;

/// How long to wait for peers.
pub const LINKS: Duration = Duration::from_secs(15);
/// How long a name that nobody has yet may stay unknown where no other node was ever met.
const FIRST_MEETING: Duration = Duration::from_secs(3);

/// Waits for someone who may have a copy; then a little longer for those who are as close.
pub(super) async fn links(mesh: &Mesh, from: Option<&str>) -> Result<Arc<View>, RepairError> {
    let began = Instant::now();
    let mut views = mesh.changed();
    // Who is known from before is known at once; the first node that is met tells of the others.
    let met_before = views.borrow().nodes.len() > 1;
    let mut strangers_since = None;
    loop {
        let view = views.borrow_and_update().clone();
        let mut others = view.nodes.iter().filter(|node| node.id != view.me);
        let met_any = others.clone().next().is_some();
        let there = others.clone().filter(|node| node.liveness.is_reachable());
        let enough = match from {
            Some(from) => there.clone().any(|node| is_called(&view, &node.id, from)),
            None => {
                there.clone().next().is_some() && others.all(|node| node.liveness.is_reachable())
            }
        };
        if enough {
            return Ok(view);
        }
        let mut deadline = began + LINKS;
        if let Some(from) = from.filter(|from| met_any && !is_known(&view, from)) {
            let since = *strangers_since.get_or_insert_with(Instant::now);
            let until = if met_before {
                since
            } else {
                since + FIRST_MEETING
            };
            if Instant::now() >= until {
                return Err(unknown(&view, from));
            }
            deadline = deadline.min(until);
        }
        let any = from.is_none() && there.count() > 0;
        match timeout_at(deadline, views.changed()).await {
            Ok(Ok(())) => {}
            Err(_late) if any => return Ok(view),
            Err(_late) if Instant::now() < began + LINKS => {}
            Ok(Err(_)) | Err(_) => {
                let wanted = from.map(str::to_owned);
                return Err(RepairError::Unreachable { wanted });
            }
        }
    }
}

fn unknown(view: &View, name: &str) -> RepairError {
    let others = view.nodes.iter().filter(|node| node.id != view.me);
    let known: Vec<String> = others
        .map(|node| node.record.record().name.to_string())
        .collect();
    RepairError::Unknown {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

fn is_known(view: &View, name: &str) -> bool {
    let mut others = view.nodes.iter().filter(|node| node.id != view.me);
    others.any(|node| is_called(view, &node.id, name))
}

pub(super) fn is_called(view: &View, node: &NodeId, name: &str) -> bool {
    node.to_string() == name || name_of(view, node) == name
}

pub(super) fn name_of(view: &View, node: &NodeId) -> String {
    let found = view.node(node);
    found.map_or_else(
        || node.to_string(),
        |node| node.record.record().name.to_string(),
    )
}
