//! How long a node takes to answer, and what it uses while it has nothing to do.

use serde_json::{Value, json};

use super::BenchError;
use super::stats::Samples;
use crate::cluster::{Node, Program, Setup};

/// Starts are slow beside calls: a fraction of the rounds is enough for a median.
const ROUNDS_PER_START: usize = 100;
/// Let the allocator and the mesh settle before memory is read.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// Starts and stops a node with the mesh on, again and again.
pub(super) async fn measure(rounds: usize) -> Result<Value, BenchError> {
    let program = Program::this()?;
    let folder = tempfile::tempdir()?;
    let secret = program
        .run(folder.path(), &["keygen", "--network"])
        .await
        .map_err(crate::cluster::NodeError::from)?;
    let setup = Setup {
        name: "bench".to_owned(),
        secret: Some(secret.stdout.trim().to_owned()),
        ..Setup::default()
    };
    let mut node = Node::create(&program, folder.path(), &setup).await?;
    let mut times = Vec::new();
    for _ in 0..(rounds / ROUNDS_PER_START).max(5) {
        times.push(node.start().await?);
        node.stop().await?;
    }
    let wall = times.iter().sum();
    node.start().await?;
    tokio::time::sleep(SETTLE).await;
    let resident = resident_kib(node.pid())?;
    let binary = std::fs::metadata(std::env::current_exe()?)?.len();
    node.stop().await?;
    Ok(json!({
        "start_to_health": Samples::new(times, wall).to_json(),
        "idle_resident_mib": resident / 1024,
        "program_mib": binary / (1024 * 1024),
    }))
}

/// Reads the resident memory of a process (`proc(5)`, `status`).
fn resident_kib(pid: Option<u32>) -> Result<u64, BenchError> {
    let pid = pid.ok_or_else(|| BenchError::Wrong("the node has no process id".to_owned()))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok());
    number.ok_or_else(|| BenchError::Wrong("no VmRSS in the status of the process".to_owned()))
}
