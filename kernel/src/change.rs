//! Changes of the node run to their end, whoever asked for them.
//!
//! An entry says beforehand what is about to be done. A caller that goes away in between would leave that
//! entry behind, with nothing or half of it done. So a change is a task of the kernel, and its caller only
//! waits for it. What is cut all the same, at the end of the node, is told by
//! [`Announced`](crate::Announced).

use std::future::Future;

use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::handle::Kernel;
use crate::tasks::ignore_gone;

impl Kernel {
    /// Makes a change, to its end. `None` when the node takes none any more, or ends before the change does.
    ///
    /// Cancel safety: the change goes on when this is dropped.
    pub async fn carry_out<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, made) = oneshot::channel();
        let task = async move { ignore_gone(answer.send(change.await).map_err(drop)) };
        if !self.changes().spawn(task.in_current_span()) {
            return None;
        }
        made.await.ok()
    }
}
