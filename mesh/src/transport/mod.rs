//! How bytes reach a peer: TCP+Noise+Yamux and QUIC, each behind the gate.
//!
//! What comes out of [`build`] is an authenticated member of the mesh: the handshake of
//! [`openfang_ofp::gate`] runs on the first substream, after Noise or TLS proved who the peer is and
//! before the swarm learns of the connection. A peer without the secret is a failed dial or a failed
//! upgrade, never a connection, so no protocol can be reached past the gate.

mod cork;
mod fresh_port;
mod gauge;
pub(crate) mod keeper;
mod mux;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libp2p::TransportError;
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::{TransportTimeout, TransportTimeoutError};
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, dns, noise, quic, tcp};
use openfang_ofp::gate::Tag;

pub(crate) use keeper::{GateFail, Keeper};

use crate::entropy::NoEntropy;

/// The most substreams a peer may have open on one QUIC connection.
const QUIC_STREAMS_MAX: u32 = 128;
/// Unread bytes of one QUIC stream: as in Yamux.
const QUIC_STREAM_BYTES_MAX: u32 = 256 << 10;
/// Unread bytes of one QUIC connection.
const QUIC_CONNECTION_BYTES_MAX: u32 = 2 << 20;
/// A QUIC peer that says nothing for so long is gone; four missed keep-alives.
const QUIC_IDLE_MS: u32 = 4_000;
/// How often an idle QUIC connection shows that it lives.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);
/// For the whole way from the first packet to an authenticated peer. The gate has its own, shorter
/// deadline; this one bounds a peer that is slow before it.
const SETUP_TIMEOUT: Duration = Duration::from_secs(6);
/// For the QUIC handshake of a peer that knocks. It takes one round trip, and until it is over nobody
/// knows whether the address in its first packet is the sender's: whoever forges addresses holds a
/// place for this long, at the price of one packet. Room for one lost packet.
const QUIC_KNOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection was not made. The source of the `io::Error` that the swarm reports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fail {
    /// The network said no: refused, unreachable, reset.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The peer did not speak TLS or QUIC as expected, or did not answer.
    #[error("quic: {0}")]
    Quic(#[source] quic::Error),
    /// The peer did not speak Noise or Yamux as expected.
    #[error("{0}")]
    Secure(String),
    /// The name did not resolve.
    #[error("{0}")]
    Name(String),
    /// It took longer than [`SETUP_TIMEOUT`].
    #[error("it took too long to connect")]
    Slow,
    /// The connection stood, and the gate did not open.
    #[error(transparent)]
    Gate(GateFail),
    /// The peer's identity is not an Ed25519 key: no node of any mesh.
    #[error("the peer's identity is not an Ed25519 key")]
    Identity,
    /// The system gave no random bytes.
    #[error(transparent)]
    Entropy(NoEntropy),
}

/// Builds the transport.
///
/// # Errors
/// When the system resolver's configuration cannot be read, or the identity cannot be certified.
pub(crate) fn build(
    keypair: &Keypair,
    keeper: &Arc<Keeper>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, BuildError> {
    let noise = noise::Config::new(keypair).map_err(BuildError::Noise)?;
    let tcp_keeper = Arc::clone(keeper);
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = fresh_port::FreshPort(tcp)
        .map_err(Fail::Io)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(mux::Yamux)
        .map(|(peer, muxer), _endpoint| (peer, StreamMuxerBox::new(muxer)))
        .map_err(|why| why.either(|why| why.either(|fail| fail, secure), secure))
        .and_then(move |(peer, muxer), endpoint| tcp_keeper.admit(peer, muxer, endpoint, Tag::Tcp))
        .map_err(|why| why.into_inner());
    let quic_keeper = Arc::clone(keeper);
    let quic = quic::tokio::Transport::new(quic_config(keypair)).map_err(Fail::Quic);
    let quic = TransportTimeout::with_ingoing_timeout(quic, QUIC_KNOCK_TIMEOUT)
        .map_err(flatten_timeout)
        .map(|(peer, muxer), _endpoint| (peer, StreamMuxerBox::new(muxer)))
        .and_then(move |(peer, muxer), endpoint| {
            quic_keeper.admit(peer, muxer, endpoint, Tag::Quic)
        })
        .map_err(|why| why.into_inner());
    let either = OrTransport::new(quic, tcp)
        .map(|output, _endpoint| output.into_inner())
        .map_err(|why| why.into_inner());
    let named = dns::tokio::Transport::system(either).map_err(BuildError::Resolver)?;
    let timed = TransportTimeout::new(named.map_err(flatten_dns), SETUP_TIMEOUT);
    Ok(timed.map_err(flatten_timeout).boxed())
}

/// Why the transport could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Noise could not be given the identity.
    #[error("the identity cannot be used: {0}")]
    Noise(#[source] noise::Error),
    /// The configuration of the system's resolver cannot be read.
    #[error("the system's name resolution cannot be used: {0}")]
    Resolver(#[source] io::Error),
}

/// Finds out of what an error of the swarm is made.
pub(crate) fn fail_of(error: &TransportError<io::Error>) -> Option<&Fail> {
    match error {
        TransportError::MultiaddrNotSupported(_) => None,
        TransportError::Other(why) => why.get_ref()?.downcast_ref(),
    }
}

fn secure(why: impl std::fmt::Display) -> Fail {
    Fail::Secure(why.to_string())
}

fn quic_config(keypair: &Keypair) -> quic::Config {
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = SETUP_TIMEOUT;
    config.max_idle_timeout = QUIC_IDLE_MS;
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = QUIC_STREAMS_MAX;
    config.max_stream_data = QUIC_STREAM_BYTES_MAX;
    config.max_connection_data = QUIC_CONNECTION_BYTES_MAX;
    config
}

/// Of several failures at the addresses of one name, the one that says most.
fn flatten_dns(error: dns::Error<Fail>) -> Fail {
    match error {
        dns::Error::Transport(fail) => fail,
        dns::Error::ResolveError(why) => Fail::Name(told(&why).to_owned()),
        dns::Error::MultiaddrNotSupported(addr) => {
            Fail::Name(format!("it resolves to {addr}, which cannot be dialled"))
        }
        dns::Error::TooManyLookups => Fail::Name("it takes too many look-ups".to_owned()),
        dns::Error::Dial(all) => {
            let rank = |fail: &Fail| match fail {
                Fail::Gate(_) | Fail::Identity => 3,
                Fail::Slow | Fail::Quic(_) | Fail::Secure(_) => 2,
                Fail::Io(_) | Fail::Entropy(_) => 1,
                Fail::Name(_) => 0,
            };
            all.into_iter()
                .map(flatten_dns)
                .max_by_key(rank)
                .unwrap_or_else(|| Fail::Name("it has no addresses".to_owned()))
        }
    }
}

/// What a failed look-up means. Its own text holds the query in the notation of a debugger.
fn told(why: &dns::ResolveError) -> &'static str {
    if why.is_nx_domain() {
        "there is no such name"
    } else if why.is_no_records_found() {
        "it has no addresses"
    } else {
        "the name servers gave no answer"
    }
}

fn flatten_timeout(error: TransportTimeoutError<Fail>) -> Fail {
    match error {
        TransportTimeoutError::Timeout => Fail::Slow,
        TransportTimeoutError::TimerError(why) => Fail::Io(why),
        TransportTimeoutError::Other(fail) => fail,
    }
}
