//! Any bytes as a message of the sync stream, read by one function and by a whole state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use openfang_id::{NodeSeed, Transport};
use openfang_ofp::Instant;
use openfang_ofp::roster::{
    Config, Connected, Ed25519, In, Known, LinkId, NODES_MAX, Start, State, check_frame,
};

fuzz_target!(|data: &[u8]| {
    let ours = NodeSeed::from_bytes([1; 32]).keys();
    let peer = NodeSeed::from_bytes([2; 32]).keys().node_id();
    let config = Config {
        me: ours.node_id(),
        name: "fuzzed".parse().expect("a name"),
        software: String::new(),
        log: None,
        nodes_max: NODES_MAX,
    };
    let start = Start {
        incarnation: 1,
        known: Known::default(),
        seed: [3; 32],
        unix_ms: 0,
    };
    let now = Instant(1_000);
    let mut state = State::new(config, Box::new(Ed25519(ours.identity)), start, now);
    let link = LinkId(1);
    state.handle(
        In::Connected(Connected {
            peer,
            link,
            dial: None,
            addr: None,
            transport: Transport::Tcp,
        }),
        now,
    );
    let bytes = data.to_vec();
    let outs = state.handle(In::Frame { link, bytes }, now);
    // What is not a message ends the connection, and nothing else does.
    if check_frame(data).is_err() {
        assert!(!outs.is_empty());
    }
    assert!(state.is_empty(), "nothing unsigned is stored");
});
