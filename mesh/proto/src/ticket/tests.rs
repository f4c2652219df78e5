//! A ticket survives being copied, and says how it did not.

use openfang_id::NodeSeed;
use proptest::prelude::*;

use super::*;

const PAGE: &str = include_str!("../../../../docs/PROTOCOL.md");

fn peer(seed: u8, addr: &str) -> PeerAddr {
    PeerAddr {
        addr: addr.parse().expect("an address"),
        node: Some(NodeSeed::from_bytes([seed; 32]).keys().node_id()),
    }
}

fn ticket() -> Ticket {
    Ticket::new(
        vec![
            peer(1, "/ip4/192.0.2.7/udp/4200/quic-v1"),
            peer(1, "/ip4/192.0.2.7/tcp/4200"),
        ],
        Epoch(1),
        SharedSecret::from_random(&[0x33; 32]),
    )
    .expect("a ticket")
}

fn parse(text: &str) -> Result<Ticket, TicketParseError> {
    text.parse()
}

fn refused(text: &str) -> Option<TicketParseError> {
    parse(text).err()
}

#[track_caller]
fn assert_same(one: &Ticket, other: &Ticket) {
    assert_eq!(one.peers(), other.peers());
    assert_eq!(one.epoch(), other.epoch());
    assert_eq!(one.secret().expose(), other.secret().expose());
}

#[test]
fn a_ticket_has_this_text() {
    let text = ticket().expose();
    assert!(PAGE.contains(&format!("\n{}\n", *text)));
    insta::assert_snapshot!(text.as_str(), @"ofp1aeaf4aaaaaaqcmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztagd4iennovxs2qa6ndrjayoz2grk33rxv7nwu4pkwtfygwjex5h3saqcataaaaqhcbuacbgaaabaoedioxz3v2q");
    assert_same(&parse(&text).expect("a ticket"), &ticket());
}

#[test]
fn several_nodes_names_and_own_secrets_round_trip() {
    let peers = vec![
        peer(1, "/ip6/2001:db8::1/tcp/4200"),
        peer(2, "/dns/node-b.example/tcp/7"),
        peer(1, "/dns/a.example/udp/1/quic-v1"),
    ];
    let secret = SharedSecret::parse("0123456789abcdef-own-choice-of-words").expect("long enough");
    let made = Ticket::new(peers.clone(), Epoch(7), secret).expect("a ticket");
    let read = parse(&made.expose()).expect("a ticket");
    assert_same(&read, &made);
    // Nodes come together, in the order of their first address.
    assert_eq!(
        read.peers(),
        [peers[0].clone(), peers[2].clone(), peers[1].clone()]
    );
}

#[test]
fn white_space_around_it_and_its_case_do_not_matter() {
    let text = ticket().expose();
    for changed in [
        format!("  {}\r\n", *text),
        format!("\t{}", text.to_uppercase()),
        format!("\u{a0}{}\n\n", *text),
    ] {
        assert_same(&parse(&changed).expect("a ticket"), &ticket());
    }
}

#[test]
fn any_wrong_character_is_noticed() {
    let text = ticket().expose();
    for at in PREFIX.len()..text.len() {
        for replacement in [b'a', b'z', b'7', b'0', b' ', b'!'] {
            let mut bytes = text.as_bytes().to_vec();
            if bytes[at] == replacement {
                continue;
            }
            bytes[at] = replacement;
            let changed = String::from_utf8(bytes).expect("ascii");
            let Some(why) = refused(&changed) else {
                panic!("accepted with {at} changed")
            };
            // A wrong length looks like a cut.
            assert!(
                matches!(
                    why,
                    TicketParseError::Mistyped | TicketParseError::CutOff { .. }
                ),
                "{at}: {why:?}"
            );
        }
        let mut swapped = text.as_bytes().to_vec();
        if at + 1 < text.len() && swapped[at] != swapped[at + 1] {
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).expect("ascii");
            assert!(refused(&swapped).is_some(), "accepted with {at} swapped");
        }
    }
    let longer = format!("{}a", *text);
    assert_eq!(refused(&longer), Some(TicketParseError::Mistyped));
}

#[test]
fn a_ticket_that_was_cut_off_says_how_much_is_missing() {
    let text = ticket().expose();
    for len in PREFIX.len()..text.len() {
        let expected = if len < PREFIX.len() + 8 {
            PREFIX.len() + 8 - len
        } else {
            text.len() - len
        };
        assert_eq!(
            refused(&text[..len]),
            Some(TicketParseError::CutOff { missing: expected }),
            "{len}"
        );
    }
}

#[test]
fn other_texts_are_told_apart() {
    let check = |text: &str, expected: TicketParseError| {
        assert_eq!(refused(text), Some(expected), "{text:?}");
    };
    check("", TicketParseError::NotATicket);
    check("of", TicketParseError::NotATicket);
    check("192.0.2.7:4200", TicketParseError::NotATicket);
    check("ofn1_abc", TicketParseError::NotATicket);
    check("öfp1", TicketParseError::NotATicket);
    check("ofp2abcdefgh", TicketParseError::OtherVersion);
    check("OFP9", TicketParseError::OtherVersion);
    check("ofpx", TicketParseError::NotATicket);
    let long = format!("ofp1{}", "a".repeat(TEXT_CHARS_MAX * 2));
    check(&long, TicketParseError::Mistyped);
}

/// Frames a body as a ticket with a checksum that holds.
fn sealed(version: u8, body: &[u8]) -> String {
    let total = u16::try_from(HEADER_BYTES + body.len() + CHECKSUM_BYTES).expect("short");
    let mut bytes = vec![version];
    bytes.extend(total.to_be_bytes());
    bytes.extend(body);
    let sum = checksum(&bytes);
    bytes.extend(sum);
    format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
}

#[test]
fn a_good_checksum_does_not_make_a_ticket() {
    let bytes = ticket().to_bytes();
    let body = &bytes[HEADER_BYTES..bytes.len() - CHECKSUM_BYTES];
    assert!(parse(&sealed(1, body)).is_ok());
    let check = |text: &str, expected: TicketParseError| {
        assert_eq!(refused(text), Some(expected));
    };
    check(&sealed(2, body), TicketParseError::OtherVersion);
    check(&sealed(1, &[]), TicketParseError::Invalid);
    check(
        &sealed(1, &body[..body.len() - 1]),
        TicketParseError::Invalid,
    );
    check(
        &sealed(1, &[body, &[0]].concat()),
        TicketParseError::Invalid,
    );
    // No node at all, and a secret that is too weak.
    let mut nobody = body[..4 + 33].to_vec();
    nobody.push(0);
    check(&sealed(1, &nobody), TicketParseError::Invalid);
    let mut weak = vec![0, 0, 0, 1, SECRET_TEXT, 0, 3];
    weak.extend(b"abc");
    weak.extend(&body[4 + 33..]);
    check(&sealed(1, &weak), TicketParseError::Invalid);
}

#[test]
fn a_ticket_names_who_answers() {
    let secret = || SharedSecret::from_random(&[1; 32]);
    let make = |peers: Vec<PeerAddr>| Ticket::new(peers, Epoch(1), secret()).map(|_| ());
    assert_eq!(make(Vec::new()), Err(TicketError::NoAddress));
    let mut anybody = peer(1, "/ip4/192.0.2.7/tcp/1");
    anybody.node = None;
    assert_eq!(make(vec![anybody]), Err(TicketError::NoNode));
    let many: Vec<_> = (1..=17)
        .map(|port| peer(1, &format!("/ip4/192.0.2.7/tcp/{port}")))
        .collect();
    assert_eq!(make(many.clone()), Err(TicketError::TooMany));
    assert_eq!(make(many[1..].to_vec()), Ok(()));
    let nodes: Vec<_> = (1..=9)
        .map(|seed| peer(seed, "/ip4/192.0.2.7/tcp/1"))
        .collect();
    assert_eq!(make(nodes.clone()), Err(TicketError::TooMany));
    assert_eq!(make(nodes[1..].to_vec()), Ok(()));
    let mut portless = peer(1, "/ip4/192.0.2.7/tcp/1");
    portless.addr.port = 0;
    assert_eq!(make(vec![portless]), Err(TicketError::Address));
}

#[test]
fn the_largest_ticket_can_be_read() {
    let label = "a".repeat(60);
    let name = [label.as_str(); 4].join(".");
    let peers: Vec<_> = (1..=8)
        .flat_map(|seed| (1..=16).map(move |port| (seed, port)))
        .map(|(seed, port)| peer(seed, &format!("/dns/{name}/tcp/{port}")))
        .collect();
    let made = Ticket::new(peers, Epoch(1), SharedSecret::from_random(&[1; 32])).expect("a ticket");
    assert_same(&parse(&made.expose()).expect("a ticket"), &made);
}

#[test]
fn the_secret_does_not_show_in_debug() {
    let shown = format!("{:?}", ticket());
    assert!(!shown.contains(ticket().secret().expose()), "{shown}");
    assert!(shown.contains("192.0.2.7"), "{shown}");
}

proptest! {
    #[test]
    fn arbitrary_texts_never_panic(text in ".{0,200}", encoded in "[a-z2-7]{0,200}") {
        prop_assert!(parse(&text).is_err());
        let prefixed = format!("ofp1{encoded}");
        prop_assert!(parse(&prefixed).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic_and_have_one_form(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = sealed(1, &body);
        if let Ok(ticket) = parse(&text) {
            prop_assert_eq!(ticket.expose().to_string(), text);
        }
    }

    #[test]
    fn a_damaged_body_never_panics_and_has_one_form(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let bytes = ticket().to_bytes();
        let mut body = bytes[HEADER_BYTES..bytes.len() - CHECKSUM_BYTES].to_vec();
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        let text = sealed(1, &body);
        if let Ok(ticket) = parse(&text) {
            prop_assert_eq!(ticket.expose().to_string(), text);
        }
    }
}
