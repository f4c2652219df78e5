//! `openfang peers`: the other nodes of the mesh.

use openfang_schema::{Peer, PeerAudit, PeersReply, path};

use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// How much of a root hash is shown.
const ROOT_CHARS: usize = 8;

/// Lists the peers.
pub(crate) fn run(json: bool, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let reply: PeersReply = context.block_on(client.get(path::PEERS))?;
    if json {
        render::json(&reply)?;
        return Ok(Exit::Ok);
    }
    if reply.peers.is_empty() {
        render::message("no other node is known: openfang join - with its ticket on stdin");
        return Ok(Exit::Ok);
    }
    let headings = [
        "NAME",
        "STATE",
        "ID",
        "ADDRESS",
        "TRANSPORT",
        "RTT",
        "AGENTS",
        "AUDIT",
    ];
    let rows: Vec<Vec<String>> = reply.peers.iter().map(row).collect();
    render::line(&render::table(&headings, &rows))?;
    Ok(Exit::Ok)
}

fn row(peer: &Peer) -> Vec<String> {
    let agents: Vec<&str> = peer
        .agents
        .iter()
        .map(|agent| agent.name.as_str())
        .collect();
    vec![
        peer.node_name.clone(),
        peer.liveness.as_str().to_owned(),
        peer.node_id.clone(),
        or_dash(&peer.address),
        peer.transport
            .map_or("-", |transport| transport.as_str())
            .to_owned(),
        peer.rtt_ms
            .map_or("-".to_owned(), |ms| format!("{ms:.2} ms")),
        or_dash(&agents.join(",")),
        audit(&peer.audit),
    ]
}

fn audit(audit: &PeerAudit) -> String {
    let state = audit.state.as_str();
    match &audit.root {
        Some(root) => {
            let short: String = root.chars().take(ROOT_CHARS).collect();
            format!("{state} {}:{short}", audit.size)
        }
        None => state.to_owned(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
