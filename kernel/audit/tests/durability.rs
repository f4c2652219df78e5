//! Entries that need not be on the disk when they are answered, and entries that are signed at once.

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use common::{Fault, Memory, Op, TestClock, append, event, eventually, root_of_lines};
use openfang_audit::{
    AppendError, Checkpoint, CloseError, Event, Flush, Health, Log, Poison, Public, Seq,
};

const LONG: Flush = Flush::Within(Duration::from_secs(3600));

fn append_with(log: &Log, event: Event, flush: Flush) -> Result<Seq, AppendError> {
    let (sender, receiver) = sync_channel(1);
    let ack = move |result| sender.send(result).expect("the test waits");
    log.append_with(event, flush, Box::new(ack))?;
    receiver.recv().expect("every entry is answered")
}

#[test]
fn an_entry_that_may_wait_is_answered_before_it_is_flushed() {
    let disk = Memory::default();
    let (log, _) = disk.open_held(TestClock::frozen()).expect("a log");
    let flushes = || {
        let disk = disk.disk();
        disk.ops.iter().filter(|op| **op == Op::SyncLog).count()
    };
    let before = flushes();
    for number in 0..5 {
        assert_eq!(append_with(&log, event(number), LONG), Ok(Seq(number)));
    }
    assert_eq!(flushes(), before);
    assert!(disk.not_durable() > 0);
    // What must be on the disk takes along what was written before it.
    assert_eq!(append(&log, event(5)), Ok(Seq(5)));
    assert_eq!(flushes(), before + 1);
    assert_eq!(disk.not_durable(), 0);
    assert_eq!(append_with(&log, event(6), LONG), Ok(Seq(6)));
    log.close().expect("closed");
    assert_eq!(disk.not_durable(), 0, "an orderly end loses nothing");
}

#[test]
fn it_is_flushed_in_time_although_no_head_is_signed() {
    let disk = Memory::default();
    let (log, _) = disk.open_held(TestClock::fast()).expect("a log");
    let soon = Flush::Within(Duration::from_millis(20));
    assert_eq!(append_with(&log, event(0), soon), Ok(Seq(0)));
    eventually(|| disk.not_durable() == 0);
    assert_eq!(log.head(), None);
    log.close().expect("closed");
}

#[test]
fn a_flush_that_fails_later_stops_the_log_and_nothing_is_signed_over_it() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    assert_eq!(append(&log, event(0)), Ok(Seq(0)));
    eventually(|| log.signed_size() == 1);
    disk.disk().always = Some((Op::SyncLog, ErrorKind::Other));
    assert_eq!(append_with(&log, event(1), LONG), Ok(Seq(1)));
    let reason = Poison::Sync(ErrorKind::Other);
    eventually(|| log.health() == Health::Poisoned { reason });
    disk.disk().always = None;
    let stopped = Err(AppendError::Poisoned { reason });
    assert_eq!(append_with(&log, event(2), LONG), stopped);
    assert_eq!(log.close(), Err(CloseError::Poisoned { reason }));
    assert_eq!(log.signed_size(), 1);
}

/// What became of a run: what was answered, and every head that was shown.
#[derive(Default)]
struct Ran {
    /// The entries that had to be on the disk.
    flushed: BTreeMap<u64, u64>,
    heads: Vec<Checkpoint>,
}

/// Appends entries of which only every third must be on the disk.
fn run(disk: &Memory) -> Ran {
    let mut ran = Ran::default();
    let Ok((log, _)) = disk.open(TestClock::with_step(50_000)) else {
        return ran;
    };
    let (sender, heads) = sync_channel(10_000);
    log.on_head(Box::new(move |head| {
        sender.send(head.checkpoint).expect("room");
    }));
    for number in 0..12 {
        let flush = if number % 3 == 2 { Flush::AtOnce } else { LONG };
        if let Ok(seq) = append_with(&log, event(number), flush)
            && flush == Flush::AtOnce
        {
            ran.flushed.insert(seq.0, number);
        }
    }
    // It may have stopped.
    let _closed = log.close();
    drop(log);
    ran.heads = all(&heads);
    ran
}

fn all(heads: &Receiver<Checkpoint>) -> Vec<Checkpoint> {
    heads.iter().collect()
}

#[test]
fn a_power_cut_loses_only_what_might_wait_and_nothing_that_was_signed() {
    let whole = Memory::default();
    let ran = run(&whole);
    assert_eq!(ran.flushed.len(), 4);
    let steps = whole.disk().ops.len();
    let mut lost = 0;
    for at in 0..=steps {
        for left in [0, 200, usize::MAX / 2] {
            let context = format!("power cut at step {at}, {left} bytes left");
            let disk = Memory::default();
            disk.disk().at = Some((at, Fault::PowerCut));
            let ran = run(&disk);
            let written = disk
                .disk()
                .log
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let after = disk.after_power_cut(left.min(disk.not_durable()));
            let (log, _) = after.open(TestClock::fast()).expect(&context);
            log.close().expect(&context);
            let text = after.disk().log.clone();
            for head in &ran.heads {
                let root = root_of_lines(&text, head.size);
                assert_eq!(root, Some(head.root), "{context}: size {}", head.size);
            }
            let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
            for (seq, number) in &ran.flushed {
                let line = String::from_utf8_lossy(lines[usize::try_from(*seq).expect("small")]);
                assert!(
                    line.contains(&format!("\"key.{number}\"")),
                    "{context}: {line}"
                );
            }
            lost += written.saturating_sub(lines.len() - 1);
        }
    }
    assert!(lost > 0, "some power cuts must take what was not flushed");
}

#[test]
fn a_change_is_signed_at_once() {
    let disk = Memory::default();
    // No time passes: a head is due when nothing comes for a quarter of a second.
    let (log, _) = disk.open(TestClock::frozen()).expect("a log");
    for number in 0..20 {
        let change = Event::config_change(Public::text(&format!("key.{number}")));
        append(&log, change).expect("appended");
        let next = append(&log, event(number)).expect("appended");
        // The head over the change came before the next entry was taken.
        assert!(log.signed_size() >= next.0, "change {number}");
    }
    log.close().expect("closed");
}
