//! Feeds frames to both ends of a gate: none may panic, and none may be admitted.
//!
//! The input is cut into frames by the two bytes of length that stand before each on the stream.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use openfang_id::{NodeId, NodeSeed, SharedSecret};
use openfang_ofp::gate::{Channel, Epoch, Gate, In, Out, Role, Secrets, Tag};

/// Derived once: it takes far longer than a handshake.
static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    Secrets::new(Epoch(2), &SharedSecret::from_random(&[2; 32]))
        .with_previous(Epoch(1), &SharedSecret::from_random(&[1; 32]))
        .expect("1 is before 2")
});
static NODES: LazyLock<[NodeId; 2]> =
    LazyLock::new(|| [1, 2].map(|seed| NodeSeed::from_bytes([seed; 32]).keys().node_id()));

fuzz_target!(|data: &[u8]| {
    for role in [Role::Initiator, Role::Responder] {
        let channel = Channel {
            role,
            tag: Tag::Tcp,
            local: NODES[0],
            remote: NODES[1],
        };
        let mut gate = Gate::new(channel, &SECRETS, [7; 32]);
        let mut out = gate.handle(In::Start);
        let mut left = data;
        while let Some((length, rest)) = left.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (frame, rest) = rest.split_at(length.min(rest.len()));
            out.extend(gate.handle(In::Frame(frame)));
            left = rest;
        }
        out.extend(gate.handle(In::Closed));
        let ends = |out: &&Out| matches!(out, Out::Refused(_));
        assert_eq!(out.iter().filter(ends).count(), 1);
        assert!(!out.iter().any(|out| matches!(out, Out::Admitted(_))));
    }
});
