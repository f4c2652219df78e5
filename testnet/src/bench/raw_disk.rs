//! The peer of the audit benchmark: the same bytes, appended to a file and flushed, by a loop that
//! does nothing else.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::stats::{Samples, now};

/// Appends `rounds` batches of `batch` lines of `line_bytes` and flushes each with fdatasync. The
/// samples are one per batch.
pub(super) fn append_and_flush(
    folder: &Path,
    rounds: usize,
    batch: usize,
    line_bytes: usize,
) -> std::io::Result<Samples> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("raw"))?;
    let block = vec![b'x'; batch * line_bytes];
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    let begun = now();
    for _ in 0..rounds {
        let started = now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(Samples::new(times, begun.elapsed()))
}
