//! The tasks of a node: each has a name, a span and a way to be told to stop.
//!
//! A required task that ends before it was told to is a failure of the node, never a silence.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The tasks of one node. Dropping it aborts them.
#[derive(Debug)]
#[must_use]
pub struct Tasks {
    set: JoinSet<&'static str>,
    stop: CancellationToken,
}

/// A task the node cannot do without ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailure {
    /// It returned.
    #[error("the task {0} ended by itself")]
    Ended(&'static str),
    /// It panicked.
    #[error("a task failed: {0}")]
    Panicked(#[source] JoinError),
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// Starts with none.
    pub fn new() -> Self {
        Self {
            set: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Returns the token of one more task: it is cancelled when the task shall end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Starts a task the node cannot do without. It ends when its [`Tasks::token`] is cancelled.
    pub fn start(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::info_span!("task", task.name = name);
        let named = async move {
            task.await;
            name
        };
        self.set.spawn(named.instrument(span));
    }

    /// Waits until a task ends that nobody told to. Cancel-safe.
    pub async fn failure(&mut self) -> TaskFailure {
        match self.set.join_next().await {
            Some(Ok(name)) => TaskFailure::Ended(name),
            Some(Err(why)) => TaskFailure::Panicked(why),
            None => std::future::pending().await,
        }
    }

    /// Tells every task to stop and waits for all; those that are late are aborted. Returns how
    /// many were.
    pub async fn shutdown(mut self, grace: Duration) -> usize {
        self.stop.cancel();
        let all_ended = async {
            while let Some(ended) = self.set.join_next().await {
                if let Err(why) = ended {
                    tracing::warn!(error = %why, "a task failed while it was stopping");
                }
            }
        };
        if tokio::time::timeout(grace, all_ended).await.is_ok() {
            return 0;
        }
        let late = self.set.len();
        self.set.shutdown().await;
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_a_failure() {
        let mut tasks = Tasks::new();
        let token = tasks.token();
        tasks.start("waits", async move { token.cancelled().await });
        tasks.start("returns", async {});
        assert!(matches!(
            tasks.failure().await,
            TaskFailure::Ended("returns")
        ));
        assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut tasks = Tasks::new();
        tasks.start("panics", async { panic!("on purpose") });
        assert!(matches!(tasks.failure().await, TaskFailure::Panicked(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_task_is_aborted_and_counted() {
        let mut tasks = Tasks::new();
        tasks.start("never ends", std::future::pending());
        assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, 1);
    }
}
