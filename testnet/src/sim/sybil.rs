//! A member that lies: it makes up nodes by the thousand, and says so to everyone it is linked with.

use std::collections::{BTreeMap, BTreeSet};

use openfang_id::{NetAddr, NodeSeed, Transport};
use openfang_ofp::Instant;
use openfang_ofp::roster::{
    Cosigners, Crypto, Ed25519, FRAME_BYTES_MAX, LinkId, Record, Rng, SignedRecord, Version,
};

use super::crypto::Cheap;

/// Leaves room for the header of a message.
const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;
/// How long until what was said once is said again, in milliseconds.
const AGAIN_MS: u64 = 10_000;
/// The first byte of a message with records, and that others follow.
const RECORDS: [u8; 2] = [2, 0];

/// The liar, and what it says.
#[derive(Debug)]
pub(super) struct Sybil {
    /// Which node it is.
    pub(super) at: usize,
    made: usize,
    addrs: BTreeSet<NetAddr>,
    frames: Vec<Vec<u8>>,
    told: BTreeMap<LinkId, Instant>,
    /// How often each node has dialed one of the addresses it made up.
    pub(super) dials: BTreeMap<usize, u64>,
}

impl Sybil {
    /// Makes a liar that has said nothing yet.
    pub(super) fn new(at: usize) -> Self {
        Self {
            at,
            made: 0,
            addrs: BTreeSet::new(),
            frames: Vec::new(),
            told: BTreeMap::new(),
            dials: BTreeMap::new(),
        }
    }

    /// Makes up that many nodes more, with records as high as they get.
    pub(super) fn make_up(&mut self, count: usize, real_crypto: bool, rng: &mut Rng) {
        let fresh: Vec<SignedRecord> = (0..count)
            .map(|_nth| self.fake(rng.seed(), real_crypto))
            .collect();
        let mut body = Vec::new();
        let mut records: u16 = 0;
        for record in &fresh {
            let one = encode(record);
            if body.len() + one.len() > BODY_BYTES_MAX {
                self.frames.push(frame(records, &body));
                (body, records) = (Vec::new(), 0);
            }
            body.extend(one);
            records += 1;
        }
        self.frames.push(frame(records, &body));
        self.told.clear();
    }

    fn fake(&mut self, seed: [u8; 32], real_crypto: bool) -> SignedRecord {
        let keys = NodeSeed::from_bytes(seed).keys();
        let number = self.made;
        let [_, _, high, low] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        let addr = NetAddr::from_socket(Transport::Quic, ([198, 18, high, low], 9).into());
        let name = format!("fake-{number}").parse();
        let crypto: Box<dyn Crypto> = if real_crypto {
            Box::new(Ed25519(keys.identity.clone()))
        } else {
            Box::new(Cheap(keys.node_id()))
        };
        let record = Record {
            origin: keys.node_id(),
            version: Version {
                incarnation: u64::MAX,
                sequence: u64::MAX,
            },
            refutation: u32::MAX,
            issued_ms: 1_700_000_000_000,
            left: false,
            name: name.expect("letters and digits are a name"),
            software: "sim".to_owned(),
            log: None,
            cosigners: Cosigners::default(),
            addrs: vec![addr.clone()],
            agents: Vec::new(),
        };
        self.made += 1;
        self.addrs.insert(addr);
        SignedRecord::sign(record, crypto.as_ref()).expect("a record within its bounds")
    }

    /// Returns what is said now on the links there are: everything on a new one, and on all of them
    /// again after a while.
    pub(super) fn says(&mut self, links: &[LinkId], now: Instant) -> Vec<(LinkId, Vec<u8>)> {
        let mut said = Vec::new();
        for link in links {
            let told = self.told.get(link);
            if told.is_none_or(|at| now.0 - at.0 >= AGAIN_MS) {
                self.told.insert(*link, now);
                said.extend(self.frames.iter().map(|frame| (*link, frame.clone())));
            }
        }
        said
    }

    /// Takes note of a dial; the address may be one that was made up.
    pub(super) fn on_dial(&mut self, by: usize, addr: &NetAddr) {
        if self.addrs.contains(addr) {
            *self.dials.entry(by).or_default() += 1;
        }
    }
}

fn encode(record: &SignedRecord) -> Vec<u8> {
    let len = u32::try_from(record.bytes().len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0];
    bytes.extend(len.to_be_bytes());
    bytes.extend(record.bytes());
    bytes.extend(record.signature());
    bytes
}

fn frame(records: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = RECORDS.to_vec();
    frame.extend(records.to_be_bytes());
    frame.extend(body);
    frame
}
