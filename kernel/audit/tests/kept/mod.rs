//! A log with a vault, and what is kept in it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this module and uses its own part of it"
)]

use std::path::Path;

use openfang_audit::guard::{Guard, Known};
use openfang_audit::vault::{Revealed, Vault, VaultReader};
use openfang_audit::verify::{Verdict, verify_files};
use openfang_audit::{Erase, Event, Field, Line, Log, RedactError, Text};
use openfang_id::NodeSeed;

use crate::common::{self, TestClock, log_key, origin};

/// A secret without any form, which only its owner knows to be one.
pub const PLAIN: &str = "correct horse battery staple of this node";

pub fn open(root: &Path, run: u8) -> Log {
    open_held(root, run, false)
}

pub fn open_held(root: &Path, run: u8, held: bool) -> Log {
    let known = Known::default().with([PLAIN.as_bytes()]);
    let guard = |dir: &Path| {
        let key = NodeSeed::from_bytes([1; 32]).vault_key();
        let vault = Vault::open(&dir.join("vault"), &key, [run; 32].into())?;
        Ok(Guard::new(known, Some(vault)))
    };
    let options = openfang_audit::Options {
        held,
        ..common::options(root)
    };
    Log::open_guarded(options, TestClock::fast(), guard)
        .expect("a log")
        .0
}

pub fn reader(root: &Path) -> VaultReader {
    let key = NodeSeed::from_bytes([1; 32]).vault_key();
    VaultReader::new(&root.join("audit.d/vault"), &key)
}

pub fn verdict(root: &Path) -> Verdict {
    let (log_path, dir) = (root.join("audit.jsonl"), root.join("audit.d"));
    let report = verify_files(&log_path, &dir, &log_key(), &origin());
    report.expect("readable").verdict
}

pub fn is_intact(root: &Path) -> bool {
    matches!(verdict(root), Verdict::Intact { .. })
}

/// Every file below a folder.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(at).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                found.push((path.display().to_string(), bytes));
            }
        }
    }
    found
}

pub fn from(address: &str) -> Event {
    let place = format!("{address}:4200");
    Event::auth_failed("api", Text::place(&place), "no key")
}

pub fn erase(log: &Log, what: Erase<'_>) -> Result<Vec<u64>, RedactError> {
    let done = log.redact(what, "asked by the subject", "cli".into());
    done.map(|done| done.told_in.into_iter().map(|seq| seq.0).collect())
}

pub fn shown(root: &Path, seq: usize) -> Vec<(Field, Revealed)> {
    let text = std::fs::read_to_string(root.join("audit.jsonl")).expect("readable");
    let line = text.lines().nth(seq).expect("an entry");
    let line = Line::parse(line.as_bytes()).expect("an entry");
    reader(root).reveal(&[line]).expect("readable").remove(0)
}

pub fn value(text: &str) -> Vec<(Field, Revealed)> {
    vec![(Field::Target, Revealed::Value(text.to_owned()))]
}

pub fn erased() -> Vec<(Field, Revealed)> {
    vec![(Field::Target, Revealed::Erased)]
}
