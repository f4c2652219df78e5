//! An exhaustive search: everything an attacker can make of a few sessions.
//!
//! Some ends of handshakes run at honest nodes at the same time. The attacker carries every frame:
//! he may give any frame he has seen, or made himself, to any end, at any time, any number of times,
//! or never. He is node [`ATTACKER`] and does not hold the secret. What lies below the gate is taken
//! to protect nothing: frames of one connection can be put into another, even between two honest
//! nodes. (Noise and TLS do protect that; the gate does not lean on it.)
//!
//! An end is deterministic, so it is what it accepted: each end's life is a small tree, computed
//! once, and a state of the world is one place in each tree. A frame that makes an end refuse gives
//! the attacker nothing but the known error byte, so those branches are checked and cut. The search
//! visits every combination that can be reached.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const ATTACKER: u8 = 9;

/// Frames are numbered as they appear; what the attacker has is a set of at most 128 of them.
type Known = u128;

/// One place in the life of one end.
struct Place {
    gate: Gate,
    /// Every frame it sent up to here.
    sent: Known,
    /// What it proves, once both nonces are known.
    transcript: Option<Vec<u8>>,
    admitted: Option<Admitted>,
    /// Where each frame leads; `None` is a refusal.
    next: BTreeMap<u32, Option<usize>>,
}

/// One end, and its life as far as it was explored.
struct End {
    places: Vec<Place>,
}

struct World {
    ends: Vec<End>,
    frames: Vec<Vec<u8>>,
}

impl World {
    fn new(ends: Vec<Gate>) -> Self {
        let mut world = Self {
            ends: Vec::new(),
            frames: Vec::new(),
        };
        for mut gate in ends {
            let out = gate.handle(In::Start);
            let sent = world.note(&sent(&out));
            let root = Place {
                gate,
                sent,
                transcript: None,
                admitted: None,
                next: BTreeMap::new(),
            };
            world.ends.push(End { places: vec![root] });
        }
        world
    }

    /// Numbers frames.
    fn note(&mut self, frames: &[Vec<u8>]) -> Known {
        let mut known = 0;
        for frame in frames {
            let at = self.frames.iter().position(|old| old == frame);
            let at = at.unwrap_or_else(|| {
                self.frames.push(frame.clone());
                self.frames.len() - 1
            });
            assert!(at < 128, "more frames than a set can hold");
            known |= 1 << at;
        }
        known
    }

    /// Where a frame takes an end.
    fn step(&mut self, end: usize, place: usize, frame: u32) -> Option<usize> {
        if let Some(&next) = self.ends[end].places[place].next.get(&frame) {
            return next;
        }
        let from = &self.ends[end].places[place];
        let mut gate = from.gate.clone();
        let (mut known, mut transcript) = (from.sent, from.transcript.clone());
        let bytes = self.frames[usize::try_from(frame).expect("small")].clone();
        let out = gate.handle(In::Frame(&bytes));
        known |= self.note(&sent(&out));
        if let State::AwaitProof(exchange) | State::AwaitAccept(exchange, _) = &gate.state {
            transcript = Some(exchange.bytes().to_vec());
        }
        let next = match ending(&out) {
            Some(Err(_refusal)) => None,
            Some(Ok(_)) | None if out.is_empty() => None,
            ended => {
                let places = &mut self.ends[end].places;
                places.push(Place {
                    gate,
                    sent: known,
                    transcript,
                    admitted: ended.and_then(Result::ok),
                    next: BTreeMap::new(),
                });
                Some(places.len() - 1)
            }
        };
        self.ends[end].places[place].next.insert(frame, next);
        next
    }

    fn at(&self, state: &[usize], end: usize) -> &Place {
        &self.ends[end].places[state[end]]
    }

    /// What must hold in every state.
    fn check(&self, state: &[usize], newest: Epoch) {
        for end in 0..state.len() {
            let place = self.at(state, end);
            let Some(admitted) = place.admitted else {
                continue;
            };
            let channel = place.gate.channel;
            assert_ne!(channel.remote, node(ATTACKER), "the attacker was admitted");
            assert_eq!(admitted.epoch, newest, "an older epoch was forced");
            // Exactly one end at that node means the same session; and a responder accepts before
            // an initiator is admitted.
            let partners: Vec<_> = (0..state.len())
                .map(|other| self.at(state, other))
                .filter(|other| {
                    other.gate.channel.local == channel.remote
                        && other.gate.channel.remote == channel.local
                        && other.gate.channel.role != channel.role
                        && other.transcript.is_some()
                        && other.transcript == place.transcript
                })
                .collect();
            assert_eq!(partners.len(), 1, "sessions were mixed");
            if channel.role == Role::Initiator {
                assert!(partners[0].admitted.is_some(), "admitted before the peer");
            }
        }
    }

    /// Visits every state. Returns how many there are, and the most ends admitted in one.
    fn search(&mut self, crafted: &[Vec<u8>], newest: Epoch) -> (usize, usize) {
        let crafted = self.note(crafted);
        let start = vec![0; self.ends.len()];
        let mut seen = BTreeSet::from([start.clone()]);
        let mut open = vec![start];
        let mut most = 0;
        while let Some(state) = open.pop() {
            self.check(&state, newest);
            let places = (0..state.len()).map(|end| self.at(&state, end));
            let known = places
                .clone()
                .fold(crafted, |known, place| known | place.sent);
            most = most.max(places.filter(|place| place.admitted.is_some()).count());
            for end in 0..state.len() {
                for frame in (0..128).filter(|at| known >> at & 1 == 1) {
                    if let Some(next) = self.step(end, state[end], frame) {
                        let mut after = state.clone();
                        after[end] = next;
                        if seen.insert(after.clone()) {
                            open.push(after);
                        }
                    }
                }
            }
        }
        (seen.len(), most)
    }
}

/// The ends of sessions, each with a nonce of its own: (role, at which node, with which node).
fn ends(sessions: &[(Role, u8, u8)], secrets: &Secrets) -> Vec<Gate> {
    (0_u8..)
        .zip(sessions)
        .map(|(nr, &(role, local, remote))| {
            let mut gate = end(role, local, remote, secrets);
            gate.nonce = [0x40 + nr; 32];
            gate
        })
        .collect()
}

/// What the attacker makes himself: every kind of frame with values of his own, and the frames of
/// the honest with the epochs changed.
fn crafted(world: &World, epochs: &[Epoch]) -> Vec<Vec<u8>> {
    let method = Method::SharedSecret;
    let version = VERSION;
    let mut frames = vec![Frame::Proof([0; 32]), Frame::Accept([0; 32]), Frame::Error];
    let nonces = world.ends.iter().map(|end| end.places[0].gate.nonce);
    for nonce in nonces.chain([[0xee; 32]]) {
        for &epoch in epochs {
            frames.push(Frame::Challenge(Challenge { epoch, nonce }));
            let epochs = vec![epoch];
            frames.push(Frame::Hello(Hello {
                version,
                method,
                epochs,
                nonce,
            }));
        }
    }
    frames.iter().map(Frame::encode).collect()
}

use Role::{Initiator as I, Responder as R};

#[test]
fn three_sessions_between_two_nodes_cannot_be_mixed() {
    let keys = secrets(7);
    let sessions = [
        (I, 1, 2),
        (R, 2, 1),
        (I, 1, 2),
        (R, 2, 1),
        (I, 2, 1),
        (R, 1, 2),
    ];
    let mut world = World::new(ends(&sessions, &keys));
    let (states, most) = world.search(&[], Epoch(1));
    // The honest run of all three sessions is among them: the search is not empty.
    assert_eq!(most, 6);
    assert!(states > 1_000, "{states}");
}

#[test]
fn an_attacker_among_three_sessions_gets_nowhere() {
    let keys = secrets(7);
    let sessions = [
        (I, 1, 2),
        (R, 2, 1),
        (I, 1, ATTACKER),
        (R, 2, ATTACKER),
        (I, 2, ATTACKER),
        (R, 1, ATTACKER),
    ];
    let mut world = World::new(ends(&sessions, &keys));
    let own = crafted(&world, &[Epoch(1)]);
    let (states, most) = world.search(&own, Epoch(1));
    assert_eq!(most, 2);
    assert!(states > 1_000, "{states}");
}

#[test]
fn an_attacker_cannot_force_the_older_secret_on_nodes_that_have_both() {
    let keys = rotating(2, 1);
    let sessions = [(I, 1, 2), (R, 2, 1), (I, 2, 1), (R, 1, 2)];
    let mut world = World::new(ends(&sessions, &keys));
    let own = crafted(&world, &[Epoch(1), Epoch(2)]);
    let (states, most) = world.search(&own, Epoch(2));
    assert_eq!(most, 4);
    assert!(states > 1_000, "{states}");
}
