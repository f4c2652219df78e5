//! Proofs from an open log, and their checks, beside a bare hash and a bare signature.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use openfang_audit::policy::Policy;
use openfang_audit::proof::verify_inclusion;
use openfang_audit::tlog_proof::{self, Verdict, prove_entry};
use openfang_audit::tree::node_hash;
use openfang_audit::verify::Source;
use openfang_audit::{Hash, SignedHead};
use openfang_id::Keys;
use serde_json::{Value, json};

use super::BenchError;
use super::audit::open;
use super::stats::{Samples, now};

/// Spreads the entries that are proved over the log: a prime.
const STRIDE: u64 = 7_919;

/// Measures inclusion and consistency proofs of the log in a folder, and their checks.
pub(super) fn measure(folder: &Path, keys: &Keys, rounds: usize) -> Result<Value, BenchError> {
    let log = open(folder, keys)?;
    let head = log.head().ok_or_else(|| wrong("the log has no head"))?;
    let (size, root) = (head.checkpoint.size, head.checkpoint.root);
    let leaves = std::fs::read(folder.join("audit.d/hashes.0"))?;
    let leaves: Vec<Hash> = leaves
        .as_chunks()
        .0
        .iter()
        .map(|leaf| Hash::from_bytes(*leaf))
        .collect();
    let seqs: Vec<u64> = (0..rounds as u64).map(|at| at * STRIDE % size).collect();

    let mut proofs = Vec::with_capacity(rounds);
    let made = timed(&seqs, |seq| {
        proofs.push(log.inclusion(*seq, size).map_err(wrong)?);
        Ok(())
    })?;
    let proved: Vec<_> = seqs.iter().zip(&proofs).collect();
    let checked = timed(&proved, |(seq, proof)| {
        let at = usize::try_from(**seq).map_err(wrong)?;
        verify_inclusion(**seq, size, &leaves[at], proof, &root).map_err(wrong)
    })?;
    let grown = timed(&seqs, |seq| {
        log.consistency(seq + 1, size).map(drop).map_err(wrong)
    })?;
    let files = check_files(folder, keys, (&head, rounds))?;
    let hashes = timed(&seqs, |_seq| {
        std::hint::black_box(node_hash(&root, std::hint::black_box(&root)));
        Ok(())
    })?;
    let key = keys.log.verifying_key();
    let signatures = timed(&seqs, |_seq| {
        let opened = SignedHead::open(&head.note, &head.checkpoint.origin, &key);
        opened.map(drop).map_err(wrong)
    })?;
    log.close().map_err(wrong)?;
    Ok(json!({
        "entries": size,
        "inclusion_made": nanos(&made),
        "inclusion_checked": nanos(&checked),
        "consistency_made": nanos(&grown),
        "file_checked": nanos(&files),
        "raw_node_hash": nanos(&hashes),
        "raw_signed_head_checked": nanos(&signatures),
    }))
}

/// The check of a proof file: inclusion, and the signature of the head.
fn check_files(
    folder: &Path,
    keys: &Keys,
    (head, rounds): (&SignedHead, usize),
) -> Result<Samples, BenchError> {
    let key = keys.log.verifying_key();
    let origin = &head.checkpoint.origin;
    let source = Source {
        log_path: &folder.join("audit.jsonl"),
        dir: &folder.join("audit.d"),
        key: &key,
        origin,
    };
    let proved = prove_entry(source, head, head.checkpoint.size / 3, &mut |_at| {});
    let proved = proved.map_err(wrong)?;
    let file = proved.proof.to_string();
    let policy = Policy::of_log(origin, key, &[], 0).map_err(wrong)?;
    timed(&vec![(); rounds], |()| {
        match tlog_proof::check(file.as_bytes(), &proved.line, &policy).map_err(wrong)? {
            Verdict::Proven(_) => Ok(()),
            Verdict::BelowQuorum(_) => Err(wrong("a proof without witnesses needs none")),
        }
    })
}

/// Does something with each item, and takes the time of each.
fn timed<T>(
    items: &[T],
    mut what: impl FnMut(&T) -> Result<(), BenchError>,
) -> Result<Samples, BenchError> {
    let mut times: Vec<Duration> = Vec::with_capacity(items.len());
    let begun = now();
    for item in items {
        let started = now();
        what(item)?;
        times.push(started.elapsed());
    }
    Ok(Samples::new(times, begun.elapsed()))
}

/// What takes less than a microsecond is told in nanoseconds.
fn nanos(samples: &Samples) -> Value {
    json!({
        "p50_ns": samples.quantile(0.5).as_nanos(),
        "p99_ns": samples.quantile(0.99).as_nanos(),
    })
}

fn wrong(why: impl Display) -> BenchError {
    BenchError::Wrong(why.to_string())
}
