//! The kernel and the audit log, as the mesh wants its host.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use openfang_audit::{Hash, Log, ProveError};
use openfang_id::NodeId;
use openfang_kernel::{Delivery, Kernel, TurnStream};
use openfang_mesh::{Host, Joining, MeshEvent, Question};
use openfang_ofp::call::{self, Failure, Frame};
use openfang_ofp::exchange;
use openfang_ofp::heads::CannotProve;
use tokio_util::sync::CancellationToken;

use super::convert;
use super::events::Recorder;
use crate::mirror::Desk;
use crate::own_log::Doubts;
use crate::witness::Window;

/// Nothing of that name is kept here: the status of HTTP.
const NOT_HERE: u16 = 404;

/// This node, as the mesh sees it.
#[derive(Debug)]
pub(crate) struct NodeHost {
    kernel: Kernel,
    log: Option<Log>,
    /// Where it is said that the log may not be the newest.
    doubts: Option<Doubts>,
    recorder: Arc<Recorder>,
    /// Where heads of other logs are cosigned, if this node does that.
    witness: Option<Window>,
    /// Where copies of other logs are kept, and the own one is shown.
    desk: Desk,
}

impl NodeHost {
    /// Joins a kernel and an audit log.
    pub(crate) fn new(
        kernel: Kernel,
        log: Option<(Log, Doubts)>,
        (witness, desk): (Option<Window>, Desk),
        recorder: Arc<Recorder>,
    ) -> Self {
        let (log, doubts) = log.unzip();
        Self {
            kernel,
            recorder,
            log,
            doubts,
            witness,
            desk,
        }
    }
}

impl Host for NodeHost {
    fn call(
        &self,
        from: NodeId,
        request: call::Request,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>> {
        if let Some(barred) = self.recorder.quarantine().barred(&from) {
            self.recorder.kept_away(&barred, "its call was not taken");
            let reason = format!("no calls are taken from it: {barred}");
            return std::future::ready(Err(Failure::Refused { reason })).boxed();
        }
        let kernel = self.kernel.clone();
        let recorder = Arc::clone(&self.recorder);
        recorder.observe(&from, request.hlc);
        async move {
            let delivery = convert::delivery(from, request).map_err(|why| Failure::Refused {
                reason: format!("the principal of the call: {why}"),
            })?;
            serve((kernel, recorder), delivery, cancel).await
        }
        .boxed()
    }

    fn prove(&self, from: u64, to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        let Some(log) = self.log.clone() else {
            return std::future::ready(Err(CannotProve::Range)).boxed();
        };
        if log.is_held() {
            // What is missing may come back.
            return std::future::ready(Err(CannotProve::Later)).boxed();
        }
        async move {
            // The proof is computed from the file.
            let proved = tokio::task::spawn_blocking(move || log.consistency(from, to)).await;
            match proved {
                Ok(proof) => proof.map_err(|why| cannot_prove(&why)),
                Err(why) => {
                    tracing::error!(error = %why, "a proof of the audit log failed");
                    Err(CannotProve::Later)
                }
            }
        }
        .boxed()
    }

    fn answer(&self, from: NodeId, question: Question) -> BoxFuture<'static, exchange::Answer> {
        let (witness, desk) = (self.witness.clone(), self.desk.clone());
        async move {
            let answer = if question.path.starts_with("witness/") {
                match witness {
                    Some(witness) => witness.ask(from, question).await,
                    None => None,
                }
            } else {
                desk.ask(from, question).await
            };
            answer.unwrap_or_else(|| exchange::Answer::status(NOT_HERE))
        }
        .boxed()
    }

    fn joining(&self) -> BoxFuture<'static, Joining> {
        let doubts = self.doubts.clone();
        async move {
            match doubts {
                Some(doubts) => Joining::new(doubts.joining().await),
                None => Joining::new(()),
            }
        }
        .boxed()
    }

    fn hybrid(&self) -> u64 {
        self.recorder.hlc()
    }

    fn observe(&self, from: &NodeId, hybrid: u64) {
        self.recorder.observe(from, hybrid);
    }

    fn on_event(&self, event: MeshEvent) {
        self.recorder.on_event(&event);
    }
}

async fn serve(
    (kernel, recorder): (Kernel, Arc<Recorder>),
    delivery: Delivery,
    cancel: CancellationToken,
) -> Result<BoxStream<'static, Frame>, Failure> {
    let taken = tokio::select! {
        taken = kernel.deliver(delivery) => taken,
        () = cancel.cancelled() => return Err(Failure::Cancelled),
    };
    match taken {
        Ok(turn) => Ok(frames(turn, cancel, recorder)),
        Err(why) => Err(convert::send_failure(&why)),
    }
}

/// Turns events into frames, up to the last. When the caller takes the call back the turn is
/// dropped, which cuts it.
fn frames(
    turn: TurnStream,
    cancel: CancellationToken,
    recorder: Arc<Recorder>,
) -> BoxStream<'static, Frame> {
    let answer = Answer {
        turn: Some(turn),
        cancel,
        recorder,
        sent: 0,
    };
    futures::stream::unfold(answer, |mut answer| async move {
        let frame = answer.next().await?;
        Some((frame, answer))
    })
    .boxed()
}

/// An answer under way.
struct Answer {
    /// `None` after the last frame.
    turn: Option<TurnStream>,
    cancel: CancellationToken,
    recorder: Arc<Recorder>,
    /// How much text has left.
    sent: usize,
}

impl Answer {
    async fn next(&mut self) -> Option<Frame> {
        let turn = self.turn.as_mut()?;
        let frame = tokio::select! {
            event = turn.next() => convert::frame(event?, &mut self.sent, || self.recorder.hlc()),
            () = self.cancel.cancelled() => Frame::Failure(Failure::Cancelled),
        };
        if frame.is_last() {
            self.turn = None;
        }
        Some(frame)
    }
}

fn cannot_prove(why: &ProveError) -> CannotProve {
    match why {
        ProveError::Behind { have } => CannotProve::Behind { have: *have },
        ProveError::Damaged { seq } => CannotProve::Damaged {
            first_bad: seq.unwrap_or_default(),
        },
        ProveError::Range => CannotProve::Range,
        ProveError::Io(why) => {
            tracing::warn!(error = %why, "the audit log cannot be read for a proof");
            CannotProve::Later
        }
    }
}

#[cfg(test)]
mod tests;
