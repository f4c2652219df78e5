//! The frames of the gate.

use super::{Epoch, FRAME_BYTES_MAX, Method, Refusal, VERSION};
use crate::codec::{DecodeError, Reader, Writer};

/// The number of [`Method::SharedSecret`].
pub(super) const METHOD_SHARED_SECRET: u8 = 1;
/// The most epochs a hello offers: the secret in use and the one before it.
const EPOCHS_MAX: usize = 2;

const HELLO: u8 = 0x01;
const CHALLENGE: u8 = 0x02;
const PROOF: u8 = 0x03;
const ACCEPT: u8 = 0x04;
const ERROR: u8 = 0xff;

/// An HMAC-SHA256 tag.
pub(super) type Mac = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) method: Method,
    /// Newest first.
    pub(super) epochs: Vec<Epoch>,
    pub(super) nonce: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) epoch: Epoch,
    pub(super) nonce: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Hello),
    Challenge(Challenge),
    Proof(Mac),
    Accept(Mac),
    Error,
}

impl Frame {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(64);
        match self {
            Self::Hello(hello) => {
                writer.u8(HELLO).u16(hello.version);
                writer.u8(match hello.method {
                    Method::SharedSecret => METHOD_SHARED_SECRET,
                });
                writer.count8(hello.epochs.len());
                for epoch in &hello.epochs {
                    writer.u32(epoch.0);
                }
                writer.raw(&hello.nonce)
            }
            Self::Challenge(challenge) => writer
                .u8(CHALLENGE)
                .u32(challenge.epoch.0)
                .raw(&challenge.nonce),
            Self::Proof(mac) => writer.u8(PROOF).raw(mac),
            Self::Accept(mac) => writer.u8(ACCEPT).raw(mac),
            Self::Error => writer.u8(ERROR),
        };
        writer
            .finish(FRAME_BYTES_MAX)
            .expect("two epochs at most make a frame of 45 bytes at most")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(bytes);
        let frame = match reader.u8().map_err(malformed)? {
            HELLO => Self::Hello(hello(&mut reader)?),
            CHALLENGE => Self::Challenge(Challenge {
                epoch: Epoch(reader.u32().map_err(malformed)?),
                nonce: reader.array().map_err(malformed)?,
            }),
            PROOF => Self::Proof(reader.array().map_err(malformed)?),
            ACCEPT => Self::Accept(reader.array().map_err(malformed)?),
            ERROR => Self::Error,
            _unknown => return Err(Refusal::Malformed),
        };
        reader.finish().map_err(malformed)?;
        Ok(frame)
    }
}

/// The version comes first, so that a later one may change everything behind it and still be told
/// apart from garbage.
fn hello(reader: &mut Reader<'_>) -> Result<Hello, Refusal> {
    let version = reader.u16().map_err(malformed)?;
    if version != VERSION {
        return Err(Refusal::Version { offered: version });
    }
    let method = match reader.u8().map_err(malformed)? {
        METHOD_SHARED_SECRET => Method::SharedSecret,
        offered => return Err(Refusal::Method { offered }),
    };
    let count = reader.count8(EPOCHS_MAX).map_err(malformed)?;
    let mut epochs = Vec::with_capacity(count);
    for _each in 0..count {
        epochs.push(Epoch(reader.u32().map_err(malformed)?));
    }
    if epochs.is_empty() || !epochs.is_sorted_by(|newer, older| newer > older) {
        return Err(Refusal::Malformed);
    }
    Ok(Hello {
        version,
        method,
        epochs,
        nonce: reader.array().map_err(malformed)?,
    })
}

fn malformed(_why: DecodeError) -> Refusal {
    Refusal::Malformed
}
