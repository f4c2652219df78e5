//! `openfang config`: checks and shows what is in force.

use openfang_node::config::{Config, Durability};
use serde_json::json;

use crate::args;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// What stands for a secret that is set.
const REDACTED: &str = "(set)";

/// Runs a command of the group.
pub(crate) fn run(command: &args::Config, context: &Context) -> Result<Exit, Failure> {
    let config = context.config()?;
    for warning in &config.warnings {
        render::message(&format!("warning: {warning}"));
    }
    match command {
        args::Config::Check => check(&config, context)?,
        args::Config::Show(json) => show(&config, json.json)?,
    }
    Ok(Exit::Ok)
}

/// Looks at what stands in no file, too.
fn check(config: &Config, context: &Context) -> Result<(), Failure> {
    if let Some(warning) = config.check_log_path()? {
        render::message(&format!("warning: {warning}"));
    }
    render::line(&format!("{}: ok", context.home.config().display()))?;
    Ok(())
}

fn show(config: &Config, json: bool) -> Result<(), Failure> {
    let set = |is: bool| if is { REDACTED } else { "" };
    let network = &config.network;
    let peers: Vec<String> = network.bootstrap.iter().map(ToString::to_string).collect();
    let value = json!({
        "api_key": set(config.api.key.is_some()),
        "api_listen": config.api.listen.to_string(),
        "api_require_auth_local": config.api.require_auth_local,
        "log_level": config.log_level.as_str(),
        "network": {
            "enabled": network.enabled,
            "listen_addr": network.listen.to_string(),
            "shared_secret": set(network.secret.is_some()),
            "bootstrap_peers": peers,
            "node_name": network.name.as_str(),
        },
        "audit": {
            "enabled": config.audit.enabled,
            "log_path": config.audit.log_path.display().to_string(),
            "durability": durability(config.audit.durability),
            "interval_ms": interval_ms(config.audit.durability),
            "change_durability": durability(config.audit.change_durability),
            "hash_algorithm": "sha256",
            "allow_convicted": config.audit.allow_convicted.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "mirror_quota_mb": config.audit.mirror_quota_bytes >> 20,
            "require_peer_floor": config.audit.require_peer_floor,
            "witness_logs": config.audit.witness_logs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "default_model": {
            "provider": config.model.provider.as_deref().unwrap_or_default(),
            "model": config.model.model.as_deref().unwrap_or_default(),
            "api_key": set(config.model.api_key.is_some()),
            "base_url": config.model.base_url.as_deref().unwrap_or_default(),
        },
    });
    if json {
        return Ok(render::json(&value)?);
    }
    let mut rows = Vec::new();
    flatten("", &value, &mut rows);
    for row in rows {
        render::line(&row)?;
    }
    Ok(())
}

fn durability(demanded: Durability) -> &'static str {
    match demanded {
        Durability::Interval(_) => "interval",
        Durability::Durable => "durable",
        Durability::Quorum => "quorum",
    }
}

/// How long an entry may wait for the disk; nothing where it may not.
fn interval_ms(demanded: Durability) -> Option<u64> {
    match demanded {
        Durability::Interval(time) => u64::try_from(time.as_millis()).ok(),
        Durability::Durable | Durability::Quorum => None,
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, rows: &mut Vec<String>) {
    let serde_json::Value::Object(fields) = value else {
        rows.push(format!("{prefix} = {value}"));
        return;
    };
    for (name, value) in fields {
        let name = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        flatten(&name, value, rows);
    }
}
