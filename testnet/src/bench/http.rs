//! The whole way: HTTP on one node, an agent on another, and the answer back over HTTP. Real
//! processes, with the audit log on both (every call waits for both disks) and without.

use std::time::Duration;

use serde_json::{Value, json};

use super::BenchError;
use super::raw_disk::append_and_flush;
use super::stats::{now, side_by_side};
use crate::cluster::{Client, Node, NodeError, NotYet, Program, Setup, until};

/// Calls that wait for two disks are slow: fewer of them are enough for a median.
const ROUNDS_PER_DURABLE: usize = 10;
/// How many callers share the nodes in the second figure.
const CALLERS: usize = 64;
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const MESSAGE: &str = "Is anybody there? This is a message of the size that people write.";

/// Measures with and without the audit log.
pub(super) async fn measure(rounds: usize) -> Result<Value, BenchError> {
    let mut figures = json!({});
    for (name, audit, each) in [
        ("audited", true, (rounds / ROUNDS_PER_DURABLE).max(50)),
        ("not_audited", false, rounds),
    ] {
        let folder = tempfile::tempdir()?;
        let mut nodes = start_pair(folder.path(), audit).await?;
        let client = nodes[0].api()?.clone();
        ask(&client, each / 10 + 1).await?;
        let one = side_by_side(1, each, |_| ask_owned(client.clone(), each)).await?;
        let many = side_by_side(CALLERS, each / 4, |_| ask_owned(client.clone(), each / 4)).await?;
        let health = side_by_side(1, rounds, |_| health(client.clone(), rounds)).await?;
        figures[format!("remote_agent_{name}_1")] = one.to_json();
        figures[format!("remote_agent_{name}_64")] = many.to_json();
        figures[format!("health_{name}_1")] = health.to_json();
        for node in &mut nodes {
            node.stop().await?;
        }
        let flush = append_and_flush(folder.path(), 200, 1, 300)?;
        figures["raw_fdatasync"] = flush.to_json();
    }
    Ok(figures)
}

async fn start_pair(root: &std::path::Path, audit: bool) -> Result<[Node; 2], BenchError> {
    let program = Program::this()?;
    let secret = program
        .run(root, &["keygen", "--network"])
        .await
        .map_err(NodeError::from)?;
    let setup = |name: &str| Setup {
        name: name.to_owned(),
        secret: Some(secret.stdout.trim().to_owned()),
        tables: format!("[audit]\nenabled = {audit}\n"),
        ..Setup::default()
    };
    let mut caller = Node::create(&program, root, &setup("caller")).await?;
    let mut callee = Node::create(&program, root, &setup("callee")).await?;
    caller.start().await?;
    callee.start().await?;
    let ticket = caller.cli(&["ticket"]).await?;
    callee.cli(&["join", ticket.trim()]).await?;
    callee
        .spawn("name = \"far\"\nmodule = \"builtin:echo\"\n")
        .await?;
    let client = caller.api()?.clone();
    until(
        "the agent on the other node to answer",
        CONNECT_LIMIT,
        || async { ask(&client, 1).await.map_err(NotYet::saw) },
    )
    .await?;
    Ok([caller, callee])
}

async fn ask_owned(client: Client, each: usize) -> Result<Vec<Duration>, BenchError> {
    ask(&client, each).await
}

async fn ask(client: &Client, each: usize) -> Result<Vec<Duration>, BenchError> {
    let body = json!({ "message": MESSAGE });
    let mut times = Vec::with_capacity(each);
    for _ in 0..each {
        let started = now();
        let reply = client
            .ok("POST", "/api/agents/far@callee/message", Some(&body))
            .await?;
        times.push(started.elapsed());
        if !reply["response"]
            .as_str()
            .unwrap_or_default()
            .contains(MESSAGE)
        {
            return Err(BenchError::Wrong(format!("the agent answered {reply}")));
        }
    }
    Ok(times)
}

async fn health(client: Client, each: usize) -> Result<Vec<Duration>, BenchError> {
    let mut times = Vec::with_capacity(each);
    for _ in 0..each {
        let started = now();
        client.get("/api/health").await?;
        times.push(started.elapsed());
    }
    Ok(times)
}
