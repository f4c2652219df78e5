//! Redactions that were left half-way, may not be done, or are overtaken by a doubt.

mod common;
mod kept;

use std::collections::BTreeSet;
use std::path::Path;

use common::{append, eventually, origin};
use kept::{erase, erased, files, from, is_intact, open, open_held, shown, value};
use openfang_audit::{Erase, Event, Field, Line, RedactError, Seqs};
use tempfile::TempDir;

/// Every state that a crash can leave: the intent alone, the intent and the entry, and those with part of it
/// erased. The files are those of the same redaction, put together as the disk could have them.
#[test]
fn a_redaction_that_was_interrupted_is_finished_at_the_next_start() {
    let whole = TempDir::new().expect("a folder");
    let log = open(whole.path(), 1);
    for address in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
        append(&log, from(address)).expect("durable");
    }
    log.close().expect("closed");
    let before = files(whole.path());
    let intent = {
        // The next step fails, so that the intent stays.
        let log = open(whole.path(), 2);
        let vault = whole.path().join("audit.d/vault");
        let held = vault.join("00000009.vault");
        std::fs::create_dir(&held).expect("a folder in the place of a file");
        let why = erase(&log, Erase::Subject("192.0.2.7")).expect_err("cannot be read");
        assert!(
            matches!(why, RedactError::Vault(_)),
            "nothing was announced: {why}"
        );
        std::fs::remove_dir(&held).expect("removed");
        log.close().expect("closed");
        let keys: Vec<String> = kept_keys(whole.path());
        let openings = commitments(whole.path(), &[0, 2]);
        format!(
            "openfang/redaction/1\norigin {}\nfrom 3\nreason asked by the subject\nuser cli\nseqs 0,2\n{}{}end\n",
            origin(),
            keys.concat(),
            openings.concat(),
        )
    };
    for announced in [false, true] {
        for erased_part in [false, true] {
            let root = TempDir::new().expect("a folder");
            restore(&before, whole.path(), root.path());
            if announced || erased_part {
                let log = open(root.path(), 3);
                if announced {
                    let seqs = Seqs::split(&[0, 2].into()).remove(0);
                    append(&log, Event::redact(&seqs, "asked by the subject", "cli"))
                        .expect("durable");
                }
                log.close().expect("closed");
            }
            if erased_part {
                zero_first_opening(root.path());
            }
            let path = root.path().join("audit.d/vault/redacting");
            std::fs::write(&path, &intent).expect("written");
            let log = open(root.path(), 4);
            assert_eq!(log.size(), 4, "announced once, whoever did it");
            let told = log.recent(1).expect("readable").remove(0);
            assert_eq!(
                (told.ev.as_str(), told.target.as_deref()),
                ("redact", Some("0,2"))
            );
            assert!(!path.exists());
            log.close().expect("closed");
            assert_eq!(shown(root.path(), 0), erased());
            assert_eq!(shown(root.path(), 1), value("192.0.2.8:4200"));
            assert_eq!(shown(root.path(), 2), erased());
            assert!(is_intact(root.path()));
        }
    }
}

/// The keys of the first subject, as an intent has them.
fn kept_keys(root: &Path) -> Vec<String> {
    use openfang_audit::vault::record::{Record, Records};
    let bytes = std::fs::read(root.join("audit.d/vault/00000001.vault")).expect("readable");
    let first = Records::of(&bytes).find_map(|(_, record)| match record {
        Record::Key(key) => Some(key.id),
        Record::Opening(_) | Record::Erased => None,
    });
    let hex: String = first
        .expect("a key")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    vec![format!("key {hex}\n")]
}

/// What entries commit to, as an intent has it.
fn commitments(root: &Path, seqs: &[usize]) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root.join("audit.jsonl")).expect("readable");
    let lines: Vec<&str> = text.lines().collect();
    let one = |seq: &usize| {
        let line = Line::parse(lines[*seq].as_bytes()).expect("an entry");
        format!(
            "opening {}\n",
            line.commitments.of(Field::Target).expect("one")
        )
    };
    seqs.iter().map(one).collect()
}

trait Concat {
    fn concat(&self) -> String;
}

impl Concat for BTreeSet<String> {
    fn concat(&self) -> String {
        self.iter().map(String::as_str).collect()
    }
}

fn restore(files: &[(String, Vec<u8>)], from: &Path, to: &Path) {
    let from = from.display().to_string();
    for (name, bytes) in files {
        let path = to.join(name.trim_start_matches(&from).trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    }
}

fn zero_first_opening(root: &Path) {
    use openfang_audit::vault::record::{Record, Records};
    let path = root.join("audit.d/vault/00000001.vault");
    let mut bytes = std::fs::read(&path).expect("readable");
    let found = Records::of(&bytes).find(|(_, record)| matches!(record, Record::Opening(_)));
    let (body, _) = found.expect("an opening");
    // Half of it: the rest was still to come.
    let half = body.start + (body.end - body.start) / 2;
    bytes[body.start - 3] = 0;
    bytes[body.start..half].fill(0);
    std::fs::write(&path, bytes).expect("written");
}

/// Nobody is told that a value is gone which a damaged file still holds.
#[test]
fn no_flipped_bit_of_the_vault_makes_a_redaction_say_more_than_it_did() {
    let whole = TempDir::new().expect("a folder");
    let log = open(whole.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    log.close().expect("closed");
    let before = files(whole.path());
    let vault = "audit.d/vault/00000001.vault";
    let length = std::fs::read(whole.path().join(vault))
        .expect("there")
        .len();
    for at in 0..length {
        let root = TempDir::new().expect("a folder");
        restore(&before, whole.path(), root.path());
        let path = root.path().join(vault);
        let flip = |at: usize| {
            let mut bytes = std::fs::read(&path).expect("readable");
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        };
        flip(at);
        assert_ne!(shown(root.path(), 0), erased(), "byte {at}");
        let log = open(root.path(), 2);
        let by_number = at % 2 == 0;
        let first = [0].into();
        let what = if by_number {
            Erase::Entries(&first)
        } else {
            Erase::Subject("192.0.2.7")
        };
        let done = erase(&log, what);
        log.close().expect("closed");
        assert!(
            matches!(done, Err(RedactError::Incomplete { .. })),
            "byte {at}: {done:?}"
        );
    }
}

#[test]
fn a_reason_that_would_be_cut_is_refused() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    for len in [0, openfang_audit::REASON_BYTES_MAX + 1] {
        let what = Erase::Entries(&[0].into());
        let refused = log.redact(what, &"x".repeat(len), "cli".into());
        assert!(matches!(refused, Err(RedactError::Reason(found)) if found == len));
    }
    log.close().expect("closed");
}

#[test]
fn what_may_not_be_erased_stays_and_the_log_says_so() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    let mut asked = None;
    let may = |told| {
        asked = Some(told);
        false
    };
    let what = Erase::Subject("192.0.2.7");
    let refused = log.redact_when(what, "too few witnesses", "api:key".into(), may);
    assert!(matches!(refused, Err(RedactError::NotAsDemanded)));
    assert_eq!(asked, Some(openfang_audit::Seq(1)));
    assert_ne!(shown(root.path(), 0), erased());
    let told = log.recent(2).expect("readable");
    let outcomes = told.iter().map(|line| line.outcome.as_str());
    assert_eq!(outcomes.collect::<Vec<_>>(), ["ok", "denied: not cosigned"]);
    assert_eq!(told[1].target.as_deref(), Some("0"));
    assert_eq!(told[1].cause, Some(format!("{}#1", origin())));
    log.close().expect("closed");
    // Nor does the next start take it for one that was interrupted.
    let log = open(root.path(), 2);
    assert_ne!(shown(root.path(), 0), erased());
    assert_eq!(log.size(), 3);
    log.close().expect("closed");
}

#[test]
fn a_redaction_that_could_not_be_finished_is_finished_by_the_next_one() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    append(&log, from("192.0.2.8")).expect("durable");
    let left = format!(
        "openfang/redaction/1\norigin {}\nfrom 2\nreason first\nuser cli\nseqs 0\n{}end\n",
        origin(),
        commitments(root.path(), &[0]).concat(),
    );
    let path = root.path().join("audit.d/vault/redacting");
    std::fs::write(&path, left).expect("written");
    assert_eq!(
        erase(&log, Erase::Entries(&[1].into())).expect("erased"),
        [3]
    );
    let told: Vec<_> = log
        .recent(2)
        .expect("readable")
        .into_iter()
        .map(|line| line.act)
        .collect();
    assert_eq!(
        told,
        [
            Some("first".to_owned()),
            Some("asked by the subject".to_owned())
        ]
    );
    assert_eq!(shown(root.path(), 0), erased());
    assert_eq!(shown(root.path(), 1), erased());
    assert!(!path.exists());
    // A file that is none is put aside: what it was to erase is not known.
    std::fs::write(&path, "openfang/redaction/1\n").expect("written");
    log.close().expect("closed");
    let log = open(root.path(), 2);
    assert!(!path.exists() && path.with_extension("damaged").exists());
    log.close().expect("closed");
}

/// The intent to erase the value of the first entry, announced behind the second one.
fn intent_of_the_first(root: &Path, withdrawn: &str) -> String {
    format!(
        "openfang/redaction/1\norigin {}\nfrom 1\nreason first\nuser cli\nseqs 0\n{withdrawn}{}end\n",
        origin(),
        commitments(root, &[0]).concat(),
    )
}

#[test]
fn what_was_left_waits_for_the_end_of_a_doubt() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    log.close().expect("closed");
    let path = root.path().join("audit.d/vault/redacting");
    std::fs::write(&path, intent_of_the_first(root.path(), "")).expect("written");
    let log = open_held(root.path(), 2, true);
    assert_eq!(log.size(), 1, "what tells of it might have to make room");
    assert_ne!(shown(root.path(), 0), erased());
    let refused = erase(&log, Erase::Subject("192.0.2.7"));
    assert!(matches!(refused, Err(RedactError::InDoubt)));
    assert!(path.exists());
    log.release();
    eventually(|| !path.exists());
    assert_eq!(log.size(), 2);
    assert_eq!(
        log.recent(1).expect("readable")[0].target.as_deref(),
        Some("0")
    );
    assert_eq!(shown(root.path(), 0), erased());
    log.close().expect("closed");
    assert!(is_intact(root.path()));
}

#[test]
fn a_redaction_that_a_doubt_overtakes_waits_for_its_end() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    let what = Erase::Subject("192.0.2.7");
    for is_as_demanded in [true, false] {
        let overtaken = log.redact_when(what, "asked", "cli".into(), |_told| {
            log.hold();
            is_as_demanded
        });
        assert!(matches!(
            overtaken,
            Err(RedactError::Waits | RedactError::InDoubt)
        ));
        assert_ne!(shown(root.path(), 0), erased());
    }
    assert_eq!(log.size(), 2, "it is announced");
    log.release();
    eventually(|| !root.path().join("audit.d/vault/redacting").exists());
    assert_eq!(log.size(), 2, "and not once more");
    assert_eq!(shown(root.path(), 0), erased());
    log.close().expect("closed");
}

/// A crash between the intent that says that nothing is erased and the entry that says so.
#[test]
fn what_was_withdrawn_is_said_at_the_next_start_and_not_erased() {
    for is_said in [false, true] {
        let root = TempDir::new().expect("a folder");
        let log = open(root.path(), 1);
        append(&log, from("192.0.2.7")).expect("durable");
        let before = commitments(root.path(), &[0]);
        let refused = log.redact_when(Erase::Entries(&[0].into()), "first", "cli".into(), |_| {
            if !is_said {
                // As if the node ended here.
                let copy = root.path().join("copy.jsonl");
                std::fs::copy(root.path().join("audit.jsonl"), copy).expect("copied");
            }
            false
        });
        assert!(matches!(refused, Err(RedactError::NotAsDemanded)));
        assert_eq!(commitments(root.path(), &[0]), before);
        log.close().expect("closed");
        if !is_said {
            std::fs::remove_dir_all(root.path().join("audit.d/evidence")).expect("removed");
            for name in ["floor", "checkpoint", "closed"] {
                std::fs::remove_file(root.path().join("audit.d").join(name)).expect("removed");
            }
            let copy = root.path().join("copy.jsonl");
            std::fs::rename(copy, root.path().join("audit.jsonl")).expect("as it was");
        }
        let path = root.path().join("audit.d/vault/redacting");
        std::fs::write(&path, intent_of_the_first(root.path(), "withdrawn 1\n")).expect("written");
        // The heads are gone with the end, which only a log that is held bears.
        let log = open_held(root.path(), 2, !is_said);
        log.release();
        eventually(|| !path.exists());
        let mut told = log.recent(10).expect("readable");
        told.retain(|line| line.ev == "redact");
        let outcomes: Vec<_> = told.iter().map(|line| line.outcome.as_str()).collect();
        assert_eq!(outcomes, ["ok", "denied: not cosigned"]);
        assert_eq!(told[1].cause, Some(format!("{}#1", origin())));
        assert_ne!(shown(root.path(), 0), erased());
        log.close().expect("closed");
    }
}
