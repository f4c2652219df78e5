//! Drives the gate on a fresh connection.
//!
//! The protocol is [`openfang_ofp::gate`]'s; this reads and writes its frames on the first substream,
//! keeps the multiplexer running meanwhile (Yamux makes no progress on its own), and keeps time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use openfang_id::NodeId;
use openfang_ofp::gate::{
    Channel, DEADLINE, FRAME_BYTES_MAX, Gate, In, Out, Refusal, Role, Secrets, Tag,
};
use tokio::time::{Sleep, timeout};

use super::Fail;

/// After a refusal: how long to wait until the peer has read the error and hung up. Without it, QUIC
/// would take the connection down before the error is on its way.
const LINGER: Duration = Duration::from_millis(250);

/// The gate stayed closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct GateFail {
    /// Who stands there, as Noise or TLS proved.
    pub(crate) node: NodeId,
    /// Why. For this node only.
    pub(crate) reason: Refusal,
}

/// Knows the secrets and lets members in.
#[derive(Debug)]
pub(crate) struct Keeper {
    me: NodeId,
    secrets: RwLock<Secrets>,
}

impl Keeper {
    pub(crate) fn new(me: NodeId, secrets: Secrets) -> Arc<Self> {
        Arc::new(Self {
            me,
            secrets: RwLock::new(secrets),
        })
    }

    /// Replaces the secrets. Holds for every handshake that begins afterwards.
    pub(crate) fn set_secrets(&self, secrets: Secrets) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
    }

    /// Lets a connection pass when the peer holds the secret.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: PeerId,
        muxer: StreamMuxerBox,
        endpoint: ConnectedPoint,
        tag: Tag,
    ) -> impl Future<Output = Result<(PeerId, StreamMuxerBox), Fail>> + Send + use<> {
        let keeper = Arc::clone(self);
        async move {
            let remote = crate::addrs::node_id(&peer).ok_or(Fail::Identity)?;
            let channel = Channel {
                role: role(&endpoint),
                tag,
                local: keeper.me,
                remote,
            };
            let nonce = crate::entropy::bytes().map_err(Fail::Entropy)?;
            let gate = {
                let secrets = keeper
                    .secrets
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                Gate::new(channel, &secrets, nonce)
            };
            let muxer = run(gate, muxer, channel.role).await.map_err(|reason| {
                Fail::Gate(GateFail {
                    node: remote,
                    reason,
                })
            })?;
            Ok((peer, muxer))
        }
    }
}

/// The dialer opens and proves first. In hole punching over QUIC both ends dial; the one that was told
/// to play the listener does so only when it does not reuse its port, as libp2p's QUIC decides.
fn role(endpoint: &ConnectedPoint) -> Role {
    match endpoint {
        ConnectedPoint::Listener { .. }
        | ConnectedPoint::Dialer {
            role_override: Endpoint::Listener,
            port_use: PortUse::New,
            ..
        } => Role::Responder,
        ConnectedPoint::Dialer { .. } => Role::Initiator,
    }
}

async fn run(
    mut gate: Gate,
    mut muxer: StreamMuxerBox,
    role: Role,
) -> Result<StreamMuxerBox, Refusal> {
    let mut deadline = pin!(tokio::time::sleep(DEADLINE));
    let opened = tokio::select! {
        opened = first_substream(&mut muxer, role) => opened,
        () = &mut deadline => return Err(timed_out(&mut gate)),
    };
    let Ok(mut stream) = opened else {
        return Err(verdict(gate.handle(In::Closed)).unwrap_or(Refusal::Closed));
    };
    let shaken = shake(&mut gate, &mut muxer, &mut stream, deadline.as_mut()).await;
    match shaken {
        Ok(()) => {
            // The peer has all it needs; whether it still reads the end of this substream is its own affair.
            crate::ignore_gone(drive(&mut muxer, stream.close()).await);
            Ok(muxer)
        }
        Err(refusal) => {
            crate::ignore_gone(timeout(LINGER, hang_up(&mut muxer, stream)).await);
            Err(refusal)
        }
    }
}

/// Exchanges frames until the gate has decided.
async fn shake(
    gate: &mut Gate,
    muxer: &mut StreamMuxerBox,
    stream: &mut SubstreamBox,
    mut deadline: std::pin::Pin<&mut Sleep>,
) -> Result<(), Refusal> {
    let mut outs = gate.handle(In::Start);
    let mut wire = Vec::new();
    loop {
        wire.clear();
        let mut decided = None;
        for out in outs {
            match out {
                Out::Send(frame) => put_frame(&mut wire, &frame),
                Out::Admitted(_how) => decided = Some(Ok(())),
                Out::Refused(refusal) => decided = Some(Err(refusal)),
            }
        }
        let written = tokio::select! {
            written = drive(muxer, write(stream, &wire)) => written,
            () = &mut deadline => return Err(timed_out(gate)),
        };
        if let Some(decided) = decided {
            return decided;
        }
        if written.is_err() {
            return Err(verdict(gate.handle(In::Closed)).unwrap_or(Refusal::Closed));
        }
        let mut frame = [0; FRAME_BYTES_MAX];
        let read = tokio::select! {
            read = drive(muxer, read_frame(stream, &mut frame)) => read,
            () = &mut deadline => Read::Late,
        };
        outs = match read {
            Read::Frame(len) => gate.handle(In::Frame(&frame[..len])),
            Read::Oversize(len) => gate.handle(In::Oversize(len)),
            Read::End => gate.handle(In::Closed),
            Read::Late => gate.handle(In::Deadline),
        };
    }
}

fn timed_out(gate: &mut Gate) -> Refusal {
    verdict(gate.handle(In::Deadline)).unwrap_or(Refusal::Timeout)
}

fn verdict(outs: Vec<Out>) -> Option<Refusal> {
    outs.into_iter().find_map(|out| match out {
        Out::Refused(refusal) => Some(refusal),
        Out::Send(_) | Out::Admitted(_) => None,
    })
}

fn put_frame(wire: &mut Vec<u8>, frame: &[u8]) {
    let len = u16::try_from(frame.len()).expect("the gate's frames have at most 512 bytes");
    wire.extend_from_slice(&len.to_be_bytes());
    wire.extend_from_slice(frame);
}

enum Read {
    Frame(usize),
    Oversize(usize),
    End,
    Late,
}

impl From<std::io::Error> for Read {
    fn from(_broken: std::io::Error) -> Self {
        Self::End
    }
}

async fn read_frame(stream: &mut SubstreamBox, frame: &mut [u8; FRAME_BYTES_MAX]) -> Read {
    let mut header = [0; 2];
    if let Err(broken) = stream.read_exact(&mut header).await {
        return broken.into();
    }
    let len = usize::from(u16::from_be_bytes(header));
    let Some(body) = frame.get_mut(..len) else {
        return Read::Oversize(len);
    };
    match stream.read_exact(body).await {
        Ok(()) => Read::Frame(len),
        Err(broken) => broken.into(),
    }
}

async fn write(stream: &mut SubstreamBox, wire: &[u8]) -> std::io::Result<()> {
    if wire.is_empty() {
        return Ok(());
    }
    stream.write_all(wire).await?;
    stream.flush().await
}

/// Ends the substream and waits until the peer has done the same.
async fn hang_up(muxer: &mut StreamMuxerBox, mut stream: SubstreamBox) {
    let mut rest = [0; 64];
    crate::ignore_gone(drive(muxer, stream.close()).await);
    while drive(muxer, stream.read(&mut rest))
        .await
        .is_ok_and(|n| n > 0)
    {}
    crate::ignore_gone(poll_fn(|cx| muxer.poll_close_unpin(cx)).await);
}

async fn first_substream(
    muxer: &mut StreamMuxerBox,
    role: Role,
) -> Result<SubstreamBox, std::io::Error> {
    poll_fn(|cx| {
        let opened = match role {
            Role::Initiator => muxer.poll_outbound_unpin(cx),
            Role::Responder => muxer.poll_inbound_unpin(cx),
        };
        if opened.is_ready() {
            return opened;
        }
        match muxer.poll_unpin(cx) {
            Poll::Ready(Err(broken)) => Poll::Ready(Err(broken)),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Runs an operation on a substream while the multiplexer moves bytes. When the connection breaks, the
/// operation sees it on its substream.
async fn drive<F: Future>(muxer: &mut StreamMuxerBox, operation: F) -> F::Output {
    let mut operation = pin!(operation);
    let mut broken = false;
    poll_fn(|cx| {
        if !broken {
            broken = matches!(muxer.poll_unpin(cx), Poll::Ready(Err(_)));
        }
        operation.as_mut().poll(cx)
    })
    .await
}
