//! Audit heads on the sync stream: announced, passed on, questioned, answered; and alarms.

use std::sync::Arc;

use openfang_audit::{Hash, SignedHead};

use super::config::{CLAIMS_PER_NODE, HEAD_EVERY, PROOF_RETRY, PROOF_RETRY_MAX, TICKETS_MAX};
use super::state::State;
use super::timers::Timer;
use super::{Event, Key, LinkId, Offence, Out, ProofTicket, wire};
use crate::heads::{Alarm, CannotProve, Evidence, HeldAlarm, Question, Step, Why};

impl State {
    /// Announces the own head, at most twice a second: the last one counts.
    pub(super) fn set_head(&mut self, head: SignedHead) {
        self.own.head = Some(head);
        let after = self.own.head_told.map(|at| at + HEAD_EVERY);
        let at = after.unwrap_or(self.now).max(self.now);
        self.timers.set_earlier(Timer::Head, at);
    }

    pub(super) fn hide_head(&mut self) {
        self.own.head = None;
    }

    pub(super) fn on_head_timer(&mut self) {
        self.own.head_told = Some(self.now);
        for link in self.links.ids() {
            self.send_head(link);
        }
    }

    pub(super) fn send_head(&mut self, link: LinkId) {
        if let Some(head) = &self.own.head {
            let frame = wire::heads([(self.me, head.note.as_str())].into_iter());
            self.send(link, frame);
        }
    }

    pub(super) fn on_heads(&mut self, link: LinkId, heads: &[(Key, &str)]) {
        let Some(peer) = self.links.get(link).map(|link| Key::of(&link.peer)) else {
            return;
        };
        for (origin, note) in heads {
            if *origin == self.me {
                continue;
            }
            let step = self.book.observe(origin, note, *origin == peer);
            self.on_step(origin, step);
            self.convict_found();
            if !self.book.awaits(origin) {
                self.ask(origin);
            }
        }
    }

    /// Asks the origin of a log what is open, if it is linked; and again until it answers.
    pub(super) fn ask(&mut self, key: &Key) {
        self.timers.clear(Timer::Proof(*key));
        if !self.book.is_open(key) {
            return;
        }
        let Some(link) = self.links.best(&self.config.me, key) else {
            return;
        };
        if let Some(question) = self.book.question(key) {
            self.send(link, wire::ask(question));
            let pause = self.rng.between(PROOF_RETRY, PROOF_RETRY * 2);
            let at = self.now + pause.min(PROOF_RETRY_MAX);
            self.timers.set(Timer::Proof(*key), at);
        }
        if let Some(evidence) = self.book.unanswered(key)
            && let Some(node) = self.book.node(key)
        {
            self.event(Event::Unanswered { node, evidence });
        }
    }

    /// Passes a peer's question on to the own log.
    pub(super) fn on_ask(&mut self, link: LinkId, question: Question) {
        let sensible = 0 < question.from && question.from <= question.to;
        if !sensible || !self.may_ask(link) || self.tickets.len() >= TICKETS_MAX {
            let answer = if sensible {
                CannotProve::Later
            } else {
                CannotProve::Range
            };
            self.send(link, wire::answer(question.id, &Err(answer)));
            return;
        }
        self.ticket_numbers += 1;
        let ticket = ProofTicket(self.ticket_numbers);
        self.tickets.insert(ticket, (link, question.id));
        self.out.push(Out::Prove {
            ticket,
            from: question.from,
            to: question.to,
        });
    }

    pub(super) fn on_proof(&mut self, ticket: ProofTicket, answer: Result<Vec<Hash>, CannotProve>) {
        if let Some((link, id)) = self.tickets.remove(&ticket) {
            self.send(link, wire::answer(id, &answer));
        }
    }

    pub(super) fn on_answer(
        &mut self,
        link: LinkId,
        id: u32,
        answer: Result<Vec<Hash>, CannotProve>,
    ) {
        let Some(peer) = self.links.get(link).map(|link| Key::of(&link.peer)) else {
            return;
        };
        let step = self.book.answer(&peer, id, answer);
        self.on_step(&peer, step);
        if !self.book.awaits(&peer) {
            self.ask(&peer);
        }
    }

    /// Tells what a head, an answer or an alarm has led to.
    pub(super) fn on_step(&mut self, key: &Key, step: Step) {
        let Some(node) = self.book.node(key) else {
            return;
        };
        match step {
            Step::None => return,
            Step::Accepted(head) => self.event(Event::HeadAccepted { node, head }),
            Step::Mended(head) => self.event(Event::Mended { node, head }),
            Step::Replaced(epoch) => self.event(Event::LogReplaced { node, epoch }),
            Step::Inconsistent(why, evidence) => {
                self.timers.clear(Timer::Proof(*key));
                self.raise_alarm(key, why, &evidence);
                self.event(Event::Inconsistent {
                    node,
                    why,
                    evidence,
                });
            }
        }
        self.persist_soon();
    }

    /// Tells everyone of a verdict; nobody accuses itself.
    fn raise_alarm(&mut self, key: &Key, why: Why, evidence: &Evidence) {
        if *key == self.me {
            return;
        }
        let by = (&self.config.me, self.crypto.as_ref());
        let alarm: HeldAlarm = Arc::new(Alarm::sign(*key, by, (why, evidence)));
        // Kept or not: whoever hears it can check the notes.
        self.book.alarm(&alarm);
        self.push_alarm(alarm, None);
    }

    pub(super) fn on_alarms(&mut self, link: LinkId, alarms: Vec<Alarm>) {
        let mut news = false;
        for alarm in alarms {
            match self.on_alarm(link, alarm) {
                Ok(new) => news |= new,
                Err(ForgedAlarm) => {
                    self.offend(link, Offence::ForgedClaim);
                    return;
                }
            }
        }
        if let Some(link) = self.links.get_mut(link) {
            link.sync.idle = if news {
                0
            } else {
                link.sync.idle.saturating_add(1)
            };
        }
    }

    /// Takes one alarm. Returns whether it was news.
    fn on_alarm(&mut self, link: LinkId, alarm: Alarm) -> Result<bool, ForgedAlarm> {
        let known = self.book.has_alarm(&alarm);
        let weighs = known && self.book.may_convict(&alarm);
        if (known && !weighs) || alarm.reporter == self.me || alarm.reporter == alarm.accused {
            return Ok(false);
        }
        let now = self.now;
        let reporter = self.table.get_mut(&alarm.reporter);
        let Some(reporter) = reporter.filter(|reporter| !reporter.hearsay) else {
            return Ok(false);
        };
        let by = reporter.id;
        if !reporter.claims.take(CLAIMS_PER_NODE, now) {
            return Ok(false);
        }
        if !alarm.verify(&by, self.crypto.as_ref()) {
            return Err(ForgedAlarm);
        }
        let alarm: HeldAlarm = Arc::new(alarm);
        if weighs {
            let step = self.book.weigh(&alarm);
            self.on_step(&alarm.accused, step);
            self.convict_found();
            return Ok(false);
        }
        let (news, step) = self.book.alarm(&alarm);
        if !news {
            return Ok(false);
        }
        let key = alarm.accused;
        if let Some(node) = self.book.node(&key) {
            let why = alarm.why;
            self.event(Event::InconsistencyReported { node, by, why });
        }
        self.push_alarm(alarm, Some(link));
        self.persist_soon();
        self.on_step(&key, step);
        self.convict_found();
        self.ask(&key);
        Ok(true)
    }
}

/// An alarm that its reporter has not signed.
#[derive(Debug)]
struct ForgedAlarm;
