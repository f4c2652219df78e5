//! The answer of an agent of another node, on its way to whoever asked here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use openfang_audit::{Cause, Event, Message, Outcome, Public};
use openfang_id::AgentId;
use tokio::time::Sleep;

use crate::delivery::session_in_log;
use crate::{Auditor, Principal, TurnError, TurnEvent, TurnStream};

/// What is known of a call that leaves, for its entries in the audit log.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    /// The agent that asks; where none does, the one that is asked.
    pub(crate) agent: AgentId,
    /// `agent@node` of the one that is asked.
    pub(crate) peer: String,
    pub(crate) principal: Principal,
    pub(crate) user: String,
    pub(crate) session: Option<String>,
}

impl Leaving {
    pub(crate) fn event(&self, cause: Option<&Cause>, outcome: Outcome<'_>) -> Event {
        Event::message_out(Message {
            agent: self.agent,
            peer: Public::text(&self.peer).into(),
            user: self.principal.in_log(&self.user),
            session: self.session.as_deref().map(session_in_log),
            cause,
            outcome,
        })
    }
}

/// Passes the events on, ends them at the deadline, and notes how the call ended.
pub(crate) struct Away {
    pub(crate) inner: TurnStream,
    pub(crate) deadline: Pin<Box<Sleep>>,
    pub(crate) after: Duration,
    pub(crate) audit: Auditor,
    pub(crate) leaving: Leaving,
    /// The entry of this node for the call: named where the other node names none of its own.
    pub(crate) cause: Option<Cause>,
    pub(crate) ended: bool,
}

impl Away {
    fn note(&mut self, cause: Option<&Cause>, outcome: Outcome<'_>) {
        self.ended = true;
        self.audit.note(self.leaving.event(cause, outcome));
    }

    /// Notes how the call ended; `event` is its last.
    pub(crate) fn on_end(&mut self, event: &TurnEvent) {
        match event {
            TurnEvent::Done(done) => {
                let theirs = done.cause.as_deref().and_then(|cause| cause.parse().ok());
                let cause = theirs.or_else(|| self.cause.clone());
                self.note(cause.as_ref(), Outcome::Ok);
            }
            TurnEvent::Failed(error) => {
                let cause = self.cause.clone();
                self.note(cause.as_ref(), Outcome::Failed(Public::text(error.code())));
            }
            TurnEvent::Chunk { .. } | TurnEvent::ToolStart { .. } | TurnEvent::ToolEnd { .. } => {}
        }
    }
}

impl Stream for Away {
    type Item = TurnEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TurnEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        let event = match polled {
            Poll::Ready(Some(event)) => event,
            Poll::Ready(None) => TurnEvent::Failed(TurnError::Cut),
            Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => {
                TurnEvent::Failed(TurnError::TimedOut { after: self.after })
            }
            Poll::Pending => return Poll::Pending,
        };
        self.on_end(&event);
        Poll::Ready(Some(event))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if !self.ended {
            self.on_end(&TurnEvent::Failed(TurnError::Cancelled));
        }
    }
}
