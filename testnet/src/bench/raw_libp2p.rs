//! The peer of the mesh benchmarks: a bare libp2p connection (TCP, Noise, Yamux) that echoes on
//! reused substreams, with no swarm, no authentication beyond Noise, no framing and no agents.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, Transport as _, upgrade};
use libp2p::{Multiaddr, PeerId, identity, noise, tcp, yamux};
use tokio::task::JoinSet;

use super::stats::{Samples, now, side_by_side};

/// Why the bare connection could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RawError {
    /// Noise could not be set up.
    #[error("noise: {0}")]
    Noise(#[from] noise::Error),
    /// The connection could not be made or was lost.
    #[error("libp2p: {0}")]
    Io(#[from] std::io::Error),
    /// The transport does not take the address.
    #[error("libp2p transport: {0}")]
    Transport(String),
}

type Carrier = Boxed<(PeerId, StreamMuxerBox)>;

fn carrier() -> Result<Carrier, RawError> {
    let key = identity::Keypair::generate_ed25519();
    Ok(
        tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise::Config::new(&key)?)
            .multiplex(yamux::Config::default())
            .boxed(),
    )
}

/// A connection to an echoing server in this process.
#[derive(Debug)]
pub(super) struct RawEcho {
    streams: Vec<SubstreamBox>,
    _tasks: JoinSet<()>,
}

impl RawEcho {
    /// Connects over the loopback address and opens `callers` substreams.
    pub(super) async fn connect(callers: usize) -> Result<Self, RawError> {
        let mut tasks = JoinSet::new();
        let address = listen(&mut tasks).await?;
        let mut client = carrier()?;
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = client
            .dial(address, options)
            .map_err(|why| RawError::Transport(why.to_string()))?;
        let (_server, mut muxer) = dial.await?;
        let mut streams = Vec::with_capacity(callers);
        for _ in 0..callers {
            streams.push(open(&mut muxer).await?);
        }
        tasks.spawn(drive(muxer));
        Ok(Self {
            streams,
            _tasks: tasks,
        })
    }

    /// Lets each substream echo `each` payloads of `bytes`, one at a time, all side by side.
    pub(super) async fn measure(self, each: usize, bytes: usize) -> Result<Samples, RawError> {
        let callers = self.streams.len();
        let streams = std::sync::Mutex::new(self.streams);
        side_by_side(callers, each, |_caller| {
            let stream = streams.lock().ok().and_then(|mut streams| streams.pop());
            async move {
                let Some(mut stream) = stream else {
                    return Ok(Vec::new());
                };
                let payload = vec![7_u8; bytes];
                let mut answer = vec![0_u8; bytes];
                let mut times: Vec<Duration> = Vec::with_capacity(each);
                for _ in 0..each {
                    let started = now();
                    stream.write_all(&payload).await?;
                    stream.flush().await?;
                    stream.read_exact(&mut answer).await?;
                    times.push(started.elapsed());
                }
                Ok(times)
            }
        })
        .await
    }
}

async fn listen(tasks: &mut JoinSet<()>) -> Result<Multiaddr, RawError> {
    let mut server = carrier()?;
    let any: Multiaddr = "/ip4/127.0.0.1/tcp/0"
        .parse()
        .map_err(|why: libp2p::multiaddr::Error| RawError::Transport(why.to_string()))?;
    server
        .listen_on(ListenerId::next(), any)
        .map_err(|why| RawError::Transport(why.to_string()))?;
    let address = loop {
        match server.next().await {
            Some(TransportEvent::NewAddress { listen_addr, .. }) => break listen_addr,
            Some(_other) => {}
            None => return Err(RawError::Transport("the listener ended".to_owned())),
        }
    };
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Some(event) = server.next().await {
            if let Some((upgrade, _from)) = event.into_incoming() {
                connections.spawn(async move {
                    if let Ok((_peer, muxer)) = upgrade.await {
                        serve(muxer).await;
                    }
                });
            }
        }
    });
    Ok(address)
}

async fn open(muxer: &mut StreamMuxerBox) -> Result<SubstreamBox, RawError> {
    Ok(poll_fn(|cx| {
        if let Poll::Ready(Err(why)) = muxer.poll_unpin(cx) {
            return Poll::Ready(Err(why));
        }
        muxer.poll_outbound_unpin(cx)
    })
    .await?)
}

/// Echoes on every substream that is opened, until the connection ends.
async fn serve(mut muxer: StreamMuxerBox) {
    let mut echoes = JoinSet::new();
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(Err(why)) = muxer.poll_unpin(cx) {
                return Poll::Ready(Err(why));
            }
            muxer.poll_inbound_unpin(cx)
        });
        match next.await {
            Ok(stream) => echoes.spawn(echo(stream)),
            Err(_closed) => return,
        };
    }
}

async fn echo(mut stream: SubstreamBox) {
    let mut buffer = [0_u8; 4096];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else {
            return;
        };
        if stream.write_all(&buffer[..count]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn drive(mut muxer: StreamMuxerBox) {
    poll_fn(|cx| match Pin::new(&mut muxer).poll_unpin(cx) {
        Poll::Ready(Ok(_event)) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Ready(Err(_closed)) => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
    })
    .await;
}
