//! `openfang peers`: the other nodes of the mesh.

use openfang_schema::{Peer, PeerAudit, PeerAuditState, PeersReply, path};

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
    let is_accused = matches!(
        audit.state,
        PeerAuditState::Convicted | PeerAuditState::Inconsistent | PeerAuditState::Reported
    );
    match (&audit.root, &audit.reason) {
        (_, Some(reason)) if is_accused => format!("{state} ({reason})"),
        (Some(root), _) => {
            let short: String = root.chars().take(ROOT_CHARS).collect();
            format!("{state} {}:{short}", audit.size)
        }
        (None, _) => state.to_owned(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_contradicts_itself_is_shown_with_the_reason() {
        let check = |state, root: Option<&str>, reason: Option<&str>, expected: &str| {
            let shown = audit(&PeerAudit {
                size: 7,
                root: root.map(str::to_owned),
                state,
                reason: reason.map(str::to_owned),
            });
            assert_eq!(shown, expected);
        };
        let roots = Some("two_roots: two heads of one size have different roots");
        check(
            PeerAuditState::Inconsistent,
            None,
            roots,
            "inconsistent (two_roots: two heads of one size have different roots)",
        );
        let root = Some("0123456789abcdef");
        let fork = Some("fork: evidence ab.json");
        let expected = "convicted (fork: evidence ab.json)";
        check(PeerAuditState::Convicted, root, fork, expected);
        check(PeerAuditState::Reported, None, Some("x"), "reported (x)");
        check(PeerAuditState::Unproven, None, Some("x"), "unproven");
        check(
            PeerAuditState::Consistent,
            Some("0123456789abcdef"),
            None,
            "consistent 7:01234567",
        );
    }
}
