//! Calls that carry an idempotency key: each runs once, however often it is asked for.
//!
//! Such a call runs in a task of its own, so that a caller who loses the connection does not cancel
//! it; whoever asks again is given the same events, from the first on, while it runs and for ten
//! minutes after. What did not run is not kept, so that it can be tried again: the mesh recognises
//! the call by its id and does not run it twice either.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::{Stream, stream};
use openfang_kernel::{SendError, TurnError, TurnEvent, TurnStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

/// How long the events of an ended call are kept: as long as the mesh remembers it.
const KEEP: Duration = Duration::from_secs(600);
/// Calls that may run at once; each is also a turn, of which the kernel allows four times as many.
const RUNNING_MAX: usize = 1024;
/// What is kept of ended calls, in bytes of their texts. Beyond it the oldest keep only their id.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Ended calls whose id is known, with their events or without: about 100 bytes each.
const KNOWN_MAX: usize = 16 * 1024;
/// When to come back when there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) type CallId = [u8; 16];

/// The calls of one API. Dropping it cuts those that run.
#[derive(Default)]
pub(crate) struct Calls {
    known: Mutex<Known>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Known {
    calls: BTreeMap<CallId, Slot>,
    /// Ended calls with the moment of their end, oldest first.
    ended: VecDeque<(CallId, Instant)>,
    /// How many of `ended`, from the front, keep no events any more.
    emptied: usize,
    running: usize,
    kept_bytes: usize,
}

enum Slot {
    Running(Arc<Run>),
    Ended(Arc<Run>, usize),
    /// It ran, and there was no room for its events.
    Emptied,
}

/// One call: whether it was taken, and its events so far.
type Run = watch::Sender<Progress>;

#[derive(Default)]
struct Progress {
    taken: Option<Result<(), SendError>>,
    events: Vec<TurnEvent>,
}

impl Calls {
    /// Runs a call, or joins the one of this id that runs or has run.
    ///
    /// Cancel safety: the call runs on when this is dropped.
    pub(crate) async fn run<F>(
        self: &Arc<Self>,
        id: CallId,
        work: F,
    ) -> Result<TurnStream, SendError>
    where
        F: Future<Output = Result<TurnStream, SendError>> + Send + 'static,
    {
        let run = match self.enter(id)? {
            Entry::Joined(run) => run,
            Entry::New(run) => {
                let task = perform(Arc::downgrade(self), id, Arc::clone(&run), work);
                let mut tasks = lock(&self.tasks);
                while tasks.try_join_next().is_some() {}
                tasks.spawn(task.in_current_span());
                run
            }
        };
        let mut progress = run.subscribe();
        let taken = progress.wait_for(|progress| progress.taken.is_some()).await;
        let taken = taken.ok().and_then(|progress| progress.taken.clone());
        taken.unwrap_or(Err(SendError::ShuttingDown))?;
        Ok(TurnStream::from_stream(replay(progress)))
    }

    fn enter(&self, id: CallId) -> Result<Entry, SendError> {
        let mut known = lock(&self.known);
        known.forget_old(Instant::now());
        match known.calls.get(&id) {
            Some(Slot::Running(run) | Slot::Ended(run, _)) => {
                return Ok(Entry::Joined(Arc::clone(run)));
            }
            Some(Slot::Emptied) => return Err(SendError::AlreadyRan),
            None => {}
        }
        if known.running >= RUNNING_MAX {
            return Err(SendError::Busy {
                retry_after: RETRY_AFTER,
            });
        }
        let run = Arc::new(watch::Sender::new(Progress::default()));
        known.running += 1;
        known.calls.insert(id, Slot::Running(Arc::clone(&run)));
        Ok(Entry::New(run))
    }

    /// Keeps an ended call, or forgets one that did not run.
    fn leave(&self, id: CallId, run: Arc<Run>, ran: bool) {
        let mut known = lock(&self.known);
        known.running -= 1;
        if !ran {
            known.calls.remove(&id);
            return;
        }
        let bytes = run.borrow().events.iter().map(size).sum();
        known.kept_bytes += bytes;
        known.calls.insert(id, Slot::Ended(run, bytes));
        known.ended.push_back((id, Instant::now()));
        known.make_room();
    }
}

enum Entry {
    New(Arc<Run>),
    Joined(Arc<Run>),
}

impl Known {
    fn forget_old(&mut self, now: Instant) {
        while let Some((_, ended)) = self.ended.front() {
            if *ended + KEEP > now && self.ended.len() <= KNOWN_MAX {
                return;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((id, _)) = self.ended.pop_front() else {
            return;
        };
        if let Some(Slot::Ended(_, bytes)) = self.calls.remove(&id) {
            self.kept_bytes -= bytes;
        }
        self.emptied = self.emptied.saturating_sub(1);
    }

    /// Drops the events of the oldest, and remembers that they ran.
    fn make_room(&mut self) {
        while self.kept_bytes > KEPT_BYTES_MAX {
            let Some((id, _)) = self.ended.get(self.emptied) else {
                return;
            };
            if let Some(Slot::Ended(_, bytes)) = self.calls.insert(*id, Slot::Emptied) {
                self.kept_bytes -= bytes;
            }
            self.emptied += 1;
        }
    }
}

/// Runs a call to its end and tells everyone who listens.
async fn perform<F>(calls: Weak<Calls>, id: CallId, run: Arc<Run>, work: F)
where
    F: Future<Output = Result<TurnStream, SendError>>,
{
    let mut ran = false;
    match work.await {
        Err(error) => {
            run.send_modify(|progress| progress.taken = Some(Err(error)));
        }
        Ok(mut turn) => {
            run.send_modify(|progress| progress.taken = Some(Ok(())));
            while let Some(event) = turn.next().await {
                ran = has_run(&event);
                run.send_modify(|progress| progress.events.push(event));
            }
        }
    }
    if let Some(calls) = calls.upgrade() {
        calls.leave(id, run, ran);
    }
}

/// Whether the last event of a call says that it ran: then it must not run again.
fn has_run(last: &TurnEvent) -> bool {
    match last {
        TurnEvent::Failed(
            TurnError::NotDelivered(_)
            | TurnError::Cancelled
            | TurnError::ShuttingDown
            | TurnError::NotLogged(_),
        ) => false,
        TurnEvent::Failed(
            TurnError::TimedOut { .. }
            // It may have run, on a node that may have forgotten it since.
            | TurnError::Cut
            | TurnError::Killed
            | TurnError::Model(_)
            | TurnError::IterationLimit { .. }
            | TurnError::ToolCallLimit { .. }
            | TurnError::AnswerTooLong { .. }
            | TurnError::OverLimit { .. }
            | TurnError::Storage(_)
            | TurnError::Remote { .. },
        )
        | TurnEvent::Done(_)
        | TurnEvent::Chunk { .. }
        | TurnEvent::ToolStart { .. }
        | TurnEvent::ToolEnd { .. } => true,
    }
}

fn replay(progress: watch::Receiver<Progress>) -> impl Stream<Item = TurnEvent> + Send + 'static {
    stream::unfold((progress, 0), |(mut progress, at)| async move {
        let event = progress
            .wait_for(|progress| progress.events.len() > at)
            .await
            .ok()?
            .events
            .get(at)
            .cloned()?;
        Some((event, (progress, at + 1)))
    })
}

/// About how much memory an event takes.
fn size(event: &TurnEvent) -> usize {
    let texts = match event {
        TurnEvent::Chunk { text } => text.len(),
        TurnEvent::ToolStart { id, tool, input } => id.len() + tool.len() + input.len(),
        TurnEvent::ToolEnd {
            id, tool, output, ..
        } => id.len() + tool.len() + output.len(),
        TurnEvent::Done(done) => done.response.len(),
        TurnEvent::Failed(_) => 0,
    };
    size_of::<TurnEvent>() + texts
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> TurnEvent {
        TurnEvent::Chunk {
            text: text.to_owned(),
        }
    }

    fn done(response: &str) -> TurnEvent {
        let keys = openfang_id::NodeSeed::from_bytes([1; 32]).keys();
        TurnEvent::Done(openfang_kernel::TurnDone {
            response: response.to_owned(),
            input_tokens: 0,
            output_tokens: 0,
            iterations: 1,
            agent_id: openfang_id::AgentId::from_random([1; 16]),
            agent_name: "a".parse().expect("a name"),
            node_id: keys.node_id(),
            node_name: "n".parse().expect("a name"),
            cause: None,
        })
    }

    fn turn(events: Vec<TurnEvent>) -> Result<TurnStream, SendError> {
        Ok(TurnStream::from_stream(stream::iter(events)))
    }

    /// Work whose outcome no call below may have.
    fn must_not_run() -> impl Future<Output = Result<TurnStream, SendError>> + Send + 'static {
        std::future::ready(Err(SendError::ShuttingDown))
    }

    async fn all(mut turn: TurnStream) -> Vec<TurnEvent> {
        let mut events = Vec::new();
        while let Some(event) = turn.next().await {
            events.push(event);
        }
        events
    }

    #[tokio::test]
    async fn a_repetition_is_given_the_same_events_and_does_not_run() {
        let calls = Arc::new(Calls::default());
        let events = vec![chunk("a"), chunk("b"), done("ab")];
        let copy = events.clone();
        let first = calls.run([1; 16], async move { turn(copy) }).await;
        assert_eq!(all(first.expect("taken")).await, events);
        let second = calls.run([1; 16], must_not_run()).await;
        assert_eq!(all(second.expect("taken")).await, events);
        let copy = vec![done("other")];
        let other = calls.run([2; 16], async move { turn(copy) }).await;
        assert_eq!(all(other.expect("taken")).await, vec![done("other")]);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_does_not_cancel_it() {
        let calls = Arc::new(Calls::default());
        let (sender, stream) = TurnStream::channel(4);
        let first = calls.run([1; 16], async move { Ok(stream) }).await;
        sender.send(chunk("a")).await.expect("it runs");
        drop(first);
        let second = calls.run([1; 16], must_not_run()).await.expect("joined");
        sender.send(done("a")).await.expect("it still runs");
        drop(sender);
        assert_eq!(all(second).await, vec![chunk("a"), done("a")]);
    }

    #[tokio::test]
    async fn what_did_not_run_may_be_tried_again() {
        let calls = Arc::new(Calls::default());
        for cause in [TurnError::ShuttingDown, TurnError::Cancelled] {
            let refused = calls.run([1; 16], async { Err(SendError::TimedOut) }).await;
            assert_eq!(refused.err(), Some(SendError::TimedOut));
            let cut = TurnEvent::Failed(cause);
            let copy = vec![cut.clone()];
            let lost = calls.run([1; 16], async move { turn(copy) }).await;
            assert_eq!(all(lost.expect("taken")).await, vec![cut]);
            // The task forgets the call after it has told its last event.
            while lock(&calls.known).running > 0 {
                tokio::task::yield_now().await;
            }
        }
        let ran = calls.run([1; 16], async { turn(vec![done("x")]) }).await;
        assert_eq!(all(ran.expect("taken")).await, vec![done("x")]);
    }

    #[tokio::test]
    async fn what_may_have_run_does_not_run_again() {
        let calls = Arc::new(Calls::default());
        let cut = TurnEvent::Failed(TurnError::Cut);
        let copy = vec![cut.clone()];
        let lost = calls.run([1; 16], async move { turn(copy) }).await;
        assert_eq!(all(lost.expect("taken")).await, vec![cut.clone()]);
        let again = calls.run([1; 16], must_not_run()).await;
        assert_eq!(all(again.expect("known")).await, vec![cut]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_call_is_kept_for_ten_minutes() {
        let calls = Arc::new(Calls::default());
        let once = |text: &'static str| async move { turn(vec![done(text)]) };
        let first = calls.run([1; 16], once("first")).await;
        assert_eq!(all(first.expect("taken")).await, vec![done("first")]);
        tokio::time::advance(KEEP - Duration::from_secs(1)).await;
        let kept = calls.run([1; 16], must_not_run()).await;
        assert_eq!(all(kept.expect("kept")).await, vec![done("first")]);
        tokio::time::advance(Duration::from_secs(1)).await;
        let again = calls.run([1; 16], once("again")).await;
        assert_eq!(all(again.expect("taken")).await, vec![done("again")]);
    }

    #[tokio::test]
    async fn the_memory_is_bounded_and_what_it_lost_does_not_run_again() {
        let calls = Arc::new(Calls::default());
        let mebibyte = "x".repeat(1024 * 1024);
        for number in 0..20 {
            let copy = vec![done(&mebibyte)];
            let run = calls.run([number; 16], async move { turn(copy) }).await;
            assert_eq!(all(run.expect("taken")).await.len(), 1);
            while lock(&calls.known).running > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(lock(&calls.known).kept_bytes <= KEPT_BYTES_MAX);
        let oldest = calls.run([0; 16], must_not_run()).await;
        assert_eq!(oldest.err(), Some(SendError::AlreadyRan));
        assert!(calls.run([19; 16], must_not_run()).await.is_ok());
    }
}
