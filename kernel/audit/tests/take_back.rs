//! A log that is shorter than what it has signed takes back what it lost, and never contradicts itself.

mod common;
mod tlog;

use std::sync::{Arc, Mutex};

use common::{Fault, Memory, Op, TestClock, append, event, root_of_lines};
use openfang_audit::restore::{Restored, restore};
use openfang_audit::tile::TileNodes;
use openfang_audit::tree::root_of;
use openfang_audit::verify::Verdict;
use openfang_audit::{
    AgreeError, Checkpoint, CloseError, Log, SignedHead, TakeBackError, TakenBack,
};
use proptest::prelude::*;
use tempfile::TempDir;
use tlog::{Tiles, leaves, text};

/// Heads that were shown.
type Shown = Arc<Mutex<Vec<SignedHead>>>;

fn watch(log: &Log) -> Shown {
    let shown = Shown::default();
    let into = Arc::clone(&shown);
    log.on_head(Box::new(move |head| into.lock().expect("heads").push(head)));
    shown
}

fn lines_of(disk: &Memory) -> Vec<Vec<u8>> {
    let text = disk.disk().log.clone();
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec())
        .collect()
}

/// A log that was closed in order, and one of its earlier states.
struct Before {
    whole: Memory,
    earlier: Memory,
    lines: Vec<Vec<u8>>,
    head: Checkpoint,
}

fn before(earlier: u64, whole: u64) -> Before {
    let disk = Memory::default();
    let fill = |from: u64, to: u64| {
        let (log, _) = disk.open(TestClock::fast()).expect("a log");
        for number in from..to {
            append(&log, event(number)).expect("appended");
        }
        log.close().expect("closed");
    };
    if earlier > 0 {
        fill(0, earlier);
    }
    let backup = disk.after_power_cut(0);
    fill(earlier, whole);
    let lines = lines_of(&disk);
    let head = Checkpoint {
        origin: common::origin(),
        size: lines.len() as u64,
        root: root_of(&leaves(&lines)),
    };
    Before {
        whole: disk,
        earlier: backup,
        lines,
        head,
    }
}

fn fetch(log: &Log, before: &Before, folder: &TempDir) -> (u64, Restored) {
    let tiles = Tiles::of(&before.lines);
    let nodes = TileNodes::open(&tiles, before.head.size, before.head.root).expect("the tiles");
    let common = log.agreement(&nodes).expect("one history");
    let path = folder.path().join("audit.jsonl.restoring");
    let restored = restore(&tiles, &before.head, (common, &path), &mut |_| ());
    (common, restored.expect("fetched"))
}

fn take_back(log: &Log, before: &Before) -> Result<TakenBack, TakeBackError> {
    let folder = TempDir::new().expect("a folder");
    let (_common, restored) = fetch(log, before, &folder);
    log.take_back(restored, before.head.clone())
}

#[test]
fn a_held_log_takes_entries_and_shows_no_head() {
    let disk = Memory::default();
    let (log, _) = disk.open_held(TestClock::fast()).expect("a log");
    let shown = watch(&log);
    for number in 0..5 {
        append(&log, event(number)).expect("appended");
    }
    assert!(log.is_held() && log.head().is_none());
    log.close().expect("closed");
    assert!(shown.lock().expect("heads").is_empty());
    assert!(disk.disk().checkpoint.is_none());

    let (log, opened) = disk.open_held(TestClock::fast()).expect("again");
    assert_eq!(opened.size, 6, "five and one that says so");
    let shown = watch(&log);
    log.release();
    append(&log, event(9)).expect("appended");
    log.close().expect("closed");
    assert!(!log.is_held());
    let last = shown.lock().expect("heads").last().cloned();
    let last = last.expect("a head").checkpoint;
    assert_eq!(root_of_lines(&disk.disk().log, 7), Some(last.root));
}

#[test]
fn a_log_that_is_held_again_signs_nothing_until_it_is_released() {
    let disk = Memory::default();
    let (log, _) = disk.open(TestClock::fast()).expect("a log");
    let shown = watch(&log);
    append(&log, event(0)).expect("appended");
    while log.head().is_none() {
        append(&log, event(1)).expect("appended");
    }
    log.hold();
    log.hold();
    let (size, before) = (log.signed_size(), shown.lock().expect("heads").len());
    assert!(
        log.is_held() && log.head().is_none(),
        "the last is not shown"
    );
    for number in 2..40 {
        append(&log, event(number)).expect("entries are taken");
    }
    assert_eq!(log.signed_size(), size);
    assert_eq!(shown.lock().expect("heads").len(), before);
    log.release();
    append(&log, event(40)).expect("appended");
    log.close().expect("closed");
    let last = shown.lock().expect("heads").last().cloned();
    let size = last.expect("a head").checkpoint.size;
    assert!(size >= 40, "{size}");
    log.hold();
}

#[test]
fn a_head_from_before_is_shown_when_the_log_is_released() {
    let Before { whole, head, .. } = before(0, 3);
    let (log, opened) = whole.open_held(TestClock::frozen()).expect("a log");
    assert_eq!(opened.head.map(|head| head.checkpoint), Some(head.clone()));
    assert!(log.head().is_none());
    let shown = watch(&log);
    log.release();
    log.close().expect("closed");
    let shown = shown.lock().expect("heads");
    assert_eq!(shown.first().map(|head| &head.checkpoint), Some(&head));
}

#[test]
fn a_wiped_or_rolled_back_log_takes_back_what_it_lost() {
    for (earlier, whole, since) in [
        (0, 1, 0),
        (0, 700, 2),
        (3, 700, 1),
        (256, 513, 0),
        (300, 301, 300),
        (511, 1_200, 5),
    ] {
        let context = format!("{earlier} of {whole}, {since} since");
        let before = before(earlier, whole);
        let disk = &before.earlier;
        let (log, _) = disk.open_held(TestClock::fast()).expect(&context);
        let shown = watch(&log);
        for number in 0..since {
            append(&log, event(10_000 + number)).expect(&context);
        }
        let there = log.size();
        let taken = take_back(&log, &before).expect(&context);
        assert_eq!(taken.entries, earlier..whole, "{context}");
        assert_eq!(
            taken.set_aside.len(),
            usize::from(there > earlier),
            "{context}"
        );
        assert!(shown.lock().expect("heads").is_empty() && log.is_held());
        log.release();
        let next = append(&log, event(7)).expect(&context);
        assert!(next.0 > whole, "{context}");
        let report = log.verify().expect(&context);
        assert!(
            matches!(report.verdict, Verdict::Intact { .. }),
            "{context}: {report:?}"
        );
        let proof = log.inclusion(0, whole).expect(&context);
        assert!(whole == 1 || !proof.is_empty());
        log.close().expect(&context);

        let now = disk.disk().log.clone();
        assert!(now.starts_with(&text(&before.lines)), "{context}");
        let told = String::from_utf8_lossy(&now[text(&before.lines).len()..]).into_owned();
        assert!(
            told.contains(&format!("restored entries {earlier} to {}", whole - 1)),
            "{told}"
        );
        let kept = disk.disk().settled.clone();
        assert_eq!(kept.len(), taken.set_aside.len(), "{context}");
        for (name, bytes) in kept {
            let since = format!("key.{}", 10_000 + since.saturating_sub(1));
            assert!(name.starts_with(&format!("unsigned-{earlier}-")), "{name}");
            assert!(
                String::from_utf8_lossy(&bytes).contains(&since),
                "{context}"
            );
            let sha256 = name.rsplit('-').next().expect("a hash");
            assert!(told.contains(sha256), "{told}");
        }
        for head in shown.lock().expect("heads").iter() {
            let Checkpoint { size, root, .. } = head.checkpoint;
            assert_eq!(root_of_lines(&now, size), Some(root), "{context}");
        }
        let (log, opened) = disk.open(TestClock::fast()).expect(&context);
        assert!(opened.recovered.is_empty(), "{context}");
        log.close().expect(&context);
    }
}

#[test]
fn a_power_cut_at_any_step_of_it_can_be_gone_on_from() {
    let before = before(4, 40);
    let prepared = || {
        let disk = before.earlier.after_power_cut(0);
        let (log, _) = disk.open_held(TestClock::fast()).expect("a log");
        append(&log, event(77)).expect("appended");
        (disk, log)
    };
    let (disk, log) = prepared();
    let start = disk.disk().ops.len();
    take_back(&log, &before).expect("taken back");
    let steps = disk.disk().ops.len();
    assert!(disk.disk().ops[start..].contains(&Op::ReplaceFloor));
    drop(log);
    assert!(steps - start >= 10, "{start} to {steps}");
    for at in start..steps {
        for left in [0, 1, 300, usize::MAX / 2] {
            let context = format!("power cut at step {at}, {left} bytes left");
            let (disk, log) = prepared();
            disk.disk().at = Some((at, Fault::PowerCut));
            let shown = watch(&log);
            match take_back(&log, &before) {
                Ok(_) | Err(TakeBackError::Io(_) | TakeBackError::Closed) => {}
                Err(TakeBackError::Unwritten(_)) => {}
                Err(why) => panic!("{context}: {why}"),
            }
            match log.close() {
                Ok(()) | Err(CloseError::Poisoned { .. } | CloseError::Head { .. }) => {}
                Err(CloseError::Writer) => panic!("{context}: the writer panicked"),
            }
            assert!(shown.lock().expect("heads").is_empty(), "{context}");

            let disk = disk.after_power_cut(left.min(disk.not_durable()));
            let (log, _) = disk.open_held(TestClock::fast()).expect(&context);
            if log.size() < before.head.size || !lines_of(&disk).starts_with(&before.lines) {
                take_back(&log, &before).expect(&context);
            }
            log.release();
            append(&log, event(8)).expect(&context);
            log.close().expect(&context);
            let now = disk.disk().log.clone();
            assert!(now.starts_with(&text(&before.lines)), "{context}");
            let kept: Vec<u8> = disk.disk().settled.values().flatten().copied().collect();
            let all = [now, kept].concat();
            assert!(
                String::from_utf8_lossy(&all).contains("key.77"),
                "{context}"
            );
        }
    }
}

#[test]
fn a_log_that_may_have_signed_takes_nothing_back() {
    let before = before(3, 20);
    let (log, _) = before.earlier.open(TestClock::fast()).expect("a log");
    assert!(matches!(
        take_back(&log, &before),
        Err(TakeBackError::NotHeld)
    ));
    log.close().expect("closed");
    assert!(!before.earlier.disk().log.starts_with(&text(&before.lines)));
    assert!(matches!(
        log.take_back(
            Restored {
                path: "/nowhere".into(),
                first: 0,
                end: 1,
                bytes: 1,
                resumed: 0
            },
            before.head
        ),
        Err(TakeBackError::Closed)
    ));
}

#[test]
fn another_history_is_told_apart() {
    let ours = before(5, 30);
    let (log, _) = ours.whole.open_held(TestClock::fast()).expect("a log");
    let mut others = ours.lines.clone();
    others[3] = b"{\"other\":1}".to_vec();
    others.extend((0..20).map(|seq| format!("{{\"seq\":{seq}}}").into_bytes()));
    let root = root_of(&leaves(&others));
    let tiles = Tiles::of(&others);
    let nodes = TileNodes::open(&tiles, others.len() as u64, root).expect("tiles");
    assert!(matches!(
        log.agreement(&nodes),
        Err(AgreeError::TwoHistories { size: 30 })
    ));
    let short = Tiles::of(&ours.lines[..10]);
    let root = root_of(&leaves(&ours.lines[..10]));
    let nodes = TileNodes::open(&short, 10, root).expect("tiles");
    assert!(matches!(
        log.agreement(&nodes),
        Err(AgreeError::TwoHistories { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_that_is_not_what_was_lost_changes_nothing(at in any::<u32>(), flip in 1_u8.., cut in any::<bool>()) {
        let before = before(3, 300);
        let disk = &before.earlier;
        let (log, _) = disk.open_held(TestClock::frozen()).expect("a log");
        append(&log, event(1)).expect("appended");
        let was = disk.disk().log.clone();
        let folder = TempDir::new().expect("a folder");
        let (_, restored) = fetch(&log, &before, &folder);
        let mut bytes = std::fs::read(&restored.path).expect("readable");
        let at = at as usize % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        std::fs::write(&restored.path, bytes).expect("written");
        let refused = log.take_back(restored, before.head.clone());
        prop_assert!(matches!(refused, Err(TakeBackError::NotTheLog)), "{refused:?}");
        prop_assert!(disk.disk().log == was);
        prop_assert!(disk.disk().pending.is_empty());
        log.release();
        log.close().expect("it goes on");
    }
}
