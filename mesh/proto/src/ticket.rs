//! The text that invites another machine into a mesh: where to dial, who answers there, and the
//! secret.
//!
//! `ofp1` and lower-case base32 (RFC 4648 §6, without padding) of: version, length, epoch, secret,
//! nodes with their addresses, and a checksum, so that a text that was cut off or mistyped is noticed
//! before anything is dialed. Whoever has a ticket has the secret; it is treated as one.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use openfang_id::{NodeId, PeerAddr, SharedSecret};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::codec::{DecodeError, Reader, Writer};
use crate::gate::Epoch;

/// The most nodes a ticket names.
pub const NODES_MAX: usize = 8;
/// The most addresses a ticket names for one node.
pub const ADDRS_PER_NODE_MAX: usize = 16;

const PREFIX: &str = "ofp1";
const PREFIX_ANY: &str = "ofp";
const VERSION: u8 = 1;
/// The longest ticket that is read, in characters: eight nodes with all their addresses as host
/// names do not fill it.
const TEXT_CHARS_MAX: usize = 64 * 1024;
const BYTES_MAX: usize = u16::MAX as usize;
const CHECKSUM_BYTES: usize = 4;
/// Version and length: what must be known to tell how long a ticket is.
const HEADER_BYTES: usize = 3;
const SECRET_BYTES_MAX: usize = 2048;
/// A secret made by `openfang keygen`: its 32 random bytes.
const SECRET_GENERATED: u8 = 1;
/// Any other accepted secret: its text.
const SECRET_TEXT: u8 = 2;
const GENERATED_PREFIX: &str = "ofn1_";

/// An invitation. Redacted in `Debug`.
#[derive(Clone)]
pub struct Ticket {
    peers: Vec<PeerAddr>,
    epoch: Epoch,
    secret: SharedSecret,
}

/// Why a ticket cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It would name nobody to dial.
    #[error("a ticket needs an address")]
    NoAddress,
    /// An address does not say who answers there: whoever did would be given our proof.
    #[error("an address of a ticket must say which node answers there")]
    NoNode,
    /// Too many nodes or addresses.
    #[error("a ticket names at most {NODES_MAX} nodes with {ADDRS_PER_NODE_MAX} addresses each")]
    TooMany,
    /// An address that cannot be written.
    #[error("an address of the ticket is not valid")]
    Address,
}

/// Why a text is not a ticket. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketParseError {
    /// It does not begin like one.
    #[error("not a ticket: a ticket begins with {PREFIX}")]
    NotATicket,
    /// It is of a version that is not known here.
    #[error("a ticket of another version: this program reads those that begin with {PREFIX}")]
    OtherVersion,
    /// Its end is missing.
    #[error("the ticket is cut off: {missing} of its characters are missing")]
    CutOff {
        /// How many characters.
        missing: usize,
    },
    /// A character is wrong, or there are too many.
    #[error("the ticket is mistyped")]
    Mistyped,
    /// The checksum holds, and what it covers is not a ticket: a fault of who made it.
    #[error("the ticket is not valid inside")]
    Invalid,
}

impl Ticket {
    /// Makes a ticket. The order of the addresses of each node is kept; nodes come in the order of
    /// their first address.
    ///
    /// # Errors
    /// When there is no address, one does not name its node or has no valid form, or there are too
    /// many.
    pub fn new(
        peers: Vec<PeerAddr>,
        epoch: Epoch,
        secret: SharedSecret,
    ) -> Result<Self, TicketError> {
        if peers.is_empty() {
            return Err(TicketError::NoAddress);
        }
        let groups = grouped(&peers)?;
        let too_many = groups.len() > NODES_MAX
            || groups
                .iter()
                .any(|(_node, of)| of.len() > ADDRS_PER_NODE_MAX);
        if too_many {
            return Err(TicketError::TooMany);
        }
        for peer in &peers {
            let mut writer = Writer::new();
            writer.net_addr(&peer.addr);
            let bytes = writer
                .finish(BYTES_MAX)
                .map_err(|_long| TicketError::Address)?;
            let read = Reader::new(&bytes).net_addr();
            if read.as_ref() != Ok(&peer.addr) {
                return Err(TicketError::Address);
            }
        }
        let peers = groups.into_iter().flat_map(|(_node, of)| of).cloned();
        Ok(Self {
            peers: peers.collect(),
            epoch,
            secret,
        })
    }

    /// Returns where to dial, and who is expected there; never empty, and each names its node.
    #[must_use]
    pub fn peers(&self) -> &[PeerAddr] {
        &self.peers
    }

    /// Returns the number of the secret.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the secret of the mesh.
    #[must_use]
    pub fn secret(&self) -> &SharedSecret {
        &self.secret
    }

    /// Returns the text of the ticket, secret and all.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let bytes = self.to_bytes();
        let upper = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + upper.len()));
        text.push_str(PREFIX);
        text.extend(upper.chars().map(|c| c.to_ascii_lowercase()));
        text
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(1024);
        writer.u8(VERSION).u16(0).u32(self.epoch.0);
        match generated(&self.secret) {
            Some(random) => writer.u8(SECRET_GENERATED).raw(random.as_slice()),
            None => writer.u8(SECRET_TEXT).bytes16(self.secret.as_bytes()),
        };
        let groups = grouped(&self.peers).unwrap_or_default();
        writer.count8(groups.len());
        for (node, peers) in groups {
            writer.node_id(&node).count8(peers.len());
            for peer in peers {
                writer.net_addr(&peer.addr);
            }
        }
        let bytes = writer
            .finish(BYTES_MAX - CHECKSUM_BYTES)
            .expect("eight nodes with sixteen addresses of 260 bytes at most stay below the bound");
        let mut bytes = Zeroizing::new(bytes);
        let total = u16::try_from(bytes.len() + CHECKSUM_BYTES).unwrap_or(u16::MAX);
        bytes[1..HEADER_BYTES].copy_from_slice(&total.to_be_bytes());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }
}

impl FromStr for Ticket {
    type Err = TicketParseError;

    /// Reads a ticket, with white space around it or not, in either case.
    fn from_str(text: &str) -> Result<Self, TicketParseError> {
        let encoded = encoded_part(text.trim())?;
        let bytes = decoded(&encoded)?;
        let (body, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(TicketParseError::Mistyped)?;
        if checksum(body) != *sum {
            return Err(TicketParseError::Mistyped);
        }
        let (version, body) = body.split_first().ok_or(TicketParseError::Mistyped)?;
        if *version != VERSION {
            return Err(TicketParseError::OtherVersion);
        }
        read(body)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("peers", &self.peers)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Returns what follows the prefix, in upper case.
fn encoded_part(text: &str) -> Result<Zeroizing<String>, TicketParseError> {
    let split = |at: usize| {
        let front = text.get(..at)?;
        text.get(at..).map(|rest| (front, rest))
    };
    match split(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => {
            if rest.len() > TEXT_CHARS_MAX {
                return Err(TicketParseError::Mistyped);
            }
            return Ok(Zeroizing::new(rest.to_ascii_uppercase()));
        }
        Some(_) | None => {}
    }
    match split(PREFIX_ANY.len()) {
        Some((prefix, rest))
            if prefix.eq_ignore_ascii_case(PREFIX_ANY)
                && rest.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            Err(TicketParseError::OtherVersion)
        }
        Some(_) | None => Err(TicketParseError::NotATicket),
    }
}

/// Decodes base32 of the length its first characters say.
fn decoded(encoded: &str) -> Result<Zeroizing<Vec<u8>>, TicketParseError> {
    let base32 = |c: u8| c.is_ascii_uppercase() || (b'2'..=b'7').contains(&c);
    if !encoded.bytes().all(base32) {
        return Err(TicketParseError::Mistyped);
    }
    // Eight characters are five bytes; the first three tell the length of the rest.
    let Some(front) = encoded.get(..8) else {
        let missing = 8 - encoded.len();
        return Err(TicketParseError::CutOff { missing });
    };
    let front = decode(front)?;
    let total = match front.get(1..HEADER_BYTES) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        Some(_) | None => return Err(TicketParseError::Mistyped),
    };
    let wanted = BASE32_NOPAD.encode_len(total);
    if let Some(missing) = wanted.checked_sub(encoded.len()).filter(|n| *n > 0) {
        return Err(TicketParseError::CutOff { missing });
    }
    if encoded.len() > wanted {
        return Err(TicketParseError::Mistyped);
    }
    decode(encoded)
}

fn decode(encoded: &str) -> Result<Zeroizing<Vec<u8>>, TicketParseError> {
    let bytes = BASE32_NOPAD
        .decode(encoded.as_bytes())
        .map_err(|_damaged| TicketParseError::Mistyped)?;
    Ok(Zeroizing::new(bytes))
}

/// Reads what is between the version and the checksum.
fn read(body: &[u8]) -> Result<Ticket, TicketParseError> {
    let invalid = |_why: DecodeError| TicketParseError::Invalid;
    let mut reader = Reader::new(body);
    reader.u16().map_err(invalid)?;
    let epoch = Epoch(reader.u32().map_err(invalid)?);
    let secret = read_secret(&mut reader)?;
    let peers = read_peers(&mut reader).map_err(invalid)?;
    reader.finish().map_err(invalid)?;
    Ticket::new(peers, epoch, secret).map_err(|_why| TicketParseError::Invalid)
}

fn read_secret(reader: &mut Reader<'_>) -> Result<SharedSecret, TicketParseError> {
    let invalid = |_why: DecodeError| TicketParseError::Invalid;
    match reader.u8().map_err(invalid)? {
        SECRET_GENERATED => {
            let random = Zeroizing::new(reader.array().map_err(invalid)?);
            Ok(SharedSecret::from_random(&random))
        }
        SECRET_TEXT => {
            let bytes = reader.bytes16(SECRET_BYTES_MAX).map_err(invalid)?;
            let text = std::str::from_utf8(bytes).map_err(|_why| TicketParseError::Invalid)?;
            let secret = SharedSecret::parse(text).map_err(|_why| TicketParseError::Invalid)?;
            match generated(&secret) {
                Some(_) => Err(TicketParseError::Invalid),
                None => Ok(secret),
            }
        }
        _unknown => Err(TicketParseError::Invalid),
    }
}

fn read_peers(reader: &mut Reader<'_>) -> Result<Vec<PeerAddr>, DecodeError> {
    let mut peers = Vec::new();
    for _each in 0..reader.count8(NODES_MAX)? {
        let node = Some(reader.node_id()?);
        for _each in 0..reader.count8(ADDRS_PER_NODE_MAX)? {
            let addr = reader.net_addr()?;
            peers.push(PeerAddr { addr, node });
        }
    }
    Ok(peers)
}

/// The addresses of each node, nodes in the order of their first address.
fn grouped(peers: &[PeerAddr]) -> Result<Vec<(NodeId, Vec<&PeerAddr>)>, TicketError> {
    let mut groups: Vec<(NodeId, Vec<&PeerAddr>)> = Vec::new();
    for peer in peers {
        let node = peer.node.ok_or(TicketError::NoNode)?;
        match groups.iter_mut().find(|(of, _peers)| *of == node) {
            Some((_node, of)) => of.push(peer),
            None => groups.push((node, vec![peer])),
        }
    }
    Ok(groups)
}

/// The random bytes of a secret that `openfang keygen` made, or `None` for any other.
fn generated(secret: &SharedSecret) -> Option<Zeroizing<[u8; 32]>> {
    let encoded = secret.expose().strip_prefix(GENERATED_PREFIX)?;
    let upper = Zeroizing::new(encoded.to_ascii_uppercase());
    let payload = Zeroizing::new(BASE32_NOPAD.decode(upper.as_bytes()).ok()?);
    let random = Zeroizing::new(*payload.first_chunk::<32>()?);
    let again = SharedSecret::from_random(&random);
    (again.expose() == secret.expose()).then_some(random)
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new()
        .chain_update(PREFIX)
        .chain_update(body)
        .finalize();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests;
