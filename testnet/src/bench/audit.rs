//! Durable appends to the audit log, beside the same bytes written and flushed by a bare loop; a
//! verification of what was written, proofs of it, and a witness.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use openfang_audit::verify::{Verdict, verify_files};
use openfang_audit::{
    AppendError, Clock, Event, Flush, Log, Message, Options, Origin, Outcome, Seq,
};
use openfang_id::{AgentId, Keys, NodeSeed};
use serde_json::{Value, json};

use super::BenchError;
use super::raw_disk::append_and_flush;
use super::stats::{Samples, now};
use super::{cosign, proofs};

/// How many callers there are in each figure.
const CALLERS: [usize; 3] = [1, 256, CALLERS_MOST];
const CALLERS_MOST: usize = 4_096;
/// How long an entry may wait for the disk in the mode `interval`.
const INTERVAL: Duration = Duration::from_millis(100);
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
        let bytes = bytes_of(folder.path())?;
        let line = usize::try_from(bytes / total as u64).unwrap_or(usize::MAX);
        let flush = append_and_flush(folder.path(), 200, callers, line)?;
        figures[format!("append_{callers}")] = samples.to_json();
        figures[format!("raw_fdatasync_{callers}_lines")] = flush.to_json();
        #[expect(clippy::cast_precision_loss, reason = "a count of callers")]
        let raw_lines = flush.rate() * callers as f64;
        figures[format!("ratio_rate_{callers}_to_raw")] = json!(samples.rate() / raw_lines);
        figures["line_bytes"] = json!(line);
        if callers == 1 {
            figures["append_1_interval"] = interval(folder.path(), &keys, total)?.to_json();
        } else {
            figures[format!("verify_{callers}")] = verify(folder.path(), &keys, bytes)?;
        }
        if callers == CALLERS_MOST {
            figures["proofs"] = proofs::measure(folder.path(), &keys, rounds)?;
        }
    }
    let folder = tempfile::tempdir()?;
    figures["witness"] = cosign::measure(folder.path())?;
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
    append_with(log, Flush::AtOnce, (callers, total))
}

/// The appends of one caller whose entries may wait for the disk.
fn interval(folder: &Path, keys: &Keys, total: usize) -> Result<Samples, BenchError> {
    let log = open(folder, keys)?;
    let samples = append_with(&log, Flush::Within(INTERVAL), (1, total))?;
    log.close()
        .map_err(|why| BenchError::Wrong(why.to_string()))?;
    Ok(samples)
}

fn append_with(
    log: &Log,
    flush: Flush,
    (callers, total): (usize, usize),
) -> Result<Samples, BenchError> {
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
            log.append_with(event(sent), flush, ack)?;
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

/// How many bytes of lines there are, in sealed segments and in the file that is written to.
fn bytes_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = std::fs::metadata(folder.join("audit.jsonl"))?.len();
    let segments = folder.join("audit.d/seg");
    if segments.try_exists()? {
        for segment in std::fs::read_dir(segments)? {
            bytes += segment?.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn verify(folder: &Path, keys: &Keys, bytes: u64) -> Result<Value, BenchError> {
    let origin = Origin::of(&keys.node_id(), 1);
    let (log_path, dir) = (folder.join("audit.jsonl"), folder.join("audit.d"));
    let key = keys.log.verifying_key();
    let pass = || {
        let report = verify_files(&log_path, &dir, &key, &origin);
        report.is_ok_and(|report| matches!(report.verdict, Verdict::Intact { .. }))
    };
    let started = now();
    let alone = pass();
    let one = started.elapsed();
    // Two logs at once, as a node does that checks its own and a copy.
    let started = now();
    let both = std::thread::scope(|scope| {
        let other = scope.spawn(pass);
        pass() && other.join().unwrap_or(false)
    });
    let two = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "a size in bytes")]
    let rate = |bytes: u64, took: Duration| (bytes as f64 / took.as_secs_f64() / 1e6).round();
    Ok(json!({
        "intact": alone && both,
        "bytes": bytes,
        "mb_per_second_one_core": rate(bytes, one),
        "mb_per_second_two_cores": rate(2 * bytes, two),
    }))
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
