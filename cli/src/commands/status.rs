//! `openfang status`: whether the node runs, and how it is.

use openfang_schema::{AuditWitnesses, SigningState, Status, path};
use serde_json::json;

use super::audit::{MEND_BEHIND, MEND_CONTRADICTED, MEND_CONVICTED, MEND_POISONED, MEND_SPENT};
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// Prints the state of the node; exit code 5 when it does not run.
pub(crate) fn run(as_json: bool, context: &Context) -> Result<Exit, Failure> {
    if context.home.held_by()?.is_none() {
        return stopped(as_json, context);
    }
    let client = context.client()?;
    let status: Status = context.block_on(client.get(path::STATUS))?;
    if as_json {
        render::json(&status)?;
    } else {
        let disabled = context.config().is_ok_and(|config| !config.network.enabled);
        show(&status, disabled)?;
        let mend = match &*status.audit.state {
            "convicted" => Some(mend_convicted(&client, context)),
            state => mend_of_audit(state),
        };
        if let Some(mend) = mend {
            render::message(&format!("    mend: {mend}"));
        }
    }
    Ok(Exit::Ok)
}

/// What helps a node that was convicted: only a log with two histories is put aside.
fn mend_convicted(client: &Client, context: &Context) -> &'static str {
    let asked = context.block_on(client.get::<AuditWitnesses>(path::AUDIT_WITNESSES));
    match asked.map(|reply| reply.signing.state) {
        Ok(SigningState::Contradicted) => MEND_SPENT,
        Ok(
            SigningState::Free
            | SigningState::Asking
            | SigningState::Behind
            | SigningState::Restoring,
        )
        | Err(_) => MEND_CONVICTED,
    }
}

/// What helps an audit log in this state.
fn mend_of_audit(state: &str) -> Option<&'static str> {
    const MENDS: [(&str, &str); 5] = [
        ("contradicted", MEND_CONTRADICTED),
        ("behind", MEND_BEHIND),
        ("damaged", "openfang audit verify"),
        ("poisoned", MEND_POISONED),
        (
            "failing",
            "df -h; the node goes on by itself when there is room",
        ),
    ];
    let found = MENDS.iter().find(|(known, _)| *known == state);
    found.map(|(_, mend)| *mend)
}

fn stopped(as_json: bool, context: &Context) -> Result<Exit, Failure> {
    let home = context.home.path().display().to_string();
    let problem = context.config().err().map(|failure| failure.to_string());
    if as_json {
        render::json(&json!({ "status": "stopped", "home_dir": home, "problem": problem }))?;
        return Ok(Exit::Unreachable);
    }
    render::line("status   stopped")?;
    render::line(&format!("home     {home}"))?;
    match problem {
        Some(problem) => render::message(&problem),
        None => render::message("start it: openfang start"),
    }
    Ok(Exit::Unreachable)
}

fn show(status: &Status, disabled: bool) -> Result<(), Failure> {
    let network = &status.network;
    let network_text = if network.enabled {
        format!(
            "awake at {}, {} of {} peers connected",
            network.listen_addresses.join(", "),
            network.connected_peers,
            network.total_peers
        )
    } else if disabled {
        "asleep: network.enabled is false in config.toml".to_owned()
    } else {
        let why = network.hint.as_deref().unwrap_or("no shared secret");
        format!("asleep: {why}")
    };
    let audit = &status.audit;
    let mut audit_text = if audit.enabled {
        format!("{}, {} entries", audit.state, audit.entries)
    } else {
        "off: audit.enabled is false in config.toml".to_owned()
    };
    if let Some(seq) = audit.first_bad_seq {
        audit_text.push_str(&format!(", first bad entry {seq}"));
    }
    if let Some(reason) = &audit.reason {
        audit_text.push_str(&format!(", {reason}"));
    }
    let model = match (&status.default_provider, &status.default_model) {
        (Some(provider), Some(model)) => format!("{provider} {model}"),
        _none => "none configured".to_owned(),
    };
    let rows = [
        ("status", status.status.clone()),
        ("node", format!("{} ({})", status.node.name, status.node.id)),
        (
            "version",
            format!(
                "{}, pid {}, up {}",
                status.version,
                status.pid,
                duration(status.uptime_seconds)
            ),
        ),
        ("api", format!("http://{}", status.api_listen)),
        ("network", network_text),
        (
            "agents",
            format!(
                "{} here, {} in the mesh",
                status.agent_count, status.mesh_agent_count
            ),
        ),
        ("model", model),
        ("audit", audit_text),
        ("home", status.home_dir.clone()),
    ];
    for (name, text) in rows {
        render::line(&format!("{name:<8} {}", render::cell(&text)))?;
    }
    Ok(())
}

fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {seconds}s")
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_parts() {
        let check = |seconds, expected: &str| assert_eq!(duration(seconds), expected);
        check(0, "0s");
        check(61, "1m 1s");
        check(3600, "1h 0m");
        check(90_000, "1d 1h");
    }
}
