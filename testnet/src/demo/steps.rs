//! The steps, in order. Each one either holds or ends the demonstration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Args;
use super::cast::{Cast, TARGET, chat_agent, echo_agent};
use super::model::{LocalModel, ModelError};
use super::report::Report;
use super::scripted::Scripted;
use crate::cluster::{ApiError, Expired, Node, NodeError, NotYet, Program, until};

/// What must happen sooner or later gets this long, on a busy machine too.
const EVENTUALLY: Duration = Duration::from_secs(30);
/// What the demonstration promises of a killed node.
const LOSS_NAMED_WITHIN: Duration = Duration::from_secs(1);

/// Why a step did not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A node did not do what it was asked for.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It took too long.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// The model could not be set up.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file of the demonstration itself.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Something that was claimed is not so.
    #[error("{0}")]
    Claim(String),
    /// A signal came in between.
    #[error("interrupted by {0}")]
    Interrupted(&'static str),
}

impl From<ApiError> for Failure {
    fn from(why: ApiError) -> Self {
        Self::Node(NodeError::Api(why))
    }
}

impl Failure {
    /// Something that was claimed is not so.
    pub(crate) fn claim(what: impl Into<String>) -> Self {
        Self::Claim(what.into())
    }
}

/// Runs every step but the last, which takes everything down. Who plays is put on the stage as soon
/// as it is there, so that whoever called can end it, whatever happens here.
pub(super) async fn all(
    args: &Args,
    (program, root): (&Program, &Path),
    stage: &mut Option<Cast>,
    report: &mut Report,
) -> Result<(), Failure> {
    let model = match args.model {
        Some(_smollm2) => Some(set_up_model(root, args.keep, report).await?),
        None => None,
    };
    report.begin("three nodes start");
    let scripted = Scripted::start(TARGET)
        .await
        .map_err(|source| Failure::File {
            path: root.to_owned(),
            source,
        })?;
    let cast = stage.insert(Cast::create(program, root, scripted, model).await?);
    start_nodes(cast, report).await?;
    mesh_forms(cast, report).await?;
    spawn_agents(cast, report).await?;
    message_from_a_to_c(cast, report).await?;
    agent_on_b_calls_agent_on_c(cast, report).await?;
    roster_from_each_node(cast, report).await?;
    heads_are_cross_verified(cast, report).await?;
    node_c_dies(cast, report).await?;
    node_c_comes_back(cast, report).await?;
    let altered = log_of_c_is_altered(cast, report).await?;
    next_head_of_c_is_refused(cast, altered, report).await?;
    Ok(())
}

async fn set_up_model(root: &Path, keep: bool, report: &mut Report) -> Result<LocalModel, Failure> {
    report.begin("a language model is set up");
    let model = LocalModel::start(root, keep).await?;
    report.held(format!("SmolLM2 135M answers at {}", model.base_url));
    Ok(model)
}

async fn start_nodes(cast: &mut Cast, report: &mut Report) -> Result<(), Failure> {
    let mut told = Vec::new();
    for node in cast.nodes() {
        let took = node.start().await?;
        told.push(format!("{} in {} ms", node.name, took.as_millis()));
    }
    report.held(told.join(", "));
    report.begin("node-b and node-c join by ticket");
    let ticket = cast.a.cli(&["ticket"]).await?;
    for node in [&cast.b, &cast.c] {
        node.cli(&["join", ticket.trim()]).await?;
    }
    report.held("both networks were asleep, and woke without a restart");
    Ok(())
}

async fn mesh_forms(cast: &Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("every node knows every node");
    for (node, others) in [
        (&cast.a, ["node-b", "node-c"]),
        (&cast.b, ["node-a", "node-c"]),
        (&cast.c, ["node-a", "node-b"]),
    ] {
        for other in others {
            until(
                &format!("{} to see {other} alive", node.name),
                EVENTUALLY,
                || see_state(node, other, "alive"),
            )
            .await?;
        }
    }
    let peer = cast.a.peer("node-c").await?;
    report.held(format!(
        "authenticated with HMAC-SHA256 over {}",
        text(&peer["transport"])
    ));
    Ok(())
}

async fn see_state(node: &Node, other: &str, wanted: &str) -> Result<Value, NotYet> {
    let peer = node.peer(other).await.map_err(NotYet::saw)?;
    if peer["liveness"] == wanted {
        Ok(peer)
    } else {
        Err(NotYet::saw(peer))
    }
}

async fn spawn_agents(cast: &Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("agents are spawned on different nodes");
    let scribe = match &cast.model {
        Some(model) => chat_agent("scribe", &model.base_url, ""),
        None => echo_agent("scribe"),
    };
    let scripted = format!("http://{}/v1", cast.scripted.address);
    let courier = chat_agent("courier", &scripted, "\"agent_list\", \"agent_send\"");
    cast.a.spawn(&echo_agent("greeter")).await?;
    cast.b.spawn(&courier).await?;
    cast.c.spawn(&scribe).await?;
    let mut slowest = Duration::ZERO;
    for node in [&cast.a, &cast.b, &cast.c] {
        let what = format!("{} to list greeter, courier and scribe", node.name);
        let (_, took) = until(&what, EVENTUALLY, || lists_all(node)).await?;
        slowest = slowest.max(took);
    }
    report.held(format!(
        "greeter on node-a, courier on node-b, scribe on node-c; on every list {} ms later",
        slowest.as_millis()
    ));
    Ok(())
}

async fn lists_all(node: &Node) -> Result<(), NotYet> {
    let list = agents(node).await.map_err(NotYet::saw)?;
    for (agent, home) in [
        ("greeter", "node-a"),
        ("courier", "node-b"),
        ("scribe", "node-c"),
    ] {
        if !list
            .iter()
            .any(|one| one["name"] == agent && one["node"]["name"] == home)
        {
            return Err(NotYet::saw(Value::Array(list)));
        }
    }
    Ok(())
}

async fn agents(node: &Node) -> Result<Vec<Value>, NodeError> {
    let list = node.api()?.get("/api/agents").await?;
    Ok(list.as_array().cloned().unwrap_or_default())
}

async fn message_from_a_to_c(cast: &Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("node-a is asked, an agent on node-c answers");
    let question = "What is the capital of France?";
    let streamed = cast.a.api()?.stream(TARGET, question).await?;
    let answer = streamed.chunks.concat();
    if answer.trim().is_empty() || streamed.done["node"]["name"] != "node-c" {
        return Err(Failure::claim(format!(
            "expected an answer from node-c, got {answer:?} and {}",
            streamed.done
        )));
    }
    if cast.model.is_none() && !(answer.contains(question) && answer.contains("node-c")) {
        return Err(Failure::claim(format!(
            "the echo should hold the question and its node: {answer:?}"
        )));
    }
    let first = streamed.first_chunk.unwrap_or_default();
    report.held(format!(
        "{} chunks, the first after {} ms: {:?}",
        streamed.chunks.len(),
        first.as_millis(),
        shorten(&answer)
    ));
    Ok(())
}

async fn agent_on_b_calls_agent_on_c(cast: &Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("an agent on node-b calls the one on node-c");
    let body = json!({ "message": "Say hello to node-b." });
    let reply = cast
        .b
        .api()?
        .ok("POST", "/api/agents/courier/message", Some(&body))
        .await?;
    let answer = text(&reply["response"]).to_owned();
    if !answer.starts_with(&format!("{TARGET} told me: ")) || answer.len() < TARGET.len() + 12 {
        return Err(Failure::claim(format!(
            "the courier should repeat what {TARGET} said: {reply}"
        )));
    }
    let log = cast
        .b
        .cli(&[
            "audit",
            "show",
            "--agent",
            "courier",
            "--filter",
            "tool_invoke",
            "--json",
        ])
        .await?;
    if !log.contains("agent_send") {
        return Err(Failure::claim(format!(
            "node-b's log should hold the tool call: {log}"
        )));
    }
    report.held(format!(
        "by agent_send, logged on both nodes: {:?}",
        shorten(&answer)
    ));
    Ok(())
}

async fn roster_from_each_node(cast: &mut Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("the roster, as each node sees it");
    let mut rows = Vec::new();
    for node in cast.nodes() {
        let list = agents(node).await?;
        let places = list
            .iter()
            .map(|one| format!("{}@{}", text(&one["name"]), text(&one["node"]["name"])));
        let mut places: Vec<String> = places
            .filter(|place| !place.starts_with("assistant@"))
            .collect();
        places.sort();
        rows.push((node.name.clone(), places));
    }
    if rows.iter().any(|(_, places)| *places != rows[0].1) {
        return Err(Failure::claim(format!("the nodes disagree: {rows:?}")));
    }
    for (node, places) in &rows {
        report.remark(&format!("{node}: {}", places.join(", ")));
    }
    report.held("the same on all three");
    Ok(())
}

async fn heads_are_cross_verified(cast: &Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("the nodes verify each other's audit heads");
    let mut told = Vec::new();
    for (node, other) in [
        (&cast.a, "node-c"),
        (&cast.b, "node-c"),
        (&cast.c, "node-a"),
    ] {
        let what = format!("{} to accept a head of {other}", node.name);
        let (peer, _) = until(&what, EVENTUALLY, || see_audit(node, other, "consistent")).await?;
        told.push(format!(
            "{other} at {} for {}",
            peer["audit"]["size"], node.name
        ));
    }
    report.held(format!("signed and consistent: {}", told.join(", ")));
    Ok(())
}

async fn see_audit(node: &Node, other: &str, wanted: &str) -> Result<Value, NotYet> {
    let peer = node.peer(other).await.map_err(NotYet::saw)?;
    let grown = peer["audit"]["size"].as_u64().is_some_and(|size| size > 0);
    if peer["audit"]["state"] == wanted && grown {
        Ok(peer)
    } else {
        Err(NotYet::saw(peer))
    }
}

async fn node_c_dies(cast: &mut Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("node-c is killed (SIGKILL)");
    let killed = tokio::time::Instant::now();
    cast.c.kill().await?;
    let (peer, _) = until("node-a to name the loss", EVENTUALLY, || {
        see_loss(&cast.a, "node-c")
    })
    .await?;
    let took = killed.elapsed();
    if took > LOSS_NAMED_WITHIN {
        return Err(Failure::claim(format!(
            "node-a named the loss after {took:?}, later than {LOSS_NAMED_WITHIN:?}"
        )));
    }
    let body = json!({ "message": "Are you there?" });
    let path = format!("/api/agents/{TARGET}/message");
    let called = tokio::time::Instant::now();
    let reply = cast.a.api()?.send("POST", &path, Some(&body)).await?;
    let given_up = called.elapsed();
    if reply.status != 502 || !text(&reply.body["error"]).contains("node-c") {
        return Err(Failure::claim(format!(
            "a call should fail with 502 and name node-c: {} {}",
            reply.status, reply.body
        )));
    }
    report.remark(&format!(
        "a call now: HTTP 502, {:?}",
        text(&reply.body["error"])
    ));
    report.held(format!(
        "node-a says {} {} ms after the kill; a call to its agent, which waits for it to come back, fails after {} ms",
        text(&peer["liveness"]),
        took.as_millis(),
        given_up.as_millis()
    ));
    Ok(())
}

async fn see_loss(node: &Node, other: &str) -> Result<Value, NotYet> {
    let peer = node.peer(other).await.map_err(NotYet::saw)?;
    let lost = peer["liveness"] == "suspect" || peer["liveness"] == "dead";
    if lost {
        Ok(peer)
    } else {
        Err(NotYet::saw(peer))
    }
}

async fn node_c_comes_back(cast: &mut Cast, report: &mut Report) -> Result<(), Failure> {
    report.begin("node-c is started again");
    let before = cast.a.peer("node-c").await?["node_id"].clone();
    cast.c.start().await?;
    let id = cast.c.id().await?;
    if before != Value::String(id.clone()) {
        return Err(Failure::claim(format!(
            "it came back as {id}, it was {before}"
        )));
    }
    cast.c.cli(&["audit", "verify"]).await?;
    let body = json!({ "message": "Welcome back." });
    let path = format!("/api/agents/{TARGET}/message");
    let ask = || async {
        let reply = cast
            .a
            .api()
            .map_err(NotYet::saw)?
            .ok("POST", &path, Some(&body))
            .await;
        reply.map_err(NotYet::saw)
    };
    let (_, took) = until("the agent on node-c to answer again", EVENTUALLY, ask).await?;
    report.held(format!(
        "same identity, log intact, its agent answers {} ms later",
        took.as_millis()
    ));
    Ok(())
}

async fn log_of_c_is_altered(cast: &Cast, report: &mut Report) -> Result<u64, Failure> {
    report.begin("one byte of node-c's log is altered on disk");
    let path = cast.c.audit_log();
    let failed = |source| Failure::File {
        path: path.clone(),
        source,
    };
    let mut bytes = std::fs::read(&path).map_err(failed)?;
    let seq = 1_u64;
    let start = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let at = find_digit(&bytes, start)
        .ok_or_else(|| Failure::claim("the second line of the log holds no time stamp"))?;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    overwrite_byte(&path, at, bytes[at]).map_err(failed)?;
    let verify = cast.c.try_cli(&["audit", "verify", "--json"]).await?;
    let verdict: Value = serde_json::from_str(&verify.stdout).unwrap_or(Value::Null);
    if verify.code() != 1 || verdict["first_bad_seq"] != seq {
        return Err(Failure::claim(format!(
            "audit verify should end with 1 and name entry {seq}: {}",
            verify.said()
        )));
    }
    report.held(format!(
        "audit verify on node-c: exit 1, entry {seq} is not what was signed"
    ));
    Ok(seq)
}

/// Finds a digit of the time stamp in the line that starts at `start`.
fn find_digit(bytes: &[u8], start: usize) -> Option<usize> {
    let line = &bytes[start..];
    let stamp = line.windows(6).position(|window| window == b"\"ts\":\"")?;
    Some(start + stamp + 6 + "2026-11-21T20:27:2".len())
}

fn overwrite_byte(path: &Path, at: usize, byte: u8) -> std::io::Result<()> {
    use std::io::{Seek as _, SeekFrom, Write as _};
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(at as u64))?;
    file.write_all(&[byte])?;
    file.sync_all()
}

async fn next_head_of_c_is_refused(
    cast: &Cast,
    altered: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    report.begin("node-a and node-b refuse node-c's next head");
    let body = json!({ "message": "Log this." });
    cast.c
        .api()?
        .ok("POST", "/api/agents/scribe/message", Some(&body))
        .await?;
    let mut reason = String::new();
    for node in [&cast.a, &cast.b] {
        let what = format!("{} to refuse node-c's head", node.name);
        let (peer, _) = until(&what, EVENTUALLY, || {
            see_audit(node, "node-c", "inconsistent")
        })
        .await?;
        text(&peer["audit"]["reason"]).clone_into(&mut reason);
    }
    let honest = see_audit(&cast.a, "node-b", "consistent").await;
    honest.map_err(|NotYet(seen)| Failure::claim(format!("node-b did nothing wrong: {seen}")))?;
    report.held(format!("entry {altered} altered: {reason}"));
    Ok(())
}

/// Ends the nodes as an operator would, and checks how they end.
pub(super) async fn clean_up(report: &mut Report, cast: &mut Cast) -> Result<(), Failure> {
    report.begin("everything is taken down");
    for node in cast.nodes() {
        let code = node.stop().await?;
        if code != 0 {
            return Err(Failure::claim(format!(
                "{} ended with exit code {code} after SIGTERM",
                node.name
            )));
        }
    }
    report.held("each node drained and ended with exit code 0");
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn shorten(answer: &str) -> String {
    const SHOWN_CHARS: usize = 90;
    let line = answer.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN_CHARS {
        return line;
    }
    line.chars().take(SHOWN_CHARS).chain(['…']).collect()
}
