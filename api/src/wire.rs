//! Facts of the kernel as bodies.

mod mirrors;
pub(crate) mod signing;

use std::collections::BTreeMap;

use openfang_audit::collect::{Standing, Witnessing};
use openfang_audit::policy::Strength;
use openfang_audit::vault::Revealed;
use openfang_audit::verify::{DamageKind, Verdict};
use openfang_audit::{Field, Line, rfc3339};
use openfang_id::{AgentKey, AgentRef, NodeId};
use openfang_kernel::{
    AgentInfo, AgentState, Kernel, Listed, MAIN_SESSION, ManifestWarning, SendError, TurnDone,
};
use openfang_schema as schema;
use openfang_schema::NodeRef;

use crate::error::{ApiError, no_such_agent};
use crate::peers;
use crate::state::{App, State};

pub(crate) use mirrors::audit_mirrors;
pub(crate) use signing::disputed;
use signing::unsigned;

/// This node.
pub(crate) fn here(state: &State) -> NodeRef {
    NodeRef {
        id: state.info.node_id.to_string(),
        name: state.info.node_name.to_string(),
    }
}

fn time(unix_ms: u64) -> String {
    rfc3339(unix_ms.saturating_mul(1000))
}

pub(crate) fn agent_state(state: AgentState) -> schema::AgentState {
    match state {
        AgentState::Running => schema::AgentState::Running,
        AgentState::Crashed => schema::AgentState::Crashed,
    }
}

fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Agents of the mesh, as a list has them. Those of one node follow each other, so that its id is
/// written once: base58 costs more than all the rest of an entry.
pub(crate) fn summaries(agents: Vec<Listed>) -> Vec<schema::AgentSummary> {
    let mut last: Option<(NodeId, NodeRef)> = None;
    let one = |agent: Listed| {
        let node = match &last {
            Some((id, node)) if *id == agent.node => node.clone(),
            Some(_) | None => {
                let node = node_ref(&agent);
                last = Some((agent.node, node.clone()));
                node
            }
        };
        summary(agent, node)
    };
    agents.into_iter().map(one).collect()
}

fn node_ref(agent: &Listed) -> NodeRef {
    NodeRef {
        id: agent.node.to_string(),
        name: agent.node_name.to_string(),
    }
}

fn summary(agent: Listed, node: NodeRef) -> schema::AgentSummary {
    let running = agent.state == AgentState::Running;
    let local = agent.local.is_some();
    let mut summary = schema::AgentSummary {
        id: agent.id.to_string(),
        name: agent.name.to_string(),
        state: agent_state(agent.state),
        mode: None,
        ready: running && agent.reachable,
        is_inferencing: None,
        created_at: None,
        last_active: None,
        model_provider: None,
        model_name: None,
        module: agent.module,
        description: agent.description,
        tags: agent.tags,
        tools: agent.tools,
        node,
        local,
        reachable: agent.reachable,
    };
    if let Some(info) = agent.local {
        fill(&mut summary, info.busy, (info.created_ms, info.active_ms));
        summary.model_provider = unless_empty(info.model_provider);
        summary.model_name = unless_empty(info.model_name);
    }
    summary
}

fn fill(summary: &mut schema::AgentSummary, busy: bool, (created_ms, active_ms): (u64, u64)) {
    summary.mode = Some("full".to_owned());
    summary.is_inferencing = Some(busy);
    summary.created_at = Some(time(created_ms));
    summary.last_active = Some(time(active_ms));
}

/// The agents of this node.
pub(crate) fn local_agents(state: &State) -> Vec<schema::AgentSummary> {
    let here = here(state);
    let one = |agent: AgentInfo| local_summary(agent, here.clone());
    state.kernel.list().into_iter().map(one).collect()
}

fn local_summary(info: AgentInfo, node: NodeRef) -> schema::AgentSummary {
    let mut summary = schema::AgentSummary {
        id: info.id.to_string(),
        name: info.name.to_string(),
        state: agent_state(info.state),
        mode: None,
        ready: info.state == AgentState::Running,
        is_inferencing: None,
        created_at: None,
        last_active: None,
        model_provider: unless_empty(info.model_provider),
        model_name: unless_empty(info.model_name),
        module: info.module,
        description: info.description,
        tags: info.tags,
        tools: info.tools,
        node,
        local: true,
        reachable: true,
    };
    fill(&mut summary, info.busy, (info.created_ms, info.active_ms));
    summary
}

/// An agent, as its own page has it.
pub(crate) fn detail(kernel: &Kernel, agent: Listed) -> schema::AgentDetail {
    let here = agent.local.is_some();
    let system_prompt = kernel.system_prompt(agent.id).filter(|_prompt| here);
    let version = agent.local.as_ref().map(|info| info.version.clone());
    let node = node_ref(&agent);
    let summary = summary(agent, node);
    let model = match (&summary.model_provider, &summary.model_name) {
        (Some(provider), Some(model)) => Some(schema::ModelRef {
            provider: provider.clone(),
            model: model.clone(),
        }),
        (None, _) | (_, None) => None,
    };
    schema::AgentDetail {
        session_id: here.then(|| MAIN_SESSION.to_owned()),
        model,
        capabilities: here.then(|| schema::Capabilities {
            tools: summary.tools.clone(),
            network: Vec::new(),
        }),
        system_prompt,
        version,
        summary,
    }
}

/// Finds an agent the way a message would: this node first, then the others, those that can be
/// reached before those that cannot. Of several that can be reached, none is meant.
pub(crate) fn find(state: &State, agent: &AgentRef) -> Result<Listed, ApiError> {
    let node = match &agent.node {
        Some(key) => Some(peers::resolve(state, agent, key)?),
        None => None,
    };
    let fits = |listed: &Listed| {
        let same = match &agent.agent {
            AgentKey::Id(id) => listed.id == *id,
            AgentKey::Name(name) => listed.name == *name,
        };
        same && node.as_ref().is_none_or(|node| listed.node == node.id)
    };
    let found: Vec<Listed> = state.kernel.directory().into_iter().filter(fits).collect();
    let found = the_one(found).map_err(|nodes| SendError::AmbiguousAgent {
        looked_for: agent.clone(),
        nodes,
    })?;
    found.ok_or_else(|| {
        let place = match &node {
            Some(node) => format!("on node {}", node.name),
            None => peers::everywhere(state),
        };
        no_such_agent(agent, &place)
    })
}

/// Picks whom a message would reach; or returns the nodes of several that it might.
fn the_one(mut found: Vec<Listed>) -> Result<Option<Listed>, Vec<NodeId>> {
    found.sort_by_key(|listed| (listed.local.is_none(), !listed.reachable, listed.node));
    let is_candidate = |listed: &&Listed| listed.local.is_none() && listed.reachable;
    let candidates = found.iter().take_while(is_candidate);
    let nodes: Vec<NodeId> = candidates.map(|listed| listed.node).collect();
    if nodes.len() > 1 {
        return Err(nodes);
    }
    Ok(found.into_iter().next())
}

/// What in a manifest was not understood. The place is told apart from the sentence.
pub(crate) fn warning(warning: &ManifestWarning) -> schema::Warning {
    schema::Warning {
        message: warning.sentence().to_string(),
        line: u64::try_from(warning.line).ok(),
        column: u64::try_from(warning.column).ok(),
    }
}

pub(crate) fn chunk(content: String) -> schema::Chunk {
    schema::Chunk {
        content,
        done: false,
    }
}

pub(crate) fn reply(done: TurnDone) -> schema::MessageReply {
    schema::MessageReply {
        response: done.response,
        input_tokens: done.input_tokens,
        output_tokens: done.output_tokens,
        iterations: done.iterations,
        cost_usd: None,
        agent_id: done.agent_id.to_string(),
        agent_name: done.agent_name.to_string(),
        node: NodeRef {
            id: done.node_id.to_string(),
            name: done.node_name.to_string(),
        },
        audit: done.cause,
    }
}

pub(crate) fn done(done: TurnDone) -> schema::Done {
    let reply = reply(done);
    schema::Done {
        done: true,
        usage: schema::Usage {
            input_tokens: reply.input_tokens,
            output_tokens: reply.output_tokens,
        },
        reply,
    }
}

pub(crate) fn status(app: &App) -> schema::Status {
    let state = &app.state;
    let info = &state.info;
    let agents = local_agents(state);
    let network = peers::status(state);
    let word = if state.shutdown.is_cancelled() {
        "stopping"
    } else {
        "running"
    };
    schema::Status {
        status: word.to_owned(),
        version: info.version.clone(),
        pid: std::process::id(),
        node: here(state),
        started_at: rfc3339(info.started_unix_micros),
        uptime_seconds: app.uptime().as_secs(),
        agent_count: count(agents.len()),
        mesh_agent_count: count(state.kernel.directory().len()),
        default_provider: info.default_provider.clone(),
        default_model: info.default_model.clone(),
        api_listen: state.auth.listen.to_string(),
        auth_required_locally: state.auth.require_local,
        home_dir: info.home.display().to_string(),
        log_level: info.log_level.clone(),
        network_enabled: network.enabled,
        network,
        audit: audit(state),
        agents,
    }
}

fn audit(state: &State) -> schema::AuditSummary {
    let Some(log) = &state.audit else {
        return schema::AuditSummary {
            enabled: false,
            entries: 0,
            state: "off".to_owned(),
            first_bad_seq: None,
            reason: None,
        };
    };
    let (word, first_bad_seq, reason) = match log.health() {
        openfang_audit::Health::Ok => ("ok", None, None),
        openfang_audit::Health::Damaged { first_bad_seq } => (
            "damaged",
            first_bad_seq,
            Some("The file is not what was written into it.".to_owned()),
        ),
        openfang_audit::Health::Failing { kind } => (
            "failing",
            None,
            Some(format!("The last entry could not be written: {kind}.")),
        ),
        openfang_audit::Health::Poisoned { reason } => ("poisoned", None, Some(reason.to_string())),
    };
    // Whatever the file is like, others hold the log for two, or for a longer one.
    let (word, reason) = match (peers::own_conviction(state), disputed(state)) {
        (Some(conviction), _) => ("convicted", Some(peers::convicted(&conviction))),
        (None, Some((disputed, why))) => (disputed, why),
        (None, None) => (word, reason.or_else(|| unsigned(state))),
    };
    schema::AuditSummary {
        enabled: true,
        entries: log.size(),
        state: word.to_owned(),
        first_bad_seq,
        reason,
    }
}

fn name_in(view: &openfang_mesh::View, id: &NodeId) -> String {
    let node = view.node(id);
    node.map_or_else(String::new, |node| node.record.record().name.to_string())
}

pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// An entry of the audit log. What is not a field of its own stays readable in `line`.
pub(crate) fn audit_entry(
    line: Line,
    revealed: Option<Vec<(Field, Revealed)>>,
) -> schema::AuditEntry {
    let parts = [line.act.as_deref(), line.target.as_deref()];
    let detail: Vec<&str> = parts.into_iter().flatten().collect();
    schema::AuditEntry {
        seq: line.seq.0,
        timestamp: line.ts,
        agent_id: line.agent.map(|id| id.to_string()).unwrap_or_default(),
        action: line.ev,
        detail: detail.join(" "),
        outcome: line.outcome,
        hash: line.leaf.to_string(),
        line: line.raw,
        personal: revealed.map(audit_values),
    }
}

fn audit_values(revealed: Vec<(Field, Revealed)>) -> BTreeMap<String, schema::AuditValue> {
    let one = |(field, revealed): (Field, Revealed)| {
        let (state, value) = match revealed {
            Revealed::Value(value) => (schema::AuditValueState::Value, Some(value)),
            Revealed::Erased => (schema::AuditValueState::Erased, None),
            Revealed::Secret => (schema::AuditValueState::Secret, None),
            Revealed::Unreadable => (schema::AuditValueState::Unreadable, None),
        };
        (
            field.as_str().to_owned(),
            schema::AuditValue { state, value },
        )
    };
    revealed.into_iter().map(one).collect()
}

/// The judgement over the log.
pub(crate) fn audit_verify(verdict: &Verdict) -> schema::AuditVerify {
    let valid = |entries, unsigned_entries, tip_hash| schema::AuditVerify {
        valid: true,
        entries,
        unsigned_entries,
        tip_hash,
        first_bad_seq: None,
        kind: None,
        error: None,
    };
    match verdict {
        Verdict::Empty => valid(0, 0, String::new()),
        Verdict::Intact {
            entries,
            root,
            unsigned,
            head: _,
            torn_bytes: _,
        } => valid(*entries, *unsigned, root.to_string()),
        Verdict::Tampered {
            first_bad_seq,
            kind,
        } => schema::AuditVerify {
            valid: false,
            entries: first_bad_seq.unwrap_or_default(),
            unsigned_entries: 0,
            tip_hash: String::new(),
            first_bad_seq: *first_bad_seq,
            kind: Some(damage_word(*kind).to_owned()),
            error: Some(match first_bad_seq {
                Some(seq) => {
                    format!("The audit log is not what was written: {kind}, at entry {seq}.")
                }
                None => format!("The audit log is not what was written: {kind}."),
            }),
        },
    }
}

fn damage_word(kind: DamageKind) -> &'static str {
    match kind {
        DamageKind::Altered => "altered",
        DamageKind::Removed => "removed",
        DamageKind::Inserted => "inserted",
        DamageKind::Truncated => "truncated",
        DamageKind::Sequence => "sequence",
        DamageKind::Missing => "missing",
        DamageKind::Head => "head",
    }
}

/// Shows who cosigns the log.
pub(crate) fn audit_witnesses(state: &State, status: Witnessing) -> schema::AuditWitnesses {
    let view = state.mesh.view();
    let name_of = |id: &NodeId| name_in(&view, id);
    let cosign_state = match status.cosigned {
        0 => schema::CosignState::Signed,
        some if some < status.needed => schema::CosignState::Partial,
        _enough => schema::CosignState::Complete,
    };
    let strength = match status.strength {
        Strength::Unwitnessed => schema::CosignStrength::Unwitnessed,
        Strength::Detects => schema::CosignStrength::Detects,
        Strength::Prevents { .. } => schema::CosignStrength::Prevents,
    };
    let witnesses = status.witnesses.into_iter().map(|witness| {
        let (standing, reason) = standing(witness.standing);
        schema::AuditWitness {
            node_id: witness.node.to_string(),
            node_name: name_of(&witness.node),
            key: witness.key.to_string(),
            size: witness.size,
            standing: standing.to_owned(),
            reason,
        }
    });
    schema::AuditWitnesses {
        size: status.size,
        state: cosign_state,
        cosigned: status.cosigned,
        needed: status.needed,
        strength,
        witnesses: witnesses.collect(),
        complete: status.quorum.map(|head| schema::CosignedHead {
            size: head.size,
            timestamp: rfc3339(head.by.values().max().map_or(0, |time| time * 1_000_000)),
            checkpoint: head.note.to_string(),
        }),
        signing: signing::of(state),
    }
}

/// Says what it means that a witness or mirror refuses with a status.
fn refusal(status: u16) -> String {
    let what = match status {
        403 => {
            "It holds evidence, or an answer of this log, that speaks against this log: openfang peers, on that node, \
             says which. When the log is whole again, it takes the log back by itself; evidence is for its operator \
             to judge (audit.allow_convicted)."
        }
        404 => "It does not know this log: it has not met this node yet, or does not serve as one.",
        409 => "It has another size of this log than it said before: it is asked again.",
        422 => {
            "It holds a head of this log that this log does not continue: openfang audit verify --peers."
        }
        429 => "It is busy: it is asked again.",
        503 => {
            "It cannot answer now: its clock or its disk is behind, or its own log is in doubt. It is asked again."
        }
        507 => "It has no room: its disk, or its audit.mirror_quota_mb.",
        _other => "Its log says why.",
    };
    format!("It answers {status}. {what}")
}

fn standing(standing: Standing) -> (&'static str, Option<String>) {
    match standing {
        Standing::New => ("new", None),
        Standing::Cosigned => ("cosigned", None),
        Standing::Unreachable => ("unreachable", None),
        Standing::Ahead(size) => (
            "ahead",
            Some(format!(
                "It has cosigned {size} entries, more than there are: this log was rolled back, or \
                 another machine has the key of this node."
            )),
        ),
        Standing::Refused(status) => ("refused", Some(refusal(status))),
        Standing::Invalid => (
            "invalid",
            Some("What it sends is no cosignature of its key.".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_id::{AgentId, NodeSeed};

    fn listed(seed: u8, reachable: bool) -> Listed {
        Listed {
            node: NodeSeed::from_bytes([seed; 32]).keys().node_id(),
            node_name: "far".parse().expect("a name"),
            reachable,
            id: AgentId::from_random([seed; 16]),
            name: "scribe".parse().expect("a name"),
            description: String::new(),
            tags: Vec::new(),
            tools: Vec::new(),
            state: AgentState::Running,
            module: String::new(),
            local: None,
        }
    }

    #[test]
    fn one_of_several_that_can_be_reached_is_not_guessed() {
        let (one, two, away) = (listed(1, true), listed(2, true), listed(3, false));
        assert_eq!(the_one(Vec::new()), Ok(None));
        assert_eq!(the_one(vec![away.clone()]), Ok(Some(away.clone())));
        let reached = the_one(vec![away.clone(), one.clone()]);
        assert_eq!(reached, Ok(Some(one.clone())));
        let mut nodes = vec![one.node, two.node];
        nodes.sort();
        assert_eq!(the_one(vec![two, away, one]), Err(nodes));
    }
}
