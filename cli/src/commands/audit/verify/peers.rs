//! What peers hold of this log: asked of the running node, checked here.

use openfang_audit::{Checkpoint, SignedHead};
use openfang_schema::{AuditPeer, AuditPeers, path};
use serde_json::{Value, json};

use super::super::files::Files;
use crate::context::Context;
use crate::error::Failure;
use crate::render;

/// What all of them hold.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) holdings: Vec<Holding>,
    /// The nodes that were asked.
    pub(super) known: usize,
    /// How many of them have said something, if only that they hold nothing.
    pub(super) answered: usize,
    /// Who has said nothing: names and ids.
    pub(super) silent: Vec<String>,
}

/// What one peer holds in one role.
#[derive(Debug)]
pub(super) struct Holding {
    /// Its name and its id.
    pub(super) node: String,
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) held: Held,
}

#[derive(Debug)]
pub(super) enum Held {
    /// A head that this log has signed.
    Head(Checkpoint),
    /// Something else; what.
    Foreign(String),
}

/// Asks the running node.
pub(super) fn ask(files: &Files, context: &Context) -> Result<Peers, Failure> {
    let client = context.client()?;
    let reply: AuditPeers = context.block_on(client.get(path::AUDIT_PEERS))?;
    let mut peers = Peers {
        known: reply.peers.len(),
        answered: reply.peers.iter().filter(|peer| peer.answered).count(),
        silent: reply
            .peers
            .iter()
            .filter(|peer| !peer.answered)
            .map(name_of)
            .collect(),
        holdings: Vec::new(),
    };
    for peer in &reply.peers {
        let held = [("witness", &peer.witness), ("mirror", &peer.mirror)];
        for (role, head) in held {
            let Some(head) = head else { continue };
            peers.holdings.push(Holding {
                node: name_of(peer),
                name: render::cell(&peer.node_name),
                role,
                held: judge(files, &head.checkpoint),
            });
        }
    }
    Ok(peers)
}

fn name_of(peer: &AuditPeer) -> String {
    render::cell(&format!("{} ({})", peer.node_name, peer.node_id))
}

/// The running node is not believed either: a head counts when this log has signed it.
fn judge(files: &Files, note: &str) -> Held {
    match SignedHead::open(note, &files.origin, &files.key) {
        Ok(head) => Held::Head(head.checkpoint),
        Err(why) => Held::Foreign(why.to_string()),
    }
}

impl Peers {
    pub(super) fn as_json(&self) -> Value {
        let held = self.holdings.iter().map(|one| match &one.held {
            Held::Head(head) => json!({
                "node": one.node,
                "role": one.role,
                "size": head.size,
                "root": head.root.to_string(),
            }),
            Held::Foreign(why) => json!({ "node": one.node, "role": one.role, "foreign": why }),
        });
        json!({
            "known": self.known,
            "answered": self.answered,
            "silent": self.silent,
            "held": held.collect::<Vec<Value>>(),
        })
    }
}
