//! A libp2p stack of an attacker's own, before the gate and, with the secret, past it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::Endpoint;
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, quic, yamux};
use openfang_id::{NetAddr, NodeId, Transport};
use openfang_ofp::gate::{self, Channel, Epoch, Gate, Role, Secrets, Tag};

use super::{Node, PATIENCE};

/// A connection that is encrypted and authenticated, and stands before the gate.
pub struct Knock {
    muxer: StreamMuxerBox,
    me: NodeId,
    peer: NodeId,
    tag: Tag,
}

fn node_id(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).expect("an Ed25519 identity")
}

impl Knock {
    pub async fn at(node: &Node, transport: Transport) -> Self {
        Self::with(&Keypair::generate_ed25519(), node, transport).await
    }

    /// The same, by somebody known.
    pub async fn with(keys: &Keypair, node: &Node, transport: Transport) -> Self {
        Self::dial(keys, node.socket(transport), transport)
            .await
            .expect("the encrypted connection stands")
    }

    /// The same, at any address; `None` when nobody answers there.
    pub async fn dial(keys: &Keypair, addr: SocketAddr, transport: Transport) -> Option<Self> {
        let addr: Multiaddr = NetAddr::from_socket(transport, addr)
            .to_string()
            .parse()
            .expect("a multiaddr");
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let (mut boxed, tag) = match transport {
            Transport::Tcp => {
                let tcp = libp2p::tcp::tokio::Transport::default()
                    .upgrade(Version::V1Lazy)
                    .authenticate(noise::Config::new(keys).expect("noise"))
                    .multiplex(yamux::Config::default())
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                (tcp.boxed(), Tag::Tcp)
            }
            Transport::Quic => {
                let quic = quic::tokio::Transport::new(quic::Config::new(keys))
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                (quic.boxed(), Tag::Quic)
            }
        };
        let dial = boxed
            .dial(addr, opts)
            .expect("an address of this transport");
        let (peer, muxer) = dial.await.ok()?;
        Some(Self {
            muxer,
            me: node_id(&keys.public().to_peer_id()),
            peer: node_id(&peer),
            tag,
        })
    }

    pub async fn drive<F: Future>(&mut self, operation: F) -> F::Output {
        let mut operation = pin!(operation);
        let mut broken = false;
        poll_fn(|cx| {
            if !broken {
                broken = matches!(self.muxer.poll_unpin(cx), Poll::Ready(Err(_)));
            }
            operation.as_mut().poll(cx)
        })
        .await
    }

    pub async fn open(&mut self) -> SubstreamBox {
        poll_fn(|cx| self.muxer.poll_outbound_unpin(cx))
            .await
            .expect("a substream")
    }

    pub async fn say(&mut self, stream: &mut SubstreamBox, bytes: &[u8]) {
        let said = self
            .drive(async {
                stream.write_all(bytes).await?;
                stream.flush().await
            })
            .await;
        said.expect("said");
    }

    /// Everything the other side says until it ends the substream or the connection.
    pub async fn hear_all(&mut self, stream: &mut SubstreamBox) -> Vec<u8> {
        let mut heard = Vec::new();
        let ended = self.drive(stream.read_to_end(&mut heard));
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        drop(ended.expect("the other side ends it"));
        heard
    }

    /// Plays the initiator's part with a secret.
    pub async fn shake(&mut self, stream: &mut SubstreamBox, secrets: &Secrets) -> Vec<u8> {
        let channel = Channel {
            role: Role::Initiator,
            tag: self.tag,
            local: self.me,
            remote: self.peer,
        };
        let mut gate = Gate::new(channel, secrets, [5; 32]);
        let mut heard = Vec::new();
        let mut outs = gate.handle(gate::In::Start);
        loop {
            for out in outs {
                match out {
                    gate::Out::Send(frame) => self.say(stream, &framed(&frame)).await,
                    gate::Out::Admitted(_) | gate::Out::Refused(_) => return heard,
                }
            }
            let mut header = [0; 2];
            let read = self.drive(stream.read_exact(&mut header)).await;
            if read.is_err() {
                return heard;
            }
            heard = vec![0; usize::from(u16::from_be_bytes(header))];
            let read = self.drive(stream.read_exact(&mut heard)).await;
            read.expect("a whole frame");
            outs = gate.handle(gate::In::Frame(&heard));
        }
    }

    /// Enters with the secret of the mesh.
    pub async fn enter(keys: &Keypair, node: &Node, transport: Transport) -> Self {
        let mut knock = Self::with(keys, node, transport).await;
        let mut first = knock.open().await;
        knock
            .shake(&mut first, &Secrets::new(Epoch(1), &super::secret(1)))
            .await;
        knock
    }

    /// Opens a substream of a protocol; `None` when the other side ends it.
    pub async fn open_protocol(&mut self, protocol: &str) -> Option<SubstreamBox> {
        let mut stream = self.open().await;
        let line = |text: &str| {
            [
                &[u8::try_from(text.len() + 1).expect("short")],
                text.as_bytes(),
                b"\n",
            ]
            .concat()
        };
        let asked = [line("/multistream/1.0.0"), line(protocol)].concat();
        let mut agreed = vec![0; asked.len()];
        let talk = async {
            stream.write_all(&asked).await?;
            stream.flush().await?;
            stream.read_exact(&mut agreed).await
        };
        let talked = tokio::time::timeout(PATIENCE, self.drive(talk)).await;
        talked.expect("an answer").ok()?;
        assert_eq!(agreed, asked);
        Some(stream)
    }

    /// Whether the other side ends the substream, at last.
    pub async fn is_ended(&mut self, stream: &mut SubstreamBox) -> bool {
        let mut rest = [0; 64];
        let read = self.drive(stream.read(&mut rest));
        let read = tokio::time::timeout(PATIENCE, read).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

pub fn framed(frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).expect("short");
    [&len.to_be_bytes()[..], frame].concat()
}
