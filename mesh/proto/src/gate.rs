//! The gate: nobody enters a mesh without its secret.
//!
//! Four flights on the first substream of a connection that Noise or TLS has already secured, before
//! any other protocol may run on it. Both ends prove with HMAC-SHA256 that they hold the secret, over
//! a transcript that names both node ids, both fresh nonces, the transport, the network, the version
//! and the epochs on offer; so a proof is worth nothing in another connection, in the other
//! direction, or with anything of it changed. The dialer proves first: whoever merely connects is
//! given nothing to guess on.
//!
//! ```text
//! initiator                                responder
//!   hello   version, method, epochs, nonce  ->
//!                        <-  challenge  epoch, nonce
//!   proof   HMAC(K_init, T)                 ->
//!                        <-  accept     HMAC(K_resp, T || proof)
//! ```
//!
//! [`Gate`] is one end of one handshake. Give it [`In::Start`], then every frame; carry out what it
//! gives back, in order. It ends with exactly one [`Out::Admitted`] or [`Out::Refused`] and is silent
//! afterwards. On the stream each frame has two bytes of length before it, big-endian; a frame has at
//! most [`FRAME_BYTES_MAX`] bytes. After [`DEADLINE`] the driver gives [`In::Deadline`].
//!
//! It is not a channel: what it proves is bound to the node ids that Noise or TLS proved, and the
//! encryption stays theirs. It does not hide that a node is there.
//!
//! Sources: RFC 5869 (keys), RFC 2104 (HMAC), RFC 9257 §4–6 (external pre-shared keys), Drucker and
//! Gueron, *Selfie* (eprint 2019/347), for why the ends have different keys.

mod secrets;
mod wire;

use std::time::Duration;

use openfang_id::NodeId;

pub use secrets::{Epoch, EpochOrder, Secrets};

use secrets::Transcript;
use wire::{Challenge, Frame, Hello, Mac};

/// The longest frame, in bytes; the longest that exists has 45.
pub const FRAME_BYTES_MAX: usize = 512;
/// How long a handshake may take. On a busy machine it takes tens of milliseconds; a slot for
/// someone who has proved nothing is not held longer than this.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// The version of the handshake, and of everything that runs behind it.
pub const VERSION: u16 = 1;
/// The network the keys are bound to. Meshes are told apart by their secrets; this keeps the keys
/// of OFP apart from those of anything else that is given the same secret.
pub const NETWORK: &str = "openfang";

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It dialed; it sends the first frame and proves first.
    Initiator,
    /// It was dialed.
    Responder,
}

/// What secures the connection under the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// TCP with Noise.
    Tcp,
    /// QUIC with TLS 1.3.
    Quic,
    /// A channel inside one process, for tests and simulations.
    Memory,
}

/// How the ends prove that they hold the secret. One way so far; the byte is on the wire so that
/// another can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// HMAC-SHA256 with keys derived from a shared secret of at least 128 bits.
    SharedSecret,
}

/// The connection a handshake runs on, as the layer below proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// Which end this is.
    pub role: Role,
    /// What secures it.
    pub tag: Tag,
    /// This node.
    pub local: NodeId,
    /// The node at the other end, as Noise or TLS authenticated it.
    pub remote: NodeId,
}

/// What happens to a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum In<'a> {
    /// The substream is open.
    Start,
    /// A whole frame arrived, without its length.
    Frame(&'a [u8]),
    /// A length over [`FRAME_BYTES_MAX`] arrived; nothing after it was read.
    Oversize(usize),
    /// The substream or the connection ended.
    Closed,
    /// [`DEADLINE`] has passed since the connection was made.
    Deadline,
}

/// What the driver must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    /// Write this frame with its length, and flush.
    Send(Vec<u8>),
    /// Both ends have proved that they hold the secret: the connection may be used.
    Admitted(Admitted),
    /// Close the connection. The reason is for the local log; the peer is told nothing of it.
    Refused(Refusal),
}

/// What an admission rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Which of the accepted secrets it was.
    pub epoch: Epoch,
    /// How it was proved.
    pub method: Method,
}

/// Why a peer was not admitted. Holds nothing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer's proof does not hold: it has another secret, or someone stands between.
    #[error("the peer does not hold the secret of this mesh")]
    WrongSecret,
    /// The peer refused our proof: most likely it has another secret.
    #[error("the peer refused our proof: it most likely has another shared secret")]
    ProofRejected,
    /// The peer refused before any proof: another version, another epoch, or itself.
    #[error("the peer refused the connection before any proof")]
    HelloRejected,
    /// No epoch of the secret is known to both.
    #[error("the peer has no epoch of the shared secret that is accepted here")]
    Epoch,
    /// The peer speaks another version of the handshake.
    #[error("the peer speaks version {offered} of the protocol, this node version {VERSION}")]
    Version {
        /// Its version.
        offered: u16,
    },
    /// The peer wants to prove itself in a way that is not known here.
    #[error("the peer asks for authentication method {offered}, which is not known here")]
    Method {
        /// The method's number.
        offered: u8,
    },
    /// The other end is this node.
    #[error("the node dialed itself")]
    OwnId,
    /// The peer sent our own bytes back.
    #[error("the peer sent our own frame or nonce back")]
    Reflected,
    /// A frame of another flight was due.
    #[error("the peer sent a frame out of order")]
    OutOfOrder,
    /// A frame is not one of this protocol.
    #[error("the peer sent a malformed frame")]
    Malformed,
    /// A frame is longer than any may be.
    #[error("the peer sent a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    Oversize(usize),
    /// The peer speaks the plaintext JSON wire of OpenFang, version 1, which can not be made safe.
    #[error("the peer speaks OpenFang's version 1 wire, which this node does not")]
    LegacyWire,
    /// The connection ended in the middle.
    #[error("the connection ended during the handshake")]
    Closed,
    /// The handshake took too long.
    #[error("the handshake took longer than {} s", DEADLINE.as_secs())]
    Timeout,
}

/// One end of one handshake.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Gate {
    channel: Channel,
    secrets: Secrets,
    nonce: [u8; 32],
    sent: Vec<Vec<u8>>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing was sent or received.
    New,
    /// The responder saw an empty frame first: the upper half of a length of the old wire.
    PerhapsLegacy,
    /// The initiator sent its hello.
    AwaitChallenge,
    /// The responder sent its challenge.
    AwaitProof(Box<Transcript>),
    /// The initiator sent its proof.
    AwaitAccept(Box<Transcript>, Mac),
    /// Admitted or refused.
    Ended,
}

impl Gate {
    /// Prepares one end. `nonce` is 32 bytes from a cryptographic source, used for nothing else.
    #[must_use]
    pub fn new(channel: Channel, secrets: &Secrets, nonce: [u8; 32]) -> Self {
        Self {
            channel,
            secrets: secrets.clone(),
            nonce,
            sent: Vec::new(),
            state: State::New,
        }
    }

    /// Takes what happened and returns what to do.
    pub fn handle(&mut self, event: In<'_>) -> Vec<Out> {
        if matches!(self.state, State::Ended) {
            return Vec::new();
        }
        match self.step(event) {
            Ok(out) => out,
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn step(&mut self, event: In<'_>) -> Result<Vec<Out>, Refusal> {
        match event {
            In::Closed => return Err(Refusal::Closed),
            In::Deadline => return Err(Refusal::Timeout),
            In::Start | In::Frame(_) | In::Oversize(_)
                if self.channel.local == self.channel.remote =>
            {
                return Err(Refusal::OwnId);
            }
            In::Start => return self.start(),
            In::Oversize(_) if matches!(self.state, State::PerhapsLegacy) => {
                return Err(Refusal::LegacyWire);
            }
            In::Oversize(len) => return Err(Refusal::Oversize(len)),
            In::Frame(_) => {}
        }
        let In::Frame(bytes) = event else {
            return Ok(Vec::new());
        };
        self.frame(bytes)
    }

    fn start(&mut self) -> Result<Vec<Out>, Refusal> {
        match (self.channel.role, &self.state) {
            (Role::Responder, State::New) => Ok(Vec::new()),
            (Role::Initiator, State::New) => {
                self.state = State::AwaitChallenge;
                let hello = Frame::Hello(Hello {
                    version: VERSION,
                    method: Method::SharedSecret,
                    epochs: self.secrets.epochs(),
                    nonce: self.nonce,
                });
                Ok(vec![self.send(&hello)])
            }
            _started => Err(Refusal::OutOfOrder),
        }
    }

    fn frame(&mut self, bytes: &[u8]) -> Result<Vec<Out>, Refusal> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(Refusal::Oversize(bytes.len()));
        }
        if self.sent.iter().any(|sent| sent == bytes) {
            return Err(Refusal::Reflected);
        }
        let legacy_possible = match (&self.state, self.channel.role) {
            (State::New, Role::Responder) if bytes.is_empty() => {
                self.state = State::PerhapsLegacy;
                return Ok(Vec::new());
            }
            (State::PerhapsLegacy, _) => true,
            _other => false,
        };
        if legacy_possible {
            let json = bytes.first() == Some(&b'{');
            return Err(if json {
                Refusal::LegacyWire
            } else {
                Refusal::Malformed
            });
        }
        let frame = Frame::decode(bytes)?;
        match (std::mem::replace(&mut self.state, State::Ended), frame) {
            (State::New, Frame::Hello(hello)) if self.channel.role == Role::Responder => {
                self.on_hello(&hello)
            }
            (State::AwaitChallenge, Frame::Challenge(challenge)) => self.on_challenge(&challenge),
            (State::AwaitProof(transcript), Frame::Proof(proof)) => {
                self.on_proof(&transcript, &proof)
            }
            (State::AwaitAccept(transcript, proof), Frame::Accept(accept)) => {
                self.on_accept(&transcript, &proof, &accept)
            }
            (State::AwaitAccept(..), Frame::Error) => Err(Refusal::ProofRejected),
            (_state, Frame::Error) => Err(Refusal::HelloRejected),
            (_state, _frame) => Err(Refusal::OutOfOrder),
        }
    }

    fn on_hello(&mut self, hello: &Hello) -> Result<Vec<Out>, Refusal> {
        let epoch = self.secrets.choose(&hello.epochs).ok_or(Refusal::Epoch)?;
        let challenge = Frame::Challenge(Challenge {
            epoch,
            nonce: self.nonce,
        });
        let transcript = self.transcript(epoch, &hello.epochs, &hello.nonce)?;
        self.state = State::AwaitProof(Box::new(transcript));
        Ok(vec![self.send(&challenge)])
    }

    fn on_challenge(&mut self, challenge: &Challenge) -> Result<Vec<Out>, Refusal> {
        if challenge.nonce == self.nonce {
            return Err(Refusal::Reflected);
        }
        let offered = self.secrets.epochs();
        if !offered.contains(&challenge.epoch) {
            return Err(Refusal::Epoch);
        }
        let transcript = self.transcript(challenge.epoch, &offered, &challenge.nonce)?;
        let proof = transcript.proof();
        self.state = State::AwaitAccept(Box::new(transcript), proof);
        Ok(vec![self.send(&Frame::Proof(proof))])
    }

    fn on_proof(&mut self, transcript: &Transcript, proof: &Mac) -> Result<Vec<Out>, Refusal> {
        if !transcript.proof_holds(proof) {
            return Err(Refusal::WrongSecret);
        }
        let accept = self.send(&Frame::Accept(transcript.accept(proof)));
        Ok(vec![accept, Out::Admitted(admitted(transcript))])
    }

    fn on_accept(
        &mut self,
        transcript: &Transcript,
        proof: &Mac,
        accept: &Mac,
    ) -> Result<Vec<Out>, Refusal> {
        if !transcript.accept_holds(proof, accept) {
            return Err(Refusal::WrongSecret);
        }
        Ok(vec![Out::Admitted(admitted(transcript))])
    }

    fn transcript(
        &self,
        epoch: Epoch,
        offered: &[Epoch],
        remote_nonce: &[u8; 32],
    ) -> Result<Transcript, Refusal> {
        let keys = self.secrets.keys(epoch).ok_or(Refusal::Epoch)?;
        let exchange = secrets::Exchange {
            channel: &self.channel,
            epoch,
            offered,
            local_nonce: &self.nonce,
            remote_nonce,
        };
        Ok(Transcript::new(keys, &exchange))
    }

    fn send(&mut self, frame: &Frame) -> Out {
        let bytes = frame.encode();
        self.sent.push(bytes.clone());
        Out::Send(bytes)
    }

    /// Ends the handshake. Every reason gives the same frame; where nobody can read it, or the peer
    /// has just refused us, none.
    fn refuse(&mut self, refusal: Refusal) -> Vec<Out> {
        self.state = State::Ended;
        let told = !matches!(
            refusal,
            Refusal::Closed | Refusal::Timeout | Refusal::HelloRejected | Refusal::ProofRejected
        );
        let mut out = Vec::with_capacity(2);
        if told {
            out.push(Out::Send(Frame::Error.encode()));
        }
        out.push(Out::Refused(refusal));
        out
    }
}

fn admitted(transcript: &Transcript) -> Admitted {
    Admitted {
        epoch: transcript.epoch(),
        method: Method::SharedSecret,
    }
}

#[cfg(test)]
mod tests;
