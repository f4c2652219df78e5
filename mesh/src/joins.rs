//! Joins that wait for an answer.

use std::time::Duration;

use openfang_id::{PeerAddr, SharedSecret};
use openfang_ofp::gate::Epoch;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::dialer::Failure;
use crate::{AddrFailure, JoinError, Joined, Joining, Tried};

/// How long a join waits for the first member.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the outcome of a join goes.
pub(crate) type JoinReply = oneshot::Sender<Result<Joined, JoinError>>;

/// One join.
#[derive(Debug)]
pub(crate) struct Join {
    tried: Vec<(PeerAddr, Option<AddrFailure>)>,
    reply: JoinReply,
    /// Dropped before the reply.
    joining: Joining,
    deadline: Instant,
    /// What to go back to when it fails.
    pub(crate) before: Before,
}

/// What a mesh was before a join.
#[derive(Debug)]
pub(crate) enum Before {
    /// It slept.
    Asleep,
    /// It was awake, with this secret.
    Awake(Option<(Epoch, SharedSecret)>),
}

impl Join {
    pub(crate) fn new(
        addrs: Vec<PeerAddr>,
        (reply, joining): (JoinReply, Joining),
        before: Before,
    ) -> Self {
        Self {
            tried: addrs.into_iter().map(|addr| (addr, None)).collect(),
            reply,
            joining,
            deadline: Instant::now() + PATIENCE,
            before,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn addrs(&self) -> impl Iterator<Item = &PeerAddr> {
        self.tried.iter().map(|(addr, _)| addr)
    }

    /// Notes what happened at an address.
    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        for (addr, why) in &mut self.tried {
            if addr.addr == failure.addr.addr {
                *why = Some(failure.why.clone());
            }
        }
    }

    /// Says whether nothing more is to be hoped for.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline || self.tried.iter().all(|(_, why)| why.is_some())
    }

    /// Finds the address of this join that leads to a connection.
    pub(crate) fn matching(&self, connected: &Joined) -> Option<&PeerAddr> {
        self.addrs()
            .find(|asked| asked.addr == connected.addr.addr || asked.node == Some(connected.node))
    }

    /// Answers that a member was reached.
    pub(crate) fn succeed(self, joined: Joined) {
        drop(self.joining);
        crate::ignore_gone(self.reply.send(Ok(joined)));
    }

    /// Answers what happened at each address.
    pub(crate) fn fail(self) {
        drop(self.joining);
        let tried = self.tried.into_iter().map(|(addr, why)| Tried {
            addr,
            why: why.unwrap_or(AddrFailure::TimedOut),
        });
        let tried = tried.collect();
        crate::ignore_gone(self.reply.send(Err(JoinError::Failed { tried })));
    }
}
