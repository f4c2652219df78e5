//! A log that is lost or damaged, and what a copy makes of it again.

mod tlog;

use std::fs;
use std::path::Path;

use openfang_audit::mirror::Committed;
use openfang_audit::repair::{Patch, RepairError, repair, write_repaired};
use openfang_audit::restore::{RestoreError, restore};
use openfang_audit::storage::FsReader;
use openfang_audit::tile::{Progress, TileError, TileKind, TilePath};
use openfang_audit::tree::root_of;
use openfang_audit::verify::{Verdict, verify_files};
use openfang_audit::{Checkpoint, Hash};
use proptest::prelude::*;
use tempfile::TempDir;
use tlog::copy::{Log, assert_right, new_mirror, upload};
use tlog::{Files, OutOfReach, SIZES, Tiles, keys, leaves, line, lines, origin, sign, text};

fn head(lines: &[Vec<u8>]) -> Checkpoint {
    sign(lines.len() as u64, root_of(&leaves(lines))).checkpoint
}

fn restore_all(
    source: &Tiles,
    head: &Checkpoint,
    path: &Path,
) -> Result<u64, RestoreError<OutOfReach>> {
    restore(source, head, (0, path), &mut |_| ()).map(|restored| restored.resumed)
}

#[test]
fn a_restored_log_is_the_lost_one_byte_for_byte() {
    for size in SIZES {
        let files = Files::new(size);
        let log = Log {
            lines: files.lines.clone(),
            leaves: files.leaves.clone(),
        };
        let mut mirror = new_mirror();
        mirror.offer(log.head(size)).expect("a head");
        assert!(matches!(
            upload(&mut mirror, &log, size),
            Committed::Complete(_)
        ));
        assert_right(&mirror, &log);
        let original = fs::read(&files.log_path).expect("readable");
        fs::remove_file(&files.log_path).expect("removed");
        let mut seen = Vec::new();
        let restored = restore(
            &mirror,
            &files.head.checkpoint,
            (0, &files.log_path),
            &mut |progress| {
                seen.push(progress);
            },
        );
        let restored = restored.expect("restored");
        assert_eq!(
            (restored.first, restored.end, restored.resumed),
            (0, size, 0)
        );
        assert_eq!(restored.bytes, original.len() as u64);
        assert_eq!(
            seen.last(),
            Some(&Progress {
                done: size,
                total: size
            })
        );
        assert!(
            fs::read(&files.log_path).expect("readable") == original,
            "size {size}"
        );
        let key = keys().log.verifying_key();
        let report = verify_files(&files.log_path, &files.dir, &key, &origin()).expect("readable");
        let root = files.head.checkpoint.root;
        if size == 0 {
            assert_eq!(report.verdict, Verdict::Empty);
            continue;
        }
        assert!(matches!(
            report.verdict,
            Verdict::Intact { entries, root: found, unsigned: 0, torn_bytes: 0, .. }
                if entries == size && found == root
        ));
    }
}

#[test]
fn only_what_the_head_covers_is_restored() {
    let all = lines(700);
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    // The copy is ahead of the head that is trusted: partial tiles are cut from full ones.
    let log = Log {
        lines: all.clone(),
        leaves: leaves(&all),
    };
    let mut mirror = new_mirror();
    mirror.offer(log.head(700)).expect("a head");
    upload(&mut mirror, &log, 700);
    let head = head(&all[..300]);
    restore(&mirror, &head, (0, &path), &mut |_| ()).expect("restored");
    assert!(fs::read(&path).expect("readable") == text(&all[..300]));
    let end = root.path().join("end");
    for (from, first) in [
        (0, 0),
        (255, 0),
        (256, 256),
        (299, 256),
        (300, 256),
        (400, 256),
    ] {
        let restored = restore(&mirror, &head, (from, &end), &mut |_| ()).expect("restored");
        assert_eq!((restored.first, restored.end), (first, 300));
        let begin = usize::try_from(first).expect("small");
        assert!(fs::read(&end).expect("readable") == text(&all[begin..300]));
    }
}

#[test]
fn a_lying_source_is_noticed_and_another_one_goes_on() {
    let all = lines(40_000);
    let head = head(&all);
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    let good = Tiles::of(&all);
    let bad = TilePath::at(TileKind::Entries, 100, 40_000).expect("a path");
    let mut lying = good.clone();
    lying.files.get_mut(&bad).expect("it is there")[77] ^= 1;
    let refused = restore_all(&lying, &head, &path);
    assert!(matches!(refused, Err(RestoreError::Source(TileError::Foreign(path))) if path == bad));
    let mut holed = good.clone();
    let missing = TilePath::at(TileKind::Entries, 130, 40_000).expect("a path");
    holed.files.remove(&missing);
    let refused = restore_all(&holed, &head, &path);
    assert!(
        matches!(refused, Err(RestoreError::Source(TileError::Missing(path))) if path == missing)
    );
    let other = Tiles::of(&lines(39_999));
    assert!(matches!(
        restore_all(&other, &head, &path),
        Err(RestoreError::Source(_))
    ));

    let resumed = restore_all(&good, &head, &path).expect("restored");
    assert_eq!(
        resumed,
        128 * 256,
        "what the others gave that was right is not fetched again"
    );
    let fetched = good.asked_for(TileKind::Entries);
    assert_eq!(fetched.first(), Some(&128));
    assert!(fs::read(&path).expect("readable") == text(&all));
}

#[test]
fn whatever_an_ended_restore_left_is_checked_again() {
    let all = lines(1_000);
    let (head, source) = (head(&all), Tiles::of(&all));
    let whole = text(&all);
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    let check = |left: &[u8], resumed_max: u64| {
        fs::write(&path, left).expect("written");
        let resumed = restore_all(&source, &head, &path).expect("restored");
        assert!(
            resumed <= resumed_max && resumed.is_multiple_of(256),
            "{resumed} of {resumed_max}"
        );
        assert!(fs::read(&path).expect("readable") == whole);
        resumed
    };
    assert_eq!(check(&whole, 768), 768);
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        check(&whole[..cut], lines);
        let mut flipped = whole.clone();
        flipped[cut] ^= 1;
        check(&flipped, lines);
    }
    let long = vec![b'x'; 200_000];
    check(&long, 0);
    check(&[&whole[..], &long[..]].concat(), 768);
}

#[test]
fn a_log_that_is_not_one_of_lines_is_refused() {
    let mut all = lines(300);
    all[280].push(b'\n');
    let (head, source) = (head(&all), Tiles::of(&all));
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    assert!(matches!(
        restore_all(&source, &head, &path),
        Err(RestoreError::NotALine { seq: 280 })
    ));
    fs::write(&path, text(&all[..256])).expect("written");
    let reader = FsReader::open(&path, root.path()).expect("readable");
    let refused = repair(&reader, &source, &head, &mut |_| ());
    assert!(matches!(refused, Err(RepairError::NotALine { seq: 280 })));
}

/// Damages the file of a log, mends it, and returns the patches and what was fetched.
fn mend(all: &[Vec<u8>], head: &Checkpoint, damaged: &[u8]) -> (Vec<Patch>, Vec<u8>, Tiles) {
    let source = Tiles::of(&all[..usize::try_from(head.size).expect("small")]);
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    fs::write(&path, damaged).expect("written");
    let reader = FsReader::open(&path, root.path()).expect("readable");
    let patches = repair(&reader, &source, head, &mut |_| ()).expect("it can be mended");
    let mut mended = Vec::new();
    write_repaired(&reader, &patches, &mut mended).expect("written");
    for patch in &patches {
        let from = usize::try_from(patch.offset).expect("small");
        assert!(
            damaged[from..].starts_with(&patch.bad),
            "the bad bytes are those in the file"
        );
        let lines = patch.good.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines as u64, patch.entries);
    }
    (patches, mended, source)
}

#[test]
fn one_flipped_byte_costs_one_bundle() {
    let all = lines(70_000);
    let (head, whole) = (head(&all), text(&all));
    let at = whole.len() * 2 / 3;
    let mut damaged = whole.clone();
    damaged[at] ^= 8;
    let (patches, mended, source) = mend(&all, &head, &damaged);
    assert!(mended == whole);
    assert_eq!(patches.len(), 1);
    let patch = &patches[0];
    assert_eq!((patch.entries, patch.first_seq % 256), (256, 0));
    assert_eq!(patch.bad.len(), patch.good.len());
    let differing = patch
        .bad
        .iter()
        .zip(&patch.good)
        .filter(|(bad, good)| bad != good);
    assert_eq!(differing.count(), 1);
    let bundle = patch.first_seq / 256;
    assert_eq!(source.asked_for(TileKind::Entries), [bundle]);
    let leaf_tiles = source.asked_for(TileKind::Hashes(0));
    assert_eq!(leaf_tiles, [273, bundle + 1]);
    assert_eq!(source.asked_for(TileKind::Hashes(1)).len(), 2);
}

#[test]
fn a_whole_log_needs_no_bundle() {
    for size in SIZES {
        let all = lines(size);
        let (head, whole) = (head(&all), text(&all));
        let (patches, mended, source) = mend(&all, &head, &whole);
        assert!(patches.is_empty() && mended == whole);
        assert!(source.asked_for(TileKind::Entries).is_empty());
        // Lines that no head covers are nobody's business here.
        let tail = [&whole[..], &line(size), b"\n{\"torn"].concat();
        let (patches, mended, _) = mend(&all, &head, &tail);
        assert!(patches.is_empty() && mended == tail, "size {size}");
    }
}

#[test]
fn lines_that_were_put_in_or_taken_out_are_mended() {
    let all = lines(2_000);
    let signed = &all[..1_900];
    let (head, whole) = (head(signed), text(&all));
    let check = |damaged: Vec<Vec<u8>>, entries_max: u64| {
        let (patches, mended, _) = mend(&all, &head, &text(&damaged));
        let same = mended
            .iter()
            .zip(&whole)
            .take_while(|(a, b)| a == b)
            .count();
        let lengths = (mended.len(), whole.len());
        assert!(mended == whole, "the same up to {same} of {lengths:?}");
        let entries: u64 = patches.iter().map(|patch| patch.entries).sum();
        assert!((1..=entries_max).contains(&entries), "{entries}");
    };
    for at in [0, 1, 255, 256, 257, 1_000, 1_791, 1_792, 1_899] {
        let mut removed = all.clone();
        removed.remove(at);
        check(removed, 256);
        let mut inserted = all.clone();
        inserted.insert(at, b"{\"foreign\":1}".to_vec());
        check(inserted, 256);
        if at < 1_899 {
            // The last one twice is a line behind the head.
            let mut doubled = all.clone();
            doubled.insert(at, all[at].clone());
            check(doubled, 256);
        }
        let mut joined = all.clone();
        let next = joined.remove(at + 1);
        joined[at].extend_from_slice(&next);
        check(joined, 512);
        let mut long = all.clone();
        long[at] = vec![b'x'; 300_000];
        check(long, 256);
    }
    let without = [&all[..256], &all[1_024..]].concat();
    check(without, 768);
    let mut two = all.clone();
    two[3].clear();
    two[1_500].clear();
    check(two, 512);
}

#[test]
fn a_short_log_gets_its_end_back() {
    let all = lines(1_000);
    let (head, whole) = (head(&all), text(&all));
    for cut in (0..whole.len())
        .step_by(whole.len() / 23)
        .chain([whole.len() - 1])
    {
        let (patches, mended, _) = mend(&all, &head, &whole[..cut]);
        assert!(mended == whole, "cut at {cut}");
        assert_eq!(patches.len(), 1);
    }
}

#[test]
fn too_much_damage_is_a_case_for_a_restore() {
    let all = lines(70_000);
    let head = head(&all);
    let root = TempDir::new().expect("a directory");
    let path = root.path().join("audit.jsonl");
    let source = Tiles::of(&all);
    for left in [text(&lines(1_000)), b"x\n".repeat(200_000)] {
        fs::write(&path, left).expect("written");
        let reader = FsReader::open(&path, root.path()).expect("readable");
        let refused = repair(&reader, &source, &head, &mut |_| ());
        assert!(matches!(refused, Err(RepairError::TooMuch { .. })));
    }
    assert!(source.asked_for(TileKind::Entries).is_empty());
    let other = Checkpoint {
        root: Hash::from_bytes([1; 32]),
        ..head
    };
    let reader = FsReader::open(&path, root.path()).expect("readable");
    let refused = repair(&reader, &source, &other, &mut |_| ());
    assert!(matches!(refused, Err(RepairError::Source(TileError::Root))));
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let bytes = prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 1..40);
    let damage = prop_oneof![
        (any::<usize>(), 1_u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<usize>(), 1_usize..3_000).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<usize>(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ];
    prop::collection::vec(damage, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever was done to the bytes under the head, they are what they were again.
    #[test]
    fn any_damage_is_mended(size in 1_u64..2_200, damages in damages()) {
        let all = lines(size);
        let (head, whole) = (head(&all), text(&all));
        let mut damaged = whole.clone();
        for damage in damages {
            if damaged.is_empty() {
                break;
            }
            match damage {
                Damage::Flip(at, bits) => {
                    let at = at % damaged.len();
                    damaged[at] ^= bits;
                }
                Damage::Remove(at, count) => {
                    let at = at % damaged.len();
                    let end = damaged.len().min(at + count);
                    damaged.drain(at..end);
                }
                Damage::Insert(at, bytes) => {
                    let at = at % damaged.len();
                    damaged.splice(at..at, bytes);
                }
            }
        }
        let (_, mended, _) = mend(&all, &head, &damaged);
        // Behind the last line may stand what was moved there; the next start cuts it off.
        prop_assert!(mended.starts_with(&whole));
    }
}
