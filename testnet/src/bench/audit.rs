//! Durable appends to the audit log, beside the same bytes written and flushed by a bare loop, and
//! a verification of what was written.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use openfang_audit::verify::Verdict;
use openfang_audit::{AppendError, Clock, Event, Log, Message, Options, Outcome, Seq};
use openfang_id::{AgentId, Keys, NodeSeed};
use serde_json::{Value, json};

use super::BenchError;
use super::raw_disk::append_and_flush;
use super::stats::{Samples, now};

/// How many callers there are in each figure.
const CALLERS: [usize; 3] = [1, 256, 4_096];
/// Entries of a run with many callers.
const ENTRIES_MAX: usize = 200_000;

/// Measures appends with one and many callers, and verification.
pub(super) async fn measure(rounds: usize) -> Result<Value, BenchError> {
    tokio::task::spawn_blocking(move || measure_blocking(rounds))
        .await
        .unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

fn measure_blocking(rounds: usize) -> Result<Value, BenchError> {
    let mut figures = json!({});
    for callers in CALLERS {
        let folder = tempfile::tempdir()?;
        let keys = NodeSeed::from_bytes([3; 32]).keys();
        let log = open(folder.path(), &keys)?;
        let total = (callers * rounds / 4).clamp(rounds / 8, ENTRIES_MAX);
        let samples = append_from(&log, callers, total)?;
        log.close()
            .map_err(|why| BenchError::Wrong(why.to_string()))?;
        let bytes = std::fs::metadata(folder.path().join("audit.jsonl"))?.len();
        let line = usize::try_from(bytes / total as u64).unwrap_or(usize::MAX);
        let flush = append_and_flush(folder.path(), 200, callers, line)?;
        figures[format!("append_{callers}")] = samples.to_json();
        figures[format!("raw_fdatasync_{callers}_lines")] = flush.to_json();
        #[expect(clippy::cast_precision_loss, reason = "a count of callers")]
        let raw_lines = flush.rate() * callers as f64;
        figures[format!("ratio_rate_{callers}_to_raw")] = json!(samples.rate() / raw_lines);
        figures["line_bytes"] = json!(line);
        if callers > 1 {
            figures[format!("verify_{callers}")] = verify(folder.path(), &keys, bytes)?;
        }
    }
    Ok(figures)
}

/// Opens a log of this node in a folder.
pub(super) fn open(folder: &Path, keys: &Keys) -> Result<Log, BenchError> {
    let options = Options {
        log_path: folder.join("audit.jsonl"),
        dir: folder.join("audit.d"),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: 1,
        epoch: 1,
        held: false,
    };
    Ok(Log::open(options, Arc::new(Wall))?.0)
}

/// Keeps `callers` appends under way until `total` are durable.
pub(super) fn append_from(log: &Log, callers: usize, total: usize) -> Result<Samples, BenchError> {
    let (acked, acks) = sync_channel::<(std::time::Instant, Result<Seq, AppendError>)>(callers);
    let mut times: Vec<Duration> = Vec::with_capacity(total);
    let mut sent = 0;
    let begun = now();
    while times.len() < total {
        while sent < total && sent - times.len() < callers {
            let acked = acked.clone();
            let started = now();
            let ack = Box::new(move |result| {
                if acked.send((started, result)).is_err() {
                    tracing::debug!("the benchmark ended before its last append");
                }
            });
            log.append(event(sent), ack)?;
            sent += 1;
        }
        let (started, result) = acks
            .recv()
            .map_err(|_closed| BenchError::Wrong("no acknowledgement".to_owned()))?;
        result?;
        times.push(started.elapsed());
    }
    Ok(Samples::new(times, begun.elapsed()))
}

/// An entry as a message makes it.
pub(super) fn event(number: usize) -> Event {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Event::message_in(Message {
        agent: AgentId::from_bytes(id),
        peer: "scribe@12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf".into(),
        user: "api:key".into(),
        session: None,
        cause: None,
        outcome: Outcome::Ok,
    })
}

fn verify(folder: &Path, keys: &Keys, bytes: u64) -> Result<Value, BenchError> {
    let log = open(folder, keys)?;
    let started = now();
    let report = log
        .verify()
        .map_err(|why| BenchError::Wrong(why.to_string()))?;
    let took = started.elapsed();
    log.close()
        .map_err(|why| BenchError::Wrong(why.to_string()))?;
    let intact = matches!(report.verdict, Verdict::Intact { .. });
    #[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
    let rate = bytes as f64 / took.as_secs_f64() / 1e6;
    Ok(json!({ "intact": intact, "bytes": bytes, "mb_per_second": rate.round() }))
}

/// The clock of the entries.
#[derive(Debug)]
struct Wall;

impl Clock for Wall {
    #[expect(
        clippy::disallowed_methods,
        reason = "the entries of a benchmark carry real times"
    )]
    fn unix_micros(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
    }

    fn monotonic_micros(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
    }
}
