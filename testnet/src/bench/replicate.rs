//! How soon an entry is under a head that others have cosigned and copied, on five real nodes; and how
//! long a wiped node takes to have a large log again.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::BenchError;
use super::audit::{append_from, open};
use super::raw_disk::append_and_flush;
use super::stats::{Samples, now};
use crate::cluster::{Node, NodeError, NotYet, Program, Setup, until};

const NODES: usize = 5;
/// Between two samples: a head is signed at once when the last one is older than a quarter second.
const PAUSE: Duration = Duration::from_millis(400);
/// Samples are slow: a fraction of the rounds is enough for a median.
const ROUNDS_PER_SAMPLE: usize = 40;
/// Entries of the log that is restored, for each round: a million with the usual number of rounds.
const ENTRIES_PER_ROUND: usize = 500;
/// How many appends are under way while it is filled.
const CALLERS: usize = 4_096;
/// A million entries are written, copied and fetched again in a fraction of this.
const LIMIT: Duration = Duration::from_secs(300);

/// Measures both.
pub(super) async fn measure(rounds: usize) -> Result<Value, BenchError> {
    let program = Program::this()?;
    let folder = tempfile::tempdir()?;
    let secret = program.run(folder.path(), &["keygen", "--network"]).await;
    let secret = secret.map_err(NodeError::from)?.stdout.trim().to_owned();
    let flush = {
        let path = folder.path().to_owned();
        let measured = tokio::task::spawn_blocking(move || append_and_flush(&path, 100, 1, 320));
        let flush = measured.await;
        flush.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?
    };
    let place = (&program, folder.path(), secret.as_str());
    let mut figures = latencies(place, (rounds / ROUNDS_PER_SAMPLE).max(5)).await?;
    figures["raw_fdatasync_1_lines"] = flush.to_json();
    figures["restore"] = restore(place, rounds * ENTRIES_PER_ROUND).await?;
    Ok(figures)
}

async fn create(
    (program, root, secret): (&Program, &Path, &str),
    name: String,
) -> Result<Node, BenchError> {
    let setup = Setup {
        name,
        secret: Some(secret.to_owned()),
        ..Setup::default()
    };
    Ok(Node::create(program, root, &setup).await?)
}

/// From the answer to a request that was logged to a head over its entry: signed, cosigned by three of
/// four, and copied to three.
async fn latencies(place: (&Program, &Path, &str), samples: usize) -> Result<Value, BenchError> {
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let mut node = create(place, format!("bench-{number}")).await?;
        node.start().await?;
        nodes.push(node);
    }
    let ticket = nodes[0].cli(&["ticket"]).await?;
    for node in &nodes[1..] {
        node.cli(&["join", ticket.trim()]).await?;
    }
    let node = &nodes[0];
    let manifest = "name = \"worker\"\nversion = \"0.1.0\"\nmodule = \"builtin:echo\"\n";
    node.spawn(manifest).await?;
    let wanted = async || {
        let (_, needed, wanted) = states(node).await?;
        if needed == 3 && wanted == 3 {
            Ok(())
        } else {
            Err(NotYet::saw(format!(
                "{needed} witnesses needed, {wanted} copies wanted"
            )))
        }
    };
    until("four witnesses and three mirrors", LIMIT, wanted).await?;
    let (mut signed, mut cosigned, mut copied) = (Vec::new(), Vec::new(), Vec::new());
    let begun = now();
    for _sample in 0..samples {
        tokio::time::sleep(PAUSE).await;
        let body = json!({ "message": "x" });
        let api = node.api()?;
        api.ok("POST", "/api/agents/worker/message", Some(&body))
            .await?;
        let answered = now();
        let recent = api.get("/api/audit/recent?n=1").await?;
        let total = recent["total"].as_u64().unwrap_or(u64::MAX);
        for (times, which) in [(&mut signed, 0), (&mut cosigned, 1), (&mut copied, 2)] {
            loop {
                let (sizes, ..) = states(node)
                    .await
                    .map_err(|NotYet(why)| BenchError::Wrong(why))?;
                if sizes[which] >= total {
                    break;
                }
            }
            times.push(answered.elapsed());
        }
    }
    let wall = begun.elapsed();
    for node in &mut nodes {
        node.stop().await?;
    }
    let figure = |times| Samples::new(times, wall).to_json();
    Ok(json!({
        "entry_to_signed_head": figure(signed),
        "entry_to_cosigned_3_of_4": figure(cosigned),
        "entry_to_copied_3": figure(copied),
    }))
}

/// Returns up to which size the log is signed, cosigned and copied; how many must cosign, and how many
/// copies there should be.
async fn states(node: &Node) -> Result<([u64; 3], u64, u64), NotYet> {
    let api = node.api().map_err(NotYet::saw)?;
    let witnesses = api.get("/api/audit/witnesses").await.map_err(NotYet::saw)?;
    let mirrors = api.get("/api/audit/mirrors").await.map_err(NotYet::saw)?;
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let sizes = [
        number(&witnesses["size"]),
        number(&witnesses["complete"]["size"]),
        number(&mirrors["replicated"]),
    ];
    let there = mirrors["mirrors"].as_array().map_or(0, Vec::len) as u64;
    Ok((
        sizes,
        number(&witnesses["needed"]),
        number(&mirrors["wanted"]).min(there),
    ))
}

/// Fills the log of a node, has it copied by another, wipes it, and waits for it to be back.
async fn restore(place: (&Program, &Path, &str), entries: usize) -> Result<Value, BenchError> {
    let mut node = create(place, "bench-large".to_owned()).await?;
    let mut mirror = create(place, "bench-mirror".to_owned()).await?;
    let home = node.home().to_owned();
    let filled = tokio::task::spawn_blocking(move || fill(&home, entries)).await;
    filled.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    node.start().await?;
    mirror.start().await?;
    let copying = now();
    let ticket = mirror.cli(&["ticket"]).await?;
    node.cli(&["join", ticket.trim()]).await?;
    until("the log to be copied", LIMIT, || is_copied(&node)).await?;
    let copied = copying.elapsed();
    let size = total(&node).await?;
    node.kill().await?;
    let kept = place.1.join("kept.d");
    let log = node.home().join("audit.d");
    std::fs::rename(&log, &kept)?;
    std::fs::rename(node.audit_log(), place.1.join("kept.jsonl"))?;
    let begun = now();
    node.start().await?;
    until("the log to be back", LIMIT, || is_back(&node, size)).await?;
    let took = begun.elapsed();
    let bytes = same_begin(&place.1.join("kept.jsonl"), &kept, &node)?;
    let verify = node.try_cli(&["audit", "verify", "--json"]).await?;
    node.stop().await?;
    mirror.stop().await?;
    Ok(json!({
        "entries": size,
        "bytes": bytes,
        "copied_ms": copied.as_millis(),
        "start_to_restored_ms": took.as_millis(),
        "verify_exit": verify.code(),
    }))
}

fn fill(home: &Path, entries: usize) -> Result<(), BenchError> {
    let seed = openfang_node::keys::load(&home.join("node.key"));
    let seed = seed.map_err(|why| BenchError::Wrong(why.to_string()))?;
    let log = open(home, &seed.keys())?;
    append_from(&log, CALLERS, entries)?;
    log.close()
        .map_err(|why| BenchError::Wrong(why.to_string()))
}

async fn total(node: &Node) -> Result<u64, BenchError> {
    let recent = node.api()?.get("/api/audit/recent?n=1").await?;
    Ok(recent["total"].as_u64().unwrap_or_default())
}

async fn is_copied(node: &Node) -> Result<(), NotYet> {
    let api = node.api().map_err(NotYet::saw)?;
    let recent = api
        .get("/api/audit/recent?n=1")
        .await
        .map_err(NotYet::saw)?;
    let mirrors = api.get("/api/audit/mirrors").await.map_err(NotYet::saw)?;
    let size = mirrors["mirrors"][0]["size"].as_u64();
    if size.is_some() && size >= recent["total"].as_u64() {
        Ok(())
    } else {
        Err(NotYet::saw(mirrors))
    }
}

async fn is_back(node: &Node, size: u64) -> Result<(), NotYet> {
    let api = node.api().map_err(NotYet::saw)?;
    let witnesses = api.get("/api/audit/witnesses").await.map_err(NotYet::saw)?;
    if witnesses["signing"]["state"] == "free" && witnesses["size"].as_u64() >= Some(size) {
        Ok(())
    } else {
        Err(NotYet::saw(witnesses))
    }
}

/// Compares the lines from before with those of now; returns how many bytes are the same.
fn same_begin(active: &Path, kept: &Path, node: &Node) -> Result<usize, BenchError> {
    let before = all_lines(active, &kept.join("seg"))?;
    let now = all_lines(&node.audit_log(), &node.home().join("audit.d/seg"))?;
    if now.starts_with(&before) {
        return Ok(before.len());
    }
    Err(BenchError::Wrong(
        "the restored log is another one".to_owned(),
    ))
}

fn all_lines(active: &Path, segments: &Path) -> Result<Vec<u8>, BenchError> {
    let mut paths = Vec::new();
    if segments.is_dir() {
        for entry in std::fs::read_dir(segments)? {
            paths.push(entry?.path());
        }
    }
    paths.sort();
    paths.push(active.to_owned());
    let mut lines = Vec::new();
    for path in paths {
        lines.extend(std::fs::read(path)?);
    }
    Ok(lines)
}
