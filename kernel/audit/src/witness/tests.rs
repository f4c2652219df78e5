//! Each refusal in its order, batches, and clients that ask at once in every order of steps.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::*;
use crate::testing::{TestLog, cosigner};
use proptest::prelude::*;

/// The body of a request: a head of a log, with the proof from an older size.
pub(super) fn request(log: &TestLog, old: u64, size: u64) -> Vec<u8> {
    let proof = log.consistency(old, size);
    let request = AddCheckpoint::new(old, proof, log.note(size)).expect("a request");
    request.to_string().into_bytes()
}

/// Knows the keys of some logs.
pub(super) fn trust(logs: &[TestLog]) -> impl Fn(&LogName) -> Trust + '_ {
    |name| {
        let known = logs.iter().find(|log| log.name() == *name);
        known.map_or(Trust::Unknown, |log| Trust::Keys(vec![log.verifier()]))
    }
}

fn witness() -> Witness<MemoryStore> {
    Witness::new(cosigner(2), MemoryStore::default())
}

/// The head with the cosignature of an answer.
pub(super) fn cosigned(log: &TestLog, answer: &Accepted) -> Note {
    let mut note = log.note(answer.head.size);
    let lines = Signature::parse_lines(&answer.to_string()).expect("signature lines");
    for line in lines {
        note.add(line).expect("room for a line");
    }
    note
}

fn check_refused(answer: Result<Accepted, Refusal>, status: u16, reason: &Reason) -> Refusal {
    let refusal = answer.expect_err("a refusal");
    assert_eq!(&refusal.reason, reason);
    assert_eq!(refusal.status(), status, "{reason:?}");
    let size = matches!(reason, Reason::Conflict { .. });
    let expected = if size {
        "text/x.tlog.size"
    } else {
        "text/plain; charset=utf-8"
    };
    assert_eq!(refusal.content_type(), expected);
    assert!(refusal.body().ends_with('\n'));
    refusal
}

#[test]
fn a_growing_log_is_cosigned_head_by_head() {
    let logs = [TestLog::new(1, 40)];
    let log = &logs[0];
    let witness = witness();
    let mut old = 0;
    for (size, now) in [(0, 10), (1, 10), (7, 11), (7, 11), (7, 15), (40, 15)] {
        let answer = witness
            .add_checkpoint(&request(log, old, size), &trust(&logs), now)
            .expect("cosigned");
        assert_eq!((&answer.head, answer.time), (&log.head(size), now));
        let note = cosigned(log, &answer);
        assert_eq!(cosigner(2).public().verify(&note), Ok(now));
        old = size;
    }
}

#[test]
fn the_latest_cosigned_head_is_shown_with_both_lines() {
    let logs = [TestLog::new(1, 9)];
    let log = &logs[0];
    let witness = witness();
    assert!(matches!(witness.checkpoint(&log.name().id()), Ok(None)));
    let mut note = log.note(9);
    let stranger = cosigner(7).cosign(&log.head(9), 3).expect("a time");
    note.add(stranger).expect("room for a line");
    let body = AddCheckpoint::new(0, Vec::new(), note).expect("a request");
    let answer = witness.add_checkpoint(body.to_string().as_bytes(), &trust(&logs), 50);
    let expected = cosigned(log, &answer.expect("cosigned"));
    let shown = witness.checkpoint(&log.name().id()).expect("readable");
    // The line of the stranger is not passed on.
    assert_eq!(shown, Some(expected));
}

/// Each refusal, in the order of the checks: every request below fails the next check as well.
#[test]
fn refusals_come_in_the_order_of_the_specification() {
    let logs = [TestLog::new(1, 30)];
    let (log, stranger) = (&logs[0], TestLog::new(5, 30));
    let fork = log.forked_at(4);
    let witness = witness();
    let ask = |body: &[u8]| witness.add_checkpoint(body, &trust(&logs), 100);
    let text = |log: &TestLog, old, size| String::from_utf8(request(log, old, size)).expect("text");
    assert!(ask(&request(log, 0, 10)).is_ok());
    let bad = text(&stranger, 3, 9).replace("old 3", "old 03");
    check_refused(
        ask(bad.as_bytes()),
        400,
        &Reason::Malformed(RequestError::Old),
    );
    check_refused(ask(&request(&stranger, 3, 9)), 404, &Reason::UnknownLog);
    let unsigned = {
        let note = Note::sign(log.note(9).text(), log.origin.as_str(), &stranger.key);
        format!("old 12\n\n{}", note.expect("a valid text"))
    };
    let unknown = Reason::Untrusted(NoteError::UnknownKey);
    check_refused(ask(unsigned.as_bytes()), 403, &unknown);
    let false_line = {
        let mut note = log.note(9);
        let mut line = note.signatures()[0].clone();
        line.bytes[0] ^= 1;
        note.add(line).expect("room for a line");
        format!("old 12\n\n{note}")
    };
    let spoiled = Reason::Untrusted(NoteError::Signature);
    check_refused(ask(false_line.as_bytes()), 403, &spoiled);
    let larger = text(log, 0, 9).replace("old 0", "old 12");
    check_refused(ask(larger.as_bytes()), 400, &Reason::OldTooLarge);
    let conflict = Reason::Conflict { latest: 10 };
    let refusal = check_refused(ask(&request(&fork, 5, 20)), 409, &conflict);
    assert_eq!(refusal.body(), "10\n");
    check_refused(ask(&request(log, 0, 10)), 409, &conflict);
    check_refused(ask(&request(log, 0, 0)), 409, &conflict);
    let refusal = check_refused(ask(&request(&fork, 10, 10)), 422, &Reason::OtherRoot);
    assert!(refusal.evidence.is_some());
    let root = Reason::Inconsistent(crate::proof::ProofError::Root);
    let refusal = check_refused(ask(&request(&fork, 10, 20)), 422, &root);
    assert_eq!(refusal.evidence, None);
    let length = Reason::Inconsistent(crate::proof::ProofError::Length {
        expected: 0,
        found: 1,
    });
    let hash = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    let superfluous = text(log, 10, 10).replace("old 10\n", &format!("old 10\n{hash}"));
    check_refused(ask(superfluous.as_bytes()), 422, &length);
    let earlier = witness.add_checkpoint(&request(log, 10, 20), &trust(&logs), 99);
    check_refused(earlier, 503, &Reason::Clock);
    let never = witness.add_checkpoint(&request(log, 10, 20), &trust(&logs), TIME_MAX + 1);
    check_refused(never, 503, &Reason::Clock);
    // None of that has changed anything.
    assert!(ask(&request(log, 10, 20)).is_ok());
}

#[test]
fn the_first_head_of_a_log_begins_with_nothing() {
    let logs = [TestLog::new(1, 30), TestLog::new(3, 2)];
    let log = &logs[0];
    let witness = witness();
    let ask = |body: &[u8]| witness.add_checkpoint(body, &trust(&logs), 100);
    let new = Reason::Conflict { latest: 0 };
    let refusal = check_refused(ask(&request(log, 7, 30)), 409, &new);
    assert_eq!(refusal.body(), "0\n");
    let hash = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    let body = String::from_utf8(request(log, 0, 30)).expect("text");
    let with_proof = body.replace("old 0\n", &format!("old 0\n{hash}"));
    check_refused(ask(with_proof.as_bytes()), 422, &Reason::ProofFromNothing);
    let mut head = log.head(0);
    head.root = log.head(1).root;
    let note = Note::sign(&head.to_string(), log.origin.as_str(), &log.key);
    let odd = format!("old 0\n\n{}", note.expect("a valid text"));
    check_refused(ask(odd.as_bytes()), 422, &Reason::EmptyRoot);
    // An empty log, and then whatever it becomes.
    assert!(ask(&request(log, 0, 0)).is_ok());
    assert!(ask(&request(log, 0, 0)).is_ok());
    check_refused(ask(with_proof.as_bytes()), 422, &Reason::ProofFromNothing);
    assert!(ask(&request(log, 0, 30)).is_ok());
}

/// Whatever the answer is, two roots for one size are kept.
#[test]
fn equivocation_is_handed_out_as_evidence() {
    let logs = [TestLog::new(1, 30)];
    let log = &logs[0];
    let fork = log.forked_at(4);
    let witness = witness();
    let ask = |body: &[u8]| witness.add_checkpoint(body, &trust(&logs), 100);
    assert!(ask(&request(log, 0, 10)).is_ok());
    let expected = Evidence::equivocation(&log.verifier(), &log.note(10), &fork.note(10));
    let expected = expected.expect("evidence");
    for (old, status) in [(10, 422), (0, 409), (7, 409)] {
        let refusal = ask(&request(&fork, old, 10)).expect_err("a refusal");
        assert_eq!(refusal.status(), status);
        assert_eq!(refusal.evidence.as_deref(), Some(&expected));
    }
    let refusal = ask(&request(log, 0, 10)).expect_err("a refusal");
    assert_eq!(refusal.evidence, None);
}

#[test]
fn nothing_of_a_frozen_log_is_cosigned() {
    let log = TestLog::new(1, 5);
    let frozen = |_: &LogName| Trust::Frozen;
    let answer = witness().add_checkpoint(&request(&log, 0, 5), &frozen, 100);
    check_refused(answer, 403, &Reason::Frozen);
    let nobody = |_: &LogName| Trust::Keys(Vec::new());
    let answer = witness().add_checkpoint(&request(&log, 0, 5), &nobody, 100);
    let unknown = Reason::Untrusted(NoteError::UnknownKey);
    check_refused(answer, 403, &unknown);
}

/// While a key is replaced, heads carry two lines: one known one is enough, and all known ones must hold.
#[test]
fn a_log_may_have_two_keys_for_a_while() {
    let log = TestLog::new(1, 9);
    let mut renewed = log.clone();
    renewed.key = TestLog::new(6, 0).key;
    let both = |_: &LogName| Trust::Keys(vec![log.verifier(), renewed.verifier()]);
    let old_only = |_: &LogName| Trust::Keys(vec![log.verifier()]);
    let mut note = log.note(9);
    note.add(renewed.note(9).signatures()[0].clone())
        .expect("room for a line");
    let body = AddCheckpoint::new(0, Vec::new(), note)
        .expect("a request")
        .to_string();
    let witness = witness();
    assert!(witness.add_checkpoint(body.as_bytes(), &both, 5).is_ok());
    let shown = witness.checkpoint(&log.name().id()).expect("readable");
    assert_eq!(shown.map(|note| note.signatures().len()), Some(3));
    let again = body.replace("old 0", "old 9");
    assert!(
        witness
            .add_checkpoint(again.as_bytes(), &old_only, 6)
            .is_ok()
    );
    let only_new = request(&renewed, 9, 9);
    let answer = witness.add_checkpoint(&only_new, &old_only, 7);
    check_refused(answer, 403, &Reason::Untrusted(NoteError::UnknownKey));
    assert!(witness.add_checkpoint(&only_new, &both, 7).is_ok());
}

/// A store that counts how often it is written, and can refuse.
#[derive(Debug, Default)]
struct Counting {
    store: MemoryStore,
    writes: Mutex<usize>,
    broken: bool,
}

impl WitnessStore for Counting {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        self.store.load(origin)
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        self.store.find(id)
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if self.broken {
            return Err(StoreError::Poisoned);
        }
        self.store.advance(changes)
    }
}

#[test]
fn a_batch_of_many_logs_is_written_once() {
    let logs: Vec<_> = (10..60).map(|seed| TestLog::new(seed, 3)).collect();
    let witness = Witness::new(cosigner(2), Counting::default());
    let mut bodies: Vec<_> = logs.iter().map(|log| request(log, 0, 3)).collect();
    bodies.push(b"old".to_vec());
    let borrowed: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
    let answers = witness.add_checkpoints(&borrowed, &trust(&logs), 8);
    assert_eq!(answers.len(), 51);
    for (log, answer) in logs.iter().zip(&answers) {
        let answer = answer.as_ref().expect("cosigned");
        assert_eq!(cosigner(2).public().verify(&cosigned(log, answer)), Ok(8));
    }
    assert_eq!(answers[50].as_ref().map_err(Refusal::status), Err(400));
    assert_eq!(*witness.store().writes.lock().expect("not poisoned"), 1);
}

#[test]
fn requests_of_one_batch_for_one_log_are_answered_in_their_order() {
    let logs = [TestLog::new(1, 20)];
    let log = &logs[0];
    let witness = Witness::new(cosigner(2), Counting::default());
    let bodies = [
        request(log, 0, 5),
        request(log, 0, 9),
        request(log, 5, 9),
        request(log, 9, 9),
        request(log, 5, 20),
    ];
    let borrowed: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
    let answers = witness.add_checkpoints(&borrowed, &trust(&logs), 8);
    let outcomes: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(Refusal::status, |_| 200))
        .collect();
    assert_eq!(outcomes, [200, 409, 200, 200, 409]);
    // The one that changed nothing was not written.
    assert_eq!(*witness.store().writes.lock().expect("not poisoned"), 2);
    // Too many about one log: the last ones are told to wait.
    let many: Vec<_> = (10..=20).map(|size| request(log, size - 1, size)).collect();
    let borrowed: Vec<_> = many.iter().map(Vec::as_slice).collect();
    let answers = witness.add_checkpoints(&borrowed, &trust(&logs), 9);
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(served, ROUNDS_MAX);
    for answer in &answers[ROUNDS_MAX..] {
        check_refused(answer.clone(), 429, &Reason::Overloaded);
    }
}

#[test]
fn what_cannot_be_kept_is_not_signed() {
    let logs = [TestLog::new(1, 3)];
    let store = Counting {
        broken: true,
        ..Counting::default()
    };
    let witness = Witness::new(cosigner(2), store);
    let answer = witness.add_checkpoint(&request(&logs[0], 0, 3), &trust(&logs), 8);
    check_refused(answer, 503, &Reason::Store);
    assert!(matches!(witness.checkpoint(&logs[0].name().id()), Ok(None)));
}

#[test]
fn no_store_takes_a_step_back() {
    let log = TestLog::new(1, 9);
    let fork = log.forked_at(2);
    let store = MemoryStore::default();
    let state = |log: &TestLog, size, time| State::new(log.note(size), time).expect("a head");
    let change = |expected: &State, new: State| Change {
        expected: Some(expected.version()),
        new,
    };
    let first = state(&log, 5, 100);
    let begin = Change {
        expected: None,
        new: first.clone(),
    };
    assert!(matches!(
        store.advance(std::slice::from_ref(&begin)).as_deref(),
        Ok([Advanced::Yes])
    ));
    assert!(matches!(
        store.advance(&[begin]).as_deref(),
        Ok([Advanced::Conflict])
    ));
    for worse in [
        state(&log, 4, 100),
        state(&log, 6, 99),
        state(&fork, 5, 100),
    ] {
        let back = store.advance(&[change(&first, worse)]);
        assert!(matches!(back, Err(StoreError::Back)));
    }
    let next = state(&log, 6, 100);
    let steps = [
        change(&first, next.clone()),
        change(&first, state(&log, 7, 100)),
        change(&next, state(&log, 8, 101)),
    ];
    let outcomes = store.advance(&steps).expect("writable");
    assert_eq!(outcomes, [Advanced::Yes, Advanced::Conflict, Advanced::Yes]);
    let held = store.load(&log.name()).expect("readable");
    assert_eq!(held, Some(state(&log, 8, 101)));
    assert_eq!(store.find(&log.name().id()).expect("readable"), held);
    assert_eq!(store.find(&fork.head(1).root).expect("readable"), None);
}

#[test]
fn the_request_is_the_one_of_the_specification() {
    let log = TestLog::new(1, 7);
    let proof = log.consistency(3, 7);
    let hashes: Vec<_> = proof
        .iter()
        .map(|hash| data_encoding::BASE64.encode(hash.as_bytes()))
        .collect();
    let note = log.note(7);
    let text = format!("old 3\n{}\n\n{note}", hashes.join("\n"));
    let made = AddCheckpoint::new(3, proof, note.clone()).expect("a request");
    assert_eq!(made.to_string(), text);
    assert_eq!(AddCheckpoint::parse(text.as_bytes()), Ok(made));
    // The example, with the two keys of a log that is being renewed.
    let example = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let read = AddCheckpoint::parse(example.as_bytes()).expect("the example");
    assert_eq!((read.old(), read.proof().len()), (20_852_014, 4));
    assert_eq!(read.note().signatures().len(), 2);
    assert_eq!(read.head().size, 20_852_163);
    assert_eq!(read.to_string(), example);
}

#[test]
fn malformed_requests_are_refused() {
    let log = TestLog::new(1, 7);
    let good = String::from_utf8(request(&log, 3, 7)).expect("text");
    let check = |text: &str, expected: RequestError| {
        assert_eq!(
            AddCheckpoint::parse(text.as_bytes()),
            Err(expected),
            "{text:?}"
        );
    };
    check("", RequestError::Old);
    check("old 3", RequestError::Old);
    for old in [
        "old 03",
        "old -3",
        "old +3",
        "old  3",
        "Old 3",
        "old 3 ",
        "old 9223372036854775808",
    ] {
        check(&good.replacen("old 3", old, 1), RequestError::Old);
    }
    check(&good.replacen("old 3\n", "old 3\r\n", 1), RequestError::Old);
    check(&good.replacen("=\n", "\n", 1), RequestError::Proof);
    check(&good.replacen("=\n", "=\r\n", 1), RequestError::Proof);
    check("old 0\n", RequestError::Proof);
    let hash = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    let many = good.replacen("old 3\n", &format!("old 3\n{}", hash.repeat(61)), 1);
    check(&many, RequestError::Proof);
    check("old 0\n\n", RequestError::Note(NoteError::Form));
    check(good.trim_end(), RequestError::Note(NoteError::Form));
    let no_head = Note::sign("text\n", "log", &log.key).expect("a valid text");
    let lines = RequestError::Head(crate::cosign::TreeHeadError::Lines);
    check(&format!("old 0\n\n{no_head}"), lines);
    assert_eq!(AddCheckpoint::new(0, Vec::new(), no_head), Err(lines));
    check(&"x".repeat(REQUEST_BYTES_MAX + 1), RequestError::TooLong);
    assert_eq!(
        AddCheckpoint::parse(b"old 0\n\n\xff"),
        Err(RequestError::Old)
    );
    let hashes = vec![log.head(1).root; 64];
    assert_eq!(
        AddCheckpoint::new(0, hashes, log.note(1)),
        Err(RequestError::Proof)
    );
    let beyond = AddCheckpoint::new(crate::tree::SIZE_MAX + 1, Vec::new(), log.note(1));
    assert_eq!(beyond, Err(RequestError::Old));
    let mut long = log.note(1);
    let line = Signature {
        bytes: vec![0; REQUEST_BYTES_MAX],
        ..long.signatures()[0].clone()
    };
    long.add(line).expect("room for a line");
    assert_eq!(
        AddCheckpoint::new(0, Vec::new(), long),
        Err(RequestError::TooLong)
    );
}

/// Lets threads take turns, one step at a time, as a list of numbers says.
pub(super) struct Turns {
    now: Mutex<Turn>,
    changed: Condvar,
}

struct Turn {
    schedule: VecDeque<usize>,
    alive: BTreeSet<usize>,
    waiting: BTreeSet<usize>,
    running: Option<usize>,
}

impl Turns {
    pub(super) fn new(threads: usize, schedule: &[usize]) -> Self {
        let turn = Turn {
            schedule: schedule.iter().copied().collect(),
            alive: (0..threads).collect(),
            waiting: BTreeSet::new(),
            running: None,
        };
        Self {
            now: Mutex::new(turn),
            changed: Condvar::new(),
        }
    }

    /// Waits until it is this thread's turn.
    pub(super) fn step(&self, thread: usize) {
        let mut turn = self.now.lock().expect("not poisoned");
        turn.waiting.insert(thread);
        self.next(&mut turn, thread);
        while turn.running != Some(thread) {
            turn = self.changed.wait(turn).expect("not poisoned");
        }
        turn.waiting.remove(&thread);
    }

    /// Says that a thread takes no further turns.
    pub(super) fn end(&self, thread: usize) {
        let mut turn = self.now.lock().expect("not poisoned");
        turn.alive.remove(&thread);
        self.next(&mut turn, thread);
    }

    fn next(&self, turn: &mut Turn, thread: usize) {
        if turn.running == Some(thread) {
            turn.running = None;
        }
        let all_wait = turn.waiting.len() == turn.alive.len() && !turn.alive.is_empty();
        if turn.running.is_none() && all_wait {
            let choice = turn.schedule.pop_front().unwrap_or(0) % turn.waiting.len();
            turn.running = turn.waiting.iter().nth(choice).copied();
            self.changed.notify_all();
        }
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

/// A store whose every operation waits for its turn.
#[derive(Debug)]
pub(super) struct InTurn<'a, S> {
    pub(super) store: &'a S,
    pub(super) turns: &'a Turns,
    pub(super) thread: usize,
}

impl<S: WitnessStore> WitnessStore for InTurn<'_, S> {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        self.turns.step(self.thread);
        self.store.load(origin)
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        self.turns.step(self.thread);
        self.store.find(id)
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        self.turns.step(self.thread);
        self.store.advance(changes)
    }
}

/// What one client wants: a size of the log or of its fork, at a time.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) forked: bool,
    pub(super) size: u64,
    pub(super) now: u64,
}

pub(super) const FORK_AT: usize = 5;

pub(super) fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let wish = (any::<bool>(), 0_u64..12, 100_u64..104);
    let wish = wish.prop_map(|(forked, size, now)| Wish { forked, size, now });
    prop::collection::vec(wish, 1..4)
}

fn latest(reason: &Reason) -> Option<u64> {
    if let Reason::Conflict { latest } = reason {
        Some(*latest)
    } else {
        None
    }
}

/// Asks until the answer is no "look again"; returns the cosigned head if there is one.
pub(super) fn ask<S: WitnessStore>(
    witness: &Witness<S>,
    logs: &[TestLog; 2],
    wish: &Wish,
) -> Option<Note> {
    let log = &logs[usize::from(wish.forked)];
    let trusted = |_: &LogName| Trust::Keys(vec![log.verifier()]);
    let mut old = 0;
    for _attempt in 0..4 {
        match witness.add_checkpoint(&request(log, old, wish.size), &trusted, wish.now) {
            Ok(answer) => return Some(cosigned(log, &answer)),
            Err(refusal) => match latest(&refusal.reason) {
                Some(latest) if latest <= wish.size => old = latest,
                Some(_) | None => return None,
            },
        }
    }
    None
}

/// Nothing that a witness has ever signed may contradict anything else that it has signed.
pub(super) fn check_no_contradiction(signed: &[Note]) {
    let by = cosigner(2);
    for (at, one) in signed.iter().enumerate() {
        for two in &signed[at + 1..] {
            let made = Evidence::cosigner(by.public(), one, two);
            assert_eq!(made, Err(crate::evidence::EvidenceError::NoConflict));
        }
    }
    // Not only for one size: never both sides of the fork.
    let logs = forked_logs();
    let beyond: Vec<_> = signed
        .iter()
        .filter_map(|note| note.text().parse::<TreeHead>().ok())
        .filter(|head| head.size > FORK_AT as u64)
        .collect();
    let of = |log: &TestLog| beyond.iter().any(|head| *head == log.head(head.size));
    assert!(!(of(&logs[0]) && of(&logs[1])), "both sides were cosigned");
}

pub(super) fn forked_logs() -> [TestLog; 2] {
    let log = TestLog::new(1, 12);
    let fork = log.forked_at(FORK_AT);
    [log, fork]
}

/// Lets clients ask one witness at once, in the given order of steps; returns what was signed.
pub(super) fn ask_at_once<S: WitnessStore>(
    store: &S,
    clients: &[Vec<Wish>],
    schedule: &[usize],
) -> Vec<Note> {
    let logs = forked_logs();
    let turns = Turns::new(clients.len(), schedule);
    let signed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for (thread, wishes) in clients.iter().enumerate() {
            let (logs, turns, signed) = (&logs, &turns, &signed);
            scope.spawn(move || {
                let store = InTurn {
                    store,
                    turns,
                    thread,
                };
                let witness = Witness::new(cosigner(2), store);
                for wish in wishes {
                    let note = ask(&witness, logs, wish);
                    signed.lock().expect("not poisoned").extend(note);
                }
                turns.end(thread);
            });
        }
    });
    signed.into_inner().expect("not poisoned")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_order_of_steps_makes_a_witness_contradict_itself(
        clients in prop::collection::vec(wishes(), 1..4),
        schedule in prop::collection::vec(0_usize..4, 0..40),
    ) {
        let signed = ask_at_once(&MemoryStore::default(), &clients, &schedule);
        check_no_contradiction(&signed);
    }

    #[test]
    fn requests_round_trip_and_their_parser_never_panics(
        old in 0_u64..9,
        at in 0_usize..4_000,
        byte: u8,
    ) {
        let log = TestLog::new(1, 9);
        let good = request(&log, old, 9);
        let read = AddCheckpoint::parse(&good).expect("a request");
        prop_assert_eq!(read.to_string().into_bytes(), good.clone());
        let mut bytes = good;
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = AddCheckpoint::parse(&bytes) {
            prop_assert_eq!(read.to_string().into_bytes(), bytes);
        }
    }

    #[test]
    fn no_request_panics_a_witness(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "(old [0-9]{0,3}\n)?\n?(.|\n){0,40}") {
        let logs = [TestLog::new(1, 1)];
        for body in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(witness().add_checkpoint(body, &trust(&logs), 5).is_err());
        }
    }
}
