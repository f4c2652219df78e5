//! `openfang audit show`: entries, read from the verified lines.

use openfang_audit::read::{self, Filter, Kinds};
use openfang_audit::{Kind, Line};
use openfang_id::AgentKey;
use openfang_schema::path;

use super::files::Files;
use super::verify::{exit_of, warn_if_tampered};
use crate::args::Show;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

pub(super) fn run(files: &Files, args: &Show, context: &Context) -> Result<Exit, Failure> {
    let agent = args.agent.as_deref().map(agent_key).transpose()?;
    let kinds = args.filter.as_deref().map(kinds_of).transpose()?;
    let filter = Filter {
        node: None,
        agent,
        kinds: kinds.unwrap_or_default(),
        since_unix_micros: None,
        limit: Some(usize::try_from(args.limit).unwrap_or(usize::MAX)),
    };
    let mut selection =
        read::select(files.source(), &filter).map_err(|why| files.unreadable(&why))?;
    selection.report = files.judge(selection.report);
    for line in &selection.lines {
        if args.json {
            render::line(&line.raw)?;
        } else {
            render::line(&render::cell(&shown(line)))?;
        }
    }
    warn_if_tampered(files, &selection.report);
    let exit = exit_of(&selection.report);
    match &filter.agent {
        Some(agent) if selection.lines.is_empty() && exit == Exit::Ok => {
            must_exist(files, agent, context)?;
        }
        Some(_) | None => {}
    }
    Ok(exit)
}

/// Nothing was shown: an agent that no entry is about and nobody has is a slip of the pen.
fn must_exist(files: &Files, agent: &AgentKey, context: &Context) -> Result<(), Failure> {
    let anything = Filter {
        agent: Some(agent.clone()),
        limit: Some(1),
        ..Filter::default()
    };
    let found = read::select(files.source(), &anything).map_err(|why| files.unreadable(&why))?;
    if !found.lines.is_empty() || lives(agent, context) {
        return Ok(());
    }
    let what = format!("no entry of this log is about {agent}, and no agent is called so");
    Err(Failure::new(Exit::NotFound, what).mend("openfang agent list, openfang audit show"))
}

fn lives(agent: &AgentKey, context: &Context) -> bool {
    let place = path::of_agent(path::AGENT, &agent.to_string());
    context
        .client()
        .and_then(|client| context.block_on(client.get::<serde_json::Value>(&place)))
        .is_ok()
}

fn shown(line: &Line) -> String {
    let mut text = format!("{:>8}  {}  {:<13}", line.seq.0, line.ts, line.ev);
    let agent = line.agent.map(|agent| agent.to_string());
    let fields = [
        ("agent", &agent),
        ("act", &line.act),
        ("target", &line.target),
        ("user", &line.user),
        ("cause", &line.cause),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={value}"));
        }
    }
    if line.outcome != "ok" {
        text.push_str(&format!(" ({})", line.outcome));
    }
    text
}

fn agent_key(text: &str) -> Result<AgentKey, Failure> {
    text.parse()
        .map_err(|why| Failure::new(Exit::Usage, format!("{text:?} is no agent: {why}")))
}

fn kinds_of(text: &str) -> Result<Kinds, Failure> {
    text.parse().map_err(|why| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        Failure::new(Exit::Usage, format!("{text:?}: {why}"))
            .mend(format!("--filter with one of: {}", known.join(", ")))
    })
}
