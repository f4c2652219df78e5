//! Yamux over a corked and gauged stream; the same protocol on the wire.
//!
//! Yamux itself is the crate of that name; this makes it a multiplexer of libp2p, as `libp2p-yamux`
//! does. That one does not let the receive windows be bounded: they grow to 1 GiB a connection, and a
//! peer that delays its pongs decides how fast. Here they do not grow.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures::{AsyncRead, AsyncWrite, future};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use yamux::{Config, Connection, ConnectionError, Mode};

use super::cork::Cork;
use super::gauge::{Gauge, Gauged};

/// The most substreams of one connection, both directions together. Must exceed what two call pools,
/// the sync streams and the gate use.
const STREAMS_MAX: usize = 128;
/// Where each window begins, by the protocol.
const WINDOW_BYTES: usize = 256 * 1024;

/// Makes the multiplexer of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yamux;

/// The multiplexer of one connection.
#[derive(Debug)]
pub(super) struct Muxer<C> {
    connection: Connection<Cork<Gauged<C>>>,
    gauge: Arc<Gauge>,
    /// Substreams of the peer that came while something else was waited for.
    inbound: VecDeque<Substream>,
    waiting: Option<Waker>,
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Muxer<C> {
    fn new(io: C, mode: Mode) -> Self {
        let mut config = Config::default();
        config.set_max_num_streams(STREAMS_MAX);
        config.set_max_connection_receive_window(Some(STREAMS_MAX * WINDOW_BYTES));
        let gauge = Arc::<Gauge>::default();
        let io = Cork::new(Gauged::new(io, Arc::clone(&gauge)));
        Self {
            connection: Connection::new(io, config, mode),
            gauge,
            inbound: VecDeque::new(),
            waiting: None,
        }
    }

    fn substream(&self, stream: yamux::Stream) -> Substream {
        Substream {
            stream,
            gauge: Arc::clone(&self.gauge),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        let next = ready!(self.connection.poll_next_inbound(cx));
        let next = next.unwrap_or(Err(ConnectionError::Closed));
        Poll::Ready(next.map(|stream| self.substream(stream)).map_err(broken))
    }
}

fn broken(why: ConnectionError) -> io::Error {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign enum that may grow; what is not of the socket is passed on as it is"
    )]
    match why {
        ConnectionError::Io(why) => why,
        other => io::Error::other(other),
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> StreamMuxer for Muxer<C> {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(cx) {
            return Poll::Ready(next);
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        let opened = ready!(self.connection.poll_new_outbound(cx));
        Poll::Ready(opened.map(|stream| self.substream(stream)).map_err(broken))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_close(cx).map_err(broken)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let stream = ready!(self.poll_next(cx))?;
        if self.inbound.len() < STREAMS_MAX {
            self.inbound.push_back(stream);
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        // Others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One substream.
#[derive(Debug)]
pub(super) struct Substream {
    stream: yamux::Stream,
    gauge: Arc<Gauge>,
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.gauge.on_read(self.stream.id().val(), len);
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        self.gauge.on_gone(self.stream.id().val());
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<Self::Info>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C> InboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, io: C, _info: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(io, Mode::Server)))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Yamux
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, io: C, _info: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(io, Mode::Client)))
    }
}
