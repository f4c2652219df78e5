//! What the mesh needs of the node it runs in.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::Hash;
use openfang_id::{NodeId, Transport};
use openfang_ofp::call;
use openfang_ofp::exchange;
use openfang_ofp::gate::Refusal;
use openfang_ofp::heads::CannotProve;
use openfang_ofp::roster;
use tokio_util::sync::CancellationToken;

/// What the node keeps from a join's beginning to its end; dropped when it has succeeded or failed.
pub struct Joining(
    #[expect(dead_code, reason = "what counts is when it is dropped")] Box<dyn Send + Sync>,
);

impl Joining {
    /// Wraps what the node wants to know dropped.
    #[must_use]
    pub fn new(kept: impl Send + Sync + 'static) -> Self {
        Self(Box::new(kept))
    }
}

impl std::fmt::Debug for Joining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Joining")
    }
}

/// The node's side: who runs the agents and keeps the audit log.
pub trait Host: Send + Sync + 'static {
    /// Runs a call of another node. Called once for each [`call::CallId`] within the dedupe window,
    /// however often the caller tries. The stream yields chunks, then one `End` or `Failure`; what
    /// comes after is not read. `cancel` fires when the caller takes the call back, its deadline
    /// passes, or this node shuts down; a lost connection does not fire it.
    fn call(
        &self,
        from: NodeId,
        request: call::Request,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, call::Frame>, call::Failure>>;

    /// Proves that this node's log of size `to` extends that of size `from`.
    fn prove(&self, from: u64, to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>>;

    /// Answers a question about audit logs. At most [`QUESTIONS_MAX`](crate::QUESTIONS_MAX) of all
    /// peers are asked at once. A node that keeps no logs of others knows nothing: 404.
    fn answer(
        &self,
        from: NodeId,
        question: exchange::Question,
    ) -> BoxFuture<'static, exchange::Answer> {
        tracing::debug!(from = %from.fmt_short(), path = question.path, "nothing is kept here");
        Box::pin(std::future::ready(exchange::Answer::status(404)))
    }

    /// Gets ready for a join: nobody new is dialled, and a mesh that sleeps does not wake, before this is
    /// ready. Whatever others must not see yet is to be kept from them until it is known whom one meets.
    fn joining(&self) -> BoxFuture<'static, Joining> {
        Box::pin(std::future::ready(Joining::new(())))
    }

    /// Returns the hybrid clock of the audit log, which neighbours are told; 0 for none. Called from the
    /// driver: must not block.
    fn hybrid(&self) -> u64 {
        0
    }

    /// Takes the hybrid clock that a neighbour has told: may be a lie. Called from the driver: must not
    /// block.
    fn observe(&self, from: &NodeId, hybrid: u64) {
        tracing::trace!(from = %from.fmt_short(), hybrid, "no log follows it");
    }

    /// Takes note of something. Called from the driver: must not block.
    fn on_event(&self, event: MeshEvent);
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MeshEvent {
    /// A member is connected.
    PeerConnected {
        /// Who.
        node: NodeId,
        /// How.
        transport: Transport,
    },
    /// A connection to a member ended.
    PeerDisconnected {
        /// Who.
        node: NodeId,
        /// Why, for the log.
        reason: String,
    },
    /// A connection was turned away before the gate.
    PeerRefused {
        /// From where.
        from: String,
        /// Why, for the log.
        reason: String,
    },
    /// The gate did not open, in either direction.
    AuthFailed {
        /// The address at the other end.
        from: String,
        /// Who is there, as proved by Noise or TLS.
        node: NodeId,
        /// Why. Never told to the other side.
        reason: Refusal,
    },
    /// The roster noticed something.
    Roster(roster::Event),
}
