//! A log as a C2SP directory: written, checked by us, and checked by a program that shares nothing with us.

mod tlog;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use openfang_audit::export::{CheckError, DirectoryError, check_directory, export_directory};
use openfang_audit::note::{NoteError, Verifier};
use openfang_audit::tile::{Progress, TileKind, TilePath};
use openfang_audit::tree::{EMPTY_ROOT, root_of};
use openfang_audit::verify::{Damage, DamageKind};
use openfang_audit::{Hash, Origin};
use tempfile::TempDir;
use tlog::{Files, SIZES, Tiles, keys, log_verifier, sign};

/// Every file below a directory, by its path in it.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below it");
                let name = name.to_str().expect("UTF-8").to_owned();
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

fn export(files: &Files, out: &Path) -> Result<u64, DirectoryError> {
    export_directory(files.source(), None, out, &mut |_| ()).map(|exported| exported.files)
}

fn check(dir: &Path) -> Result<(u64, Hash), CheckError> {
    check_directory(dir, &log_verifier(), &mut |_| ())
        .map(|checked| (checked.checkpoint.size, checked.checkpoint.root))
}

/// Whether the checker in Python is content, and what it says; `None` where there is no Python that can run it.
fn check_in_python(dir: &Path) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_tlog.py");
    let recent = "import sys; sys.exit(sys.version_info < (3, 6))";
    let there = Command::new("python3").args(["-c", recent]).status();
    if !there.is_ok_and(|status| status.success()) {
        return None;
    }
    let output = Command::new("python3")
        .arg(script)
        .arg(dir)
        .arg(log_verifier().to_string())
        .output()
        .expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    Some((output.status.success(), text.trim().to_owned()))
}

#[test]
fn an_export_holds_every_file_of_the_log_and_is_right() {
    for size in SIZES.into_iter().chain([70_000]) {
        let files = Files::new(size);
        let out = files.root.path().join("out");
        let mut seen = Vec::new();
        let exported = export_directory(files.source(), None, &out, &mut |progress| {
            seen.push(progress);
        });
        let exported = exported.expect("exported");
        assert_eq!(exported.head, files.head);
        let total = size;
        if size > 0 {
            assert_eq!(seen.last(), Some(&Progress { done: size, total }));
        }
        assert!(seen.iter().all(|progress| progress.total == total));
        let mut expected: BTreeMap<_, _> = Tiles::of(&files.lines)
            .files
            .into_iter()
            .map(|(path, bytes)| (path.to_string(), bytes))
            .collect();
        assert_eq!(exported.files, expected.len() as u64);
        expected.insert(
            "checkpoint".to_owned(),
            files.head.note.clone().into_bytes(),
        );
        assert!(tree(&out) == expected, "size {size}");
        let root = root_of(&files.leaves);
        assert_eq!(check(&out).expect("right"), (size, root));
        if let Some(says) = check_in_python(&out) {
            assert_eq!(says, (true, format!("{size} {root}")));
        }
    }
}

#[test]
fn the_export_of_an_older_head_holds_only_what_is_under_it() {
    let files = Files::new(700);
    let head = sign(300, root_of(&files.leaves[..300]));
    let out = files.root.path().join("out");
    let exported = export_directory(files.source(), Some(&head), &out, &mut |_| ());
    assert_eq!(exported.expect("exported").head, head);
    assert_eq!(check(&out).expect("right").0, 300);
    assert_eq!(tree(&out).len(), 1 + 2 + 1 + 2);

    let other = sign(300, root_of(&files.leaves[..299]));
    let out = files.root.path().join("other");
    let refused = export_directory(files.source(), Some(&other), &out, &mut |_| ());
    assert!(matches!(refused, Err(DirectoryError::OtherHead)));
    assert!(tree(&out).is_empty());
    let larger = sign(701, root_of(&files.leaves));
    let refused = export_directory(files.source(), Some(&larger), &out, &mut |_| ());
    assert!(matches!(refused, Err(DirectoryError::OtherHead)));
}

#[test]
fn lines_behind_the_head_are_left_out() {
    let files = Files::new(300);
    let mut text = tlog::text(&files.lines);
    text.extend_from_slice(b"{\"torn");
    fs::write(&files.log_path, text).expect("written");
    let out = files.root.path().join("out");
    assert_eq!(export(&files, &out).expect("exported"), 5);
    assert_eq!(check(&out).expect("right").0, 300);
}

#[test]
fn only_an_empty_directory_is_written_into() {
    let files = Files::new(3);
    let out = files.root.path().join("out");
    fs::create_dir_all(out.join(".unfinished-export/tile/0")).expect("made");
    fs::write(out.join(".unfinished-export/tile/0/000.p/9"), "old").expect_err("no such directory");
    export(&files, &out).expect("what an ended export left is no obstacle");
    let before = tree(&out);
    let refused = export(&files, &out);
    assert!(matches!(refused, Err(DirectoryError::NotEmpty { path }) if path == out));
    assert_eq!(tree(&out), before);
    let file = files.root.path().join("file");
    fs::write(&file, "x").expect("written");
    let refused = export(&files, &file);
    assert!(matches!(refused, Err(DirectoryError::Write { path, .. }) if path == file));
}

#[test]
fn a_log_that_is_not_as_it_was_signed_is_not_exported() {
    let files = Files::new(600);
    let mut text = tlog::text(&files.lines);
    let at = text.len() / 2;
    text[at] ^= 4;
    fs::write(&files.log_path, text).expect("written");
    let out = files.root.path().join("out");
    let refused = export(&files, &out);
    assert!(matches!(
        refused,
        Err(DirectoryError::Tampered(Damage {
            kind: DamageKind::Altered,
            ..
        }))
    ));
    assert!(tree(&out).is_empty());
    fs::remove_file(files.dir.join("floor")).expect("removed");
    fs::remove_file(files.dir.join("checkpoint")).expect("removed");
    assert!(matches!(
        export(&files, &out),
        Err(DirectoryError::Unsigned)
    ));
}

#[test]
fn an_empty_log_has_a_directory_too() {
    let files = Files::new(0);
    let out = files.root.path().join("out");
    assert_eq!(export(&files, &out).expect("exported"), 0);
    assert_eq!(check(&out).expect("right"), (0, EMPTY_ROOT));
}

struct Exported {
    _root: TempDir,
    dir: PathBuf,
}

fn exported() -> Exported {
    let files = Files::new(600);
    let dir = files.root.path().join("out");
    export(&files, &dir).expect("exported");
    Exported {
        dir,
        _root: files.root,
    }
}

#[test]
fn every_changed_file_is_found_by_both_checkers() {
    let Exported { dir, _root } = exported();
    let files = tree(&dir);
    assert_eq!(files.len(), 1 + 3 + 1 + 3);
    for (name, bytes) in &files {
        let path = dir.join(name);
        let mut damages: Vec<Vec<u8>> = Vec::new();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            damages.push(flipped);
        }
        damages.push(bytes[..bytes.len() - 1].to_vec());
        damages.push([&bytes[..], b"\0"].concat());
        damages.push(Vec::new());
        for (number, damage) in damages.into_iter().enumerate() {
            fs::write(&path, damage).expect("written");
            check(&dir).expect_err(name);
            // A flipped bit in the middle, a byte less and a byte more: Python takes its time.
            if matches!(number, 1 | 3 | 4)
                && let Some((content, _)) = check_in_python(&dir)
            {
                assert!(!content, "{name}");
            }
        }
        fs::remove_file(&path).expect("removed");
        check(&dir).expect_err(name);
        if let Some((content, _)) = check_in_python(&dir) {
            assert!(!content, "{name}");
        }
        fs::write(&path, bytes).expect("written");
    }
    check(&dir).expect("right again");
}

#[test]
fn the_first_wrong_thing_is_named() {
    let Exported { dir, _root } = exported();
    let path = |kind, index| TilePath::at(kind, index, 600).expect("a path");
    let with = |name: &str, bytes: &[u8]| {
        let old = fs::read(dir.join(name)).expect("readable");
        fs::write(dir.join(name), bytes).expect("written");
        let found = check(&dir).expect_err("damaged");
        fs::write(dir.join(name), old).expect("written");
        found
    };
    let entries = path(TileKind::Entries, 1);
    let found = with(&entries.to_string(), b"\x00");
    assert!(matches!(found, CheckError::Malformed(path) if path == entries));
    let hashes = path(TileKind::Hashes(1), 0);
    let found = with(&hashes.to_string(), &[0; 64]);
    assert!(matches!(found, CheckError::Differs(path) if path == hashes));
    let found = with("checkpoint", &[0xff, b'\n']);
    assert!(matches!(found, CheckError::Note(NoteError::Form)));
    let other = sign(600, Hash::from_bytes([3; 32]));
    let found = with("checkpoint", other.note.as_bytes());
    assert!(matches!(found, CheckError::Root));
    let longer = sign(601, Hash::from_bytes([3; 32]));
    let found = with("checkpoint", longer.note.as_bytes());
    assert!(matches!(found, CheckError::Missing(path) if path.width() == 89));

    let key = keys().log.verifying_key();
    let other = Origin::of(&keys().node_id(), 2);
    let other = Verifier::new(other.as_str(), key).expect("a name");
    let found = check_directory(&dir, &other, &mut |_| ());
    assert!(matches!(
        found,
        Err(CheckError::Note(NoteError::UnknownKey))
    ));
    fs::remove_file(dir.join("checkpoint")).expect("removed");
    assert!(matches!(check(&dir), Err(CheckError::NoCheckpoint)));
}

#[test]
fn a_full_file_may_stand_in_for_a_partial_one() {
    let Exported { dir, _root } = exported();
    let files = Files::new(1024);
    let head = sign(600, root_of(&files.leaves[..600]));
    let larger = files.root.path().join("out");
    export(&files, &larger).expect("exported");
    for name in ["tile/0/002", "tile/entries/002"] {
        fs::copy(larger.join(name), dir.join(name)).expect("copied");
        fs::remove_dir_all(dir.join(format!("{name}.p"))).expect("removed");
    }
    assert_eq!(check(&dir).expect("right"), (600, head.checkpoint.root));
}
