//! What this node says of itself: its record, its incarnation, its refutations.

use std::sync::Arc;
use std::time::Duration;

use openfang_audit::SignedHead;
use openfang_id::NetAddr;

use super::accusation::Accusation;
use super::bucket::Bucket;
use super::config::{OWN_RECORDS, REFUTE_EVERY};
use super::liveness::ForgedClaim;
use super::record::{
    ADDRS_MAX, AGENTS_MAX, DESCRIPTION_BYTES_MAX, Life, MODULE_BYTES_MAX, RawRecord,
    SOFTWARE_BYTES_MAX, TAGS_MAX, TOOLS_MAX, WORD_BYTES_MAX,
};
use super::state::State;
use super::timers::Timer;
use super::{AgentAd, Event, LinkId, Out, Record, SignedRecord, Version};
use crate::Instant;

/// How often the own incarnation may be overtaken before another machine must have the same key:
/// a lost disk explains the first, news that comes in pieces the second.
const OVERTAKEN_MAX: u32 = 3;
/// The first pause before overtaking a twin again; it doubles.
const OVERTAKE_AGAIN: Duration = Duration::from_secs(1);

/// This node.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) version: Version,
    refutation: u32,
    addrs: Vec<NetAddr>,
    agents: Vec<AgentAd>,
    pub(super) left: bool,
    pub(super) head: Option<SignedHead>,
    pub(super) head_told: Option<Instant>,
    dirty: bool,
    published: Bucket,
    refuted_at: Option<Instant>,
    /// An incarnation that is being written to disk.
    storing: Option<u64>,
    overtaken: u32,
    overtake_after: Option<Instant>,
}

impl Own {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            version: Version {
                incarnation,
                sequence: 0,
            },
            refutation: 0,
            addrs: Vec::new(),
            agents: Vec::new(),
            left: false,
            head: None,
            head_told: None,
            dirty: true,
            published: Bucket::default(),
            refuted_at: None,
            storing: None,
            overtaken: 0,
            overtake_after: None,
        }
    }

    fn life(&self) -> Life {
        Life {
            incarnation: self.version.incarnation,
            refutation: self.refutation,
        }
    }
}

impl State {
    pub(super) fn set_agents(&mut self, agents: Vec<AgentAd>) {
        let count = agents.len();
        let (agents, cut) = fitting(agents);
        if cut {
            self.event(Event::AgentsCut {
                announced: agents.len(),
                agents: count,
            });
        }
        if agents != self.own.agents {
            self.own.agents = agents;
            self.publish_soon();
        }
    }

    pub(super) fn set_addrs(&mut self, mut addrs: Vec<NetAddr>) {
        addrs.dedup();
        addrs.truncate(ADDRS_MAX);
        if addrs != self.own.addrs {
            self.own.addrs = addrs;
            self.publish_soon();
        }
    }

    /// Publishes at once, or as soon as peers will take another record.
    pub(super) fn publish_soon(&mut self) {
        self.own.dirty = true;
        let at = self.own.published.ready(OWN_RECORDS, self.now);
        self.timers.set_earlier(Timer::Publish, at);
    }

    pub(super) fn on_publish_timer(&mut self) {
        if !self.own.dirty || self.own.storing.is_some() {
            return;
        }
        if self.own.published.take(OWN_RECORDS, self.now) {
            self.publish();
        } else {
            self.publish_soon();
        }
    }

    pub(super) fn publish(&mut self) {
        self.own.dirty = false;
        self.own.version.sequence = self.own.version.sequence.saturating_add(1);
        let record = self.own_record();
        let signed = SignedRecord::sign(record, self.crypto.as_ref()).or_else(|_too_long| {
            // Texts that fit one by one can be too long together: without them any number fits.
            self.own.agents = std::mem::take(&mut self.own.agents)
                .into_iter()
                .map(without_texts)
                .collect();
            SignedRecord::sign(self.own_record(), self.crypto.as_ref())
        });
        let Ok(signed) = signed else {
            return;
        };
        self.table.set_own(self.me, Arc::new(signed));
        self.push_own();
    }

    fn own_record(&self) -> Record {
        let mut software = self.config.software.clone();
        truncate(&mut software, SOFTWARE_BYTES_MAX);
        Record {
            origin: self.config.me,
            version: self.own.version,
            refutation: self.own.refutation,
            issued_ms: self.unix_ms_at(self.now),
            left: self.own.left,
            name: self.config.name.clone(),
            software,
            log: self.config.log,
            cosigners: self.config.cosigners,
            addrs: self.own.addrs.clone(),
            agents: self.own.agents.clone(),
        }
    }

    /// Hears that someone holds this node for dead.
    ///
    /// # Errors
    /// When the accuser has not signed it: whoever passes on an accusation has checked it.
    pub(super) fn on_accused(&mut self, accusation: &Accusation) -> Result<(), ForgedClaim> {
        let current = accusation.life == self.own.life();
        let known = self.table.get(&accusation.accuser).is_some();
        let refuting = self.timers.is_set(Timer::Refute);
        if !current || !known || self.own.left || refuting {
            return Ok(());
        }
        if !self.claim_holds(accusation) {
            return Err(ForgedClaim);
        }
        let after = self.own.refuted_at.map(|at| at + REFUTE_EVERY);
        let at = after.unwrap_or(self.now).max(self.now);
        self.timers.set_earlier(Timer::Refute, at);
        Ok(())
    }

    /// Begins another life, and tells everyone.
    pub(super) fn on_refute_timer(&mut self) {
        self.own.refutation = self.own.refutation.saturating_add(1);
        self.own.refuted_at = Some(self.now);
        self.event(Event::Refuted);
        self.publish_soon();
    }

    /// Hears a record of this node: usually its own echo. A higher one with the own signature is of
    /// a run whose disk was lost, or of a twin.
    pub(super) fn on_own_record(&mut self, link: LinkId, raw: &RawRecord<'_>, version: Version) {
        let echo = |own: &Arc<SignedRecord>| own.bytes() == raw.bytes;
        let older = version < self.own.version;
        if older || self.own.storing.is_some() || self.table.own().is_some_and(echo) {
            return;
        }
        if self
            .own
            .overtake_after
            .is_some_and(|after| self.now < after)
        {
            return;
        }
        if raw
            .open(Some(self.config.me), self.crypto.as_ref())
            .is_err()
        {
            self.offend(link, super::Offence::ForgedRecord);
            return;
        }
        self.overtake(version.incarnation);
    }

    fn overtake(&mut self, incarnation: u64) {
        self.own.overtaken += 1;
        if self.own.overtaken >= OVERTAKEN_MAX {
            self.event(Event::DuplicateIdentity { incarnation });
            let pause = OVERTAKE_AGAIN.saturating_mul(1 << self.own.overtaken.min(8));
            self.own.overtake_after = Some(self.now + pause);
        }
        let next = incarnation.saturating_add(1);
        self.own.storing = Some(next);
        self.out.push(Out::StoreIncarnation(next));
    }

    pub(super) fn on_incarnation_stored(&mut self, incarnation: u64) {
        if self
            .own
            .storing
            .take_if(|next| *next == incarnation)
            .is_none()
        {
            return;
        }
        self.own.version = Version {
            incarnation,
            sequence: 0,
        };
        self.own.refutation = 0;
        self.publish_soon();
    }
}

/// Cuts agents to what a record may hold. Returns whether anything was lost.
fn fitting(mut agents: Vec<AgentAd>) -> (Vec<AgentAd>, bool) {
    let count = agents.len();
    agents.sort_by_key(|agent| agent.id);
    agents.dedup_by_key(|agent| agent.id);
    agents.truncate(AGENTS_MAX);
    let mut cut = agents.len() < count;
    for agent in &mut agents {
        cut |= truncate(&mut agent.description, DESCRIPTION_BYTES_MAX);
        cut |= truncate(&mut agent.module, MODULE_BYTES_MAX);
        for (words, max) in [(&mut agent.tags, TAGS_MAX), (&mut agent.tools, TOOLS_MAX)] {
            cut |= words.len() > max;
            words.truncate(max);
            for word in words {
                cut |= truncate(word, WORD_BYTES_MAX);
            }
        }
    }
    (agents, cut)
}

fn without_texts(agent: AgentAd) -> AgentAd {
    AgentAd {
        description: String::new(),
        tags: Vec::new(),
        tools: Vec::new(),
        ..agent
    }
}

/// Cuts a text at the last character that fits. Returns whether it was too long.
fn truncate(text: &mut String, max: usize) -> bool {
    let cut = text.len() > max;
    if cut {
        text.truncate(text.floor_char_boundary(max));
    }
    cut
}
