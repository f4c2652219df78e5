//! A request id runs at most once, and whoever attaches sees the frames of that one run.

use std::sync::LazyLock;

use openfang_id::NodeSeed;
use proptest::prelude::*;

use super::*;
use crate::call::{Chunk, Failure};

fn node(seed: u8) -> NodeId {
    NodeSeed::from_bytes([seed; 32]).keys().node_id()
}

fn key(node_seed: u8, call: u16) -> Key {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&call.to_be_bytes());
    Key {
        node: node(node_seed),
        call: CallId(id),
    }
}

/// Frames of the sizes that matter to the bounds, made once.
static LARGE: LazyLock<BTreeMap<usize, Arc<Frame>>> = LazyLock::new(|| {
    [60_000, 1_900_000, 2_000_000]
        .map(|bytes| (bytes, text(bytes)))
        .into()
});

fn text(bytes: usize) -> Arc<Frame> {
    Arc::new(Frame::Chunk(Chunk::Text("x".repeat(bytes))))
}

fn numbered(nr: u32) -> Arc<Frame> {
    Arc::new(Frame::Chunk(Chunk::Text(nr.to_string())))
}

fn last() -> Arc<Frame> {
    Arc::new(Frame::Failure(Failure::Internal))
}

const NOW: Instant = Instant(1_000);

#[track_caller]
fn attached(begin: Begin) -> Replay {
    let Begin::Attach(replay) = begin else {
        panic!("{begin:?}")
    };
    replay
}

#[test]
fn a_retry_joins_the_running_call_where_it_left_off() {
    let mut window = Window::new();
    let key = key(1, 1);
    assert_eq!(window.begin(key, 0, NOW), Begin::Fresh);
    for nr in 0..3 {
        assert_eq!(window.push(&key, numbered(nr), NOW), Ok(()));
    }
    let replay = attached(window.begin(key, 1, NOW));
    assert_eq!(replay.frames, [numbered(1), numbered(2)]);
    assert_eq!((replay.next, replay.running), (3, true));
    // What follows.
    window.push(&key, numbered(3), NOW).expect("running");
    window.push(&key, last(), NOW).expect("running");
    let rest = window.replay(&key, replay.next).expect("kept");
    assert_eq!(rest.frames, [numbered(3), last()]);
    assert!(!rest.running);
    assert_eq!(window.push(&key, numbered(4), NOW), Err(PushError::Ended));
    // A retry that has every chunk still lacks the last frame.
    let replay = attached(window.begin(key, 4, NOW));
    assert_eq!(replay.frames, [last()]);
}

#[test]
fn the_same_id_of_another_node_is_another_call() {
    let mut window = Window::new();
    assert_eq!(window.begin(key(1, 1), 0, NOW), Begin::Fresh);
    assert_eq!(window.begin(key(2, 1), 0, NOW), Begin::Fresh);
    assert!(matches!(window.begin(key(1, 1), 0, NOW), Begin::Attach(_)));
}

#[test]
fn more_chunks_than_there_are_cannot_be_resumed_from() {
    let mut window = Window::new();
    let key = key(1, 1);
    window.begin(key, 0, NOW);
    assert_eq!(window.begin(key, 1, NOW), Begin::AlreadyRan);
    window.push(&key, last(), NOW).expect("running");
    assert_eq!(window.begin(key, 1, NOW), Begin::AlreadyRan);
    assert_eq!(window.begin(key, u32::MAX, NOW), Begin::AlreadyRan);
}

#[test]
fn an_ended_call_is_forgotten_after_ten_minutes_and_a_running_one_never() {
    let mut window = Window::new();
    let (ended, running) = (key(1, 1), key(1, 2));
    window.begin(ended, 0, NOW);
    window.begin(running, 0, NOW);
    window.push(&ended, last(), NOW).expect("running");
    assert_eq!(window.deadline(), Some(NOW + KEPT));
    let before = Instant(NOW.0 + 599_999);
    assert!(matches!(window.begin(ended, 0, before), Begin::Attach(_)));
    assert_eq!(window.begin(ended, 0, NOW + KEPT), Begin::Fresh);
    let much_later = NOW + KEPT * 100;
    assert!(matches!(
        window.begin(running, 0, much_later),
        Begin::Attach(_)
    ));
}

#[test]
fn an_acknowledged_call_is_forgotten_and_a_running_one_is_not() {
    let mut window = Window::new();
    let key = key(1, 1);
    window.begin(key, 0, NOW);
    window.push(&key, text(1_000), NOW).expect("running");
    window.acknowledge(&key);
    window.withdraw(&key);
    assert_eq!(window.len(), 1);
    window.push(&key, last(), NOW).expect("running");
    window.acknowledge(&key);
    assert_eq!((window.len(), window.bytes()), (0, 0));
    assert_eq!(window.deadline(), None);
    assert_eq!(window.push(&key, last(), NOW), Err(PushError::Unknown));
}

#[test]
fn a_call_that_was_not_run_may_run_later() {
    let mut window = Window::new();
    let key = key(1, 1);
    window.begin(key, 0, NOW);
    window.withdraw(&key);
    assert_eq!(window.begin(key, 0, NOW), Begin::Fresh);
}

#[test]
fn a_call_that_was_turned_away_did_not_run() {
    let busy = || Failure::Busy { retry_after_ms: 5 };
    for away in [busy(), Failure::ShuttingDown] {
        let mut window = Window::new();
        let key = key(1, 1);
        window.begin(key, 0, NOW);
        let frame = Arc::new(Frame::Failure(away));
        assert_eq!(window.push(&key, frame, NOW), Ok(()));
        assert_eq!((window.len(), window.bytes()), (0, 0));
        assert_eq!(window.begin(key, 0, NOW), Begin::Fresh);
    }
    // After a first chunk it did run, whatever it says of itself.
    let mut window = Window::new();
    let key = key(1, 1);
    window.begin(key, 0, NOW);
    window.push(&key, numbered(0), NOW).expect("running");
    let frame = Arc::new(Frame::Failure(busy()));
    window.push(&key, frame, NOW).expect("running");
    assert!(matches!(window.begin(key, 0, NOW), Begin::Attach(_)));
}

#[test]
fn when_no_more_can_be_remembered_nothing_more_runs() {
    let mut window = Window::new();
    let share = u16::try_from(ENTRIES_PER_NODE_MAX).expect("small");
    for call in 0..share {
        assert_eq!(window.begin(key(1, call), 0, NOW), Begin::Fresh);
        window.push(&key(1, call), last(), NOW).expect("running");
    }
    let later = NOW + Duration::from_secs(60);
    let retry_after = Duration::from_secs(540);
    assert_eq!(
        window.begin(key(1, share), 0, later),
        Begin::Full { retry_after }
    );
    // The others have their share, until all of it is used.
    for seed in 2..=4 {
        for call in 0..share {
            assert_eq!(window.begin(key(seed, call), 0, later), Begin::Fresh);
        }
    }
    assert_eq!(window.len(), ENTRIES_MAX);
    assert!(matches!(
        window.begin(key(5, 0), 0, later),
        Begin::Full { .. }
    ));
    // What is known stays known.
    assert!(matches!(
        window.begin(key(1, 0), 0, later),
        Begin::Attach(_)
    ));
    // An acknowledged call makes room.
    window.acknowledge(&key(1, 0));
    assert_eq!(window.begin(key(1, share), 0, later), Begin::Fresh);
}

#[test]
fn when_memory_is_short_the_oldest_answers_are_dropped_but_not_that_they_ran() {
    let mut window = Window::new();
    for call in 0..12 {
        let key = key(1, call);
        window.begin(key, 0, NOW);
        window.push(&key, text(1_900_000), NOW).expect("running");
        window.push(&key, last(), NOW).expect("running");
        assert!(window.bytes() <= BYTES_MAX);
    }
    assert_eq!(window.begin(key(1, 0), 0, NOW), Begin::AlreadyRan);
    assert!(matches!(window.begin(key(1, 11), 0, NOW), Begin::Attach(_)));
    assert_eq!(window.len(), 12);
}

#[test]
fn a_long_answer_keeps_its_end() {
    let mut window = Window::new();
    let key = key(1, 1);
    window.begin(key, 0, NOW);
    for _each in 0..100 {
        window.push(&key, text(60_000), NOW).expect("running");
    }
    assert!(window.bytes() <= BYTES_PER_CALL_MAX);
    // It began too long ago to be told again; whoever has most of it gets the rest.
    assert_eq!(window.begin(key, 0, NOW), Begin::AlreadyRan);
    let replay = attached(window.begin(key, 90, NOW));
    assert_eq!(replay.frames.len(), 10);
    assert!(replay.running);
}

/// What may happen to a window.
#[derive(Debug, Clone)]
enum Step {
    Begin { call: u16, resume: u32 },
    Push { call: u16, bytes: usize },
    Finish { call: u16 },
    Follow,
    Acknowledge { call: u16 },
    Withdraw { call: u16 },
    Wait { secs: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let call = || 0_u16..12;
    prop_oneof![
        4 => (call(), 0_u32..8).prop_map(|(call, resume)| Step::Begin { call, resume }),
        6 => (call(), prop_oneof![0_usize..100, Just(60_000_usize), Just(1_900_000), Just(2_000_000)])
            .prop_map(|(call, bytes)| Step::Push { call, bytes }),
        2 => call().prop_map(|call| Step::Finish { call }),
        3 => Just(Step::Follow),
        1 => call().prop_map(|call| Step::Acknowledge { call }),
        1 => call().prop_map(|call| Step::Withdraw { call }),
        1 => (0_u64..400).prop_map(|secs| Step::Wait { secs }),
    ]
}

/// What a run did, remembered for ever: the reference.
#[derive(Debug, Default)]
struct Run {
    frames: Vec<Arc<Frame>>,
    ended: Option<Instant>,
    /// The caller may see it run again: it said that it has the answer, the run never began, or ten
    /// minutes have passed.
    released: bool,
}

/// Somebody who follows a call: where it began, and what it has seen.
#[derive(Debug)]
struct Follower {
    key: Key,
    run: usize,
    next: u32,
}

#[derive(Debug, Default)]
struct Reference {
    runs: Vec<Run>,
    current: BTreeMap<Key, usize>,
    followers: Vec<Follower>,
}

impl Reference {
    fn sees(&mut self, key: Key, from: u32, replay: &Replay) {
        let run = &self.runs[self.current[&key]];
        let from = usize::try_from(from).expect("small");
        assert_eq!(replay.frames, run.frames[from..]);
        assert_eq!(replay.running, run.ended.is_none());
        assert_eq!(usize::try_from(replay.next), Ok(run.frames.len()));
    }

    fn release_after(&mut self, now: Instant) {
        for run in &mut self.runs {
            run.released |= run.ended.is_some_and(|ended| ended + KEPT <= now);
        }
    }
}

fn take(window: &mut Window, reference: &mut Reference, step: Step, now: &mut Instant) {
    match step {
        Step::Begin { call, resume } => {
            let key = key(1, call);
            match window.begin(key, resume, *now) {
                Begin::Fresh => {
                    reference.release_after(*now);
                    let before = reference.current.get(&key);
                    assert!(before.is_none_or(|at| reference.runs[*at].released));
                    reference.runs.push(Run::default());
                    reference.current.insert(key, reference.runs.len() - 1);
                }
                Begin::Attach(replay) => {
                    reference.sees(key, resume, &replay);
                    let (run, next) = (reference.current[&key], replay.next);
                    reference.followers.push(Follower { key, run, next });
                }
                Begin::AlreadyRan => assert!(reference.current.contains_key(&key)),
                Begin::Full { .. } => panic!("twelve calls do not fill a window"),
            }
        }
        Step::Push { call, bytes } => {
            let frame = LARGE.get(&bytes).cloned().unwrap_or_else(|| text(bytes));
            push(window, reference, key(1, call), &frame, *now);
        }
        Step::Finish { call } => push(window, reference, key(1, call), &last(), *now),
        Step::Follow => follow(window, reference),
        Step::Acknowledge { call } => {
            let key = key(1, call);
            window.acknowledge(&key);
            if let Some(&at) = reference.current.get(&key) {
                reference.runs[at].released |= reference.runs[at].ended.is_some();
            }
        }
        Step::Withdraw { call } => {
            let key = key(1, call);
            window.withdraw(&key);
            if let Some(&at) = reference.current.get(&key) {
                let run = &mut reference.runs[at];
                run.released |= run.ended.is_none() && run.frames.is_empty();
            }
        }
        Step::Wait { secs } => {
            *now += Duration::from_secs(secs);
            window.expire(*now);
            reference.release_after(*now);
        }
    }
}

fn push(
    window: &mut Window,
    reference: &mut Reference,
    key: Key,
    frame: &Arc<Frame>,
    now: Instant,
) {
    if window.push(&key, Arc::clone(frame), now) == Ok(()) {
        let run = &mut reference.runs[reference.current[&key]];
        assert!(run.ended.is_none(), "a frame after the last");
        run.frames.push(Arc::clone(frame));
        if frame.is_last() {
            run.ended = Some(now);
        }
    }
}

/// Everyone who follows takes what is new.
fn follow(window: &Window, reference: &mut Reference) {
    let mut followers = std::mem::take(&mut reference.followers);
    for follower in &mut followers {
        if reference.current.get(&follower.key) != Some(&follower.run) {
            continue;
        }
        if let Some(replay) = window.replay(&follower.key, follower.next) {
            reference.sees(follower.key, follower.next, &replay);
            follower.next = replay.next;
        }
    }
    reference.followers = followers;
}

proptest! {
    #[test]
    fn whatever_happens_a_call_runs_once_and_every_reader_sees_that_run(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut window = Window::new();
        let mut reference = Reference::default();
        let mut now = NOW;
        for step in steps {
            take(&mut window, &mut reference, step, &mut now);
            prop_assert!(window.bytes() <= BYTES_MAX);
            prop_assert_eq!(window.counted(), (window.len(), window.bytes()));
        }
    }
}
