//! A witness with its state on a disk, asked by many logs at once, beside bare flushes of the same disk.

use std::path::Path;
use std::time::Duration;

use openfang_audit::cosign::{Cosigner, LogName, Role};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::proof::build_consistency;
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::witness::{AddCheckpoint, FileStore, Trust, Witness};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};
use openfang_id::{Keys, NodeSeed};
use serde_json::{Value, json};

use super::BenchError;
use super::raw_disk::append_and_flush;
use super::stats::{Samples, now};

/// How many logs ask, each for one head at a time, as nodes do.
const LOGS: u8 = 50;
/// How many heads each of them has cosigned.
const HEADS: usize = 200;
/// When, in POSIX seconds; it does not matter to the cost.
const TIME: u64 = 1_795_294_798;

/// Measures cosignatures a second, and how long one waits for its answer.
pub(super) fn measure(folder: &Path) -> Result<Value, BenchError> {
    let cosigner = NodeSeed::from_bytes([99; 32]).keys();
    let cosigner = Cosigner::of(&cosigner.node_id(), Role::Witness, cosigner.log);
    let binding = folder.join("witness.bound");
    let dir = folder.join("witness");
    let store = FileStore::open(&dir, &binding, cosigner.public(), "bench")
        .map_err(|why| BenchError::Wrong(why.to_string()))?;
    let witness = Witness::new(cosigner, store);
    let logs: Vec<_> = (0..LOGS)
        .map(|seed| NodeSeed::from_bytes([seed; 32]).keys())
        .collect();
    let leaves: Vec<_> = (0..=HEADS)
        .map(|leaf| leaf_hash(&leaf.to_be_bytes()))
        .collect();
    let rounds: Vec<Vec<Vec<u8>>> = (1..=HEADS)
        .map(|size| requests(&logs, &leaves, size))
        .collect::<Result<_, _>>()?;
    let trusted = |name: &LogName| {
        let key = logs
            .iter()
            .find(|keys| origin(keys).as_str() == name.as_str());
        let key = key.and_then(|keys| Verifier::new(name.as_str(), keys.log.verifying_key()));
        key.map_or(Trust::Unknown, |key| Trust::Keys(vec![key]))
    };
    let mut times: Vec<Duration> = Vec::new();
    let begun = now();
    for round in &rounds {
        let bodies: Vec<&[u8]> = round.iter().map(Vec::as_slice).collect();
        let started = now();
        let answers = witness.add_checkpoints(&bodies, &trusted, TIME);
        times.extend(answers.iter().map(|_each| started.elapsed()));
        if let Some(Err(why)) = answers.into_iter().find(Result::is_err) {
            return Err(BenchError::Wrong(why.body()));
        }
    }
    let cosigned = Samples::new(times, begun.elapsed());
    let flush = append_and_flush(folder, 200, usize::from(LOGS), 600)?;
    Ok(json!({
        "logs": LOGS,
        "cosignatures": cosigned.to_json(),
        "raw_fdatasync_50_notes": flush.to_json(),
    }))
}

fn origin(keys: &Keys) -> Origin {
    Origin::of(&keys.node_id(), 1)
}

/// What each log sends when it has grown by one entry.
fn requests(logs: &[Keys], leaves: &[Hash], size: usize) -> Result<Vec<Vec<u8>>, BenchError> {
    let old = size - 1;
    let proof = match old {
        0 => Vec::new(),
        _ => build_consistency(leaves, old as u64, size as u64)
            .map_err(|why| BenchError::Wrong(format!("{why:?}")))?,
    };
    let root = root_of(&leaves[..size]);
    logs.iter()
        .map(|keys| {
            let checkpoint = Checkpoint {
                origin: origin(keys),
                size: size as u64,
                root,
            };
            let head = SignedHead::sign(checkpoint, &keys.log);
            let note: Note = head
                .note
                .parse()
                .map_err(|why| BenchError::Wrong(format!("{why}")))?;
            let request = AddCheckpoint::new(old as u64, proof.clone(), note);
            let request = request.map_err(|why| BenchError::Wrong(why.to_string()))?;
            Ok(request.to_string().into_bytes())
        })
        .collect()
}
