//! `openfang init`: the home of a node. What is there already stays as it is.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use openfang_id::{ApiKey, NodeSeed, SharedSecret};
use openfang_node::config::{Config, process_environment};
use openfang_node::{files, keys};
use zeroize::Zeroizing;

use super::keygen::random;
use crate::args::Init;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// What is asked, or left as it is with `--quick`.
#[derive(Debug, Default)]
struct Answers {
    node_name: String,
    base_url: String,
    model: String,
    api_key_env: String,
    begin_mesh: bool,
    /// What `OPENFANG_LISTEN` says: a node that is started without it listens there, too.
    listen: Option<SocketAddr>,
}

/// Makes what is missing and says what it made and kept.
pub(crate) fn run(args: &Init, context: &Context) -> Result<Exit, Failure> {
    let home = &context.home;
    let ask = !args.quick && io::stdin().is_terminal() && !home.config().exists();
    let mut answers = if ask { ask_all()? } else { Answers::default() };
    answers.begin_mesh |= args.network;
    if let Some(name) = &args.name {
        answers.node_name = name.to_string();
    }
    // What is no address there is named, with all else, when the configuration is read below.
    answers.listen = process_environment("OPENFANG_LISTEN")?.and_then(|text| text.parse().ok());
    if let Some(mode) = home.create()? {
        let home = home.path().display();
        render::line(&format!(
            "closed {home}: other users could look into it (mode {mode:04o}), now it is yours alone"
        ))?;
    }
    let secret = if answers.begin_mesh {
        Some(SharedSecret::from_random(&*random()?))
    } else {
        None
    };
    let text = config_text(&answers, secret.as_ref())?;
    if !report(
        &home.config(),
        files::create(&home.config(), text.as_bytes()),
    )? {
        say_what_changes_nothing(args, &home.config());
    }
    make_key(&home.node_key())?;
    let config = context.config()?;
    make_agent(context, &config)?;
    next_steps(&config);
    Ok(Exit::Ok)
}

/// A configuration that is there stays as it is.
fn say_what_changes_nothing(args: &Init, config: &Path) {
    let config = config.display();
    if args.network {
        render::message(&format!(
            "--network changes nothing: {config} is kept; `openfang keygen --network` makes a secret for it"
        ));
    }
    if args.name.is_some() {
        render::message(&format!(
            "--name changes nothing: {config} is kept; set node_name in its [network]"
        ));
    }
}

/// Says whether a file was made (`true`) or kept.
fn report(path: &Path, made: io::Result<()>) -> Result<bool, Failure> {
    match made {
        Ok(()) => {
            render::line(&format!("made  {}", path.display()))?;
            Ok(true)
        }
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
            render::line(&format!("kept  {}", path.display()))?;
            Ok(false)
        }
        Err(why) => Err(
            Failure::new(Exit::Failure, format!("{}: {why}", path.display()))
                .mend(files::mend(path, why.kind())),
        ),
    }
}

fn make_key(path: &Path) -> Result<(), Failure> {
    let seed = NodeSeed::from_bytes(*random()?);
    let made = match keys::create(path, &seed) {
        Ok(()) => Ok(()),
        Err(keys::KeyFileError::Io { why, .. }) => Err(why),
        Err(why) => return Err(Failure::new(Exit::Failure, why.to_string())),
    };
    if !report(path, made)? {
        keys::load(path).map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
    }
    Ok(())
}

fn make_agent(context: &Context, config: &Config) -> Result<(), Failure> {
    let path = context.home.agents().join("assistant").join("agent.toml");
    let model = config.model.model.is_some();
    let text = manifest("assistant", "A first agent, to try things out with.", model);
    make_manifest(&path, &text)?;
    if !model {
        render::line(
            "      the agent `assistant` echoes: no model is configured. Set [default_model] in config.toml and\n      module = \"builtin:chat\" in its agent.toml for one that thinks.",
        )?;
    }
    Ok(())
}

/// Writes a manifest unless there is one, and returns whether it did.
pub(crate) fn make_manifest(path: &Path, text: &str) -> Result<bool, Failure> {
    let folder = path.parent().map_or(Ok(()), files::create_folder);
    report(
        path,
        folder.and_then(|()| files::create(path, text.as_bytes())),
    )
}

/// Writes the manifest of a simple agent.
pub(crate) fn manifest(name: &str, description: &str, model: bool) -> String {
    let module = if model {
        "builtin:chat"
    } else {
        "builtin:echo"
    };
    manifest_of(name, description, module)
}

/// Writes the manifest of an agent that a module runs.
pub(crate) fn manifest_of(name: &str, description: &str, module: &str) -> String {
    let mut text = format!(
        "name = {}\ndescription = {}\nmodule = {}\n",
        quoted(name),
        quoted(description),
        quoted(module)
    );
    if module == "builtin:chat" {
        text.push_str("\n[model]\nsystem_prompt = \"You are a helpful assistant.\"\n");
        text.push_str("\n[capabilities]\n# Only these; an empty list means none.\n");
        text.push_str("tools = [\"agent_list\", \"agent_send\", \"memory_store\", \"memory_recall\", \"system_time\"]\n");
    }
    text
}

/// Writes a text as a TOML string; JSON strings are a subset of those.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where the API listens when nobody says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4200);

fn config_text(
    answers: &Answers,
    secret: Option<&SharedSecret>,
) -> Result<Zeroizing<String>, Failure> {
    let key = ApiKey::from_random(&*random()?);
    let mut text = Zeroizing::new(String::with_capacity(4096));
    text.push_str("# The configuration of this node. Every key: docs/CONFIG.md. Check it: openfang config check\n\n");
    text.push_str("# Opens the HTTP API. Keep it to yourself; a new one: openfang keygen\n");
    text.push_str("api_key = \"");
    text.push_str(key.expose());
    text.push_str("\"\n");
    text.push_str(
        "# Where the HTTP API listens. 0.0.0.0 in place of 127.0.0.1 lets other machines reach it, with the key.\n",
    );
    let listen = answers.listen.unwrap_or(LISTEN);
    text.push_str(&format!("api_listen = {}\n", quoted(&listen.to_string())));
    text.push_str(
        "# true asks callers on this machine for the key, too. Needed behind a proxy, a TLS terminator or a\n# tunnel on this machine: its clients look like local ones.\napi_require_auth_local = false\n",
    );
    text.push_str("# error, warn, info, debug or trace\nlog_level = \"info\"\n\n[network]\n");
    text.push_str(
        "# Where other nodes connect: unless it is said here, on this machine, at the port of api_listen. For other machines,\n# 0.0.0.0 and a port of its own.\n",
    );
    let other = listen.port().checked_add(1).filter(|_| listen.port() > 0);
    let other = other.unwrap_or(LISTEN.port() + 1);
    text.push_str(&format!("# listen_addr = \"0.0.0.0:{other}\"\n"));
    text.push_str("# The secret all nodes of one mesh share: openfang keygen --network. Without one the mesh sleeps;\n# `openfang join` stores the secret of the mesh it joins in network.toml.\n");
    match secret {
        Some(secret) => {
            text.push_str("shared_secret = \"");
            text.push_str(secret.expose());
            text.push_str("\"\n");
        }
        None => text.push_str("# shared_secret = \"\"\n"),
    }
    text.push_str("# Nodes to begin with: \"host:port\"\nbootstrap_peers = []\n");
    push_pair(&mut text, "node_name", &answers.node_name, "laptop");
    text.push_str("\n[audit]\nenabled = true\n\n# The model of builtin:chat agents that name none.\n[default_model]\n");
    let provider = if answers.base_url.is_empty() {
        ""
    } else {
        "custom"
    };
    push_pair(&mut text, "provider", provider, "openai");
    push_pair(&mut text, "model", &answers.model, "gpt-4o-mini");
    push_pair(
        &mut text,
        "api_key_env",
        &answers.api_key_env,
        "OPENAI_API_KEY",
    );
    push_pair(
        &mut text,
        "base_url",
        &answers.base_url,
        "http://127.0.0.1:8080/v1",
    );
    Ok(text)
}

fn push_pair(text: &mut String, key: &str, value: &str, example: &str) {
    if value.is_empty() {
        text.push_str(&format!("# {key} = {}\n", quoted(example)));
    } else {
        text.push_str(&format!("{key} = {}\n", quoted(value)));
    }
}

fn next_steps(config: &Config) {
    render::message("\nnext:");
    render::message(
        "    openfang start                     run the node (openfang start --detach: in the background)",
    );
    render::message("    openfang message assistant hello   talk to the first agent");
    if config.network.secret.is_some() {
        render::message("    openfang ticket                    let another node join this one");
    } else {
        render::message(
            "    openfang join -                    join the mesh of the node whose ticket comes on stdin",
        );
    }
}

fn ask_all() -> Result<Answers, Failure> {
    let node_name = ask("What is this node called? [the name of the machine]")?;
    let base_url = ask("Where is your model server (OpenAI chat format)? [none]")?;
    let (mut model, mut api_key_env) = (String::new(), String::new());
    if !base_url.is_empty() {
        model = ask("Which model does it serve?")?;
        api_key_env = ask("Which environment variable holds its key? [none]")?;
    }
    let begin_mesh = ask("Begin a mesh that other nodes can join? [y/N]")?;
    Ok(Answers {
        node_name,
        base_url,
        model,
        api_key_env,
        begin_mesh: begin_mesh.eq_ignore_ascii_case("y"),
        listen: None,
    })
}

fn ask(question: &str) -> Result<String, Failure> {
    render::prompt(&format!("{question} "));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
