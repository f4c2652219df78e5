//! Knocking without the secret: what an attacker with a libp2p stack of his own gets to see.

mod common;

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::{Node, PATIENCE, Plan, eventually, secret, tcp};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::Endpoint;
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, noise, quic, yamux};
use openfang_id::{NodeId, Transport};
use openfang_mesh::{AddrFailure, JoinError, MeshEvent};
use openfang_ofp::gate::{self, Channel, Epoch, Gate, Refusal, Role, Secrets, Tag};

/// A connection that is encrypted and authenticated, and stands before the gate.
struct Knock {
    muxer: StreamMuxerBox,
    me: NodeId,
    peer: NodeId,
    tag: Tag,
}

fn node_id(peer: &PeerId) -> NodeId {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).expect("an Ed25519 identity")
}

impl Knock {
    async fn at(node: &Node, transport: Transport) -> Self {
        let keys = Keypair::generate_ed25519();
        let addr: Multiaddr = node
            .addr(transport)
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
                    .authenticate(noise::Config::new(&keys).expect("noise"))
                    .multiplex(yamux::Config::default())
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                (tcp.boxed(), Tag::Tcp)
            }
            Transport::Quic => {
                let quic = quic::tokio::Transport::new(quic::Config::new(&keys))
                    .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
                (quic.boxed(), Tag::Quic)
            }
        };
        let dial = boxed
            .dial(addr, opts)
            .expect("an address of this transport");
        let (peer, muxer) = dial.await.expect("the encrypted connection stands");
        Self {
            muxer,
            me: node_id(&keys.public().to_peer_id()),
            peer: node_id(&peer),
            tag,
        }
    }

    async fn drive<F: Future>(&mut self, operation: F) -> F::Output {
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

    async fn open(&mut self) -> SubstreamBox {
        poll_fn(|cx| self.muxer.poll_outbound_unpin(cx))
            .await
            .expect("a substream")
    }

    async fn say(&mut self, stream: &mut SubstreamBox, bytes: &[u8]) {
        let said = self
            .drive(async {
                stream.write_all(bytes).await?;
                stream.flush().await
            })
            .await;
        said.expect("said");
    }

    /// Everything the other side says until it ends the substream or the connection.
    async fn hear_all(&mut self, stream: &mut SubstreamBox) -> Vec<u8> {
        let mut heard = Vec::new();
        let ended = self.drive(stream.read_to_end(&mut heard));
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        drop(ended.expect("the other side ends it"));
        heard
    }

    /// Plays the initiator's part with a secret.
    async fn shake(&mut self, stream: &mut SubstreamBox, secrets: &Secrets) -> Vec<u8> {
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
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).expect("short");
    [&len.to_be_bytes()[..], frame].concat()
}

/// Waits until the node has noted a failed authentication of this kind, and nothing else came of it.
async fn noted(node: &Node, wanted: Refusal) {
    eventually(&format!("{wanted:?} is noted"), || {
        node.host.any_event(
            |event| matches!(event, MeshEvent::AuthFailed { reason, .. } if *reason == wanted),
        )
    })
    .await;
    assert!(
        !node
            .host
            .any_event(|event| matches!(event, MeshEvent::PeerConnected { .. }))
    );
    assert_eq!(node.mesh.view().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_never_connects_and_both_sides_know_why() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let b = Plan::new(2).secret(Some(secret(2))).start().await;
        let joined = b.mesh.join(vec![a.anonymous(transport)], None).await;
        let Err(JoinError::Failed { tried }) = joined else {
            panic!("joined: {joined:?}");
        };
        assert_eq!(tried[0].why, AddrFailure::WrongSecret);
        let (a_id, b_id) = (a.id(), b.id());
        eventually("the dialled one knows", || {
            a.host.any_event(|event| {
                matches!(event, MeshEvent::AuthFailed { node, reason: Refusal::WrongSecret, .. } if *node == b_id)
            })
        })
        .await;
        eventually("the dialler knows", || {
            b.host.any_event(|event| {
                matches!(event, MeshEvent::AuthFailed { node, reason: Refusal::ProofRejected, .. } if *node == a_id)
            })
        })
        .await;
        for node in [&a, &b] {
            assert!(
                !node
                    .host
                    .any_event(|event| matches!(event, MeshEvent::PeerConnected { .. }))
            );
            assert_eq!(node.mesh.view().nodes.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_protocol_is_reached_past_the_gate() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let mut knock = Knock::at(&a, transport).await;
        let mut first = knock.open().await;
        let select = b"\x13/multistream/1.0.0\n\x0c/ofp/call/1\n";
        knock.say(&mut first, select).await;
        let heard = knock.hear_all(&mut first).await;
        assert!(!heard.windows(4).any(|at| at == b"/ofp"), "{heard:?}");
        // The first two bytes are a length of more than any frame has.
        noted(&a, Refusal::Oversize(0x132f)).await;

        // Beside a handshake that hangs, other substreams are not answered either.
        let mut knock = Knock::at(&a, transport).await;
        let mut first = knock.open().await;
        knock.say(&mut first, &[0]).await;
        let mut second = knock.open().await;
        knock.say(&mut second, select).await;
        let heard = knock.hear_all(&mut second).await;
        assert!(heard.is_empty(), "{heard:?}");
        noted(&a, Refusal::Timeout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_looks_the_same_from_outside() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let mut seen = BTreeSet::new();

        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        knock
            .say(&mut stream, &framed(b"garbage that is no frame"))
            .await;
        seen.insert(knock.hear_all(&mut stream).await);
        noted(&a, Refusal::Malformed).await;

        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        knock.say(&mut stream, &framed(&[1; 513])).await;
        seen.insert(knock.hear_all(&mut stream).await);
        noted(&a, Refusal::Oversize(513)).await;

        let wrong = Secrets::new(Epoch(1), &secret(7));
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        let last = knock.shake(&mut stream, &wrong).await;
        seen.insert(framed(&last));
        noted(&a, Refusal::WrongSecret).await;

        let other_epoch = Secrets::new(Epoch(9), &secret(1));
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        let last = knock.shake(&mut stream, &other_epoch).await;
        seen.insert(framed(&last));
        noted(&a, Refusal::Epoch).await;

        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_ended_at_the_deadline() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let began = tokio::time::Instant::now();
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        // One byte, so that the substream is seen at all.
        knock.say(&mut stream, &[0]).await;
        drop(knock.hear_all(&mut stream).await);
        assert!(began.elapsed() >= gate::DEADLINE);
        noted(&a, Refusal::Timeout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_hold_their_places_do_not_keep_members_out() {
    let a = Plan::new(1).listen(&[tcp("127.0.0.1:0")]).start().await;
    let mut held = Vec::new();
    for _stranger in 0..24 {
        held.push(Knock::at(&a, Transport::Tcp).await);
    }
    let b = Plan::new(2).secret(None).start().await;
    let joined = b
        .mesh
        .join(
            vec![a.anonymous(Transport::Tcp)],
            Some((Epoch(1), secret(1))),
        )
        .await;
    assert_eq!(joined.expect("joined").node, a.id());
    drop(held);
    let waited = tokio::time::timeout(Duration::from_secs(30), a.shutdown()).await;
    assert!(waited.is_ok());
}
