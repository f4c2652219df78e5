//! Honest logs and cosigners are never accused, forked ones always, and in one form only.

use std::cell::Cell;
use std::convert::Infallible;

use super::*;
use crate::cosign::Cosigner;
use crate::testing::{TestLog, cosigner, keys};
use crate::tree::{leaf_hash, node_hash};
use openfang_id::VerifyingKey;
use proptest::prelude::*;

fn fork(a: (&TestLog, u64), b: (&TestLog, u64)) -> Result<Evidence, ForkError<Infallible>> {
    let (a_nodes, b_nodes) = (a.0.leaves(a.1), b.0.leaves(b.1));
    Evidence::fork(
        &a.0.verifier(),
        Side {
            note: &a.0.note(a.1),
            nodes: a_nodes.as_slice(),
        },
        Side {
            note: &b.0.note(b.1),
            nodes: b_nodes.as_slice(),
        },
    )
}

/// What is made must be small, say what it is, and read back.
fn check_made(made: &Evidence, kind: EvidenceKind) {
    let bytes = made.to_bytes();
    assert!(bytes.len() <= EVIDENCE_BYTES_MAX);
    assert_eq!(made.kind(), kind);
    let start = format!(r#"{{"type":"{kind}","origin":"{}","vkey":""#, made.origin());
    assert!(bytes.starts_with(start.as_bytes()));
    assert_eq!(Evidence::open(&bytes).as_ref(), Ok(made));
    let hash = HEXLOWER.encode(&Sha256::digest(&bytes));
    assert_eq!(made.file_name(), format!("{hash}.json"));
}

#[test]
fn two_roots_for_one_size_are_evidence() {
    let log = TestLog::new(1, 20);
    let other = log.forked_at(7);
    let (one, two) = (log.note(20), other.note(20));
    let made = Evidence::equivocation(&log.verifier(), &one, &two).expect("evidence");
    check_made(&made, EvidenceKind::Equivocation);
    assert_eq!(made.origin(), &log.name());
    assert_eq!(made.accused(), &Accused::Log(log.verifier()));
    assert_eq!(made.differs_at(), None);
    // One form, whoever finds it and whoever has cosigned.
    let (w2, w3) = (cosigner(2), cosigner(3));
    let cosigned = log.cosigned(20, &[(&w2, 5), (&w3, 6)]);
    let again = Evidence::equivocation(&log.verifier(), &two, &cosigned);
    assert_eq!(again, Ok(made));
}

#[test]
fn what_is_no_contradiction_is_no_evidence() {
    let log = TestLog::new(1, 20);
    let other = log.forked_at(7);
    let key = log.verifier();
    let check = |one: &Note, two: &Note, expected: EvidenceError| {
        assert_eq!(Evidence::equivocation(&key, one, two), Err(expected));
    };
    check(&log.note(20), &log.note(20), EvidenceError::NoConflict);
    check(&log.note(7), &other.note(7), EvidenceError::NoConflict);
    check(&log.note(19), &other.note(20), EvidenceError::NoConflict);
    let stranger = TestLog::new(2, 20);
    let unknown = EvidenceError::Note(NoteError::UnknownKey);
    check(&log.note(20), &stranger.note(20), unknown);
    // Two logs of one key, and a key under a name that is not the log's.
    let mut renamed = log.forked_at(3);
    renamed.origin = crate::Origin::of(&keys(1).node_id(), 2);
    let text = renamed.note(20).text().to_owned();
    let signed = Note::sign(&text, log.origin.as_str(), &log.key).expect("a valid text");
    check(&log.note(20), &signed, EvidenceError::OtherLog);
    let verifier = renamed.verifier();
    let by = |log: &TestLog| {
        Note::sign(log.note(20).text(), verifier.name(), &log.key).expect("a valid text")
    };
    let made = Evidence::equivocation(&verifier, &by(&log), &by(&other));
    assert_eq!(made, Err(EvidenceError::OtherLog));
    let no_head = Note::sign("text\n", key.name(), &log.key).expect("a valid text");
    check(
        &no_head,
        &log.note(20),
        EvidenceError::Head(TreeHeadError::Lines),
    );
    let mut false_line = other.note(20);
    let mut line = false_line.signatures()[0].clone();
    line.bytes[5] ^= 1;
    false_line.add(line).expect("room for a line");
    let refused = EvidenceError::Note(NoteError::Signature);
    check(&log.note(20), &false_line, refused);
}

#[test]
fn every_small_fork_is_proved_and_no_growth_is() {
    let log = TestLog::new(1, 19);
    for at in 0..19 {
        let other = log.forked_at(at);
        for m in 1..=19 {
            for n in m + 1..=19 {
                assert_eq!(
                    fork((&log, m), (&log, n)),
                    Err(ForkError::Evidence(EvidenceError::NoConflict))
                );
                let found = fork((&log, m), (&other, n));
                assert_eq!(fork((&other, n), (&log, m)), found, "{at} {m} {n}");
                if at as u64 >= m {
                    let refused = ForkError::Evidence(EvidenceError::NoConflict);
                    assert_eq!(found, Err(refused), "{at} {m} {n}");
                    continue;
                }
                let made = found.expect("evidence");
                check_made(&made, EvidenceKind::Fork);
                let leaf = Coordinate {
                    level: 0,
                    index: at as u64,
                };
                assert_eq!(made.differs_at(), Some(leaf));
            }
        }
    }
}

#[test]
fn heads_of_one_size_are_no_fork() {
    let log = TestLog::new(1, 9);
    let refused = ForkError::Evidence(EvidenceError::NoConflict);
    assert_eq!(
        fork((&log, 9), (&log.forked_at(3), 9)),
        Err(refused.clone())
    );
    assert_eq!(fork((&log, 9), (&log, 9)), Err(refused));
}

/// Nodes that are not those of the head cannot make evidence.
#[test]
fn a_lying_source_makes_no_evidence() {
    let log = TestLog::new(1, 12);
    let (honest, mut lies) = (log.leaves(12), log.leaves(8));
    lies[5] = leaf_hash(b"a lie");
    let made = Evidence::fork(
        &log.verifier(),
        Side {
            note: &log.note(8),
            nodes: lies.as_slice(),
        },
        Side {
            note: &log.note(12),
            nodes: honest.as_slice(),
        },
    );
    let refused = ForkError::Evidence(EvidenceError::Path(ProofError::Root));
    assert_eq!(made, Err(refused));
    // Nodes that contradict their own children.
    let upper = Patched {
        leaves: honest.clone(),
        at: Coordinate { level: 3, index: 0 },
    };
    let found = first_difference::<dyn Nodes<Error = Infallible>>(&Plain(honest), &upper, 12);
    assert_eq!(found, Err(DescentError::Source));
}

struct Plain(Vec<Hash>);

impl Nodes for Plain {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        self.0.as_slice().node(level, index)
    }
}

struct Patched {
    leaves: Vec<Hash>,
    at: Coordinate,
}

impl Nodes for Patched {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        if (Coordinate { level, index }) == self.at {
            return Ok(leaf_hash(b"not what is below"));
        }
        self.leaves.as_slice().node(level, index)
    }
}

/// A tree of any size: all leaves the same but one.
struct Immense {
    levels: Vec<(Hash, Hash)>,
    odd: Option<u64>,
    asked: Cell<usize>,
}

impl Immense {
    fn new(odd: Option<u64>) -> Self {
        let mut levels = vec![(leaf_hash(b"same"), leaf_hash(b"odd"))];
        for level in 0..63_u64 {
            let (same, other) = levels[levels.len() - 1];
            let right = odd.is_some_and(|odd| odd >> level & 1 == 1);
            let with_odd = if right {
                node_hash(&same, &other)
            } else {
                node_hash(&other, &same)
            };
            levels.push((node_hash(&same, &same), with_odd));
        }
        Self {
            levels,
            odd,
            asked: Cell::new(0),
        }
    }

    fn note(&self, log: &TestLog, size: u64) -> Note {
        let root = subtree_root(self, 0, size).expect("cannot fail");
        let mut head = log.head(1);
        (head.size, head.root) = (size, root);
        let text = head.to_string();
        Note::sign(&text, log.origin.as_str(), &log.key).expect("a valid text")
    }
}

impl Nodes for Immense {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash, Infallible> {
        self.asked.set(self.asked.get() + 1);
        let (same, with_odd) = self.levels[level as usize];
        let holds = self.odd.is_some_and(|odd| odd >> level == index);
        Ok(if holds { with_odd } else { same })
    }
}

#[test]
fn a_fork_is_found_in_as_many_steps_as_the_tree_is_high() {
    let log = TestLog::new(1, 1);
    for (m, n, odd) in [
        (1_000_000_007, 3_000_000_019, 999_999_999),
        (1_000_000_007, 1_000_000_008, 1_000_000_006),
        (1 << 32, (1 << 33) - 1, 0),
        ((1 << 34) - 1, (1 << 35) - 1, (1 << 34) - 2),
    ] {
        let (a, b) = (Immense::new(None), Immense::new(Some(odd)));
        assert_eq!(first_difference(&a, &b, m), Ok(Some(odd)));
        assert!(a.asked.get() <= 2 * 64, "{}", a.asked.get());
        assert_eq!(first_difference(&a, &Immense::new(None), m), Ok(None));
        assert_eq!(first_difference(&a, &b, odd), Ok(None));
        let (a_note, b_note) = (a.note(&log, m), b.note(&log, n));
        let made = Evidence::fork(
            &log.verifier(),
            Side {
                note: &a_note,
                nodes: &a,
            },
            Side {
                note: &b_note,
                nodes: &b,
            },
        );
        let made = made.expect("evidence");
        check_made(&made, EvidenceKind::Fork);
        let at = made.differs_at().expect("a fork");
        assert_eq!(
            at,
            Coordinate {
                level: 0,
                index: odd
            },
            "{m} {n}"
        );
    }
}

/// In trees that no log will reach, the paths from the leaf are too long: a larger part is named then.
#[test]
fn evidence_of_a_fork_of_an_immense_log_stays_small() {
    let log = TestLog::new(1, 1);
    let prove = |m: u64, n: u64, odd: u64| {
        let (a, b) = (Immense::new(None), Immense::new(Some(odd)));
        let (a_note, b_note) = (a.note(&log, m), b.note(&log, n));
        let side = |note, nodes| Side { note, nodes };
        Evidence::fork(&log.verifier(), side(&a_note, &a), side(&b_note, &b))
    };
    let made = prove(1 << 61, (1 << 62) + 5, 12_345).expect("evidence");
    check_made(&made, EvidenceKind::Fork);
    let Coordinate { level, index } = made.differs_at().expect("a fork");
    assert!(level > 0);
    assert_eq!(index, 12_345 >> level);
    // Nothing larger than the last leaf differs.
    let last = (1 << 62) - 1;
    let refused = ForkError::Evidence(EvidenceError::TooLong);
    assert_eq!(prove(last, (1 << 62) + last, last - 1), Err(refused));
}

/// A head of a log, cosigned by one witness at a time.
fn cosigned(log: &TestLog, size: u64, by: &Cosigner, time: u64) -> Note {
    log.cosigned(size, &[(by, time)])
}

#[test]
fn a_cosigner_that_goes_back_or_has_two_roots_is_caught() {
    let log = TestLog::new(1, 20);
    let other = log.forked_at(7);
    let by = cosigner(2);
    let key = by.public();
    let check = |a: (&TestLog, u64, u64), b: (&TestLog, u64, u64), conflict: bool| {
        let (one, two) = (cosigned(a.0, a.1, &by, a.2), cosigned(b.0, b.1, &by, b.2));
        let made = Evidence::cosigner(key, &one, &two);
        assert_eq!(Evidence::cosigner(key, &two, &one), made);
        if conflict {
            let made = made.expect("evidence");
            check_made(&made, EvidenceKind::Cosigner);
            assert_eq!(made.accused(), &Accused::Cosigner(key.clone()));
        } else {
            assert_eq!(made, Err(EvidenceError::NoConflict));
        }
    };
    // Smaller at a later second.
    check((&log, 20, 100), (&log, 19, 101), true);
    check((&log, 20, 100), (&log, 0, 200), true);
    // The same second says nothing about the order.
    check((&log, 20, 100), (&log, 19, 100), false);
    check((&log, 19, 100), (&log, 20, 101), false);
    check((&log, 20, 100), (&log, 20, 100), false);
    check((&log, 20, 100), (&log, 20, 900), false);
    // Two roots for one size, in whichever order.
    check((&log, 20, 100), (&other, 20, 100), true);
    check((&log, 20, 100), (&other, 20, 300), true);
    check((&log, 7, 100), (&other, 7, 300), false);
}

/// What another key has signed is not this cosigner's.
#[test]
fn nobody_is_accused_of_what_others_signed() {
    let log = TestLog::new(1, 20);
    let other = log.forked_at(7);
    let (w2, w3) = (cosigner(2), cosigner(3));
    let (one, two) = (cosigned(&log, 20, &w2, 1), cosigned(&other, 20, &w3, 1));
    for key in [w2.public(), w3.public()] {
        assert_eq!(
            Evidence::cosigner(key, &one, &two),
            Err(EvidenceError::Note(NoteError::UnknownKey))
        );
    }
    let stranger = TestLog::new(2, 10);
    let two = cosigned(&stranger, 10, &w2, 50);
    assert_eq!(
        Evidence::cosigner(w2.public(), &one, &two),
        Err(EvidenceError::OtherLog)
    );
}

#[test]
fn a_policy_knows_whether_anyone_should_care() {
    let log = TestLog::new(1, 9);
    let other = log.forked_at(3);
    let by = cosigner(2);
    let text = format!(
        "log {}\nwitness w {}\nquorum w\n",
        log.verifier(),
        by.public()
    );
    let policy = Policy::parse(text.as_bytes()).expect("a policy");
    let stranger = Policy::parse(b"quorum none\n").expect("a policy");
    let (one, two) = (cosigned(&log, 9, &by, 1), cosigned(&other, 9, &by, 1));
    for made in [
        Evidence::equivocation(&log.verifier(), &one, &two),
        Evidence::cosigner(by.public(), &one, &two),
        fork((&log, 8), (&other, 9)).map_err(|_why| EvidenceError::Form),
    ] {
        let made = made.expect("evidence");
        assert!(made.is_known_to(&policy));
        assert!(!made.is_known_to(&stranger));
    }
}

#[test]
fn the_form_of_evidence_does_not_change() {
    let log = TestLog::new(1, 3);
    let other = log.forked_at(1);
    let text = |note: &Note| serde_json::to_string(&note.to_string()).expect("JSON");
    let (vkey, origin) = (log.verifier(), &log.origin);
    let (one, two) = (log.note(3), other.note(3));
    let (a, b) = if one.text() < two.text() {
        (one, two)
    } else {
        (two, one)
    };
    let made = Evidence::equivocation(&vkey, &a, &b).expect("evidence");
    let expected = format!(
        r#"{{"type":"equivocation","origin":"{origin}","vkey":"{vkey}","a":{},"b":{}}}"#,
        text(&a),
        text(&b)
    );
    assert_eq!(String::from_utf8_lossy(&made.to_bytes()), expected);
    let made = fork((&log, 2), (&other, 3)).expect("evidence");
    let base64 = |hash: &Hash| data_encoding::BASE64.encode(hash.as_bytes());
    let (mine, theirs) = (log.leaves(2), other.leaves(3));
    let expected = format!(
        r#"{{"type":"fork","origin":"{origin}","vkey":"{vkey}","a":{},"b":{},"proofs":{{"level":0,"index":1,"a":{{"node":"{}","path":["{}"]}},"b":{{"node":"{}","path":["{}","{}"]}}}}}}"#,
        text(&log.note(2)),
        text(&other.note(3)),
        base64(&mine[1]),
        base64(&mine[0]),
        base64(&theirs[1]),
        base64(&theirs[0]),
        base64(&theirs[2]),
    );
    assert_eq!(String::from_utf8_lossy(&made.to_bytes()), expected);
    let by = cosigner(2);
    let notes = [log.cosigned(3, &[(&by, 5)]), log.cosigned(2, &[(&by, 6)])];
    let [a, b] = notes.map(|note| {
        note.with_only(|line| line.name.ends_with("/witness"))
            .expect("a line")
    });
    let made = Evidence::cosigner(by.public(), &b, &a).expect("evidence");
    let expected = format!(
        r#"{{"type":"cosigner","origin":"{origin}","vkey":"{}","a":{},"b":{}}}"#,
        by.public(),
        text(&a),
        text(&b)
    );
    assert_eq!(String::from_utf8_lossy(&made.to_bytes()), expected);
}

#[test]
fn another_way_to_write_it_is_refused() {
    let log = TestLog::new(1, 3);
    let other = log.forked_at(1);
    let made = fork((&log, 2), (&other, 3)).expect("evidence");
    let good = String::from_utf8(made.to_bytes()).expect("text");
    let check = |text: &str, expected: EvidenceError| {
        assert_ne!(text, good);
        assert_eq!(Evidence::open(text.as_bytes()), Err(expected), "{text}");
    };
    check("", EvidenceError::Form);
    check("{}", EvidenceError::Form);
    check(&format!("{good}\n"), EvidenceError::Form);
    check(&format!(" {good}"), EvidenceError::Form);
    check(&good.replace(r#","b":"#, r#", "b":"#), EvidenceError::Form);
    check(
        &good.replace(r#""level":0,"#, r#""level":0,"more":0,"#),
        EvidenceError::Form,
    );
    check(&good.replace(r#""level":0,"#, ""), EvidenceError::Form);
    check(
        &good.replace(r#""level":0,"#, r#""level":0,"level":0,"#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""level":0,"#, r#""level":-0,"#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""level":0,"#, r#""level":64,"#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""index":1,"#, r#""index":9223372036854775807,"#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""index":1,"#, r#""index":0,"#),
        EvidenceError::Path(ProofError::Root),
    );
    let range = EvidenceError::Path(ProofError::Range);
    check(&good.replace(r#""index":1,"#, r#""index":2,"#), range);
    check(
        &good.replace("audit/1", "audit/2"),
        EvidenceError::Key(VerifierError::KeyId),
    );
    let origin = format!(r#""origin":"{}""#, log.origin);
    check(
        &good.replace(&origin, r#""origin":"x""#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""type":"fork""#, r#""type":"equivocation""#),
        EvidenceError::Form,
    );
    check(
        &good.replace(r#""type":"fork""#, r#""type":"cosigner""#),
        EvidenceError::Key(VerifierError::Key),
    );
    check(&good.replace('\u{2014}', "\\u2014"), EvidenceError::Form);
    check(&"x".repeat(EVIDENCE_BYTES_MAX + 1), EvidenceError::TooLong);
    let without = &good[..good.find(r#","proofs""#).expect("proofs")];
    check(&format!("{without}}}"), EvidenceError::Form);
    check(
        &format!(r#"{without},"proofs":null}}"#),
        EvidenceError::Form,
    );
}

/// Swapped heads, and lines that do not matter, are other files for the same thing: refused.
#[test]
fn there_is_one_file_for_one_contradiction() {
    let log = TestLog::new(1, 3);
    let other = log.forked_at(1);
    let made = Evidence::equivocation(&log.verifier(), &log.note(3), &other.note(3));
    let made = made.expect("evidence");
    let mut swapped = made.clone();
    std::mem::swap(&mut swapped.a, &mut swapped.b);
    assert_eq!(
        Evidence::open(&swapped.to_bytes()),
        Err(EvidenceError::NoConflict)
    );
    let mut more = made.clone();
    let line = cosigner(2).cosign(&more.a.head, 5).expect("a time");
    more.a.note.add(line).expect("room for a line");
    assert_eq!(Evidence::open(&more.to_bytes()), Err(EvidenceError::Form));
    // A path from a cosigner, and none from a fork.
    let mut odd = made.clone();
    let key: VerifyingKey = *cosigner(2).public().key();
    let accused = CosignerKey::new("w", key).expect("a valid name");
    odd.accused = Accused::Cosigner(accused);
    let unknown = EvidenceError::Note(NoteError::UnknownKey);
    assert_eq!(odd.verify(), Err(unknown));
    let mut same = fork((&log, 2), (&other, 3)).expect("evidence");
    let paths = same.fork.as_mut().expect("a fork");
    paths.b = paths.a.clone();
    assert_eq!(same.verify(), Err(EvidenceError::NoConflict));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_honest_log_never_yields_evidence(
        sizes in prop::collection::vec(0_u64..60, 2),
        times in prop::collection::vec(0_u64..5, 2),
    ) {
        let log = TestLog::new(1, 60);
        let by = cosigner(2);
        // As an honest witness does it: later is never smaller.
        let (mut sizes, mut times) = (sizes, times);
        sizes.sort_unstable();
        times.sort_unstable();
        let notes: Vec<_> = sizes.iter().zip(&times).map(|(size, time)| cosigned(&log, *size, &by, *time)).collect();
        prop_assert!(Evidence::equivocation(&log.verifier(), &notes[0], &notes[1]).is_err());
        prop_assert!(Evidence::cosigner(by.public(), &notes[0], &notes[1]).is_err());
        prop_assert!(fork((&log, sizes[0]), (&log, sizes[1])).is_err());
    }

    #[test]
    fn a_forked_log_always_yields_evidence(
        m in 1_u64..80,
        n in 1_u64..80,
        at in 0_u64..79,
    ) {
        let at = at % m.min(n);
        let log = TestLog::new(1, 80);
        let other = log.forked_at(usize::try_from(at).expect("small"));
        let made = if m == n {
            Evidence::equivocation(&log.verifier(), &log.note(m), &other.note(n))
        } else {
            fork((&log, m), (&other, n)).map_err(|_why| EvidenceError::Form)
        };
        let made = made.expect("evidence");
        prop_assert_eq!(Evidence::open(&made.to_bytes()), Ok(made.clone()));
        if let Some(Coordinate { level, index }) = made.differs_at() {
            prop_assert_eq!((level, index), (0, at));
        }
    }

    #[test]
    fn a_changed_byte_of_evidence_is_noticed(at in 0_usize..10_000, byte: u8, kind in 0_usize..3) {
        let log = TestLog::new(1, 9);
        let other = log.forked_at(3);
        let by = cosigner(2);
        let made = match kind {
            0 => Evidence::equivocation(&log.verifier(), &log.note(9), &other.note(9)),
            1 => fork((&log, 6), (&other, 9)).map_err(|_why| EvidenceError::Form),
            _ => Evidence::cosigner(by.public(), &cosigned(&log, 9, &by, 1), &cosigned(&log, 8, &by, 2)),
        };
        let mut bytes = made.expect("evidence").to_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(read) = Evidence::decode(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes.clone());
        }
        prop_assert!(Evidence::open(&bytes).is_err());
    }

    #[test]
    fn decoding_never_panics(text in "(.|\n){0,60}", field in "[a-z]{1,5}") {
        for json in [text.clone(), format!(r#"{{"type":"fork","{field}":"{text}"}}"#)] {
            if let Ok(read) = Evidence::decode(json.as_bytes()) {
                prop_assert_eq!(read.to_bytes(), json.into_bytes());
            }
        }
    }
}
