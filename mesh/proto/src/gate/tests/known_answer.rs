//! One handshake, byte for byte, so that a second implementation can check itself. The same values
//! stand in `docs/PROTOCOL.md`; a change here is another version of the protocol.

use data_encoding::HEXLOWER;

use super::*;

const PAGE: &str = include_str!("../../../../../docs/PROTOCOL.md");

#[test]
fn the_handshake_has_these_bytes() {
    let ours = Secrets::new(Epoch(3), &secret(0x33))
        .with_previous(Epoch(2), &secret(0x22))
        .expect("ordered");
    let theirs = Secrets::new(Epoch(3), &secret(0x33));
    let (mut initiator, mut responder) = pair(&ours, &theirs);
    initiator.nonce = [0xa1; 32];
    responder.nonce = [0xb2; 32];
    responder.handle(In::Start);
    let hello = sent(&initiator.handle(In::Start)).concat();
    let challenge = sent(&responder.handle(In::Frame(&hello))).concat();
    let State::AwaitProof(transcript) = responder.state.clone() else {
        panic!("{:?}", responder.state)
    };
    let proof = sent(&initiator.handle(In::Frame(&challenge))).concat();
    let accept = sent(&responder.handle(In::Frame(&proof))).concat();
    assert_eq!(
        ending(&initiator.handle(In::Frame(&accept))),
        admitted_at(3)
    );
    let keys = ours.keys(Epoch(3)).expect("present").both();
    let shown = [
        ("secret    ", secret(0x33).as_bytes()),
        ("k_init    ", keys[0]),
        ("k_resp    ", keys[1]),
        ("peer_i    ", &node(1).to_peer_id_bytes()),
        ("peer_r    ", &node(2).to_peer_id_bytes()),
        ("hello     ", &hello),
        ("challenge ", &challenge),
        ("transcript", transcript.bytes()),
        ("proof     ", &proof),
        ("accept    ", &accept),
    ]
    .map(|(name, bytes)| {
        let hex = HEXLOWER.encode(bytes);
        let listed = PAGE.contains(&format!(" {hex}\n")) || name.starts_with("secret");
        assert!(listed, "docs/PROTOCOL.md has another {name}");
        format!("{name} {hex}")
    })
    .join("\n");
    assert!(PAGE.contains(&format!(" {}\n", secret(0x33).expose())));
    insta::assert_snapshot!(shown, @"
    secret     6f666e315f676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a74676d7a7176686e69356d
    k_init     38062e2af7155bf4e4c3215c8475595b844e6f6e48d8eb4f77c8dc0f239a463f
    k_resp     30b8c18b3c3d1c9f0d790a7991cbb543f4b145818590459926196311dd5b42dd
    peer_i     00240801122087c411ad756f2d401e68e29061d9d1a2adee37afdb6a71eab4cb835924bf4fb9
    peer_r     00240801122057ea961177cf6fc0e2d59ca8d52b281f847abd197208644a56fe8dafcd2ea782
    hello      01000101020000000300000002a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1
    challenge  0200000003b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
    transcript 00104f46502d4d4553482d415554482d563100056e6f69736500086f70656e66616e670002000100010100040000000300080000000300000002002600240801122087c411ad756f2d401e68e29061d9d1a2adee37afdb6a71eab4cb835924bf4fb9002600240801122057ea961177cf6fc0e2d59ca8d52b281f847abd197208644a56fe8dafcd2ea7820020a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a10020b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2
    proof      03c21f1001ad84b22b1aeeeb8f3a094b09b70201c79578ac3b0a2c30a312e09dda
    accept     0493a389886938929ad12c3b1775ee5ce7f8fb3e1f20e8cea3aff4a96c867c96f2
    ");
}
