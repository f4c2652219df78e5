//! Logs of more than one segment: sealing, starting without reading what is sealed, and damage there.

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use common::{
    Fault, Memory, Op, TestClock, append, event, log_key, options, origin, root_of_lines,
};
use openfang_audit::proof::{Nodes as _, verify_inclusion};
use openfang_audit::storage::SEGMENT_LINES;
use openfang_audit::tile::{TileSource as _, parse_tile};
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::verify::{DamageKind, Verdict, verify_files};
use openfang_audit::{AppendError, Health, Log, ProveError, Seq, ServeError};

/// Appends entries, a batch at a time, and waits for each batch.
fn fill(log: &Log, numbers: std::ops::Range<u64>) {
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + 4_096);
        let (sender, receiver) = sync_channel(4_096);
        for number in next..end {
            let sender = sender.clone();
            let ack = move |result| sender.send(result).expect("the test waits");
            log.append(event(number), Box::new(ack)).expect("queued");
        }
        drop(sender);
        let answers: Vec<_> = receiver.iter().collect();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        next = end;
    }
}

/// A disk with a closed log of so many entries.
fn disk_of(entries: u64) -> Memory {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("opened");
    fill(&log, 0..entries);
    log.close().expect("closed");
    disk
}

/// Puts a file in the place of another at once: the log looks at it at any time.
fn put(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

#[test]
fn a_start_reads_no_sealed_line() {
    let disk = disk_of(2 * SEGMENT_LINES + 300);
    let whole = disk.disk().log.len();
    let sealed = disk.disk().segments.last().expect("two segments").0;
    assert_eq!(disk.disk().segments.len(), 2);
    let root = root_of_lines(&disk.disk().log, 2 * SEGMENT_LINES + 300);
    disk.disk().read = 0;
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    assert_eq!(opened.size, 2 * SEGMENT_LINES + 300);
    assert_eq!(opened.head.map(|head| head.checkpoint.root), root);
    let read = disk.disk().read;
    assert!(
        read < 2 * (whole - sealed),
        "{read} of {whole} bytes were read"
    );
    assert!(!opened.hashes_rebuilt);
    let proof = log
        .consistency(1_000, opened.size)
        .expect("proved from the blocks");
    assert!(!proof.is_empty());
    append(&log, event(9)).expect("it goes on");
    log.close().expect("closed");
}

#[test]
fn a_start_at_the_edge_of_a_segment_goes_on_with_the_clock() {
    let disk = disk_of(SEGMENT_LINES);
    assert!(disk.disk().segments.is_empty(), "sealed with the next line");
    // Sealed, and then the power went.
    let end = disk.disk().log.len();
    disk.disk().segments.push((end, SEGMENT_LINES));
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    assert_eq!(opened.size, SEGMENT_LINES);
    append(&log, event(2)).expect("appended");
    log.close().expect("closed");
    let text = disk.disk().log.clone();
    let last: Vec<_> = text
        .split(|byte| *byte == b'\n')
        .rev()
        .skip(1)
        .take(2)
        .collect();
    let hybrids: Vec<_> = last
        .iter()
        .map(|line| openfang_audit::Line::parse(line).expect("a line").hlc)
        .collect();
    assert!(hybrids[1] < hybrids[0], "it never goes back");
}

#[test]
fn entries_and_proofs_come_from_any_segment() {
    let size = SEGMENT_LINES + 700;
    let disk = disk_of(size);
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    let root = opened.head.expect("signed").checkpoint.root;
    let view = log.tiles();
    let text = disk.disk().log.clone();
    let all: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    for (from, to) in [
        (0, 1),
        (0, 256),
        (250, 260),
        (SEGMENT_LINES - 3, SEGMENT_LINES + 5),
        (SEGMENT_LINES, SEGMENT_LINES + 256),
        (size - 1, size),
    ] {
        let entries = view.entries(from, to).expect("there");
        let at = |seq: u64| usize::try_from(seq).expect("small");
        assert!(
            entries.iter().eq(all[at(from)..at(to)].iter().copied()),
            "{from}..{to}"
        );
        let leaf = leaf_hash(all[at(from)]);
        let path = log.inclusion(from, size).expect("proved");
        assert_eq!(verify_inclusion(from, size, &leaf, &path, &root), Ok(()));
        assert_eq!(view.node(0, from).expect("there"), leaf);
    }
    let first = "tile/1/000".parse().expect("a path");
    let tile = view.tile(&first).expect("readable").expect("a full tile");
    let hashes = parse_tile(&tile, 256).expect("hashes");
    assert_eq!(root_of(&hashes), view.node(16, 0).expect("its root"));
    for (from, to) in [(0, 257), (5, 5), (size, size + 1)] {
        assert!(
            matches!(view.entries(from, to), Err(ServeError::Range)),
            "{from}..{to}"
        );
    }
    assert!(matches!(log.inclusion(5, 5), Err(ProveError::Range)));
    // A line that is not what its hash says is not given away.
    let at = text.iter().position(|byte| *byte == b'\n').expect("a line") + 30;
    disk.disk().log[at] ^= 1;
    let damaged = view.entries(0, 3).map(drop);
    assert!(
        matches!(damaged, Err(ServeError::Damaged { first_seq: 1 })),
        "{damaged:?}"
    );
    disk.disk().log[at] ^= 1;
    log.close().expect("closed");
}

#[test]
fn a_log_that_was_restored_as_one_file_is_sealed_as_it_goes_on() {
    let disk = disk_of(2 * SEGMENT_LINES + 300);
    disk.disk().segments.clear();
    disk.disk().blocks.clear();
    let size = 2 * SEGMENT_LINES + 300;
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    assert_eq!(opened.size, size);
    fill(&log, size..size + 500);
    log.close().expect("closed");
    let sealed = disk.disk().segments.clone();
    assert_eq!(sealed.len(), 1, "{sealed:?}");
    assert_eq!(
        sealed[0].1,
        2 * SEGMENT_LINES + 512,
        "at the end of a block"
    );
    disk.disk().read = 0;
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    assert_eq!(opened.size, size + 500);
    assert!(disk.disk().read < 1 << 20, "what is sealed is not read");
    assert!(matches!(
        log.verify().expect("read").verdict,
        Verdict::Intact { .. }
    ));
    log.close().expect("closed");
}

#[test]
fn wrong_blocks_are_noticed_and_made_again() {
    let disk = disk_of(SEGMENT_LINES + 10);
    for spoil in [0, 31, 32, 39, 40 * 200 + 3] {
        disk.disk().blocks[spoil] ^= 1;
        let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
        assert_eq!(opened.size, SEGMENT_LINES + 10, "byte {spoil}");
        assert!(matches!(
            log.verify().expect("read").verdict,
            Verdict::Intact { .. }
        ));
        log.close().expect("closed");
    }
    let good = disk.disk().blocks.clone();
    disk.disk().blocks.truncate(100);
    let (log, opened) = disk.open(TestClock::frozen()).expect("opened");
    assert_eq!(opened.size, SEGMENT_LINES + 10);
    log.close().expect("closed");
    assert!(disk.disk().blocks == good, "they are as they were");
}

#[test]
fn a_power_cut_around_the_edge_of_a_segment_loses_nothing() {
    let near = disk_of(SEGMENT_LINES - 2);
    let steps = {
        let whole = near.after_power_cut(usize::MAX / 2);
        let (log, _) = whole.open(TestClock::fast()).expect("opened");
        for number in 0..5 {
            append(&log, event(number)).expect("appended");
        }
        log.close().expect("closed");
        assert!(whole.disk().ops.contains(&Op::Seal));
        whole.disk().ops.len()
    };
    for at in 0..=steps {
        let disk = near.after_power_cut(usize::MAX / 2);
        disk.disk().at = Some((at, Fault::PowerCut));
        let mut acknowledged = SEGMENT_LINES - 2;
        if let Ok((log, _)) = disk.open(TestClock::fast()) {
            for number in 0..5 {
                if let Ok(seq) = append(&log, event(number)) {
                    acknowledged = seq.0 + 1;
                }
            }
            let _closed_or_cut = log.close();
        }
        let left = disk.not_durable();
        let after = disk.after_power_cut(left);
        let (log, opened) = after.open(TestClock::fast()).expect("opened");
        assert!(opened.size >= acknowledged, "power cut at step {at}");
        for number in 5..10 {
            append(&log, event(number)).expect("it goes on");
        }
        let report = log.verify().expect("read");
        assert!(
            matches!(report.verdict, Verdict::Intact { .. }),
            "step {at}: {report:?}"
        );
        log.close().expect("closed");
        assert!(after.disk().segments.len() == 1, "step {at}");
    }
}

#[test]
fn a_segment_that_cannot_be_sealed_stops_nothing_for_good() {
    let disk = disk_of(SEGMENT_LINES);
    let (log, _) = disk.open(TestClock::frozen()).expect("opened");
    disk.disk().always = Some((Op::Seal, ErrorKind::StorageFull));
    let refused = AppendError::Disk {
        kind: ErrorKind::StorageFull,
    };
    assert_eq!(append(&log, event(1)), Err(refused));
    assert_eq!(append(&log, event(2)), Err(refused));
    disk.disk().always = None;
    assert_eq!(append(&log, event(3)), Ok(Seq(SEGMENT_LINES)));
    assert!(matches!(
        log.verify().expect("read").verdict,
        Verdict::Intact { .. }
    ));
    log.close().expect("closed");
}

#[test]
fn segments_are_files_and_what_is_done_to_them_is_found() {
    let root = tempfile::TempDir::new().expect("a folder");
    let options = options(root.path());
    let open = || Log::open(options.clone(), TestClock::fast());
    let verify = || {
        verify_files(&options.log_path, &options.dir, &log_key(), &origin())
            .expect("readable")
            .verdict
    };
    let (log, _) = open().expect("opened");
    fill(&log, 0..SEGMENT_LINES + 20);
    assert!(matches!(verify(), Verdict::Intact { entries, .. } if entries == SEGMENT_LINES + 20));
    log.close().expect("closed");
    let segment = options.dir.join("seg/000000000000-000000065536.jsonl");
    let good = std::fs::read(&segment).expect("a sealed segment");
    assert_eq!(
        good.iter().filter(|byte| **byte == b'\n').count() as u64,
        SEGMENT_LINES
    );

    let mut altered = good.clone();
    let at = 300 * 1_000;
    altered[at] = if altered[at] == b'x' { b'y' } else { b'x' };
    let line = good[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
    put(&segment, &altered);
    let tampered = Verdict::Tampered {
        first_bad_seq: Some(line),
        kind: DamageKind::Altered,
    };
    assert_eq!(verify(), tampered);
    // A start does not read what is sealed; the log finds it soon after.
    let damaged = Health::Damaged {
        first_bad_seq: Some(line),
    };
    let (log, _) = open().expect("opened");
    append(&log, event(1)).expect("appended");
    for _look in 0..3_000 {
        if log.health() == damaged {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(log.health(), damaged);
    log.close().expect("closed");

    put(&segment, &good);
    let (log, _) = open().expect("opened");
    append(&log, event(2)).expect("appended");
    // While it runs, a touched segment is noticed before anything is proved.
    put(&segment, &altered);
    assert!(log.consistency(1, 100).is_err());
    assert_eq!(
        log.health(),
        Health::Damaged {
            first_bad_seq: Some(line)
        }
    );
    put(&segment, &good);
    assert!(log.consistency(1, 100).is_ok());
    assert_eq!(log.health(), Health::Ok);
    log.close().expect("closed");

    std::fs::remove_file(&segment).expect("removed");
    let removed = Verdict::Tampered {
        first_bad_seq: Some(0),
        kind: DamageKind::Removed,
    };
    assert_eq!(verify(), removed);
    assert!(open().is_err(), "a log without its beginning is not opened");
}
