//! Agents: list, spawn, look at, delete, restart.

use axum::extract::State;
use axum::http::StatusCode;
use openfang_id::AgentId;
use openfang_kernel::Manifest;
use openfang_schema::{AgentKilled, AgentRestarted, AgentSummary, Spawned};
use serde::Deserialize;

use super::{Answer, AppState, json, json_of_about, ok};
use crate::error::ApiError;
use crate::extract::{Agent, Caller, ManifestText, Parameter, Parameters, Params};
use crate::wire;

/// About how long an entry of the list is; 450 bytes with a short description.
const ENTRY_BYTES: usize = 512;

/// Which agents are listed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    /// Those of this node.
    Local,
    /// Those of all known nodes.
    #[default]
    Mesh,
}

/// The parameters of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    #[serde(default)]
    scope: Scope,
}

impl Parameters for ListParams {
    const PARAMETERS: &'static [Parameter] = &[Parameter {
        name: "scope",
        required: false,
        wanted: "local or mesh",
        is_good: |text| matches!(text, "local" | "mesh"),
    }];
}

/// `GET /api/agents`
pub(crate) async fn list(State(app): AppState, Params(params): Params<ListParams>) -> Answer {
    let agents: Vec<AgentSummary> = match params.scope {
        Scope::Local => wire::local_agents(&app.state),
        Scope::Mesh => wire::summaries(app.state.kernel.directory()),
    };
    json_of_about(agents.len() * ENTRY_BYTES, StatusCode::OK, &agents)
}

/// `POST /api/agents`
pub(crate) async fn spawn(
    State(app): AppState,
    Caller(principal): Caller,
    ManifestText(text): ManifestText,
) -> Answer {
    let (manifest, warnings) = Manifest::parse(&text, "manifest_toml")?;
    let agent = app.state.kernel.spawn(manifest, &principal).await?;
    json(
        StatusCode::CREATED,
        &Spawned {
            agent_id: agent.id.to_string(),
            name: agent.name.to_string(),
            node: wire::here(&app.state),
            warnings: warnings.iter().map(wire::warning).collect(),
        },
    )
}

/// `GET /api/agents/{id}`
pub(crate) async fn detail(State(app): AppState, Agent(agent): Agent) -> Answer {
    let found = wire::find(&app.state, &agent)?;
    ok(&wire::detail(&app.state.kernel, found))
}

/// `DELETE /api/agents/{id}`
pub(crate) async fn kill(
    State(app): AppState,
    Caller(principal): Caller,
    Agent(agent): Agent,
) -> Answer {
    let found = wire::find(&app.state, &agent)?;
    let id = must_be_here(&found)?;
    app.state.kernel.kill(id, &principal).await?;
    ok(&AgentKilled {
        status: "killed".to_owned(),
        agent_id: id.to_string(),
        name: found.name.to_string(),
    })
}

/// `POST /api/agents/{id}/restart`
pub(crate) async fn restart(
    State(app): AppState,
    Caller(principal): Caller,
    Agent(agent): Agent,
) -> Answer {
    let found = wire::find(&app.state, &agent)?;
    let id = must_be_here(&found)?;
    let done = app.state.kernel.restart(id, &principal).await?;
    ok(&AgentRestarted {
        status: "restarted".to_owned(),
        agent: found.name.to_string(),
        agent_id: id.to_string(),
        previous_state: wire::agent_state(done.previous_state),
        task_cancelled: done.task_cancelled,
    })
}

/// Only a node itself ends its agents.
fn must_be_here(found: &openfang_kernel::Listed) -> Result<AgentId, ApiError> {
    match &found.local {
        Some(agent) => Ok(agent.id),
        None => Err(ApiError::not_here(found)),
    }
}
