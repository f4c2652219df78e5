//! The keys of the gate and what is signed with them.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use openfang_id::SharedSecret;
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use super::wire::{self, Mac};
use super::{Channel, NETWORK, Role, Tag, VERSION};
use crate::codec::Writer;

/// Hashed to the salt of the extraction: separates it from any other use of the same secret.
const SALT_LABEL: &[u8] = b"OFP-MESH-PSK-V1";
/// The first field of a transcript: separates it from anything else signed with these keys.
const TRANSCRIPT_LABEL: &[u8] = b"OFP-MESH-AUTH-V1";
/// Before the role in the information of the expansion.
const KEY_LABEL: &[u8] = b"ofp/1/auth/";

/// The number of a secret: the operator counts up when replacing it. Public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// The secret that replaces another must have the higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the previous secret has epoch {previous:?}, which is not before {current:?}")]
pub struct EpochOrder {
    /// The number of the secret in use.
    pub current: Epoch,
    /// The number given for the one before it.
    pub previous: Epoch,
}

/// The secrets a node accepts: one, or during a replacement two. Holds derived keys only. Redacted
/// in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Secrets {
    current: Keys,
    previous: Option<Keys>,
}

/// The two keys of one epoch. The ends have different ones, so that nothing one of them says can be
/// said by the other.
#[derive(Clone, ZeroizeOnDrop)]
pub(super) struct Keys {
    #[zeroize(skip)]
    epoch: Epoch,
    initiator: [u8; 32],
    responder: [u8; 32],
}

impl Secrets {
    /// Derives the keys of one secret.
    #[must_use]
    pub fn new(epoch: Epoch, secret: &SharedSecret) -> Self {
        Self {
            current: Keys::derive(epoch, secret.as_bytes()),
            previous: None,
        }
    }

    /// Accepts the secret before this one too, until every node has the new one.
    ///
    /// # Errors
    /// [`EpochOrder`] when it does not have the lower number.
    pub fn with_previous(
        mut self,
        previous: Epoch,
        secret: &SharedSecret,
    ) -> Result<Self, EpochOrder> {
        let current = self.current.epoch;
        if previous >= current {
            return Err(EpochOrder { current, previous });
        }
        self.previous = Some(Keys::derive(previous, secret.as_bytes()));
        Ok(self)
    }

    /// Returns the accepted epochs, newest first: one or two.
    #[must_use]
    pub fn epochs(&self) -> Vec<Epoch> {
        self.each().map(|keys| keys.epoch).collect()
    }

    /// Chooses the newest accepted epoch among those offered.
    pub(super) fn choose(&self, offered: &[Epoch]) -> Option<Epoch> {
        self.each()
            .map(|keys| keys.epoch)
            .find(|epoch| offered.contains(epoch))
    }

    pub(super) fn keys(&self, epoch: Epoch) -> Option<&Keys> {
        self.each().find(|keys| keys.epoch == epoch)
    }

    fn each(&self) -> impl Iterator<Item = &Keys> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("epochs", &self.epochs())
            .finish_non_exhaustive()
    }
}

impl Keys {
    fn derive(epoch: Epoch, secret: &[u8]) -> Self {
        let salt = Sha256::digest(SALT_LABEL);
        let (mut extracted, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), secret);
        extracted.as_mut_slice().zeroize();
        Self {
            epoch,
            initiator: expand(&hkdf, Role::Initiator, epoch),
            responder: expand(&hkdf, Role::Responder, epoch),
        }
    }
}

#[cfg(test)]
impl Keys {
    /// The initiator's key and the responder's.
    pub(super) fn both(&self) -> [&[u8; 32]; 2] {
        [&self.initiator, &self.responder]
    }
}

fn expand(hkdf: &Hkdf<Sha256>, role: Role, epoch: Epoch) -> [u8; 32] {
    let role: &[u8] = match role {
        Role::Initiator => b"init",
        Role::Responder => b"resp",
    };
    let info = [
        KEY_LABEL,
        role,
        &[0],
        NETWORK.as_bytes(),
        &epoch.0.to_be_bytes(),
    ];
    let mut key = [0; 32];
    hkdf.expand_multi_info(&info, &mut key)
        .expect("32 bytes are within the 255 blocks HKDF-SHA256 can give");
    key
}

/// What one handshake is about, as one end sees it.
pub(super) struct Exchange<'a> {
    pub(super) channel: &'a Channel,
    pub(super) epoch: Epoch,
    pub(super) offered: &'a [Epoch],
    pub(super) local_nonce: &'a [u8; 32],
    pub(super) remote_nonce: &'a [u8; 32],
}

/// The bytes both ends prove, and the keys they prove them with.
#[derive(Clone)]
pub(super) struct Transcript {
    keys: Keys,
    bytes: Vec<u8>,
}

impl Transcript {
    pub(super) fn new(keys: &Keys, exchange: &Exchange<'_>) -> Self {
        let Channel {
            role,
            tag,
            local,
            remote,
        } = exchange.channel;
        let (initiator, responder) = match role {
            Role::Initiator => (
                (local, exchange.local_nonce),
                (remote, exchange.remote_nonce),
            ),
            Role::Responder => (
                (remote, exchange.remote_nonce),
                (local, exchange.local_nonce),
            ),
        };
        let mut epochs = Writer::new();
        for epoch in exchange.offered {
            epochs.u32(epoch.0);
        }
        let mut writer = Writer::with_capacity(256);
        writer
            .bytes16(TRANSCRIPT_LABEL)
            .str16(tag_name(*tag))
            .str16(NETWORK)
            .bytes16(&VERSION.to_be_bytes())
            .bytes16(&[wire::METHOD_SHARED_SECRET])
            .bytes16(&exchange.epoch.0.to_be_bytes())
            .bytes16(&fixed(epochs))
            .bytes16(&initiator.0.to_peer_id_bytes())
            .bytes16(&responder.0.to_peer_id_bytes())
            .bytes16(initiator.1)
            .bytes16(responder.1);
        Self {
            keys: keys.clone(),
            bytes: fixed(writer),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.keys.epoch
    }

    /// What the initiator sends.
    pub(super) fn proof(&self) -> Mac {
        finish(self.initiator())
    }

    /// Checks what the initiator sent, in constant time.
    pub(super) fn proof_holds(&self, proof: &Mac) -> bool {
        self.initiator().verify_slice(proof).is_ok()
    }

    /// What the responder answers to a proof that holds.
    pub(super) fn accept(&self, proof: &Mac) -> Mac {
        finish(self.responder(proof))
    }

    /// Checks what the responder answered, in constant time.
    pub(super) fn accept_holds(&self, proof: &Mac, accept: &Mac) -> bool {
        self.responder(proof).verify_slice(accept).is_ok()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn initiator(&self) -> Hmac<Sha256> {
        keyed(&self.keys.initiator).chain_update(&self.bytes)
    }

    fn responder(&self, proof: &Mac) -> Hmac<Sha256> {
        keyed(&self.keys.responder)
            .chain_update(&self.bytes)
            .chain_update(proof)
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript")
            .field("epoch", &self.keys.epoch)
            .finish_non_exhaustive()
    }
}

fn tag_name(tag: Tag) -> &'static str {
    match tag {
        Tag::Tcp => "noise",
        Tag::Quic => "quic",
        Tag::Memory => "memory",
    }
}

fn fixed(writer: Writer) -> Vec<u8> {
    writer
        .finish(usize::MAX)
        .expect("every field of a transcript is far below 65,535 bytes")
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn finish(mac: Hmac<Sha256>) -> Mac {
    let output = Zeroizing::new(mac.finalize().into_bytes().0);
    *output
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    /// RFC 5869, appendix A, cases 1 to 3: that the dependency is HKDF-SHA256.
    #[test]
    fn hkdf_gives_what_rfc_5869_says() {
        let check = |[ikm, salt, info, okm]: [&str; 4]| {
            let bytes = |text: &str| HEXLOWER.decode(text.as_bytes()).expect("hex");
            let salt = bytes(salt);
            let salt = (!salt.is_empty()).then_some(salt.as_slice());
            let mut out = vec![0; okm.len() / 2];
            Hkdf::<Sha256>::new(salt, &bytes(ikm))
                .expand(&bytes(info), &mut out)
                .expect("an allowed length");
            assert_eq!(HEXLOWER.encode(&out), okm);
        };
        check([
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ]);
        let run = |from: u8, to: u8| HEXLOWER.encode(&(from..=to).collect::<Vec<u8>>());
        check([
            &run(0x00, 0x4f),
            &run(0x60, 0xaf),
            &run(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ]);
        check([
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ]);
    }

    #[test]
    fn every_role_and_epoch_has_its_own_key() {
        let secret = [7; 40];
        let keys = [1, 2].map(|epoch| Keys::derive(Epoch(epoch), &secret));
        let other = Keys::derive(Epoch(1), &[8; 40]);
        let all = [
            keys[0].initiator,
            keys[0].responder,
            keys[1].initiator,
            keys[1].responder,
            other.initiator,
            other.responder,
        ];
        for (at, a) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|b| a != b), "{at}");
        }
    }

    #[test]
    fn the_previous_secret_has_the_lower_number() {
        let secret = SharedSecret::from_random(&[1; 32]);
        let old = SharedSecret::from_random(&[2; 32]);
        let secrets = || Secrets::new(Epoch(4), &secret);
        for previous in [4, 5] {
            let refused = secrets().with_previous(Epoch(previous), &old).map(|_| ());
            assert_eq!(
                refused,
                Err(EpochOrder {
                    current: Epoch(4),
                    previous: Epoch(previous)
                })
            );
        }
        let both = secrets().with_previous(Epoch(2), &old).expect("lower");
        assert_eq!(both.epochs(), [Epoch(4), Epoch(2)]);
        assert_eq!(both.choose(&[Epoch(2), Epoch(3)]), Some(Epoch(2)));
        assert_eq!(both.choose(&[Epoch(2), Epoch(4)]), Some(Epoch(4)));
        assert_eq!(both.choose(&[Epoch(3)]), None);
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let secrets = Secrets::new(Epoch(9), &SharedSecret::from_random(&[1; 32]));
        let shown = format!("{secrets:?}");
        assert_eq!(shown, "Secrets { epochs: [Epoch(9)], .. }");
    }
}
