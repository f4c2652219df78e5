//! The log on a disk that fails: no acknowledged entry is lost, and no head contradicts another.

mod common;

use std::io::ErrorKind;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use common::{
    Fault, Memory, Op, TestClock, append, event, eventually, log_key, origin, root_of_lines,
};
use openfang_audit::storage::{FsStorage, RESERVE_BYTES, Storage as _};
use openfang_audit::{
    AppendError, Cause, Checkpoint, CloseError, Event, Health, Log, Outcome, Poison, Seq,
    SignedHead,
};

/// Everything that was shown to the outside.
#[derive(Debug, Clone, Default)]
struct Shown {
    heads: Arc<Mutex<Vec<SignedHead>>>,
}

impl Shown {
    fn watch(&self, log: &Log) {
        let heads = Arc::clone(&self.heads);
        let note = move |head| heads.lock().expect("heads").push(head);
        note_head(log.head(), &note);
        log.on_head(Box::new(note));
    }

    fn heads(&self) -> Vec<Checkpoint> {
        let heads = self.heads.lock().expect("heads");
        heads.iter().map(|head| head.checkpoint.clone()).collect()
    }

    /// Every head that was ever shown must be a beginning of the log.
    fn assert_consistent(&self, text: &[u8], context: &str) {
        for head in self.heads.lock().expect("heads").iter() {
            let opened = SignedHead::open(&head.note, &origin(), &log_key());
            assert_eq!(opened.as_ref(), Ok(head), "{context}");
            let Checkpoint { size, root, .. } = head.checkpoint;
            assert_eq!(
                root_of_lines(text, size),
                Some(root),
                "{context}: size {size}"
            );
        }
    }
}

fn note_head(head: Option<SignedHead>, note: &impl Fn(SignedHead)) {
    if let Some(head) = head {
        note(head);
    }
}

/// Opens, appends, closes; returns the numbers of the entries that were acknowledged.
fn run(disk: &Memory, shown: &Shown, entries: std::ops::Range<u64>) -> Vec<(Seq, u64)> {
    let Ok((log, _opened)) = disk.open(TestClock::fast()) else {
        return Vec::new();
    };
    shown.watch(&log);
    let mut acknowledged = Vec::new();
    for number in entries {
        if let Ok(seq) = append(&log, event(number)) {
            acknowledged.push((seq, number));
        }
    }
    note_head(log.head(), &|head| {
        shown.heads.lock().expect("heads").push(head)
    });
    match log.close() {
        Ok(()) | Err(CloseError::Poisoned { .. } | CloseError::Head { .. }) => {}
        Err(CloseError::Writer) => panic!("the writer panicked"),
    }
    acknowledged
}

fn assert_holds(disk: &Memory, acknowledged: &[(Seq, u64)], context: &str) {
    let text = disk.disk().log.clone();
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    for (seq, number) in acknowledged {
        let at = usize::try_from(seq.0).expect("small");
        let line = String::from_utf8_lossy(lines[at]);
        let wanted = format!("\"seq\":{seq},\"target\":\"key.{number}\"");
        assert!(line.contains(&wanted), "{context}: {seq} is {line}");
    }
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged() {
    let whole = Memory::default();
    run(&whole, &Shown::default(), 0..6);
    let steps = whole.disk().ops.len();
    assert!(steps > 20, "{steps} steps");
    let mut recoveries = 0;
    for at in 0..=steps {
        for left in [0, 1, 37, usize::MAX / 2] {
            let context = format!("power cut at step {at}, {left} bytes left");
            let disk = Memory::default();
            disk.disk().at = Some((at, Fault::PowerCut));
            let shown = Shown::default();
            let mut acknowledged = run(&disk, &shown, 0..6);

            let after = disk.after_power_cut(left.min(disk.not_durable()));
            let (log, opened) = after.open(TestClock::fast()).expect(&context);
            shown.watch(&log);
            recoveries += opened.recovered.len();
            assert_holds(&after, &acknowledged, &context);
            for number in 6..9 {
                acknowledged.push((append(&log, event(number)).expect(&context), number));
            }
            let report = log.verify().expect(&context);
            assert!(
                matches!(
                    report.verdict,
                    openfang_audit::verify::Verdict::Intact { .. }
                ),
                "{context}: {report:?}"
            );
            log.close().expect(&context);
            assert_holds(&after, &acknowledged, &context);
            shown.assert_consistent(&after.disk().log, &context);
            assert!(after.disk().pending.is_empty(), "{context}");
        }
    }
    assert!(recoveries > 0, "some power cuts must leave a torn line");
}

#[test]
fn a_power_cut_during_recovery_is_recovered_from() {
    let disk = Memory::default();
    run(&disk, &Shown::default(), 0..3);
    disk.disk().log.extend_from_slice(b"{\"boot\":\"00");
    let torn = disk.after_power_cut(usize::MAX / 2);
    let steps = {
        let whole = torn.after_power_cut(usize::MAX / 2);
        run(&whole, &Shown::default(), 3..4);
        whole.disk().ops.len()
    };
    for at in 0..=steps {
        let context = format!("power cut at step {at}");
        let disk = torn.after_power_cut(usize::MAX / 2);
        disk.disk().at = Some((at, Fault::PowerCut));
        let shown = Shown::default();
        let acknowledged = run(&disk, &shown, 3..4);
        let after = disk.after_power_cut(0);
        let (log, _opened) = after.open(TestClock::fast()).expect(&context);
        append(&log, event(9)).expect(&context);
        log.close().expect(&context);
        assert_holds(&after, &acknowledged, &context);
        shown.assert_consistent(&after.disk().log, &context);
        let text = String::from_utf8(after.disk().log.clone()).expect("text");
        assert!(text.contains("\"ev\":\"log_recovered\""), "{context}");
        let kept = after.disk().settled.clone();
        assert_eq!(kept.len(), 1, "{context}");
        assert!(
            kept.values().all(|bytes| bytes == b"{\"boot\":\"00"),
            "{context}"
        );
    }
}

#[test]
fn any_single_failure_is_answered_and_survived() {
    let whole = Memory::default();
    run(&whole, &Shown::default(), 0..6);
    let steps = whole.disk().ops.len();
    for at in 0..steps {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let context = format!("{kind} at step {at}");
            let disk = Memory::default();
            disk.disk().at = Some((at, Fault::Fails(kind)));
            let shown = Shown::default();
            let mut acknowledged = run(&disk, &shown, 0..6);
            let failed = disk.disk().ops.get(at).copied();
            if at == 0 {
                assert!(acknowledged.is_empty(), "{context}: there is no floor");
            } else if failed != Some(Op::SyncLog) {
                assert!(acknowledged.len() >= 5, "{context}: {failed:?}");
            }
            let after = disk.after_power_cut(0);
            acknowledged.extend(run(&after, &shown, 6..8));
            assert_holds(&after, &acknowledged, &context);
            shown.assert_consistent(&after.disk().log, &context);
        }
    }
}

#[test]
fn short_writes_are_continued() {
    let disk = Memory::default();
    disk.disk().write_max = Some(7);
    let shown = Shown::default();
    let acknowledged = run(&disk, &shown, 0..5);
    assert_eq!(acknowledged.len(), 5);
    assert_holds(&disk, &acknowledged, "short writes");
    shown.assert_consistent(&disk.disk().log, "short writes");
    let last = shown.heads().last().map(|head| head.size);
    assert_eq!(last, Some(5));
}

#[test]
fn a_full_disk_refuses_and_the_log_stays_usable() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::fast()).expect("a log");
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    let before = disk.disk().log.len();
    disk.disk().space = Some(100);
    let full = Err(AppendError::Disk {
        kind: ErrorKind::StorageFull,
    });
    assert_eq!(append(&log, event(1)), full);
    assert_eq!(append(&log, event(2)), full);
    assert_eq!(disk.disk().log.len(), before, "no part of a line is left");
    let kind = ErrorKind::StorageFull;
    assert_eq!(log.health(), Health::Failing { kind });
    disk.disk().space = None;
    assert_eq!(append(&log, event(3)), Ok(Seq(1)));
    log.close().expect("closed");
    assert_holds(
        &disk,
        &[(Seq(0), 0), (Seq(1), 3)],
        "after the disk was full",
    );
}

#[test]
fn a_write_that_cannot_be_undone_stops_the_log() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    disk.disk().space = Some(100);
    disk.disk().always = Some((Op::CutLog, ErrorKind::Other));
    let refused = append(&log, event(1));
    assert_eq!(
        refused,
        Err(AppendError::Disk {
            kind: ErrorKind::StorageFull
        })
    );
    let reason = Poison::Undo(ErrorKind::Other);
    assert_eq!(
        append(&log, event(2)),
        Err(AppendError::Poisoned { reason })
    );
    assert_eq!(log.health(), Health::Poisoned { reason });
    assert_eq!(log.close(), Err(CloseError::Poisoned { reason }));
}

#[test]
fn a_failed_fdatasync_stops_the_log_and_signs_nothing() {
    let disk = Memory::default();
    let shown = Shown::default();
    let (log, _) = disk.open(TestClock::fast()).expect("a log");
    shown.watch(&log);
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    disk.disk().always = Some((Op::SyncLog, ErrorKind::Other));
    let reason = Poison::Sync(ErrorKind::Other);
    let stopped = Err(AppendError::Poisoned { reason });
    assert_eq!(append(&log, event(1)), stopped);
    disk.disk().always = None;
    // A second call would succeed, and would be a lie.
    assert_eq!(append(&log, event(2)), stopped);
    assert_eq!(log.size(), 1);
    // What was refused is not found by the next start, and taken for what was done.
    let lines = disk
        .disk()
        .log
        .iter()
        .filter(|byte| **byte == b'\n')
        .count();
    assert_eq!(lines, 1);
    assert_eq!(log.health(), Health::Poisoned { reason });
    assert_eq!(log.close(), Err(CloseError::Poisoned { reason }));
    assert!(shown.heads().iter().all(|head| head.size <= 1));

    for left in [0, 50, usize::MAX / 2] {
        let after = disk.after_power_cut(left);
        let (log, _) = after.open(TestClock::fast()).expect("recovered");
        append(&log, event(3)).expect("usable again");
        log.close().expect("closed");
        shown.assert_consistent(&after.disk().log, "after fdatasync failed");
    }
}

#[test]
fn a_bit_that_flips_on_its_way_to_the_disk_is_never_signed() {
    let disk = Memory::default();
    let shown = Shown::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    shown.watch(&log);
    let floor = disk.disk().floor.clone();
    // Nothing about the file shows that it is not what was written.
    disk.disk().flip_next_write = Some(40);
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    assert_eq!(
        log.close(),
        Err(CloseError::Poisoned {
            reason: Poison::NotAsWritten
        })
    );
    assert_eq!(
        log.health(),
        Health::Damaged {
            first_bad_seq: Some(0)
        }
    );
    assert_eq!(shown.heads(), []);
    assert_eq!(disk.disk().floor, floor, "that of the empty log");
}

#[test]
fn a_full_disk_is_said_until_there_is_room() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    disk.disk().space = Some(0);
    let kind = ErrorKind::StorageFull;
    assert_eq!(append(&log, event(0)), Err(AppendError::Disk { kind }));
    assert_eq!(log.health(), Health::Failing { kind });
    disk.disk().space = None;
    assert_eq!(append(&log, event(1)), Ok(Seq(0)));
    assert_eq!(log.health(), Health::Ok);
    log.close().expect("closed");
}

#[test]
fn what_is_altered_while_a_batch_is_flushed_is_found_before_the_next_head() {
    for at_rest in [false, true] {
        let disk = Memory::default();
        let (log, _) = disk.open(TestClock::with_step(1_000)).expect("a log");
        for number in 0..3 {
            append(&log, event(number)).expect("appended");
        }
        if at_rest {
            disk.disk().log[30] ^= 1;
            disk.disk().changes += 1;
        } else {
            // Between the look before the batch and the one after it.
            disk.disk().flip_at_sync = Some(30);
        }
        append(&log, event(3)).expect("appended");
        let closed = log.close();
        let damaged = Health::Damaged {
            first_bad_seq: Some(0),
        };
        assert_eq!(log.health(), damaged, "at rest: {at_rest}, {closed:?}");
    }
}

#[test]
fn a_head_is_shown_only_after_its_floor_is_durable() {
    let disk = Memory::default();
    let shown = Shown::default();
    let (log, _) = disk.open(TestClock::fast()).expect("a log");
    shown.watch(&log);
    disk.disk().always = Some((Op::ReplaceFloor, ErrorKind::StorageFull));
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    assert_eq!(append(&log, event(1)), Ok(Seq(1)));
    assert_eq!(log.head(), None);
    assert_eq!(disk.disk().checkpoint, None);
    disk.disk().always = None;
    assert_eq!(append(&log, event(2)), Ok(Seq(2)));
    log.close().expect("closed");
    let head = log.head().expect("a head");
    assert_eq!(head.checkpoint.size, 3);
    assert_eq!(disk.disk().floor, Some(head.note.into_bytes()));
    shown.assert_consistent(&disk.disk().log, "after the floor could be written");
}

#[test]
fn a_floor_that_someone_else_changed_stops_the_log() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    disk.disk().floor = Some(b"someone else".to_vec());
    let next = append(&log, event(1));
    let reason = Poison::FloorChanged;
    // A head may be due before the entry is written or after it.
    assert!([Ok(Seq(1)), Err(AppendError::Poisoned { reason })].contains(&next));
    assert_eq!(log.close(), Err(CloseError::Poisoned { reason }));
    assert_eq!(append(&log, event(3)), Err(AppendError::Closed));
    assert_eq!(disk.disk().floor, Some(b"someone else".to_vec()));
}

#[test]
fn a_full_queue_refuses_and_everything_queued_is_answered() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    let (answers, received) = sync_channel(100_000);
    // The writer is held up by the first answer.
    let (hold, held) = sync_channel::<()>(0);
    let first = answers.clone();
    log.append(
        event(0),
        Box::new(move |result| {
            held.recv().expect("released");
            first.send(result).expect("room");
        }),
    )
    .expect("queued");
    let mut queued = 1;
    let refused = loop {
        let answers = answers.clone();
        let ack = Box::new(move |result| answers.send(result).expect("room"));
        match log.append(event(queued), ack) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full);
    hold.send(()).expect("the writer waits");
    log.close().expect("closed");
    drop(answers);
    let all: Vec<_> = received.iter().collect();
    assert_eq!(all.len() as u64, queued);
    let expected: Vec<_> = (0..queued).map(|seq| Ok(Seq(seq))).collect();
    assert_eq!(all, expected, "in the order in which they were queued");
    assert_eq!(log.size(), queued);
}

#[test]
fn the_whole_file_is_read_again_every_hour() {
    let disk = Memory::default();
    // Every look at the clock is an hour later.
    let clock = TestClock::with_step(3_600_000_000);
    let (log, _) = disk.open(clock).expect("a log");
    for number in 0..5 {
        append(&log, event(number)).expect("appended");
    }
    // Nothing about the file shows that it was changed.
    disk.disk().log[30] ^= 1;
    let damaged = Health::Damaged {
        first_bad_seq: Some(0),
    };
    let noticed = (5..10_000).any(|number| {
        append(&log, event(number)).expect("appended");
        log.health() == damaged
    });
    assert!(noticed);
    log.close().expect("closed");
}

#[test]
fn the_last_handle_to_go_closes_the_log() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    let (sender, heads) = sync_channel(100);
    log.on_head(Box::new(move |head| sender.send(head).expect("room")));
    let mut queued = Vec::new();
    for number in 0..50 {
        let (sender, receiver) = sync_channel(1);
        let ack = Box::new(move |result| sender.send(result).expect("the test waits"));
        log.append(event(number), ack).expect("queued");
        queued.push(receiver);
    }
    drop(log);
    for (seq, receiver) in (0..).zip(queued) {
        assert_eq!(receiver.recv(), Ok(Ok(Seq(seq))));
    }
    // The listener goes with the log: after that no more heads come.
    let last = heads.iter().last().expect("a head");
    assert_eq!(last.checkpoint.size, 50);
}

#[test]
fn a_full_disk_refuses_actions_and_takes_the_last_entries() {
    let disk = Memory::default();
    disk.disk().space = Some(5_000);
    let (log, _) = disk.open(TestClock::fast()).expect("a log");
    append(&log, event(0)).expect("there is room");
    eventually(|| disk.disk().reserve.is_some());
    let mut refused = None;
    for number in 1..1_000 {
        if let Err(why) = append(&log, event(number)) {
            refused = Some(why);
            break;
        }
    }
    let full = AppendError::Disk {
        kind: ErrorKind::StorageFull,
    };
    assert_eq!(refused, Some(full));
    assert!(disk.disk().reserve.is_some(), "it is not for actions");
    let health = log.health();
    assert!(
        matches!(
            health,
            Health::Failing {
                kind: ErrorKind::StorageFull
            }
        ),
        "{health:?}"
    );
    // What was announced and not done is no action: it says that there was none.
    let (agent, name) = (
        openfang_id::AgentId::from_bytes([7; 16]),
        "research".parse().expect("a name"),
    );
    let announced = Event::agent_create(&agent, &name, "cli");
    assert_eq!(append(&log, announced.clone()), Err(full));
    let cause = Cause {
        origin: origin(),
        seq: 0,
    };
    let outcome = Outcome::Failed("interrupted".into());
    let taken_back = append(&log, announced.clone().not_done(&cause, outcome));
    assert!(taken_back.is_ok(), "{taken_back:?}");
    // Where there is no room for it either, it is owed.
    let left = disk.disk().space.replace(0);
    let outcome = Outcome::Failed("owed".into());
    let (sender, owed) = sync_channel(1);
    let ack = Box::new(move |result| sender.send(result).expect("the test waits"));
    let taken_back = announced.not_done(&cause, outcome);
    log.append(taken_back, ack).expect("queued");
    assert_eq!(append(&log, event(0)), Err(full));
    assert!(owed.try_recv().is_err(), "it is not given up");
    disk.disk().space = left.map(|left| left + 100_000);
    let written = owed.recv().expect("an answer").expect("written");
    assert_eq!(Seq(log.size() - 1), written);
    disk.disk().space = left;
    let written = log.size();
    let stop = append(&log, Event::node_stop("SIGTERM"));
    assert_eq!(stop, Ok(Seq(written)), "the end is written");
    assert!(disk.disk().reserve.is_none());
    log.close().expect("with a head");
    assert_eq!(
        log.head().map(|head| head.checkpoint.size),
        Some(written + 1)
    );
    let text = String::from_utf8_lossy(&disk.disk().log).into_owned();
    assert!(text.ends_with('\n') && text.contains("node_stop"), "{text}");
}

#[test]
fn the_reserve_takes_room_on_a_real_disk_and_is_made_again() {
    let root = tempfile::TempDir::new().expect("a folder");
    let (path, dir) = (root.path().join("audit.jsonl"), root.path().join("audit.d"));
    let storage = FsStorage::open(&path, &dir, "a test").expect("opened");
    assert!(!storage.free_reserve().expect("there is none"));
    storage.fill_reserve().expect("there is room");
    let reserve = dir.join("reserve");
    let blocks = |path: &std::path::Path| {
        let found = std::fs::metadata(path).expect("there");
        std::os::unix::fs::MetadataExt::blocks(&found) * 512
    };
    assert!(blocks(&reserve) >= RESERVE_BYTES, "no holes");
    std::fs::write(&reserve, b"short").expect("written");
    storage.fill_reserve().expect("filled again");
    assert!(blocks(&reserve) >= RESERVE_BYTES);
    assert!(storage.free_reserve().expect("freed") && !reserve.exists());
}
