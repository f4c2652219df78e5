//! `openfang join` and `openfang ticket`.

use std::time::Duration;

use openfang_id::SharedSecret;
use openfang_node::config::process_environment;
use openfang_node::network_state::{FIRST_EPOCH, NetworkState, Target};
use openfang_schema::{JoinReply, JoinRequest, SecretText, TicketReply, path};

use crate::args::Join;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// The node waits up to ten seconds for a connection.
const JOINED_WITHIN: Duration = Duration::from_secs(20);

/// Joins a mesh: the running node at once, a stopped one when it starts.
pub(crate) fn run(args: &Join, context: &Context) -> Result<Exit, Failure> {
    let secret = args.secret_env.as_deref().map(secret_of).transpose()?;
    // A mistyped ticket is noticed here, whether the node runs or not.
    let target = Target::parse(&args.target).map_err(|why| {
        Failure::new(
            Exit::Usage,
            format!("cannot join {}: {why}", shown(&args.target)),
        )
        .mend("copy what `openfang ticket` prints on a node of the mesh, or host:port")
    })?;
    if !context.config()?.network.enabled {
        let what = "network.enabled is false in config.toml: the mesh sleeps, whatever is joined";
        return Err(Failure::new(Exit::Failure, what)
            .mend("network.enabled = true in config.toml, then: openfang restart"));
    }
    if context.home.held_by()?.is_some() {
        running(&target, &args.target, secret.as_ref(), context)
    } else {
        stopped(target, secret, context)
    }
}

/// Prints a ticket of the running node.
pub(crate) fn ticket(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let reply: TicketReply = context.block_on(client.get(path::NETWORK_TICKET))?;
    render::line(reply.ticket.expose())?;
    render::message(&format!(
        "leads to {} at {}; it holds the network secret: hand it over as carefully",
        reply.node.name,
        reply.addresses.join(", ")
    ));
    Ok(Exit::Ok)
}

fn running(
    target: &Target,
    text: &str,
    secret: Option<&SharedSecret>,
    context: &Context,
) -> Result<Exit, Failure> {
    let secret = secret.map(|secret| SecretText::new(secret.expose().to_owned()));
    let request = match target.secret {
        Some(_) => JoinRequest {
            ticket: Some(SecretText::new(text.to_owned())),
            addr: None,
            secret,
        },
        None => JoinRequest {
            ticket: None,
            addr: Some(text.to_owned()),
            secret,
        },
    };
    let client = context.client()?;
    let reply: JoinReply =
        context.block_on(client.post(path::NETWORK_JOIN, &request, JOINED_WITHIN))?;
    // The node that was reached may not have said yet what it is called.
    let name = match reply.node.name.as_str() {
        "" => "a node",
        name => name,
    };
    render::message(&format!(
        "joined: connected to {} ({}); it stays so after a restart",
        render::printable(name),
        reply.node.id
    ));
    Ok(Exit::Ok)
}

fn stopped(
    target: Target,
    secret: Option<SharedSecret>,
    context: &Context,
) -> Result<Exit, Failure> {
    let config = context.config()?;
    let secret = target.secret.or(secret.map(|secret| (FIRST_EPOCH, secret)));
    let known = config.network.secret.as_ref();
    if let (Some((_, ours)), Some((_, theirs))) = (known, &secret)
        && ours.as_bytes() != theirs.as_bytes()
    {
        let what = "this node already belongs to another mesh";
        return Err(Failure::new(Exit::Failure, what).mend(
            "leave it first: remove network.toml from the home, and shared_secret from config.toml",
        ));
    }
    if known.is_none() && secret.is_none() {
        let what = "an address alone is not enough: this node has no network secret";
        return Err(
            Failure::new(Exit::Usage, what).mend("join with a ticket, or with --secret-env NAME")
        );
    }
    let store = |why: openfang_node::network_state::StateError| {
        Failure::new(Exit::Failure, why.to_string())
    };
    let mut state = NetworkState::load(&context.home)
        .map_err(store)?
        .unwrap_or_default();
    state.add(&target.peers, secret.as_ref()).map_err(store)?;
    state.save(&context.home).map_err(store)?;
    render::message(&format!(
        "stored in {}: the node does not run; it joins when it starts (openfang start)",
        context.home.network_state().display()
    ));
    Ok(Exit::Ok)
}

fn secret_of(variable: &str) -> Result<SharedSecret, Failure> {
    let Some(text) = process_environment(variable) else {
        let what = format!("the environment variable {variable} is not set");
        return Err(Failure::new(Exit::Usage, what).mend(format!("export {variable}=…")));
    };
    SharedSecret::parse(&text).map_err(|why| {
        Failure::new(
            Exit::Usage,
            format!("the secret in {variable} is not usable: {why}"),
        )
        .mend("copy the network.shared_secret of the mesh; a new one: openfang keygen --network")
    })
}

/// A ticket holds a secret: only its kind is shown.
fn shown(target: &str) -> &str {
    if Target::looks_like_ticket(target) {
        "with this ticket"
    } else {
        target
    }
}
