//! The turns and changes that run: one set owns all of a kind.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Owns tasks until they end; dropping it aborts them.
#[derive(Debug)]
pub(crate) struct Tasks(Mutex<Option<JoinSet<()>>>);

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(JoinSet::new())))
    }

    /// Starts a task; `false` when none is taken any more.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = tasks.as_mut() else {
            return false;
        };
        while let Some(ended) = set.try_join_next() {
            report(ended);
        }
        set.spawn(task);
        true
    }

    /// Takes no more tasks and returns those that run.
    pub(crate) fn close(&self) -> JoinSet<()> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.take().unwrap_or_default()
    }
}

/// Waits for tasks to end by themselves; `false` when some have not when the time is over.
pub(crate) async fn drain(tasks: &mut JoinSet<()>, grace: Duration) -> bool {
    let end = Instant::now() + grace;
    loop {
        match timeout_at(end, tasks.join_next()).await {
            Ok(Some(ended)) => report(ended),
            Ok(None) => return true,
            Err(_elapsed) => return false,
        }
    }
}

/// For an answer that nobody may be waiting for any more.
pub(crate) fn ignore_gone<T>(_sent: Result<(), T>) {}

fn report(ended: Result<(), JoinError>) {
    if let Err(why) = ended
        && why.is_panic()
    {
        tracing::error!(%why, "a turn or a change panicked");
    }
}
