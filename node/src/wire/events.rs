//! What happens in the mesh, as entries of the audit log and lines of the log.
//!
//! A stranger decides how often a door is knocked at, and must not decide how fast the audit log
//! grows: what repeats is written once a minute, with its number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use openfang_audit::evidence::file_name;
use openfang_audit::{Checkpoint, Event, Hybrid, Log, Origin, Public, Text};
use openfang_id::{NodeId, Transport};
use openfang_mesh::{MeshEvent, Why};
use openfang_ofp::heads::Evidence;
use openfang_ofp::roster;

use crate::audit_epoch;
use crate::clock::MachineClock;
use crate::evidence::{Barred, Desk, Doubt, Notice, Quarantine};

/// For how long what repeats is gathered.
const GATHER_MICROS: u64 = 60_000_000;
/// How many different refusals are gathered at once; with more, a flood is written as such.
const GATHERED_MAX: usize = 256;

/// The same for what convicts other nodes.
const EVIDENCE_MAX: usize = 32;

/// Writes down what happens in the mesh.
#[derive(Debug)]
pub(crate) struct Recorder {
    log: Option<Log>,
    desk: Desk,
    gathered: Mutex<Gathered>,
    evidence: Mutex<Gathered>,
}

impl Recorder {
    pub(crate) fn new(log: Option<Log>, desk: Desk) -> Self {
        Self {
            log,
            desk,
            gathered: Mutex::new(Gathered::of_at_most(GATHERED_MAX)),
            evidence: Mutex::new(Gathered::of_at_most(EVIDENCE_MAX)),
        }
    }

    /// Returns the hybrid clock of the own log; 0 for none.
    pub(super) fn hlc(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.hybrid().to_u64())
    }

    /// Takes the hybrid clock of a node: what is logged from now on comes after it.
    pub(super) fn observe(&self, from: &NodeId, hlc: u64) {
        if let Some(log) = &self.log
            && !log.observe(Hybrid::from_u64(hlc))
        {
            tracing::debug!(
                node.id = %from,
                "the hybrid clock of a node is more than a minute ahead of the clock of this machine: not taken"
            );
        }
    }

    /// Returns who is kept away.
    pub(crate) fn quarantine(&self) -> &Quarantine {
        self.desk.quarantine()
    }

    /// Writes down that nothing was done with a node that is kept away.
    pub(super) fn kept_away(&self, barred: &Barred, what: &str) {
        let from = barred.node.to_string();
        let reason = format!("{what}: {barred}");
        self.refused(("kept_away", &from, &reason), |from, reason| {
            Event::peer_refused(Text::place(from), Public::text(reason))
        });
    }

    /// Never blocks: the audit log has a queue.
    pub(super) fn on_event(&self, event: &MeshEvent) {
        match event {
            MeshEvent::PeerConnected { node, transport } => {
                let transport = transport_name(*transport);
                tracing::info!(node.id = %node, transport, "peer connected");
                self.record(Event::peer_connect(node, transport));
            }
            MeshEvent::PeerDisconnected { node, reason } => {
                tracing::info!(node.id = %node, reason, "peer disconnected");
            }
            MeshEvent::PeerRefused { from, reason } => {
                self.refused(("peer_refused", from, reason), |from, reason| {
                    Event::peer_refused(Text::place(from), Public::text(reason))
                });
            }
            MeshEvent::AuthFailed { from, node, reason } => {
                let reason = reason.to_string();
                // The node says who it is; what it is, stands apart from where it is.
                let surface = format!("ofp {node}");
                self.refused(("auth_failed", from, &reason), |from, reason| {
                    let (surface, reason) = (Public::text(&surface), Public::text(reason));
                    Event::auth_failed(surface, Text::place(from), reason)
                });
            }
            MeshEvent::Roster(event) => self.on_roster(event),
            other => tracing::debug!(event = ?other, "mesh event"),
        }
    }

    fn on_roster(&self, event: &roster::Event) {
        match event {
            roster::Event::NodeUp { node, .. } => tracing::info!(node.id = %node, "node up"),
            roster::Event::NodeSuspected { node } => {
                tracing::info!(node.id = %node, "node suspected");
            }
            roster::Event::NodeDown { node } => tracing::warn!(node.id = %node, "node down"),
            roster::Event::NodeLeft { node } => tracing::info!(node.id = %node, "node left"),
            roster::Event::Inconsistent {
                node,
                why,
                evidence,
            } => {
                self.inconsistent(node, *why, evidence);
            }
            roster::Event::Mended { node, head } => self.mended(node, &head.checkpoint),
            roster::Event::Unanswered { node, evidence } => self.unanswered(node, evidence),
            roster::Event::Convicted {
                node,
                conviction,
                evidence,
            } => self.convicted(Notice {
                node: *node,
                conviction: *conviction,
                evidence: Arc::clone(evidence),
            }),
            roster::Event::InconsistencyReported { node, by, why } => {
                tracing::warn!(node.id = %node, by.id = %by, why = why.as_str(), "a peer says that the audit log of a node contradicts itself");
                self.evidence(node, None, &format!("{} as {by} says", why.as_str()));
            }
            roster::Event::RecordEquivocation { node } => {
                tracing::error!(node.id = %node, "a node signed two different records of one version");
                self.evidence(node, None, "two_records");
            }
            roster::Event::DuplicateIdentity { incarnation } => {
                tracing::error!(
                    incarnation,
                    "another machine runs with the key of this node: give it one of its own"
                );
            }
            roster::Event::Violation { node, offence } => {
                self.violation(node, &format!("broke the protocol: {offence:?}"));
            }
            roster::Event::AgentsCut { announced, agents } => {
                tracing::warn!(
                    announced,
                    agents,
                    "not all agents fit into the announcement of this node"
                );
            }
            roster::Event::SelfDial { addr } => {
                tracing::info!(%addr, "an address leads to this node itself: not dialed again");
            }
            roster::Event::LogReplaced { node, epoch } => {
                tracing::warn!(node.id = %node, epoch, "a node has begun another audit log");
                self.evidence(node, Some(Origin::of(node, *epoch)), "log_replaced");
            }
            // Every head is remembered and checked by the roster. An entry for each would make the
            // logs of two nodes feed each other for ever.
            roster::Event::HeadAccepted { node, head } => {
                tracing::debug!(node.id = %node, size = head.checkpoint.size, "head accepted");
            }
            roster::Event::NodeForgotten { .. }
            | roster::Event::Recorded { .. }
            | roster::Event::AgentsChanged { .. }
            | roster::Event::Linked { .. }
            | roster::Event::Unlinked { .. }
            | roster::Event::Refuted => tracing::debug!(?event, "roster"),
        }
    }

    fn violation(&self, node: &NodeId, reason: &str) {
        self.refused(("violation", &node.to_string(), reason), |from, reason| {
            Event::peer_refused(Text::place(from), Public::text(reason))
        });
    }

    fn inconsistent(&self, node: &NodeId, why: Why, evidence: &Evidence) {
        tracing::error!(node.id = %node, why = why.as_str(), "the audit log of a node contradicts itself");
        self.doubted(node, evidence);
        if matches!(why, Why::TwoRoots | Why::Fork) {
            // That is evidence, which has an entry of its own.
            return;
        }
        let head = evidence.accepted.as_ref().or(evidence.offending.as_ref());
        let origin = head.map(|head| head.checkpoint.origin.clone());
        self.evidence(node, origin, why.as_str());
    }

    fn mended(&self, node: &NodeId, head: &Checkpoint) {
        tracing::warn!(node.id = %node, size = head.size, "the audit log of a node is in order again");
        self.evidence(node, Some(head.origin.clone()), "mended");
    }

    fn unanswered(&self, node: &NodeId, evidence: &Evidence) {
        tracing::warn!(node.id = %node, "a node does not prove that its audit log has only grown");
        self.doubted(node, evidence);
    }

    /// Has it looked into whether two heads of a log are a fork.
    fn doubted(&self, node: &NodeId, evidence: &Evidence) {
        let (Some(one), Some(other)) = (&evidence.accepted, &evidence.offending) else {
            return;
        };
        if one.checkpoint.size != other.checkpoint.size {
            let heads = [one.clone(), other.clone()];
            self.desk.doubted(Doubt { node: *node, heads });
        }
    }

    fn convicted(&self, notice: Notice) {
        let Notice {
            node, conviction, ..
        } = &notice;
        let (kind, file) = (conviction.kind, file_name(&conviction.evidence));
        if self.quarantine().is_me(node) {
            tracing::error!(
                %kind, evidence = file,
                "evidence convicts THIS node: its keys have signed what cannot both be true. Other nodes \
                 call it no more and cosign nothing of it. Was it restored from a copy, or does another \
                 machine run with its key?"
            );
        } else if self.quarantine().is_allowed(node) {
            tracing::warn!(node.id = %node, %kind, evidence = file, "evidence convicts a node that audit.allow_convicted names");
        } else {
            tracing::error!(node.id = %node, %kind, evidence = file, "evidence convicts a node: it is called no more");
        }
        self.desk.convicted(notice);
    }

    /// Whoever holds the secret can invent nodes and convict each: what they do is gathered too.
    fn evidence(&self, node: &NodeId, origin: Option<Origin>, what: &str) {
        let origin = origin.unwrap_or_else(|| Origin::of(node, audit_epoch::FIRST));
        let key = ("evidence", origin.as_str(), what);
        self.gather(&self.evidence, key, |_from, text| {
            Event::peer_evidence(&origin, Public::text(text))
        });
    }

    fn refused(
        &self,
        (kind, from, reason): (&'static str, &str, &str),
        event: impl Fn(&str, &str) -> Event,
    ) {
        self.gather(&self.gathered, (kind, from, reason), event);
    }

    fn gather(
        &self,
        gathered: &Mutex<Gathered>,
        (kind, from, reason): (&'static str, &str, &str),
        event: impl Fn(&str, &str) -> Event,
    ) {
        let now = MachineClock.now_micros();
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let due = gathered.take((kind, place(from), reason), now);
        drop(gathered);
        for repeats in due {
            let Repeats {
                kind,
                from: key,
                reason,
                count,
            } = repeats;
            let text = match count {
                0 => reason,
                count => format!("{reason} ({count} more times)"),
            };
            // The first of a kind says exactly where it came from, later ones stand for many.
            let from = if count == 0 { from } else { &key };
            tracing::warn!(kind, from, reason = text, "written down");
            self.record(event(from, &text));
        }
    }

    fn record(&self, event: Event) {
        let Some(log) = &self.log else {
            return;
        };
        let kind = event.kind();
        let lost = move |why: &dyn std::fmt::Display| {
            tracing::error!(error = %why, kind = kind.as_str(), "an audit entry was lost");
        };
        let ack = Box::new(move |outcome: Result<_, _>| {
            if let Err(why) = outcome {
                lost(&why);
            }
        });
        if let Err(why) = log.append(event, ack) {
            lost(&why);
        }
    }
}

/// Refusals that are gathered: what, from where, why.
type Key = (&'static str, String, String);

/// Since when each is gathered, and how often it repeated; at most so many at once.
#[derive(Debug)]
struct Gathered(BTreeMap<Key, (u64, u64)>, usize);

/// A refusal to be written down, and how often it repeated.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    kind: &'static str,
    from: String,
    reason: String,
    /// How often more since it was written last; 0 for the first.
    count: u64,
}

impl Gathered {
    fn of_at_most(max: usize) -> Self {
        Self(BTreeMap::new(), max)
    }

    /// Takes a refusal and returns what is to be written now.
    fn take(&mut self, (kind, from, reason): (&'static str, &str, &str), now: u64) -> Vec<Repeats> {
        let key = (kind, from.to_owned(), reason.to_owned());
        if let Some((since, count)) = self.0.get_mut(&key) {
            if now < since.saturating_add(GATHER_MICROS) {
                *count += 1;
                return Vec::new();
            }
            let count = std::mem::take(count) + 1;
            *since = now;
            return vec![repeats(key, count)];
        }
        if self.0.len() >= self.1 {
            self.0
                .retain(|_key, (since, _count)| now < since.saturating_add(GATHER_MICROS));
        }
        if self.0.len() >= self.1 {
            let (mut key, value) = (key, (now, 0));
            key.1 = "many".to_owned();
            if let Some((_since, count)) = self.0.get_mut(&key) {
                *count += 1;
                return Vec::new();
            }
            self.0.insert(key.clone(), value);
            return vec![repeats(key, 1)];
        }
        self.0.insert(key.clone(), (now, 0));
        vec![repeats(key, 0)]
    }
}

fn repeats((kind, from, reason): Key, count: u64) -> Repeats {
    Repeats {
        kind,
        from,
        reason,
        count,
    }
}

/// The machine part of an address: the port of a stranger is another one every time.
fn place(from: &str) -> &str {
    if from.starts_with('/') {
        let mut slashes = from.match_indices('/').skip(2).map(|(at, _slash)| at);
        return slashes.next().map_or(from, |end| &from[..end]);
    }
    from.rsplit_once(':').map_or(from, |(host, _port)| host)
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_part_of_an_address_has_no_port() {
        let check = |text: &str, expected: &str| assert_eq!(place(text), expected);
        check("/ip4/192.0.2.7/udp/4200/quic-v1/p2p/x", "/ip4/192.0.2.7");
        check("192.0.2.7:4200", "192.0.2.7");
        check("[::1]:4200", "[::1]");
        check("somewhere", "somewhere");
    }

    #[test]
    fn what_repeats_is_written_once_a_minute_with_its_number() {
        let mut gathered = Gathered::of_at_most(GATHERED_MAX);
        let what = ("auth_failed", "192.0.2.7", "wrong secret");
        let counts = |due: Vec<Repeats>| due.iter().map(|one| one.count).collect::<Vec<_>>();
        assert_eq!(counts(gathered.take(what, 0)), [0]);
        for at in 1..=5 {
            assert!(counts(gathered.take(what, at)).is_empty());
        }
        assert_eq!(
            counts(gathered.take(("auth_failed", "192.0.2.8", "x"), 6)),
            [0]
        );
        assert_eq!(counts(gathered.take(what, GATHER_MICROS)), [6]);
        assert!(counts(gathered.take(what, GATHER_MICROS + 1)).is_empty());
    }

    #[test]
    fn a_flood_from_many_addresses_is_one_entry() {
        let mut gathered = Gathered::of_at_most(GATHERED_MAX);
        let mut written = 0;
        for at in 0..10_000 {
            written += gathered
                .take(("auth_failed", &format!("10.0.{at}"), "x"), at)
                .len();
        }
        assert_eq!(written, GATHERED_MAX + 1);
        assert!(gathered.0.len() <= GATHERED_MAX + 8);
    }
}
