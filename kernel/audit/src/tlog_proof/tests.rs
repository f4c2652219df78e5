//! Every entry of a small log proved offline, and everything that must not pass for a proof.

use super::*;
use crate::cosign::LogNameError;
use crate::policy::quorum_for;
use crate::testing::{TestLog, cosigner, keys};
use proptest::prelude::*;

fn policy(log: &TestLog) -> Policy {
    let nodes = [2, 3, 4, 5].map(|seed| (keys(seed).node_id(), keys(seed).witness.verifying_key()));
    Policy::of_log(&log.origin, log.key.verifying_key(), &nodes, quorum_for(4)).expect("a policy")
}

fn proof(log: &TestLog, index: u64, size: u64, witnesses: &[u8]) -> TlogProof {
    let by: Vec<_> = witnesses.iter().map(|seed| cosigner(*seed)).collect();
    let by: Vec<_> = by.iter().map(|one| (one, 1_000)).collect();
    let note = log.cosigned(size, &by);
    TlogProof::new(index, log.inclusion(index, size), note).expect("a proof")
}

#[test]
fn every_entry_of_a_log_is_proved_offline() {
    let log = TestLog::new(1, 17);
    let policy = policy(&log);
    for size in 1..=17 {
        for index in 0..size {
            let file = proof(&log, index, size, &[2, 4, 5]).to_string();
            let at = usize::try_from(index).expect("small");
            let verdict = check(file.as_bytes(), &log.entries[at], &policy);
            let Ok(Verdict::Proven(shown)) = verdict else {
                panic!("{index} of {size}: {verdict:?}");
            };
            assert_eq!(shown.index, index);
            assert_eq!(shown.evaluation.head, log.head(size));
            assert_eq!(shown.evaluation.cosignatures.len(), 3);
            let other = check(file.as_bytes(), b"another entry", &policy);
            assert_eq!(other, Err(CheckError::Inclusion(ProofError::Root)));
        }
    }
}

#[test]
fn a_head_below_the_quorum_is_not_shown_as_proven() {
    let log = TestLog::new(1, 5);
    let found = proof(&log, 3, 5, &[2, 3]).check(&log.entries[3], &policy(&log));
    assert!(matches!(found, Ok(Verdict::BelowQuorum(shown)) if shown.index == 3));
    let found = proof(&log, 3, 5, &[]).check(&log.entries[3], &policy(&log));
    assert!(matches!(found, Ok(Verdict::BelowQuorum(_))));
    let none = Policy::of_log(&log.origin, log.key.verifying_key(), &[], 0).expect("a policy");
    let found = proof(&log, 3, 5, &[]).check(&log.entries[3], &none);
    assert!(matches!(found, Ok(Verdict::Proven(_))));
}

#[test]
fn a_proof_holds_for_its_place_its_head_and_its_log_only() {
    let (log, other) = (TestLog::new(1, 9), TestLog::new(7, 9));
    let policy = policy(&log);
    let good = proof(&log, 4, 9, &[2, 3, 4]);
    let check = |proof: TlogProof, expected: CheckError| {
        assert_eq!(proof.check(&log.entries[4], &policy), Err(expected));
    };
    let moved = TlogProof::new(5, good.hashes().to_vec(), good.note().clone());
    check(
        moved.expect("a proof"),
        CheckError::Inclusion(ProofError::Root),
    );
    let behind = TlogProof::new(9, good.hashes().to_vec(), good.note().clone());
    check(
        behind.expect("a proof"),
        CheckError::Inclusion(ProofError::Range),
    );
    let short = TlogProof::new(4, good.hashes()[1..].to_vec(), good.note().clone());
    let length = ProofError::Length {
        expected: 4,
        found: 3,
    };
    check(short.expect("a proof"), CheckError::Inclusion(length));
    let older = TlogProof::new(4, good.hashes().to_vec(), log.note(8));
    let length = ProofError::Length {
        expected: 3,
        found: 4,
    };
    check(older.expect("a proof"), CheckError::Inclusion(length));
    let foreign = proof(&other, 4, 9, &[2, 3, 4]);
    check(foreign, CheckError::Head(EvaluateError::UnknownLog));
    let unsigned = good.note().with_only(|line| line.name.ends_with("witness"));
    let unsigned = TlogProof::new(4, good.hashes().to_vec(), unsigned.expect("cosignatures"));
    check(
        unsigned.expect("a proof"),
        CheckError::Head(EvaluateError::UnknownLog),
    );
}

#[test]
fn the_file_is_the_one_of_the_specification() {
    let log = TestLog::new(1, 3);
    let good = proof(&log, 2, 3, &[2]);
    let hash = BASE64.encode(log.inclusion(2, 3)[0].as_bytes());
    let note = good.note().to_string();
    let text = format!("c2sp.org/tlog-proof@v1\nindex 2\n{hash}\n\n{note}");
    assert_eq!(good.to_string(), text);
    assert_eq!(text.parse(), Ok(good.clone()));
    // One entry: no hashes at all.
    let single = proof(&log, 0, 1, &[]);
    let text = format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{}", log.note(1));
    assert_eq!(single.to_string(), text);
    assert_eq!(text.parse(), Ok(single));
    let extra = good
        .to_string()
        .replace("index 2", "extra aGVsbG8=\nindex 2");
    let read: TlogProof = extra.parse().expect("a proof with extra data");
    assert_eq!(read.extra(), Some(b"hello".as_slice()));
    assert_eq!((read.index(), read.head()), (2, &log.head(3)));
    assert_eq!(read.to_string(), extra);
    assert!(matches!(
        read.check(&log.entries[2], &policy(&log)),
        Ok(Verdict::BelowQuorum(_))
    ));
}

#[test]
fn malformed_files_are_refused() {
    let log = TestLog::new(1, 3);
    let good = proof(&log, 2, 3, &[2]).to_string();
    let check = |text: &str, expected: TlogProofError| {
        assert_eq!(text.parse::<TlogProof>(), Err(expected), "{text:?}");
    };
    check("", TlogProofError::Header);
    check(&good.replace("@v1", "@v2"), TlogProofError::Header);
    check(&good.replace("@v1\n", "@v1\r\n"), TlogProofError::Header);
    check(&format!("\n{good}"), TlogProofError::Header);
    for extra in ["extra \n", "extra aGVsbG8\n", "extra aGVsbG9=\n", "extra"] {
        let text = good.replace("index 2\n", &format!("{extra}index 2\n"));
        let expected = if extra == "extra" {
            TlogProofError::Index
        } else {
            TlogProofError::Extra
        };
        check(&text, expected);
    }
    let twice = good.replace("index 2\n", "extra aGVsbG8=\nextra aGVsbG8=\nindex 2\n");
    check(&twice, TlogProofError::Index);
    for index in ["02", "-2", "+2", "", "2 ", "9223372036854775808"] {
        let text = good.replace("index 2\n", &format!("index {index}\n"));
        check(&text, TlogProofError::Index);
    }
    check(&good.replace("=\n\n", "=\n"), TlogProofError::Hashes);
    let hash = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    let many = good.replace("index 2\n", &format!("index 2\n{}", hash.repeat(63)));
    check(&many, TlogProofError::Hashes);
    let most = good.replace("index 2\n", &format!("index 2\n{}", hash.repeat(62)));
    assert_eq!(
        most.parse::<TlogProof>().map(|read| read.hashes().len()),
        Ok(63)
    );
    check(
        &good.replace("index 2\n", "index 2\nBwcH\n"),
        TlogProofError::Hashes,
    );
    check(
        &good.replace("index 2\n", "index 2\n\n"),
        TlogProofError::Head(TreeHeadError::Lines),
    );
    let name = good.replace(&format!("\n\n{}", log.origin), "\n\na+b");
    check(
        &name,
        TlogProofError::Head(TreeHeadError::Origin(LogNameError)),
    );
    check(good.trim_end(), TlogProofError::Note(NoteError::Form));
    check(
        &"x".repeat(TLOG_PROOF_BYTES_MAX + 1),
        TlogProofError::TooLong,
    );
    let bytes = [HEADER.as_bytes(), b"index 0\n\xff"].concat();
    assert_eq!(TlogProof::parse(&bytes), Err(TlogProofError::Header));
    assert_eq!(TlogProof::new(SIZE_MAX + 1, Vec::new(), log.note(1)), None);
    let hashes = vec![Hash::from_bytes([7; 32]); 64];
    assert_eq!(TlogProof::new(1, hashes, log.note(1)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_flipped_bit_of_a_proof_is_noticed(bit in 0_usize..100_000) {
        let log = TestLog::new(1, 6);
        let good = proof(&log, 4, 6, &[2, 3, 4]);
        let mut bytes = good.to_string().into_bytes();
        let at = (bit / 8) % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        if let Ok(read) = TlogProof::parse(&bytes) {
            prop_assert_eq!(read.to_string().into_bytes(), bytes);
            // A line may turn into one of a stranger: then one cosignature fewer is counted.
            match read.check(&log.entries[4], &policy(&log)) {
                Ok(Verdict::Proven(_)) => prop_assert!(false, "all of it is needed"),
                Ok(Verdict::BelowQuorum(shown)) => prop_assert_eq!(shown.evaluation.cosignatures.len(), 2),
                Err(_refused) => {}
            }
        }
    }

    #[test]
    fn parsing_never_panics_and_what_is_accepted_is_written_back(
        extra in "(extra [A-Za-z0-9=]{0,8}\n)?",
        index in "(index [0-9]{1,4}\n)?",
        hashes in "(BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n){0,3}\n?",
        rest in "(.|\n){0,20}",
        with_note: bool,
    ) {
        let note = if with_note { TestLog::new(1, 2).note(2).to_string() } else { String::new() };
        let text = format!("{HEADER}{extra}{index}{hashes}{note}{rest}");
        if let Ok(read) = text.parse::<TlogProof>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}
