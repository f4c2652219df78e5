//! Signatures for simulations: real ones, or ones that cost nothing and can be forged by no accident.

use openfang_id::NodeId;
use openfang_ofp::roster::Crypto;

/// A keyed checksum in the place of a signature. Not secure: anyone can compute it. It still ties a
/// signature to its author and every bit of its message.
#[derive(Debug, Clone)]
pub(super) struct Cheap(pub(super) NodeId);

impl Crypto for Cheap {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        checksum(&self.0, message)
    }

    fn verify(&self, by: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
        checksum(by, message) == *signature
    }
}

fn checksum(by: &NodeId, message: &[u8]) -> [u8; 64] {
    let words = by.as_bytes().chunks(8).chain(message.chunks(8));
    let sum = words.fold(0x243f_6a88_85a3_08d3, |sum: u64, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_be_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    let mut signature = [0; 64];
    for (at, part) in (1_u64..).zip(signature.chunks_exact_mut(8)) {
        part.copy_from_slice(&sum.wrapping_mul(at * 2 + 1).to_be_bytes());
    }
    signature
}
