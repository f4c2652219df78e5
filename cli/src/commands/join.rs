//! `openfang join` and `openfang ticket`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use openfang_id::SharedSecret;
use openfang_node::config::process_environment;
use openfang_node::files;
use openfang_node::network_state::{FIRST_EPOCH, NetworkState, Target};
use openfang_schema::{ErrorCode, JoinReply, JoinRequest, SecretText, TicketReply, path};
use zeroize::Zeroizing;

use crate::args::Join;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// No ticket is nearly as long.
const TICKET_BYTES_MAX: usize = 64 << 10;
const MEND_UNREACHED: &str = "check that the other node runs, that its listen_addr can be reached from here (0.0.0.0:PORT for other machines), and that its firewall lets TCP and UDP through";
/// The node waits up to ten seconds for a connection, and as long for its witnesses.
const JOINED_WITHIN: Duration = Duration::from_secs(30);

/// Joins a mesh: the running node at once, a stopped one when it starts.
pub(crate) fn run(args: &Join, context: &Context) -> Result<Exit, Failure> {
    let secret = args.secret_env.as_deref().map(secret_of).transpose()?;
    let text = target_of(args)?;
    // A mistyped ticket is noticed here, whether the node runs or not.
    let target = Target::parse(&text).map_err(|why| {
        Failure::new(Exit::Usage, format!("cannot join {}: {why}", shown(&text)))
            .mend("openfang ticket on a node of the mesh, and what it prints to: openfang join -")
    })?;
    if !context.config()?.network.enabled {
        let what = "network.enabled is false in config.toml: the mesh sleeps, whatever is joined";
        return Err(Failure::new(Exit::Failure, what)
            .mend("network.enabled = true in config.toml, then: openfang restart"));
    }
    if context.home.held_by()?.is_some() {
        running(&target, &text, secret.as_ref(), context)
    } else {
        stopped(target, secret, context)
    }
}

/// Takes what was typed, or reads it from where it does not show.
fn target_of(args: &Join) -> Result<Zeroizing<String>, Failure> {
    let text = match (&args.ticket_file, args.target.as_deref()) {
        (Some(path), _) => from_file(path)?,
        (None, Some("-")) => read_ticket(&mut std::io::stdin().lock(), "stdin")?,
        (None, typed) => {
            let typed = typed.unwrap_or_default();
            if Target::looks_like_ticket(typed) {
                render::message(
                    "note: other users could see this ticket in the list of processes; better: openfang join -",
                );
            }
            return Ok(Zeroizing::new(typed.to_owned()));
        }
    };
    let ticket = Zeroizing::new(text.trim().to_owned());
    if ticket.is_empty() {
        return Err(
            Failure::new(Exit::Usage, "there is no ticket: nothing came")
                .mend("openfang ticket | openfang join -, the first on a node of the mesh"),
        );
    }
    Ok(ticket)
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let shown = path.display().to_string();
    let mut file = File::open(path).map_err(|why| {
        Failure::new(Exit::NotFound, format!("{shown}: {why}"))
            .mend("openfang ticket on a node of the mesh prints one")
    })?;
    if files::exposed(path)?.is_some() {
        render::message(&format!(
            "note: other users can read {shown}, which holds the network secret: chmod 600 {shown}"
        ));
    }
    read_ticket(&mut file, &shown)
}

fn read_ticket(from: &mut dyn Read, shown: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(TICKET_BYTES_MAX));
    let limit = u64::try_from(TICKET_BYTES_MAX).unwrap_or(u64::MAX);
    from.take(limit)
        .read_to_string(&mut text)
        .map_err(|why| Failure::new(Exit::Usage, format!("no ticket from {shown}: {why}")))?;
    Ok(text)
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
    let reply: JoinReply = context
        .block_on(client.post(path::NETWORK_JOIN, &request, JOINED_WITHIN))
        .map_err(|failure| match failure.code() {
            Some(ErrorCode::Unreachable) => failure.mend(MEND_UNREACHED),
            Some(_) | None => failure,
        })?;
    // The node that was reached may not have said yet what it is called.
    let name = match reply.node.name.as_str() {
        "" => "a node",
        name => name,
    };
    render::message(&format!(
        "joined: connected to {} ({}); it stays so after a restart",
        render::cell(name),
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
    let Some(text) = process_environment(variable)? else {
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
