//! Proof files from the files of a log, and the comparison with heads that were kept elsewhere.

mod common;

use std::fs;

use common::{TestClock, append, event, keys, log_key, options, origin};
use openfang_audit::policy::Policy;
use openfang_audit::survey::{Fit, survey};
use openfang_audit::tlog_proof::{self, ProveFileError, Verdict, prove_entry};
use openfang_audit::verify::{Source, Verdict as Judged};
use openfang_audit::{Checkpoint, Log, Origin, SignedHead};
use openfang_id::VerifyingKey;
use tempfile::TempDir;

struct Files {
    root: TempDir,
    key: VerifyingKey,
    origin: Origin,
    log_path: std::path::PathBuf,
    dir: std::path::PathBuf,
    /// The heads that were published, with the size of the log at each.
    heads: Vec<SignedHead>,
}

impl Files {
    fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log_path).expect("the log");
        text.lines().map(str::to_owned).collect()
    }

    fn last(&self) -> &SignedHead {
        self.heads.last().expect("a head")
    }

    fn flip_in_line(&self, number: usize) {
        let mut bytes = fs::read(&self.log_path).expect("the log");
        let starts = std::iter::once(0).chain(
            bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n')
                .map(|(at, _)| at + 1),
        );
        let start = starts.clone().nth(number).expect("a line");
        bytes[start + 12] ^= 1;
        fs::write(&self.log_path, bytes).expect("written");
    }
}

/// A log of some entries, closed and opened again a few times, so that there are heads of several sizes.
fn files() -> Files {
    let root = TempDir::new().expect("a folder");
    let mut heads = Vec::new();
    for part in 0..4 {
        let (log, _) = Log::open(options(root.path()), TestClock::fast()).expect("a log");
        for number in 0..=part * 3 {
            append(&log, event(number)).expect("appended");
        }
        log.close().expect("closed");
        heads.push(log.head().expect("a head"));
    }
    let options = options(root.path());
    Files {
        root,
        key: log_key(),
        origin: origin(),
        log_path: options.log_path,
        dir: options.dir,
        heads,
    }
}

fn policy() -> Policy {
    Policy::of_log(&origin(), log_key(), &[], 0).expect("a policy")
}

#[test]
fn every_entry_is_proved_under_every_head_that_covers_it() {
    let files = files();
    let lines = files.lines();
    for head in &files.heads {
        let size = head.checkpoint.size;
        for (seq, line) in (0..size).zip(&lines) {
            let proved = prove_entry(files.source(), head, seq, &mut |_| ()).expect("proved");
            assert_eq!(proved.line, line.as_bytes());
            let text = proved.proof.to_string();
            let read: tlog_proof::TlogProof = text.parse().expect("it reads back");
            assert_eq!(read.extra(), Some(line.as_bytes()));
            let verdict = read.check(line.as_bytes(), &policy()).expect("it holds");
            assert!(matches!(verdict, Verdict::Proven(_)));
            let other = lines.iter().find(|other| *other != line).expect("another");
            assert!(read.check(other.as_bytes(), &policy()).is_err());
        }
        let beyond = prove_entry(files.source(), head, size, &mut |_| ());
        assert!(
            matches!(beyond, Err(ProveFileError::NotCovered { size: covered }) if covered == size)
        );
    }
}

#[test]
fn nothing_is_proved_of_an_altered_log_and_all_of_what_stands_before() {
    let files = files();
    let early = &files.heads[1];
    let altered = usize::try_from(early.checkpoint.size).expect("small");
    files.flip_in_line(altered);
    let refused = prove_entry(files.source(), files.last(), 0, &mut |_| ());
    assert!(
        matches!(&refused, Err(ProveFileError::Tampered { damage: Some(damage) })
            if damage.first_bad_seq == Some(early.checkpoint.size)),
        "{refused:?}"
    );
    let proved = prove_entry(files.source(), early, 0, &mut |_| ()).expect("it stands before");
    assert!(matches!(proved.report.verdict, Judged::Tampered { .. }));
}

#[test]
fn heads_from_elsewhere_are_compared_in_one_pass() {
    let files = files();
    let last = &files.last().checkpoint;
    let mut asked: Vec<Checkpoint> = files
        .heads
        .iter()
        .map(|head| head.checkpoint.clone())
        .collect();
    asked.push(Checkpoint {
        root: files.heads[0].checkpoint.root,
        ..files.heads[1].checkpoint.clone()
    });
    asked.push(Checkpoint {
        size: last.size + 1,
        ..last.clone()
    });
    let mut told = Vec::new();
    let found = survey(files.source(), &asked, &mut |at| told.push(at)).expect("readable");
    let fits: Vec<Fit> = found.compared.iter().map(|one| one.fit).collect();
    let expected = [
        Fit::Fits,
        Fit::Fits,
        Fit::Fits,
        Fit::Fits,
        Fit::Differs,
        Fit::Beyond,
    ];
    assert_eq!(fits, expected);
    let lines = files.lines();
    for (compared, head) in found.compared.iter().zip(&asked) {
        let next = usize::try_from(head.size).expect("small");
        let time = lines.get(next).map(|line| {
            openfang_audit::Line::parse(line.as_bytes())
                .expect("a line")
                .ts
        });
        assert_eq!(compared.next_entry, time, "behind {}", head.size);
    }
    assert_eq!(found.first_unsigned, None);
    assert_eq!(
        told.last().map(|at| (at.done, at.total)),
        Some((last.size, last.size))
    );
    drop(files.root);
}

#[test]
fn an_entry_that_no_head_covers_is_told_with_its_time() {
    let files = files();
    let early = &files.heads[2];
    // As after a crash: the last head is one before the last entries.
    for name in ["floor", "checkpoint"] {
        fs::write(files.dir.join(name), &early.note).expect("written");
    }
    fs::write(files.dir.join("closed"), "").expect("written");
    let found = survey(files.source(), &[], &mut |_| ()).expect("readable");
    assert!(
        matches!(found.report.verdict, Judged::Intact { unsigned, .. } if unsigned > 0),
        "{:?}",
        found.report
    );
    assert!(found.first_unsigned.is_some());
    assert_eq!(keys().log.verifying_key(), files.key);
}
