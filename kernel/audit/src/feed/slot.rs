//! One mirror of the log: what it is being asked, and what it has said.

use std::sync::Arc;
use std::time::Duration;

use openfang_id::NodeId;

use super::{Candidate, Head, Held, MirrorStatus, Outcome, Pace, Proven, Standing, Step, What};
use crate::checkpoint::parse_decimal;
use crate::cosign::CosignerKey;
use crate::mirror::MirrorInfo;
use crate::note::NoteError;

/// How long a mirror is left alone after a first failure; twice as long after each further one.
const RETRY: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often in a row a mirror may say that it stands elsewhere, before that counts as a failure.
const CONFLICTS_MAX: u32 = 8;
/// How many entries that were not shown are asked for again.
const AGAIN_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) node: NodeId,
    pub(super) key: CosignerKey,
    pub(super) former: bool,
    pub(super) held: Option<Held>,
    /// Since when it cannot be reached.
    pub(super) away_since: Option<Duration>,
    phase: Phase,
    /// Whether an answer is awaited.
    asked: bool,
    /// The size of the head it is believed to have taken last.
    old: u64,
    /// The first entry it does not have, as far as is known.
    next: Option<u64>,
    ticket: Vec<u8>,
    /// Not before this, since the start of the process.
    wait_until: Duration,
    failures: u32,
    conflicts: u32,
    standing: Standing,
    proven: Proven,
    /// The same for challenges.
    challenged: bool,
    pub(super) challenge_at: Duration,
    /// Entries it could not show.
    again: Vec<u64>,
}

/// Where an upload stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// There is none.
    Idle,
    /// It was asked to take this head.
    Offering(Arc<Head>),
    /// It has taken this head, and takes entries.
    Uploading(Arc<Head>),
}

impl Slot {
    pub(super) fn new(node: NodeId, key: CosignerKey) -> Self {
        Self {
            node,
            key,
            former: false,
            held: None,
            away_since: None,
            phase: Phase::Idle,
            asked: false,
            old: 0,
            next: None,
            ticket: Vec::new(),
            wait_until: Duration::ZERO,
            failures: 0,
            conflicts: 0,
            standing: Standing::New,
            proven: Proven::Unasked,
            challenged: false,
            challenge_at: Duration::ZERO,
            again: Vec::new(),
        }
    }

    pub(super) fn is_of(&self, candidate: &Candidate) -> bool {
        self.node == candidate.node && self.key == candidate.key
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.old = self.old.max(held.size);
        self.held = Some(held);
    }

    pub(super) fn set_former(&mut self, former: bool) {
        if former && !self.former {
            self.phase = Phase::Idle;
            self.asked = false;
        }
        self.former = former;
    }

    pub(super) fn status(&self) -> MirrorStatus {
        MirrorStatus {
            node: self.node,
            key: self.key.clone(),
            size: self.held.as_ref().map_or(0, |held| held.size),
            time: self.held.as_ref().map(|held| held.time),
            standing: self.standing,
            former: self.former,
            proven: self.proven,
        }
    }

    /// Returns what is to be sent to it now.
    pub(super) fn upload(&mut self, newest: Option<&Arc<Head>>, now: Duration) -> Option<What> {
        if !self.wants(newest?) || self.wait_until > now {
            return None;
        }
        self.asked = true;
        if let Phase::Uploading(head) = &self.phase {
            return Some(What::Entries {
                start: self.next.unwrap_or(head.size).min(head.size),
                end: head.size,
                ticket: self.ticket.clone(),
            });
        }
        let head = newest?;
        self.phase = Phase::Offering(Arc::clone(head));
        Some(What::Checkpoint {
            old: self.old.min(head.size),
            size: head.size,
            note: head.note.clone(),
        })
    }

    /// Returns whether it is to be challenged now.
    pub(super) fn challenge(&mut self, now: Duration) -> Option<What> {
        let held = self.held.as_ref()?;
        if self.challenged || self.challenge_at > now {
            return None;
        }
        self.challenged = true;
        Some(What::Challenge {
            size: held.size,
            root: held.root,
            again: self.again.clone(),
        })
    }

    pub(super) fn next(&self, newest: Option<&Arc<Head>>) -> Option<Duration> {
        let upload = newest.is_some_and(|newest| self.wants(newest));
        let challenge = self.held.is_some() && !self.challenged;
        let upload = upload.then_some(self.wait_until);
        upload
            .into_iter()
            .chain(challenge.then_some(self.challenge_at))
            .min()
    }

    fn wants(&self, newest: &Head) -> bool {
        let under_way = matches!(self.phase, Phase::Uploading(_));
        let held = self.held.as_ref().map_or(0, |held| held.size);
        !self.former && !self.asked && (under_way || held != newest.size)
    }

    /// Tells whether this is what it is being asked.
    pub(super) fn is_asked(&self, what: &What) -> bool {
        let size = match (&self.phase, what) {
            (Phase::Offering(head), What::Checkpoint { size, .. }) => head.size == *size,
            (Phase::Uploading(head), What::Entries { end, .. }) => head.size == *end,
            (Phase::Idle | Phase::Offering(_) | Phase::Uploading(_), _) => false,
        };
        self.asked && size
    }

    pub(super) fn on_answer(
        &mut self,
        what: &What,
        answer: Option<(u16, &[u8])>,
        (longest, now, pace): (u64, Duration, &Pace),
    ) -> Step {
        self.asked = false;
        let Some((status, body)) = answer else {
            // What was begun goes on from there when it is back.
            self.fail(Standing::Unreachable, now);
            return Step::None;
        };
        match (what, status) {
            (What::Checkpoint { size, .. }, 200) => {
                self.old = *size;
                if let Phase::Offering(head) = &self.phase {
                    self.phase = Phase::Uploading(Arc::clone(head));
                }
                Step::None
            }
            (What::Checkpoint { .. }, 409) => {
                self.phase = Phase::Idle;
                match latest_of(body) {
                    Some(latest) => self.stands_elsewhere(latest, longest, now),
                    None => self.refuse(Standing::Invalid, now),
                }
            }
            (What::Entries { end, .. }, 200) => self.on_complete(*end, body, (now, pace)),
            (What::Entries { start, end, .. }, 202 | 409) => {
                let text = std::str::from_utf8(body).ok();
                match text.and_then(|text| text.parse::<MirrorInfo>().ok()) {
                    Some(info) => self.on_info(info, (*start, *end), (status, longest, now)),
                    None => self.refuse(Standing::Invalid, now),
                }
            }
            // It has too much to do: what was begun goes on later.
            (_, status @ (429 | 503)) => {
                self.fail(Standing::Refused(status), now);
                Step::None
            }
            (_, 507) => self.refuse(Standing::Full, now),
            (_, status) => self.refuse(Standing::Refused(status), now),
        }
    }

    fn on_complete(&mut self, end: u64, body: &[u8], (now, pace): (Duration, &Pace)) -> Step {
        let Phase::Uploading(head) = self.phase.clone() else {
            return Step::None;
        };
        match self.collect(&head, body) {
            Ok(held) => {
                if self.held.is_none() {
                    self.challenge_at = now + pace.challenge_every / 2;
                }
                self.hold(held);
                self.phase = Phase::Idle;
                self.next = Some(end);
                (self.failures, self.conflicts) = (0, 0);
                self.wait_until = now + pace.upload_every;
                self.standing = Standing::Holding;
                Step::Held
            }
            Err(_why) => self.refuse(Standing::Invalid, now),
        }
    }

    /// Takes where the mirror stands.
    fn on_info(
        &mut self,
        info: MirrorInfo,
        (start, end): (u64, u64),
        (status, longest, now): (u16, u64, Duration),
    ) -> Step {
        self.ticket = info.ticket;
        if info.size != end {
            // The head of this upload is not pending any more.
            self.phase = Phase::Idle;
            self.next = Some(info.next_entry);
            return self.stands_elsewhere(info.size, longest, now);
        }
        let next = info.next_entry.min(end);
        if next == start || (status == 202 && next < start) {
            return self.refuse(Standing::Refused(status), now);
        }
        self.next = Some(next);
        self.standing = Standing::Uploading(next);
        if status == 202 {
            (self.failures, self.conflicts) = (0, 0);
            self.wait_until = Duration::ZERO;
            return Step::None;
        }
        self.conflict(now)
    }

    /// The mirror has taken another head than it was believed to. It is believed, and asked again at once.
    fn stands_elsewhere(&mut self, latest: u64, longest: u64, now: Duration) -> Step {
        if latest > longest {
            self.refuse(Standing::Ahead(latest), now);
            return Step::Behind { latest };
        }
        self.old = latest;
        self.conflict(now)
    }

    fn conflict(&mut self, now: Duration) -> Step {
        self.conflicts += 1;
        if self.conflicts > CONFLICTS_MAX {
            return self.refuse(Standing::Refused(409), now);
        }
        Step::None
    }

    fn collect(&self, head: &Head, body: &[u8]) -> Result<Held, NoteError> {
        let body = std::str::from_utf8(body).map_err(|_not_text| NoteError::Form)?;
        let mut note = head.note.clone();
        let time = self.key.collect(&mut note, body)?;
        Ok(Held {
            size: head.size,
            root: head.root,
            time,
            note,
        })
    }

    /// Begins anew, later.
    fn refuse(&mut self, why: Standing, now: Duration) -> Step {
        self.phase = Phase::Idle;
        self.next = None;
        self.conflicts = 0;
        self.fail(why, now);
        Step::None
    }

    fn fail(&mut self, why: Standing, now: Duration) {
        let pause = RETRY.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.wait_until = now + pause.min(RETRY_MAX);
        self.standing = why;
    }

    pub(super) fn on_challenged(&mut self, outcome: Outcome, next: Duration) {
        self.challenged = false;
        self.challenge_at = next;
        match outcome {
            Outcome::Shown => {
                self.again.clear();
                self.proven = Proven::Shown;
            }
            // Silence does not clear what was found.
            Outcome::Unanswered if self.proven == Proven::Failed => {}
            Outcome::Unanswered => self.proven = Proven::Unproven,
            Outcome::Wrong(indexes) => {
                self.again = indexes;
                self.again.truncate(AGAIN_MAX);
                self.proven = Proven::Failed;
            }
        }
    }
}

/// Reads the body of a 409 to a head: a size.
fn latest_of(body: &[u8]) -> Option<u64> {
    let line = body.strip_suffix(b"\n")?;
    parse_decimal(std::str::from_utf8(line).ok()?)
}
