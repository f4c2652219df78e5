//! Attacks, one a test. None may end in an admission.

use proptest::prelude::*;

use super::*;

/// All frames of an honest handshake between nodes 1 and 2, with these nonces.
fn recorded(nonces: [u8; 2]) -> Vec<Vec<u8>> {
    let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
    initiator.nonce = [nonces[0]; 32];
    responder.nonce = [nonces[1]; 32];
    let (ours, theirs, frames) = run(&mut initiator, &mut responder);
    assert_eq!((ours, theirs), (admitted_at(1), admitted_at(1)));
    frames
}

/// Gives frames to one end until it ends.
fn fed(gate: &mut Gate, frames: &[Vec<u8>]) -> Ending {
    let mut out = gate.handle(In::Start);
    for frame in frames {
        out.extend(gate.handle(In::Frame(frame)));
    }
    ending(&out)
}

#[track_caller]
fn never_admitted(gate: &mut Gate, frames: &[Vec<u8>]) {
    let ended = fed(gate, frames);
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
}

#[test]
fn a_recorded_handshake_is_worth_nothing_in_another_connection() {
    let frames = recorded([0xaa, 0xbb]);
    // To the responder, whose nonce is fresh; and to the initiator, whose nonce is.
    let mut responder = end(Role::Responder, 2, 1, &secrets(7));
    never_admitted(&mut responder, &[frames[0].clone(), frames[2].clone()]);
    let mut initiator = end(Role::Initiator, 1, 2, &secrets(7));
    never_admitted(&mut initiator, &[frames[1].clone(), frames[3].clone()]);
}

#[test]
fn a_recorded_handshake_is_worth_nothing_at_another_node_or_from_another() {
    let frames = recorded([0xaa, 0xbb]);
    for (local, remote) in [(3, 1), (2, 3), (1, 2)] {
        // Even with the very nonce of the recording.
        let mut responder = end(Role::Responder, local, remote, &secrets(7));
        responder.nonce = [0xbb; 32];
        never_admitted(&mut responder, &[frames[0].clone(), frames[2].clone()]);
    }
    for (local, remote) in [(3, 2), (1, 3), (2, 1)] {
        let mut initiator = end(Role::Initiator, local, remote, &secrets(7));
        initiator.nonce = [0xaa; 32];
        never_admitted(&mut initiator, &[frames[1].clone(), frames[3].clone()]);
    }
}

#[test]
fn a_flight_repeated_in_its_own_session_ends_it() {
    let frames = recorded([0x11, 0x22]);
    let (hello, challenge) = (&frames[0], &frames[1]);
    let mut responder = end(Role::Responder, 2, 1, &secrets(7));
    let ended = fed(&mut responder, &[hello.clone(), hello.clone()]);
    assert_eq!(ended, Some(Err(Refusal::OutOfOrder)));
    let mut initiator = end(Role::Initiator, 1, 2, &secrets(7));
    let ended = fed(&mut initiator, &[challenge.clone(), challenge.clone()]);
    assert_eq!(ended, Some(Err(Refusal::OutOfOrder)));
}

#[test]
fn own_frames_sent_back_are_noticed() {
    let mut initiator = end(Role::Initiator, 1, 2, &secrets(7));
    let hello = sent(&initiator.handle(In::Start)).concat();
    let ended = ending(&initiator.handle(In::Frame(&hello)));
    assert_eq!(ended, Some(Err(Refusal::Reflected)));

    let mut responder = end(Role::Responder, 2, 1, &secrets(7));
    let challenge = sent(&responder.handle(In::Frame(&hello))).concat();
    let ended = ending(&responder.handle(In::Frame(&challenge)));
    assert_eq!(ended, Some(Err(Refusal::Reflected)));

    // The proof as an accept, and our own nonce as theirs.
    let mut initiator = end(Role::Initiator, 1, 2, &secrets(7));
    initiator.handle(In::Start);
    let mut proof = sent(&initiator.handle(In::Frame(&challenge))).concat();
    proof[0] = 0x04;
    let ended = ending(&initiator.handle(In::Frame(&proof)));
    assert_eq!(ended, Some(Err(Refusal::WrongSecret)));
    let mut initiator = end(Role::Initiator, 1, 2, &secrets(7));
    initiator.handle(In::Start);
    let own = Frame::Challenge(Challenge {
        epoch: Epoch(1),
        nonce: initiator.nonce,
    });
    let ended = ending(&initiator.handle(In::Frame(&own.encode())));
    assert_eq!(ended, Some(Err(Refusal::Reflected)));
}

/// Carries the frames of two ends to each other, whatever they believe to be connected to.
fn relayed(one: &mut Gate, other: &mut Gate) {
    let (ours, theirs, _frames) = run(one, other);
    assert!(!matches!(ours, Some(Ok(_))), "{ours:?}");
    assert!(!matches!(theirs, Some(Ok(_))), "{theirs:?}");
}

#[test]
fn an_attacker_between_two_channels_is_noticed() {
    let keys = secrets(7);
    // 1 dialed the attacker 9, who dialed 2.
    let mut dialer = end(Role::Initiator, 1, 9, &keys);
    let mut dialed = end(Role::Responder, 2, 9, &keys);
    relayed(&mut dialer, &mut dialed);
    // Only one of them is connected to the attacker.
    let mut dialer = end(Role::Initiator, 1, 9, &keys);
    let mut dialed = end(Role::Responder, 2, 1, &keys);
    relayed(&mut dialer, &mut dialed);
    let mut dialer = end(Role::Initiator, 1, 2, &keys);
    let mut dialed = end(Role::Responder, 2, 9, &keys);
    relayed(&mut dialer, &mut dialed);
    // A node is made to talk to itself, through the attacker.
    let mut dialer = end(Role::Initiator, 1, 9, &keys);
    let mut dialed = end(Role::Responder, 1, 9, &keys);
    relayed(&mut dialer, &mut dialed);
}

#[test]
fn ends_that_disagree_about_the_transport_do_not_admit() {
    for (ours, theirs) in [(Tag::Tcp, Tag::Quic), (Tag::Memory, Tag::Tcp)] {
        let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
        initiator.channel.tag = ours;
        responder.channel.tag = theirs;
        relayed(&mut initiator, &mut responder);
    }
}

#[test]
fn the_offer_of_epochs_cannot_be_narrowed() {
    let (mut initiator, mut responder) = pair(&rotating(2, 1), &rotating(2, 1));
    initiator.handle(In::Start);
    let narrowed = Frame::Hello(Hello {
        version: VERSION,
        method: Method::SharedSecret,
        epochs: vec![Epoch(1)],
        nonce: initiator.nonce,
    });
    let challenge = sent(&responder.handle(In::Frame(&narrowed.encode()))).concat();
    let proof = sent(&initiator.handle(In::Frame(&challenge))).concat();
    let ended = ending(&responder.handle(In::Frame(&proof)));
    assert_eq!(ended, Some(Err(Refusal::WrongSecret)));

    // The choice cannot be changed either.
    let (mut initiator, mut responder) = pair(&rotating(2, 1), &rotating(2, 1));
    let hello = sent(&initiator.handle(In::Start)).concat();
    let mut challenge = sent(&responder.handle(In::Frame(&hello))).concat();
    challenge[4] = 1;
    let proof = sent(&initiator.handle(In::Frame(&challenge))).concat();
    let ended = ending(&responder.handle(In::Frame(&proof)));
    assert_eq!(ended, Some(Err(Refusal::WrongSecret)));

    // Nor to one that was not offered.
    let (mut initiator, _responder) = pair(&rotating(2, 1), &rotating(2, 1));
    initiator.handle(In::Start);
    challenge[4] = 3;
    let ended = ending(&initiator.handle(In::Frame(&challenge)));
    assert_eq!(ended, Some(Err(Refusal::Epoch)));
}

#[test]
fn an_offer_has_one_form() {
    let mut responder = end(Role::Responder, 2, 1, &rotating(2, 1));
    let offer = |epochs: &[u32]| {
        Frame::Hello(Hello {
            version: VERSION,
            method: Method::SharedSecret,
            epochs: epochs.iter().copied().map(Epoch).collect(),
            nonce: [1; 32],
        })
        .encode()
    };
    for epochs in [&[][..], &[1, 2], &[2, 2]] {
        let mut gate = responder.clone();
        let ended = ending(&gate.handle(In::Frame(&offer(epochs))));
        assert_eq!(ended, Some(Err(Refusal::Malformed)), "{epochs:?}");
    }
    assert_eq!(ending(&responder.handle(In::Frame(&offer(&[2, 1])))), None);
}

#[test]
fn two_ends_of_one_role_do_not_admit() {
    let keys = secrets(7);
    let mut one = end(Role::Initiator, 1, 2, &keys);
    let mut other = end(Role::Initiator, 2, 1, &keys);
    relayed(&mut one, &mut other);
    let mut one = end(Role::Responder, 1, 2, &keys);
    let mut other = end(Role::Responder, 2, 1, &keys);
    let (ours, theirs, frames) = run(&mut one, &mut other);
    assert_eq!((ours, theirs, frames.len()), (None, None, 0));
}

/// The end that gets flight `nr`, with everything before it delivered; and that flight.
fn before_flight(nr: usize) -> (Gate, Vec<u8>) {
    let frames = recorded([0x11, 0x22]);
    let (initiator, responder) = stopped_before(nr);
    let receiver = if nr.is_multiple_of(2) {
        responder
    } else {
        initiator
    };
    (receiver, frames[nr].clone())
}

#[test]
fn a_flight_with_any_bit_flipped_admits_nobody() {
    for nr in 0..4 {
        let (receiver, frame) = before_flight(nr);
        let mut intact = receiver.clone();
        assert!(!matches!(
            ending(&intact.handle(In::Frame(&frame))),
            Some(Err(_))
        ));
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (mut initiator, mut responder) = stopped_before(nr);
            let to_responder = nr.is_multiple_of(2);
            let (to, from) = if to_responder {
                (&mut responder, &mut initiator)
            } else {
                (&mut initiator, &mut responder)
            };
            for ended in carried_on(to, from, flipped) {
                assert!(!matches!(ended, Some(Ok(_))), "flight {nr}, bit {bit}");
            }
        }
    }
}

/// Gives a frame to one end, its answer to the other, and so on until one is silent.
fn carried_on(to: &mut Gate, from: &mut Gate, first: Vec<u8>) -> Vec<Ending> {
    let mut ended = Vec::new();
    let mut frame = Some(first);
    let mut turn = true;
    while let Some(bytes) = frame {
        let gate = if turn { &mut *to } else { &mut *from };
        let out = gate.handle(In::Frame(&bytes));
        ended.push(ending(&out));
        frame = sent(&out).pop();
        turn = !turn;
    }
    ended
}

#[test]
fn a_flight_cut_off_or_lengthened_anywhere_is_refused() {
    for nr in 0..4 {
        let (receiver, frame) = before_flight(nr);
        for len in 0..frame.len() {
            let mut gate = receiver.clone();
            let ended = ending(&gate.handle(In::Frame(&frame[..len])));
            let empty_first = nr == 0 && len == 0;
            let expected = (!empty_first).then_some(Err(Refusal::Malformed));
            assert_eq!(ended, expected, "flight {nr}, {len} bytes");
        }
        for more in [1, 2, 400] {
            let mut gate = receiver.clone();
            let mut longer = frame.clone();
            longer.resize(frame.len() + more, 0);
            let ended = ending(&gate.handle(In::Frame(&longer)));
            assert_eq!(ended, Some(Err(Refusal::Malformed)));
        }
    }
}

#[test]
fn a_frame_over_the_bound_is_refused_in_every_flight() {
    for nr in 0..4 {
        let (receiver, _frame) = before_flight(nr);
        let mut gate = receiver.clone();
        let ended = ending(&gate.handle(In::Frame(&[0; FRAME_BYTES_MAX + 1])));
        assert_eq!(ended, Some(Err(Refusal::Oversize(513))));
        let mut gate = receiver;
        let ended = ending(&gate.handle(In::Oversize(65_535)));
        assert_eq!(ended, Some(Err(Refusal::Oversize(65_535))));
    }
}

#[test]
fn every_frame_in_the_wrong_flight_is_refused() {
    let frames = recorded([0x11, 0x22]);
    for nr in 0..4 {
        for (at, frame) in frames.iter().enumerate().filter(|(at, _frame)| *at != nr) {
            let (mut receiver, _due) = before_flight(nr);
            let ended = ending(&receiver.handle(In::Frame(frame)));
            assert!(
                matches!(ended, Some(Err(Refusal::OutOfOrder | Refusal::Reflected))),
                "frame {at} in flight {nr}: {ended:?}"
            );
        }
    }
}

#[test]
fn before_its_own_start_a_dialer_takes_nothing() {
    for frame in recorded([0x11, 0x22]) {
        let mut dialer = end(Role::Initiator, 1, 2, &secrets(7));
        let ended = ending(&dialer.handle(In::Frame(&frame)));
        assert_eq!(ended, Some(Err(Refusal::OutOfOrder)));
    }
    let mut dialer = end(Role::Initiator, 1, 2, &secrets(7));
    dialer.handle(In::Start);
    let ended = ending(&dialer.handle(In::Start));
    assert_eq!(ended, Some(Err(Refusal::OutOfOrder)));
}

#[test]
fn after_the_end_a_gate_is_silent() {
    let frames = recorded([0x11, 0x22]);
    let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
    run(&mut initiator, &mut responder);
    let mut refused = end(Role::Responder, 2, 1, &secrets(7));
    refused.handle(In::Frame(b"x"));
    for gate in [&mut initiator, &mut responder, &mut refused] {
        for frame in &frames {
            assert_eq!(gate.handle(In::Frame(frame)), []);
        }
        for event in [In::Start, In::Oversize(9_999), In::Closed, In::Deadline] {
            assert_eq!(gate.handle(event), []);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_frames_never_admit_nor_panic(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..6),
        dialer in any::<bool>(),
    ) {
        let role = if dialer { Role::Initiator } else { Role::Responder };
        let mut gate = end(role, 1, 2, &secrets(7));
        let ended = fed(&mut gate, &frames);
        prop_assert!(!matches!(ended, Some(Ok(_))));
    }

    #[test]
    fn frames_round_trip_and_have_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes);
        }
    }

    #[test]
    fn well_formed_frames_of_an_attacker_never_admit(
        epochs in proptest::collection::btree_set(0_u32..4, 1..=2),
        nonce in any::<[u8; 32]>(),
        mac in any::<[u8; 32]>(),
        picks in proptest::collection::vec(0_usize..5, 1..6),
        dialer in any::<bool>(),
    ) {
        let role = if dialer { Role::Initiator } else { Role::Responder };
        let mut gate = end(role, 1, 2, &rotating(2, 1));
        let method = Method::SharedSecret;
        let epochs: Vec<_> = epochs.into_iter().rev().map(Epoch).collect();
        let epoch = epochs[0];
        let frames = [
            Frame::Hello(Hello { version: VERSION, method, epochs, nonce }),
            Frame::Challenge(Challenge { epoch, nonce }),
            Frame::Proof(mac),
            Frame::Accept(mac),
            Frame::Error,
        ];
        let picked: Vec<_> = picks.into_iter().map(|at| frames[at].encode()).collect();
        let ended = fed(&mut gate, &picked);
        prop_assert!(!matches!(ended, Some(Ok(_))));
    }
}
