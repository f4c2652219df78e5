//! Carrying out what the roster wants.

use std::sync::Arc;
use std::time::Duration;

use openfang_ofp::roster::{CloseReason, Event, In, LinkId, Out};
use tokio::time::Instant;

use crate::awake::{Awake, Done};
use crate::links::{Ended, EndedWhy};
use crate::{MeshEvent, ShortId};

/// How long a connection that is given up stays for the calls that run on it. Those that take longer
/// go on over another.
const PARTING: Duration = Duration::from_secs(1);

/// How long a peer that broke the protocol is not let in.
const BLOCKED: Duration = Duration::from_secs(60);

impl Awake {
    pub(crate) fn carry_out(&mut self, out: Out) {
        match out {
            Out::Send { link, bytes } => {
                let overflow = match self.links.get(&link) {
                    Some(open) => open.send(bytes).is_err(),
                    None => false,
                };
                if overflow {
                    self.close(link, "the peer does not read its sync messages");
                }
            }
            Out::Dial { dial, addrs } => {
                let progress = self.dialer.start(&mut self.swarm, dial, addrs);
                self.on_dial_progress(progress);
            }
            Out::Close { link, why } => self.on_close(link, why),
            Out::StoreIncarnation(incarnation) => {
                let base = Arc::clone(&self.base);
                self.tasks.spawn_blocking(move || {
                    let stored = base.disk.store_incarnation(incarnation);
                    Done::Incarnation(incarnation, stored)
                });
            }
            Out::Persist => self.store(),
            Out::Hybrid { peer, hlc } => self.base.host.observe(&peer, hlc),
            Out::Prove { ticket, from, to } => {
                let proof = self.base.host.prove(from, to);
                self.tasks
                    .spawn(async move { Done::Proof(ticket, proof.await) });
            }
            Out::Event(event) => self.on_roster_event(event),
        }
    }

    pub(crate) fn on_done(&mut self, done: Done) {
        match done {
            Done::Link(ended) => self.on_link_ended(ended),
            Done::Proof(ticket, answer) => self.tell_roster(In::Proof { ticket, answer }),
            Done::Stored(stored) => {
                self.storing = false;
                if let Err(why) = stored {
                    tracing::warn!(error = %why, "the roster could not be stored");
                }
                if std::mem::take(&mut self.to_store) {
                    self.store();
                }
            }
            Done::Incarnation(incarnation, Ok(())) => {
                self.tell_roster(In::IncarnationStored(incarnation));
            }
            Done::Incarnation(_, Err(why)) => {
                tracing::error!(error = %why, "the incarnation could not be stored; it is not used");
            }
            Done::Retired(connection) => {
                self.swarm.close_connection(connection);
            }
            Done::Nothing => {}
        }
    }

    /// Writes the roster to disk; one write at a time, the last state wins.
    fn store(&mut self) {
        if self.storing {
            self.to_store = true;
            return;
        }
        self.storing = true;
        let known = self.state.known();
        let base = Arc::clone(&self.base);
        self.tasks
            .spawn_blocking(move || Done::Stored(base.disk.store_known(&known)));
    }

    fn on_close(&mut self, link: LinkId, why: CloseReason) {
        let Some(open) = self.links.get_mut(&link) else {
            return;
        };
        open.span
            .in_scope(|| tracing::debug!(reason = ?why, "closing"));
        match why {
            // The farewell is written first, and running calls end first.
            CloseReason::Leaving => {}
            CloseReason::Surplus => open.finish(),
            CloseReason::Silent => self.close(link, "nothing was heard for too long"),
            CloseReason::Violation(offence) => {
                let peer = crate::addrs::peer_id(&open.peer);
                self.close(link, &format!("the peer broke the protocol: {offence:?}"));
                self.swarm
                    .behaviour_mut()
                    .block(peer, Instant::now() + BLOCKED);
            }
        }
    }

    /// Closes a connection now.
    fn close(&mut self, link: LinkId, why: &str) {
        let Some(open) = self.links.get(&link) else {
            return;
        };
        open.span
            .in_scope(|| tracing::info!(reason = why, "connection closed"));
        self.base.peers.peer(open.peer).on_disconnected(link, why);
        self.swarm.close_connection(open.connection);
    }

    fn on_link_ended(&mut self, Ended { link, why }: Ended) {
        let Some(open) = self.links.get_mut(&link) else {
            return;
        };
        match why {
            // Either end wants the connection closed, and its last message is written.
            EndedWhy::Closed | EndedWhy::PeerClosed => {
                let (peer, connection) = (self.base.peers.peer(open.peer), open.connection);
                if matches!(why, EndedWhy::Closed) {
                    open.on_written();
                }
                if !self.leaving {
                    self.tasks.spawn(async move {
                        peer.retire(link).await;
                        tokio::time::sleep(PARTING).await;
                        Done::Retired(connection)
                    });
                }
            }
            EndedWhy::Open(_) | EndedWhy::Io(_) | EndedWhy::Frame(_) => {
                let reason = why.to_string();
                open.on_written();
                self.close(link, &reason);
            }
        }
    }

    fn on_roster_event(&mut self, event: Event) {
        self.mark_changed();
        log(&event);
        if let Event::NodeForgotten { node } = &event {
            self.base.peers.forget(node);
            self.service.forget(node);
        }
        self.base.host.on_event(MeshEvent::Roster(event));
    }
}

/// Writes a line for what people want to know.
fn log(event: &Event) {
    match event {
        Event::NodeUp { node, incarnation } => {
            tracing::info!(node.id = %ShortId(node), node.incarnation = incarnation, "node is up");
        }
        Event::NodeSuspected { node } => {
            tracing::info!(node.id = %ShortId(node), "node may be down");
        }
        Event::NodeDown { node } => tracing::warn!(node.id = %ShortId(node), "node is down"),
        Event::NodeLeft { node } => tracing::info!(node.id = %ShortId(node), "node has left"),
        Event::Inconsistent { node, why, .. } => {
            tracing::error!(node.id = %ShortId(node), reason = ?why, "the audit log of a node contradicts itself");
        }
        Event::Mended { node, head } => {
            tracing::warn!(node.id = %ShortId(node), size = head.checkpoint.size, "the audit log of a node proves again all that was seen of it");
        }
        Event::Convicted {
            node, conviction, ..
        } => {
            tracing::error!(node.id = %ShortId(node), kind = %conviction.kind, evidence = %conviction.evidence, "evidence convicts a node");
        }
        Event::InconsistencyReported { node, by, why } => {
            tracing::warn!(node.id = %ShortId(node), by.id = %ShortId(by), reason = ?why, "a node reports another's audit log");
        }
        Event::RecordEquivocation { node } => {
            tracing::error!(node.id = %ShortId(node), "a node has signed two records of one version");
        }
        Event::DuplicateIdentity { incarnation } => {
            tracing::error!(
                node.incarnation = incarnation,
                "another machine runs with this node's key"
            );
        }
        Event::SelfDial { addr } => {
            tracing::warn!(%addr, "the address leads to this node itself; it is not dialled again");
        }
        Event::Violation { node, offence } => {
            tracing::warn!(node.id = %ShortId(node), ?offence, "a node broke the protocol");
        }
        Event::AgentsCut { announced, agents } => {
            tracing::warn!(
                announced,
                agents,
                "not all agents fit into the record of this node"
            );
        }
        Event::LogReplaced { node, epoch } => {
            tracing::warn!(node.id = %ShortId(node), log.epoch = epoch, "a node has begun another audit log");
        }
        Event::NodeForgotten { .. }
        | Event::Recorded { .. }
        | Event::AgentsChanged { .. }
        | Event::Linked { .. }
        | Event::Unlinked { .. }
        | Event::HeadAccepted { .. }
        | Event::Unanswered { .. }
        | Event::Refuted => tracing::debug!(?event, "roster"),
    }
}
