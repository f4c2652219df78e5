//! `openfang audit show`: entries, read from the verified lines.

use std::io;

use openfang_audit::read::{self, Filter, Follow, FollowError, Kinds, Selection};
use openfang_audit::vault::Revealed;
use openfang_audit::verify::Verdict;
use openfang_audit::{Field, Kind, Line, Origin};
use openfang_id::{AgentKey, NodeId, NodeKey};
use openfang_node::audit_epoch::FIRST;
use openfang_schema::{PeersReply, path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::files::Files;
use super::since;
use super::verify::{exit_of, warn_if_tampered};
use crate::args::Show;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// Between two looks for new entries: a head is signed as often.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

pub(super) fn run(files: &Files, args: &Show, context: &Context) -> Result<Exit, Failure> {
    let filter = filter(args, context)?;
    let (mut selection, follow) = if args.follow {
        let (selection, follow) = read::select_and_follow(files.source(), &filter)
            .map_err(|why| files.unreadable(&why))?;
        (selection, Some(follow))
    } else {
        let selection =
            read::select(files.source(), &filter).map_err(|why| files.unreadable(&why))?;
        (selection, None)
    };
    selection.report = files.judge(selection.report);
    print(files, args, &selection.lines)?;
    warn_if_tampered(files, &selection.report);
    note_left_out(&selection);
    let exit = exit_of(&selection.report);
    if exit != Exit::Ok {
        note_nothing(&selection, args);
        return Ok(exit);
    }
    if let (Some(agent), true) = (&filter.agent, selection.lines.is_empty()) {
        match (must_exist(files, agent, context), &follow) {
            (Err(why), None) => return Err(why),
            (Err(why), Some(_)) => {
                render::message(&format!("{} yet: this waits for one", why.what()));
            }
            (Ok(()), _) => {}
        }
    }
    note_nothing(&selection, args);
    match follow {
        Some(follow) => go_on(files, follow, args),
        None => Ok(exit),
    }
}

fn filter(args: &Show, context: &Context) -> Result<Filter, Failure> {
    let kinds = args.filter.as_deref().map(kinds_of).transpose()?;
    let (node, log) = match args.node.as_deref() {
        None => (None, None),
        Some(text) => match log_named(text) {
            None => (Some(node_id(text, context)?), None),
            Some(log) => match node_of(&log, context) {
                Some(node) => (Some(node), None),
                None => (None, Some(log)),
            },
        },
    };
    Ok(Filter {
        agent: args.agent.as_deref().map(agent_key).transpose()?,
        kinds: kinds.unwrap_or_default(),
        node,
        log,
        since_unix_micros: args.since.as_deref().map(since::parse).transpose()?,
        limit: Some(usize::try_from(args.limit).unwrap_or(usize::MAX)),
    })
}

fn print(files: &Files, args: &Show, lines: &[Line]) -> Result<(), Failure> {
    let revealed = if args.reveal {
        files
            .vault
            .reveal(lines)
            .map_err(|why| Failure::new(Exit::Usage, format!("cannot read the vault: {why}")))?
    } else {
        Vec::new()
    };
    let is_unread = |(_, one): &(Field, Revealed)| *one == Revealed::Unreadable;
    if revealed.iter().flatten().any(is_unread) {
        note_unread(files);
    }
    let mut revealed = revealed.iter();
    for line in lines {
        let values = revealed.next().map(Vec::as_slice);
        match (args.json, values) {
            (true, None) => render::line(&line.raw)?,
            (true, Some(values)) => render::line(&beside(line, values))?,
            (false, values) => render::line(&render::cell(&shown(line, values)))?,
        }
    }
    Ok(())
}

/// Says which files of the vault are damaged: what cannot be read is not erased.
fn note_unread(files: &Files) {
    let unread = files.vault.unread().unwrap_or_default();
    let names: Vec<String> = unread
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let where_is = if names.is_empty() {
        "what is kept for them does not open them".to_owned()
    } else {
        format!("damaged: {}", names.join(", "))
    };
    render::message(&format!(
        "some values cannot be read, which is not that they were erased; {where_is}\n    mend: put the files of audit.d/vault back from a backup"
    ));
}

/// The line as it is, and what it commits to.
fn beside(line: &Line, values: &[(Field, Revealed)]) -> String {
    let one = |(field, revealed): &(Field, Revealed)| {
        let value = match revealed {
            Revealed::Value(value) => json!({ "state": "value", "value": value }),
            Revealed::Erased => json!({ "state": "erased" }),
            Revealed::Secret => json!({ "state": "secret" }),
            Revealed::Unreadable => json!({ "state": "unreadable" }),
        };
        (field.as_str().to_owned(), value)
    };
    let personal: serde_json::Map<_, _> = values.iter().map(one).collect();
    let personal = serde_json::Value::Object(personal);
    format!("{{\"line\":{},\"personal\":{personal}}}", line.raw)
}

/// An answer that is not complete says so.
fn note_left_out(selection: &Selection) {
    let shown = u64::try_from(selection.lines.len()).unwrap_or(u64::MAX);
    let older = selection.matched.saturating_sub(shown);
    if older > 0 && shown > 0 {
        render::message(&format!(
            "{older} older entries are left out: --limit {} shows them",
            selection.matched
        ));
    }
    if selection.unreadable > 0 {
        render::message(&format!(
            "{} lines are of another version of the format and were not looked at",
            selection.unreadable
        ));
    }
}

/// Says that nothing fits, which an empty answer alone does not.
fn note_nothing(selection: &Selection, args: &Show) {
    if selection.matched > 0 {
        return;
    }
    let chosen = args.agent.is_some()
        || args.filter.is_some()
        || args.node.is_some()
        || args.since.is_some();
    let whole = match selection.report.verdict {
        Verdict::Intact { entries, .. } => Some(entries),
        Verdict::Empty => Some(0),
        Verdict::Tampered { .. } => None,
    };
    render::message(&match (whole, chosen) {
        (Some(0), _) => "the log has no entries yet".to_owned(),
        (Some(entries), true) => format!("none of the {entries} entries fits what was asked for"),
        (Some(_), false) | (None, _) => "nothing was found that fits".to_owned(),
    });
}

/// Prints what is written, until nobody reads it any more, the log is no continuation, or a signal comes.
fn go_on(files: &Files, mut follow: Follow, args: &Show) -> Result<Exit, Failure> {
    loop {
        if is_unread()? {
            return Ok(Exit::Ok);
        }
        match follow.poll(files.source()) {
            Ok(lines) => print(files, args, &lines)?,
            Err(FollowError::Read(why)) => return Err(files.unreadable(&why)),
            Err(why @ FollowError::Tampered(_)) => {
                return Err(
                    Failure::new(Exit::Failure, why.to_string()).mend("openfang audit verify")
                );
            }
        }
    }
}

/// Waits a moment; tells whether the other end of stdout was closed meanwhile.
fn is_unread() -> Result<bool, Failure> {
    let stdout = io::stdout();
    let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut watched, Some(&LOOK_EVERY)) {
        Ok(_count) => {}
        Err(rustix::io::Errno::INTR) => return Ok(false),
        Err(why) => return Err(io::Error::from(why).into()),
    }
    let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
    Ok(watched.iter().any(|fd| fd.revents().intersects(gone)))
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

/// What is shown in the place of a text that the line commits to.
fn hidden(line: &Line, field: Field, values: Option<&[(Field, Revealed)]>) -> Option<String> {
    let commitment = line.commitments.of(field)?.to_string();
    let revealed = values.and_then(|values| values.iter().find(|(at, _)| *at == field));
    Some(match revealed {
        Some((_, Revealed::Value(value))) => value.clone(),
        Some((_, Revealed::Erased)) => "(erased)".to_owned(),
        Some((_, Revealed::Secret)) => "(secret)".to_owned(),
        Some((_, Revealed::Unreadable)) => "(unreadable)".to_owned(),
        None => format!("(personal {})", &commitment[..8]),
    })
}

fn shown(line: &Line, values: Option<&[(Field, Revealed)]>) -> String {
    let mut text = format!("{:>8}  {}  {:<13}", line.seq.0, line.ts, line.ev);
    let agent = line.agent.map(|agent| agent.to_string());
    let of = |text: &Option<String>, field| {
        let text = text.clone();
        text.or_else(|| hidden(line, field, values))
    };
    let session = hidden(line, Field::Session, values);
    let fields = [
        ("agent", &agent),
        ("act", &line.act),
        ("target", &of(&line.target, Field::Target)),
        ("user", &of(&line.user, Field::User)),
        ("sess", &session),
        ("value", &hidden(line, Field::Value, values)),
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
    let known = || {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("--filter with one or more of: {}", known.join(", "))
    };
    // A comma too many asks for nothing.
    let named = text.split([',', '|']).map(str::trim);
    let named: Vec<&str> = named.filter(|kind| !kind.is_empty()).collect();
    if named.is_empty() {
        let what = format!("{text:?} names no kind of entry");
        return Err(Failure::new(Exit::Usage, what).mend(known()));
    }
    for kind in &named {
        if let Err(why) = kind.parse::<Kinds>() {
            return Err(Failure::new(Exit::Usage, format!("{kind:?}: {why}")).mend(known()));
        }
    }
    let kinds = named.join(",").parse();
    kinds.map_err(|why| Failure::new(Exit::Usage, format!("{text:?}: {why}")).mend(known()))
}

/// Reads the name of a log, or the beginning of one that all logs of a node share: `n-0123456789abcdef`.
fn log_named(text: &str) -> Option<Origin> {
    let node = text.split('.').next()?;
    let whole = mesh_name(node)?;
    let rest = text.strip_prefix(node)?;
    let full = whole.as_str().strip_prefix(node)?;
    let domain = full.split('/').next()?;
    let known = rest.is_empty() || rest == domain || rest.starts_with(&format!("{domain}/"));
    known.then_some(whole)
}

/// Makes the name of the first log of the node with this short id.
fn mesh_name(short: &str) -> Option<Origin> {
    format!("{short}.openfang.mesh/audit/{FIRST}").parse().ok()
}

/// Finds out whose log it is: this node's, or that of one that the running node knows.
fn node_of(log: &Origin, context: &Context) -> Option<NodeId> {
    let own = openfang_node::keys::load(&context.home.node_key()).ok();
    let own = own.map(|seed| seed.keys().node_id());
    if let Some(own) = own.filter(|own| log.belongs_to(own)) {
        return Some(own);
    }
    let client = context.client().ok()?;
    let reply: PeersReply = context.block_on(client.get(path::PEERS)).ok()?;
    let mut peers = reply
        .peers
        .iter()
        .filter_map(|peer| peer.node_id.parse().ok());
    peers.find(|id| log.belongs_to(id))
}

/// Finds out which node is meant. The log knows ids; a name is one that the running node knows.
fn node_id(text: &str, context: &Context) -> Result<NodeId, Failure> {
    let key: NodeKey = text
        .parse()
        .map_err(|why| Failure::new(Exit::Usage, format!("{text:?} is no node: {why}")))?;
    let name = match key {
        NodeKey::Id(id) => return Ok(id),
        NodeKey::Name(name) => name.to_string(),
    };
    let config = context.config()?;
    if config.network.name.as_str() == name {
        let seed = openfang_node::keys::load(&context.home.node_key())
            .map_err(|why| Failure::new(Exit::Usage, why.to_string()))?;
        return Ok(seed.keys().node_id());
    }
    let client = context
        .client()
        .map_err(|why| why.mend("--node with the id of the node, or openfang start"))?;
    let reply: PeersReply = context.block_on(client.get(path::PEERS))?;
    let mut named = reply
        .peers
        .iter()
        .filter(|peer| peer.node_name == name)
        .filter_map(|peer| peer.node_id.parse().ok());
    match (named.next(), named.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Usage,
            format!("several nodes are called {name}"),
        )
        .mend("openfang peers; --node with the id of one")),
        (None, _) => Err(
            Failure::new(Exit::NotFound, format!("no node is called {name}"))
                .mend("openfang peers; --node with the id of one"),
        ),
    }
}
