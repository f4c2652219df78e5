//! The three protocols on one connection: negotiates their substreams and hands them on.
//!
//! Not here: what is said on a substream. Outbound substreams are asked for through a bounded queue
//! that the caller holds ([`Opener`]), so that a call does not pass through the driver. Inbound
//! substreams of calls and exchanges go straight into their servers' bounded queues; when one is full
//! the substream is reset.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol,
};
use openfang_id::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::exchange::InboundExchange;
use crate::server::InboundCall;

/// The roster and the audit heads: one long-lived substream per direction.
pub(crate) const SYNC: StreamProtocol = StreamProtocol::new("/ofp/sync/1");
/// Calls to agents: pooled substreams.
pub(crate) const CALL: StreamProtocol = StreamProtocol::new("/ofp/call/1");
/// Questions about audit logs: a substream each.
pub(crate) const EXCHANGE: StreamProtocol = StreamProtocol::new("/ofp/audit/1");

/// How long the peer may take to agree on the protocol of a substream.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(5);
/// How many substreams of one connection are negotiated at once.
const NEGOTIATING_MAX: usize = 32;
/// How many requests for substreams may wait at one connection.
const OPEN_QUEUE: usize = 64;

/// Asks a connection for substreams.
pub(crate) type Opener = mpsc::Sender<Open>;

/// A request for one substream.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// Why there is no substream. The connection itself may be well.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OpenError {
    /// The peer does not speak this protocol.
    #[error("the peer does not speak this protocol")]
    Unsupported,
    /// The peer did not answer in time.
    #[error("the peer did not agree on a protocol in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// What the handler tells the driver.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer opened its sync substream.
    SyncInbound(Stream),
}

/// Negotiates one of the given protocols and yields the bare substream.
#[derive(Debug, Clone)]
pub(crate) struct Offer(&'static [StreamProtocol]);

static INBOUND: [StreamProtocol; 3] = [SYNC, CALL, EXCHANGE];
static ONLY_SYNC: [StreamProtocol; 1] = [SYNC];
static ONLY_CALL: [StreamProtocol; 1] = [CALL];
static ONLY_EXCHANGE: [StreamProtocol; 1] = [EXCHANGE];

/// Where the substreams go that peers open.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    pub(crate) calls: mpsc::Sender<InboundCall>,
    pub(crate) exchanges: mpsc::Sender<InboundExchange>,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Cloned<std::slice::Iter<'static, StreamProtocol>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().cloned()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, info: StreamProtocol) -> Self::Future {
        future::ready(Ok((stream, info)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, info: StreamProtocol) -> Self::Future {
        future::ready(Ok((stream, info)))
    }
}

/// The state of one connection.
pub(crate) struct Handler {
    peer: NodeId,
    opens: mpsc::Receiver<Open>,
    negotiating: usize,
    inbound: Inbound,
    events: VecDeque<Event>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Handler {
    /// Makes the handler of a connection and the queue that asks it for substreams.
    pub(crate) fn new(peer: NodeId, inbound: Inbound) -> (Self, Opener) {
        let (opener, opens) = mpsc::channel(OPEN_QUEUE);
        let handler = Self {
            peer,
            opens,
            negotiating: 0,
            inbound,
            events: VecDeque::new(),
        };
        (handler, opener)
    }

    fn on_inbound(&mut self, stream: Stream, protocol: &StreamProtocol) {
        if *protocol == SYNC {
            self.events.push_back(Event::SyncInbound(stream));
            return;
        }
        let peer = self.peer;
        if *protocol == EXCHANGE {
            let exchange = InboundExchange { peer, stream };
            if self.inbound.exchanges.try_send(exchange).is_err() {
                tracing::warn!(peer.id = %peer.fmt_short(), "question refused: too many at once");
            }
            return;
        }
        let call = InboundCall { peer, stream };
        // Who called notices that its substream is reset, and tries again after a pause.
        if self.inbound.calls.try_send(call).is_err() {
            tracing::warn!(peer.id = %peer.fmt_short(), "call substream reset: too many at once");
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Event;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        SubstreamProtocol::new(Offer(&INBOUND), ()).with_timeout(NEGOTIATION_TIMEOUT)
    }

    /// Who passed the gate is a member, and stays connected until the roster says otherwise.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Self::OutboundOpenInfo, Event>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        while self.negotiating < NEGOTIATING_MAX {
            let Poll::Ready(Some(open)) = self.opens.poll_recv(cx) else {
                break;
            };
            if open.reply.is_closed() {
                continue;
            }
            self.negotiating += 1;
            let offer = Offer(if open.protocol == SYNC {
                &ONLY_SYNC
            } else if open.protocol == EXCHANGE {
                &ONLY_EXCHANGE
            } else {
                &ONLY_CALL
            });
            let protocol =
                SubstreamProtocol::new(offer, open.reply).with_timeout(NEGOTIATION_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Offer, Offer, (), Self::OutboundOpenInfo>,
    ) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the enum is non-exhaustive; what is not a substream does not concern this handler"
        )]
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.on_inbound(stream, &protocol),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _protocol),
                info,
            }) => {
                self.negotiating -= 1;
                crate::ignore_gone(info.send(Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.negotiating -= 1;
                let why = match error {
                    StreamUpgradeError::Timeout => OpenError::TimedOut,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(why) => OpenError::Broken(why.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                crate::ignore_gone(info.send(Err(why)));
            }
            _ => {}
        }
    }
}
