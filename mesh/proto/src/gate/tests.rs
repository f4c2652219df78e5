//! What the gate lets in, and every way in that must not work.

mod attack;
mod known_answer;
mod model;

use openfang_id::{NodeSeed, SharedSecret};

use super::*;

fn node(seed: u8) -> NodeId {
    NodeSeed::from_bytes([seed; 32]).keys().node_id()
}

fn secret(seed: u8) -> SharedSecret {
    SharedSecret::from_random(&[seed; 32])
}

/// The secrets of epoch 1 made of one byte.
fn secrets(seed: u8) -> Secrets {
    Secrets::new(Epoch(1), &secret(seed))
}

/// Two accepted epochs, each with its own secret.
fn rotating(current: u32, previous: u32) -> Secrets {
    Secrets::new(
        Epoch(current),
        &secret(u8::try_from(current).expect("small")),
    )
    .with_previous(
        Epoch(previous),
        &secret(u8::try_from(previous).expect("small")),
    )
    .expect("ordered")
}

fn end(role: Role, local: u8, remote: u8, secrets: &Secrets) -> Gate {
    let channel = Channel {
        role,
        tag: Tag::Tcp,
        local: node(local),
        remote: node(remote),
    };
    let role_byte = match role {
        Role::Initiator => 0x10,
        Role::Responder => 0x20,
    };
    Gate::new(channel, secrets, [role_byte | local; 32])
}

/// Node 1 dials node 2.
fn pair(ours: &Secrets, theirs: &Secrets) -> (Gate, Gate) {
    (
        end(Role::Initiator, 1, 2, ours),
        end(Role::Responder, 2, 1, theirs),
    )
}

/// How a handshake ended at one end.
type Ending = Option<Result<Admitted, Refusal>>;

fn ending(out: &[Out]) -> Ending {
    out.iter().find_map(|out| match out {
        Out::Send(_) => None,
        Out::Admitted(admitted) => Some(Ok(*admitted)),
        Out::Refused(refusal) => Some(Err(*refusal)),
    })
}

fn sent(out: &[Out]) -> Vec<Vec<u8>> {
    out.iter()
        .filter_map(|out| match out {
            Out::Send(bytes) => Some(bytes.clone()),
            Out::Admitted(_) | Out::Refused(_) => None,
        })
        .collect()
}

/// Carries every frame to the other end until both are quiet. Returns how each ended, and every
/// frame in the order it was sent.
fn run(initiator: &mut Gate, responder: &mut Gate) -> (Ending, Ending, Vec<Vec<u8>>) {
    let mut ends = [None, None];
    let mut frames = Vec::new();
    let mut queue = std::collections::VecDeque::new();
    let mut note = |at: usize, out: &[Out], queue: &mut std::collections::VecDeque<_>| {
        ends[at] = ends[at].or(ending(out));
        for frame in sent(out) {
            frames.push(frame.clone());
            queue.push_back((1 - at, frame));
        }
    };
    let started = responder.handle(In::Start);
    note(1, &started, &mut queue);
    let started = initiator.handle(In::Start);
    note(0, &started, &mut queue);
    while let Some((to, frame)) = queue.pop_front() {
        let end = if to == 0 {
            &mut *initiator
        } else {
            &mut *responder
        };
        let out = end.handle(In::Frame(&frame));
        note(to, &out, &mut queue);
    }
    (ends[0], ends[1], frames)
}

fn admitted_at(epoch: u32) -> Ending {
    Some(Ok(Admitted {
        epoch: Epoch(epoch),
        method: Method::SharedSecret,
    }))
}

#[test]
fn two_nodes_with_one_secret_admit_each_other_in_four_flights() {
    for tag in [Tag::Tcp, Tag::Quic, Tag::Memory] {
        let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
        initiator.channel.tag = tag;
        responder.channel.tag = tag;
        let (ours, theirs, frames) = run(&mut initiator, &mut responder);
        assert_eq!((ours, theirs), (admitted_at(1), admitted_at(1)));
        assert_eq!(frames.len(), 4);
        assert!(frames.iter().all(|frame| frame.len() <= 45));
    }
}

#[test]
fn another_secret_is_refused_by_both_and_the_wire_says_nothing() {
    let (mut initiator, mut responder) = pair(&secrets(7), &secrets(8));
    let (ours, theirs, frames) = run(&mut initiator, &mut responder);
    assert_eq!(ours, Some(Err(Refusal::ProofRejected)));
    assert_eq!(theirs, Some(Err(Refusal::WrongSecret)));
    assert_eq!(frames.last(), Some(&vec![0xff]));
    assert_eq!(frames.len(), 4);
}

#[test]
fn an_impostor_that_accepts_anything_is_refused_by_the_dialer() {
    let (mut initiator, _absent) = pair(&secrets(7), &secrets(7));
    initiator.handle(In::Start);
    let challenge = Frame::Challenge(Challenge {
        epoch: Epoch(1),
        nonce: [9; 32],
    });
    assert_eq!(
        ending(&initiator.handle(In::Frame(&challenge.encode()))),
        None
    );
    let accept = Frame::Accept([0; 32]).encode();
    assert_eq!(
        ending(&initiator.handle(In::Frame(&accept))),
        Some(Err(Refusal::WrongSecret))
    );
}

#[test]
fn during_a_replacement_the_newest_common_secret_is_used() {
    let only =
        |epoch: u32| Secrets::new(Epoch(epoch), &secret(u8::try_from(epoch).expect("small")));
    let check = |ours: Secrets, theirs: Secrets, expected: Option<u32>| {
        let (mut initiator, mut responder) = pair(&ours, &theirs);
        let (a, b, _frames) = run(&mut initiator, &mut responder);
        match expected {
            Some(epoch) => assert_eq!((a, b), (admitted_at(epoch), admitted_at(epoch))),
            None => assert_eq!(
                (a, b),
                (Some(Err(Refusal::HelloRejected)), Some(Err(Refusal::Epoch)))
            ),
        }
    };
    check(rotating(2, 1), rotating(2, 1), Some(2));
    check(rotating(2, 1), only(1), Some(1));
    check(only(1), rotating(2, 1), Some(1));
    check(rotating(3, 2), rotating(2, 1), Some(2));
    check(only(2), only(1), None);
    check(rotating(4, 3), rotating(2, 1), None);
}

#[test]
fn a_node_does_not_admit_itself() {
    for role in [Role::Initiator, Role::Responder] {
        let mut gate = end(role, 1, 1, &secrets(7));
        assert_eq!(
            gate.handle(In::Start),
            [Out::Send(vec![0xff]), Out::Refused(Refusal::OwnId)]
        );
    }
    let mut gate = end(Role::Responder, 1, 1, &secrets(7));
    assert_eq!(
        ending(&gate.handle(In::Frame(b"x"))),
        Some(Err(Refusal::OwnId))
    );
}

#[test]
fn an_end_or_a_deadline_in_any_flight_refuses_without_a_frame() {
    for (event, refusal) in [
        (In::Closed, Refusal::Closed),
        (In::Deadline, Refusal::Timeout),
    ] {
        for flights in 0..4 {
            let (mut initiator, mut responder) = stopped_before(flights);
            for gate in [&mut initiator, &mut responder] {
                if !matches!(gate.state, State::Ended) {
                    assert_eq!(gate.handle(event), [Out::Refused(refusal)]);
                }
                assert_eq!(gate.handle(event), []);
            }
        }
    }
}

/// Both ends after `flights` frames were delivered.
fn stopped_before(flights: usize) -> (Gate, Gate) {
    let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
    responder.handle(In::Start);
    let mut out = initiator.handle(In::Start);
    for flight in 0..flights {
        let frame = sent(&out).concat();
        let to = if flight % 2 == 0 {
            &mut responder
        } else {
            &mut initiator
        };
        out = to.handle(In::Frame(&frame));
    }
    (initiator, responder)
}

#[test]
fn every_refusal_that_can_be_told_is_told_in_the_same_byte() {
    let hello = |change: &dyn Fn(&mut Vec<u8>)| {
        let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
        let mut frame = sent(&initiator.handle(In::Start)).concat();
        change(&mut frame);
        responder.handle(In::Frame(&frame))
    };
    let told = |out: &[Out], refusal: Refusal| {
        assert_eq!(out, [Out::Send(vec![0xff]), Out::Refused(refusal)]);
    };
    told(&hello(&|f| f[2] = 2), Refusal::Version { offered: 2 });
    told(&hello(&|f| f[2] = 0), Refusal::Version { offered: 0 });
    told(&hello(&|f| f[3] = 9), Refusal::Method { offered: 9 });
    told(&hello(&|f| f[8] = 9), Refusal::Epoch);
    told(&hello(&|f| f[4] = 3), Refusal::Malformed);
    told(&hello(&|f| f.truncate(20)), Refusal::Malformed);
    told(&hello(&|f| f[0] = 2), Refusal::Malformed);
    told(&hello(&|f| f.resize(513, 0)), Refusal::Oversize(513));
}

#[test]
fn the_old_wire_is_recognised_by_its_first_bytes() {
    let hello = br#"{"id":"6f1c","type":"request","method":"handshake","node_id":"x"}"#;
    let mut gate = end(Role::Responder, 2, 1, &secrets(7));
    // Four bytes of length, the upper two of them zero: here an empty frame, then one of JSON.
    assert_eq!(gate.handle(In::Frame(&[])), []);
    assert_eq!(
        gate.handle(In::Frame(hello)),
        [Out::Send(vec![0xff]), Out::Refused(Refusal::LegacyWire)]
    );
    let mut gate = end(Role::Responder, 2, 1, &secrets(7));
    gate.handle(In::Frame(&[]));
    let refused = gate.handle(In::Oversize(2_000));
    assert_eq!(ending(&refused), Some(Err(Refusal::LegacyWire)));
    let mut gate = end(Role::Responder, 2, 1, &secrets(7));
    gate.handle(In::Frame(&[]));
    let (mut dialer, _absent) = pair(&secrets(7), &secrets(7));
    let honest = sent(&dialer.handle(In::Start)).concat();
    let refused = gate.handle(In::Frame(&honest));
    assert_eq!(ending(&refused), Some(Err(Refusal::Malformed)));
}

#[test]
fn nothing_secret_shows_in_debug() {
    let (mut initiator, mut responder) = pair(&secrets(7), &secrets(7));
    responder.handle(In::Start);
    let hello = sent(&initiator.handle(In::Start)).concat();
    let challenge = sent(&responder.handle(In::Frame(&hello))).concat();
    initiator.handle(In::Frame(&challenge));
    let keys = secrets(7);
    let keys = keys.keys(Epoch(1)).expect("present").both();
    for gate in [&initiator, &responder] {
        let shown = format!("{gate:?}");
        for key in keys {
            assert!(!shown.contains(&format!("{key:?}")), "{shown}");
            assert!(
                !shown.contains(&data_encoding::HEXLOWER.encode(key)),
                "{shown}"
            );
        }
        assert!(!shown.contains(secret(7).expose()), "{shown}");
    }
}
