//! Records: one form, one signature, bounds.

use openfang_id::{AgentId, NetAddr};
use proptest::prelude::*;

use super::{ad, keys, record, sign};
use crate::codec::DecodeError;
use crate::roster::record::{ADDRS_MAX, AGENTS_MAX};
use crate::roster::{
    AgentAd, AgentState, Cosigners, Ed25519, LogKey, RECORD_BYTES_MAX, Record, RecordError,
    SignedRecord, Version, check_frame,
};

const PAGE: &str = include_str!("../../../../../docs/PROTOCOL.md");

fn any_word() -> impl Strategy<Value = String> {
    "[a-zü_]{0,20}"
}

fn any_agent() -> impl Strategy<Value = AgentAd> {
    let words = || proptest::collection::vec(any_word(), 0..4);
    let state = prop_oneof![
        Just(AgentState::Created),
        Just(AgentState::Running),
        Just(AgentState::Suspended),
        Just(AgentState::Terminated),
        Just(AgentState::Crashed),
    ];
    let texts = (any_word(), any_word(), words(), words());
    (any::<[u8; 16]>(), "[a-z][a-z0-9.-]{0,20}", texts, state).prop_map(
        |(id, name, (description, module, tags, tools), state)| AgentAd {
            id: AgentId::from_random(id),
            name: name.parse().expect("a name"),
            description,
            tags,
            tools,
            state,
            module,
        },
    )
}

fn any_addr() -> impl Strategy<Value = NetAddr> {
    let text = prop_oneof![
        any::<(u32, u16)>().prop_map(|(ip, port)| {
            format!("/ip4/{}/tcp/{}", std::net::Ipv4Addr::from(ip), port.max(1))
        }),
        any::<(u128, u16)>().prop_map(|(ip, port)| {
            let ip = std::net::Ipv6Addr::from(ip);
            format!("/ip6/{ip}/udp/{}/quic-v1", port.max(1))
        }),
        ("[a-z]{1,20}", any::<u16>())
            .prop_map(|(name, port)| format!("/dns/{name}.example/tcp/{}", port.max(1))),
    ];
    text.prop_map(|text| text.parse().expect("an address"))
}

fn any_record() -> impl Strategy<Value = Record> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>());
    let log = proptest::option::of((any::<[u8; 32]>(), any::<u32>()));
    let key = || proptest::option::of(any::<[u8; 32]>());
    let keys = (log, key(), key());
    let agents = proptest::collection::vec(any_agent(), 0..5);
    let addrs = proptest::collection::vec(any_addr(), 0..5);
    (0_u8..4, numbers, any::<bool>(), keys, (addrs, agents)).prop_map(
        |(at, (incarnation, sequence, refutation, issued_ms), left, keys, (addrs, agents))| {
            let (log, witness, mirror) = keys;
            let mut agents = agents;
            agents.sort_by_key(|agent| agent.id);
            agents.dedup_by_key(|agent| agent.id);
            Record {
                version: Version {
                    incarnation,
                    sequence,
                },
                refutation,
                issued_ms,
                left,
                log: log.map(|(key, epoch)| LogKey { key, epoch }),
                cosigners: Cosigners { witness, mirror },
                addrs,
                agents,
                ..record(at, 0, 0)
            }
        },
    )
}

proptest! {
    #[test]
    fn a_record_has_one_form_and_comes_back_from_it(record in any_record()) {
        let bytes = record.encode().expect("within bounds");
        prop_assert_eq!(Record::decode(&bytes), Ok(record));
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert_eq!(Record::decode(&longer), Err(DecodeError::Trailing { left: 1 }));
        for cut in 0..bytes.len() {
            prop_assert!(Record::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn decoding_never_panics_and_what_decodes_encodes_to_the_same(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = record.encode().expect("within bounds");
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(decoded) = Record::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), Ok(bytes.clone()));
        }
        prop_assert!(Record::decode(&noise).is_err() || noise.len() > 100);
        let _either = check_frame(&noise).is_ok();
        for kind in 0..12 {
            let frame: Vec<u8> = std::iter::once(kind).chain(noise.iter().copied()).collect();
            let _either = check_frame(&frame).is_ok();
            let frame: Vec<u8> = std::iter::once(kind).chain(bytes.iter().copied()).collect();
            let _either = check_frame(&frame).is_ok();
        }
    }
}

#[test]
fn every_flipped_bit_of_a_signed_record_is_noticed() {
    let crypto = Ed25519(keys(1).identity);
    let signed = sign(0, record(0, 3, 7));
    for at in 0..signed.bytes().len() {
        let mut bytes = signed.bytes().to_vec();
        bytes[at] ^= 1 << (at % 8);
        let opened = SignedRecord::open(&bytes, signed.signature(), &crypto);
        assert!(opened.is_err(), "byte {at}");
    }
    for at in 0..64 {
        let mut signature = *signed.signature();
        signature[at] ^= 1 << (at % 8);
        let opened = SignedRecord::open(signed.bytes(), &signature, &crypto);
        assert_eq!(opened, Err(RecordError::Signature), "byte {at}");
    }
    assert!(SignedRecord::open(signed.bytes(), signed.signature(), &crypto).is_ok());
}

#[test]
fn a_signature_made_for_something_else_does_not_make_a_record() {
    let crypto = Ed25519(keys(0).identity);
    let bytes = record(0, 1, 1).encode().expect("within bounds");
    let bare = keys(0).identity.sign(&bytes);
    assert_eq!(
        SignedRecord::open(&bytes, &bare, &crypto),
        Err(RecordError::Signature)
    );
    let foreign = keys(1)
        .identity
        .sign(&[b"OFP-ROSTER-V1\0", bytes.as_slice()].concat());
    assert_eq!(
        SignedRecord::open(&bytes, &foreign, &crypto),
        Err(RecordError::Signature)
    );
}

#[test]
fn a_record_keeps_its_bounds() {
    let check = |what: &str, change: &dyn Fn(&mut Record), ok: bool| {
        let mut record = record(0, 1, 1);
        change(&mut record);
        assert_eq!(record.encode().is_ok(), ok, "{what}");
    };
    let addr = |port: usize| -> NetAddr {
        format!("/ip4/10.0.0.1/tcp/{}", port + 1)
            .parse()
            .expect("an address")
    };
    let many = |count: usize| -> Vec<AgentAd> {
        let agent = |at: usize| AgentAd {
            id: AgentId::from_bytes(u128::try_from(at).expect("small").to_be_bytes()),
            ..ad(0)
        };
        (0..count).map(agent).collect()
    };
    check(
        "addresses",
        &|r| r.addrs = (0..ADDRS_MAX).map(addr).collect(),
        true,
    );
    check(
        "too many addresses",
        &|r| r.addrs = (0..=ADDRS_MAX).map(addr).collect(),
        false,
    );
    check("agents", &|r| r.agents = many(AGENTS_MAX), true);
    check(
        "too many agents",
        &|r| r.agents = many(AGENTS_MAX + 1),
        false,
    );
    check("software", &|r| r.software = "x".repeat(65), false);
    check(
        "a description",
        &|r| r.agents[0].description = "x".repeat(1_025),
        false,
    );
    check("a tag", &|r| r.agents[0].tags = vec!["x".repeat(65)], false);
    check(
        "too long as a whole",
        &|r| {
            r.agents = many(AGENTS_MAX);
            for agent in &mut r.agents {
                agent.description = "x".repeat(1_000);
            }
        },
        false,
    );
    let long = vec![0; RECORD_BYTES_MAX + 1];
    assert!(matches!(
        Record::decode(&long),
        Err(DecodeError::TooLong { .. })
    ));
}

#[test]
fn agents_in_another_order_are_another_form_and_refused() {
    let mut one = record(0, 1, 1);
    one.agents = vec![ad(2), ad(1)];
    let bytes = one.encode().expect("within bounds");
    assert_eq!(
        Record::decode(&bytes),
        Err(DecodeError::Invalid {
            what: "order of agents"
        })
    );
    one.agents = vec![ad(1), ad(1)];
    let bytes = one.encode().expect("within bounds");
    assert!(Record::decode(&bytes).is_err());
}

#[test]
fn the_page_of_the_protocol_has_the_bytes_of_a_record() {
    // A change here is another protocol: nodes of two versions would not read each other.
    let mut fixed = record(0, 2, 3);
    fixed.log = Some(LogKey {
        key: [7; 32],
        epoch: 1,
    });
    fixed.cosigners.witness = Some([8; 32]);
    let signed = sign(0, fixed);
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    for hex in [hex(signed.bytes()), hex(signed.signature())] {
        let lines = PAGE.replace('\n', "");
        assert!(lines.contains(&hex), "docs/PROTOCOL.md does not have {hex}");
    }
}
