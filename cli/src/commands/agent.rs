//! `openfang agent`: make, spawn, list, kill, restart, chat.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use openfang_id::{AgentName, AgentRef};
use openfang_node::MODULES;
use openfang_schema::{
    AgentKilled, AgentRestarted, AgentSummary, MessageRequest, SpawnRequest, Spawned, path,
};

use super::init::{make_manifest, manifest, manifest_of};
use super::message::{self, Show};
use crate::args::{Agent, NewAgent};
use crate::client::CHANGED_WITHIN;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// One turn of a chat.
const ANSWERED_WITHIN: Duration = Duration::from_secs(600);

/// Runs a command of the group.
pub(crate) fn run(command: Agent, context: &Context) -> Result<Exit, Failure> {
    match command {
        Agent::New(new) => make(&new, context),
        Agent::Spawn { file, json } => spawn(&file, json.json, context),
        Agent::List { local, json } => list(local, json.json, context),
        Agent::Kill { agent } => kill(&agent, context),
        Agent::Restart { agent } => restart(&agent, context),
        Agent::Chat { agent } => chat(&agent, context),
    }
}

/// Checks how an agent is pointed at, so that it can stand in a path.
pub(crate) fn reference(text: &str) -> Result<String, Failure> {
    text.parse::<AgentRef>()
        .map(|agent| agent.to_string())
        .map_err(|why| {
            Failure::new(Exit::Usage, format!("{text:?} points at no agent: {why}"))
                .mend("a name, a UUID, or either with @NODE: openfang agent list")
        })
}

fn make(new: &NewAgent, context: &Context) -> Result<Exit, Failure> {
    let name: AgentName = new.name.parse().map_err(|why: openfang_id::NameError| {
        Failure::new(Exit::Usage, format!("{:?}: {why}", new.name))
            .mend("openfang agent new helper")
    })?;
    if let Some(module) = &new.module
        && !MODULES.contains(&module.as_str())
    {
        return Err(
            Failure::new(Exit::Usage, format!("there is no module {module:?}"))
                .mend(format!("--module {}", MODULES.join(", or --module "))),
        );
    }
    let config = context.config()?;
    let text = match &new.module {
        Some(module) => manifest_of(name.as_str(), &new.description, module),
        None => manifest(
            name.as_str(),
            &new.description,
            config.model.model.is_some(),
        ),
    };
    let path = context.home.agents().join(name.as_str()).join("agent.toml");
    if !make_manifest(&path, &text)? {
        return Err(Failure::new(
            Exit::Failure,
            format!("there is a manifest for {name} already"),
        )
        .mend(format!("openfang agent spawn {}", path.display())));
    }
    if context.home.held_by()?.is_some() {
        return spawn(&path, false, context).inspect_err(|failure| unmake(&path, failure));
    }
    render::message("the node does not run: it spawns this agent when it starts (openfang start)");
    Ok(Exit::Ok)
}

/// Takes back the manifest of an agent that the node refused: at the next start it would be refused
/// again. When the node did not answer, it may have spawned it.
fn unmake(path: &Path, failure: &Failure) {
    if failure.code().is_none() {
        return;
    }
    let folder = path.parent().unwrap_or(path);
    let removed = std::fs::remove_file(path).and_then(|()| std::fs::remove_dir(folder));
    match removed {
        Ok(()) => render::message(&format!("taken back: {}", path.display())),
        Err(why) => render::message(&format!("{} is left behind: {why}", folder.display())),
    }
}

fn spawn(file: &Path, json: bool, context: &Context) -> Result<Exit, Failure> {
    let mut manifest_toml = String::new();
    if file == Path::new("-") {
        io::stdin().lock().read_to_string(&mut manifest_toml)?;
    } else {
        manifest_toml = std::fs::read_to_string(file).map_err(|why| {
            Failure::new(Exit::NotFound, format!("{}: {why}", file.display()))
                .mend("openfang agent new NAME writes a manifest")
        })?;
    }
    let client = context.client()?;
    let request = SpawnRequest { manifest_toml };
    let spawned: Spawned = context.block_on(client.post(path::AGENTS, &request, CHANGED_WITHIN))?;
    for warning in &spawned.warnings {
        let place = match (warning.line, warning.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}: ", file.display()),
            _unknown => String::new(),
        };
        let message = render::cell(&warning.message);
        render::message(&format!("warning: {place}{message}"));
    }
    if json {
        render::json(&spawned)?;
    } else {
        render::line(&format!(
            "{}  {} on {}",
            spawned.agent_id, spawned.name, spawned.node.name
        ))?;
    }
    Ok(Exit::Ok)
}

fn list(local: bool, json: bool, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let place = if local {
        format!("{}?scope=local", path::AGENTS)
    } else {
        path::AGENTS.to_owned()
    };
    let agents: Vec<AgentSummary> = context.block_on(client.get(&place))?;
    if json {
        render::json(&agents)?;
        return Ok(Exit::Ok);
    }
    if agents.is_empty() {
        render::message("no agents: openfang agent new NAME");
        return Ok(Exit::Ok);
    }
    let headings = ["NAME", "NODE", "STATE", "MODULE", "ID", "DESCRIPTION"];
    let rows: Vec<Vec<String>> = agents.iter().map(row).collect();
    render::line(&render::table(&headings, &rows))?;
    Ok(Exit::Ok)
}

fn row(agent: &AgentSummary) -> Vec<String> {
    let state = if agent.reachable {
        agent.state.as_str()
    } else {
        "unreachable"
    };
    vec![
        agent.name.clone(),
        agent.node.name.clone(),
        state.to_owned(),
        agent.module.clone(),
        agent.id.clone(),
        agent.description.clone(),
    ]
}

fn kill(agent: &str, context: &Context) -> Result<Exit, Failure> {
    let place = path::of_agent(path::AGENT, &reference(agent)?);
    let client = context.client()?;
    let killed: AgentKilled = context.block_on(client.delete(&place))?;
    render::line(&format!("killed {} ({})", killed.name, killed.agent_id))?;
    Ok(Exit::Ok)
}

fn restart(agent: &str, context: &Context) -> Result<Exit, Failure> {
    let place = path::of_agent(path::RESTART, &reference(agent)?);
    let client = context.client()?;
    let restarted: AgentRestarted = context.block_on(client.post_empty(&place))?;
    render::line(&format!(
        "restarted {} ({}), was {}",
        restarted.agent,
        restarted.agent_id,
        restarted.previous_state.as_str()
    ))?;
    Ok(Exit::Ok)
}

fn chat(agent: &str, context: &Context) -> Result<Exit, Failure> {
    let place = path::of_agent(path::STREAM, &reference(agent)?);
    let client = context.client()?;
    let terminal = io::stdin().is_terminal();
    if terminal {
        render::message(&format!("talking to {agent}; Ctrl-D ends"));
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if terminal {
            render::prompt("> ");
        }
        let Some(line) = lines.next().transpose()? else {
            return Ok(Exit::Ok);
        };
        if line.trim().is_empty() {
            continue;
        }
        let request = MessageRequest {
            message: line,
            ..MessageRequest::default()
        };
        context.block_on(message::stream(
            &client,
            &place,
            &request,
            (ANSWERED_WITHIN, Show::Text),
        ))?;
    }
}
