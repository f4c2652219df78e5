//! One round of questions about the own log, from the first to what comes of it.

mod bringing_back;

use std::collections::BTreeSet;

use openfang_audit::inquiry::{Acquaintance, Doubt, Inquiry, Signing};
use openfang_audit::{Log, Origin};
use openfang_id::NodeId;
use openfang_mesh::{Liveness, Mesh, View};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::asking::{Notes, ask};
use super::{Anew, Cause, Comparison, Ended, Found, OwnLog, compare};

/// What became of a question.
struct Told {
    node: NodeId,
    notes: Option<Notes>,
}

pub(super) struct Round<'a> {
    own: &'a OwnLog,
    log: &'a Log,
    shown: &'a watch::Sender<Signing>,
    found: Found,
    doubt: Doubt,
    /// How often the log had come into doubt when this began.
    seen: u64,
    inquiry: Inquiry,
    began: Instant,
    /// It does not end well before this.
    least: Instant,
    asked: JoinSet<Told>,
    /// Whether the own witness has said what it knows.
    has_told_itself: bool,
    /// When what was lost is looked for next.
    try_at: Option<Instant>,
    /// Who is known, and since when there was nobody new.
    met: (BTreeSet<NodeId>, Instant),
    /// Who has left the mesh: they may come back.
    left: Vec<NodeId>,
    /// How often what was lost was looked for.
    tries: usize,
    /// Whether all known heads were compared with the log.
    compared: bool,
    /// Whether a peer was just joined.
    joined: bool,
    /// Whether it was said that this waits for nodes that are not there.
    told_waiting: bool,
}

enum Verdict {
    Sign,
    Anew(Anew),
}

impl<'a> Round<'a> {
    pub(super) async fn begin(own: &'a OwnLog, cause: &Cause, seen: u64) -> Self {
        let mut inquiry = own.inquiry(cause.doubt);
        // A log without a past has no witnesses: they are those of the one before.
        let mut asked = JoinSet::new();
        let has_past = cause.found != Found::New;
        if has_past {
            let (me, notes) = (own.me.0, own.own_notes());
            asked.spawn(async move {
                let cosigned = notes.await;
                let notes = Notes {
                    cosigned,
                    ..Notes::default()
                };
                let notes = Some(notes);
                Told { node: me, notes }
            });
            let written = own.written().await;
            for note in written.notes.iter().chain(&cause.heads) {
                inquiry.learn(me, [note.as_str()].into_iter());
            }
            inquiry.set_sworn(written.sworn);
        }
        let now = Instant::now();
        Self {
            own,
            log: own.doubts.log(),
            shown: own.doubts.signing(),
            found: cause.found,
            doubt: cause.doubt,
            seen,
            inquiry,
            began: now,
            least: now + cause.least,
            asked,
            has_told_itself: !has_past,
            try_at: None,
            met: (BTreeSet::new(), now),
            left: Vec::new(),
            tries: 0,
            compared: false,
            joined: cause.joined,
            told_waiting: false,
        }
    }

    pub(super) async fn run(mut self, stop: &CancellationToken) -> Ended {
        let mut views = self.own.mesh.changed();
        let mut changes = self.own.doubts.changes();
        self.on_view(&views.borrow_and_update().clone());
        loop {
            changes.mark_unchanged();
            if self.own.doubts.seen() != Some(self.seen) {
                return Ended::Again;
            }
            self.ask_those_due();
            match self.judge().await {
                Some(Verdict::Sign) => return self.own.free(self.seen).await,
                Some(Verdict::Anew(anew)) => return Ended::Anew(anew),
                None => {}
            }
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                Some(told) = self.asked.join_next() => {
                    if let Ok(told) = told {
                        self.on_told(told);
                    }
                }
                changed = views.changed() => match changed {
                    Ok(()) => self.on_view(&views.borrow_and_update().clone()),
                    Err(_mesh_is_gone) => return Ended::Stopped,
                },
                Ok(()) = changes.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn on_view(&mut self, view: &View) {
        let others = view.nodes.iter().filter(|node| node.id != view.me);
        let (left, there): (Vec<_>, Vec<_>) =
            others.partition(|node| node.liveness == Liveness::Left && !self.own.strict);
        let known = Acquaintance {
            nodes: there
                .iter()
                .map(|node| (node.id, node.liveness.is_reachable()))
                .collect(),
            more: self.own.expects_peers || self.joined,
        };
        self.left = left.iter().map(|node| node.id).collect();
        self.inquiry.set_known(&known);
        let met: BTreeSet<NodeId> = self.inquiry.known().copied().collect();
        if met != self.met.0 {
            self.met = (met, Instant::now());
        }
        self.show();
    }

    fn show(&self) {
        let (answered, needed) = self.inquiry.answered();
        self.shown.send_if_modified(|standing| {
            let now = match self.is_waiting() {
                true => Signing::Waiting {
                    answered,
                    needed,
                    silent: self.inquiry.waited_for(),
                },
                false => Signing::Asking { answered, needed },
            };
            let asks = matches!(standing, Signing::Asking { .. } | Signing::Waiting { .. });
            let asking = asks && *standing != now;
            if asking {
                *standing = now;
            }
            asking
        });
    }

    /// Tells whether everybody who is there has had the time to answer, and not all have.
    fn is_waiting(&self) -> bool {
        let in_doubt = self.doubt == Doubt::Reasonable && !self.inquiry.have_all_answered();
        in_doubt && self.has_met_all()
    }

    fn ask_those_due(&mut self) {
        for node in self.inquiry.due(self.began.elapsed()) {
            let origin = self.log.origin().clone();
            let asked = told_by(self.own.mesh.clone(), node, origin);
            let within = self.own.pace.answer;
            self.asked.spawn(async move {
                let told = tokio::time::timeout(within, asked).await;
                told.unwrap_or(Told { node, notes: None })
            });
        }
    }

    fn on_told(&mut self, told: Told) {
        self.has_told_itself |= told.node == self.own.me.0;
        match told.notes {
            Some(notes) => {
                let copied = notes.copied.iter().map(String::as_str);
                self.inquiry.learn(told.node, copied);
                let cosigned = notes.cosigned.iter().map(String::as_str);
                self.inquiry.on_answer(told.node, cosigned);
                self.compared = false;
            }
            None => self.inquiry.on_failure(&told.node, self.began.elapsed()),
        }
        self.show();
    }

    fn wake_at(&self) -> Option<Instant> {
        let next = self.inquiry.next(self.began.elapsed());
        let next = next.map(|next| self.began + next);
        let times = [self.least, self.all_met_at()];
        let later = times.into_iter().filter(|at| *at > Instant::now());
        next.into_iter().chain(self.try_at).chain(later).min()
    }

    /// Returns from when on those who are known count for all there are.
    fn all_met_at(&self) -> Instant {
        let (met, since) = &self.met;
        let pace = &self.own.pace;
        let least = if met.is_empty() {
            pace.lonely
        } else {
            pace.meet
        };
        (self.began + least).max(*since + pace.quiet)
    }

    fn has_met_all(&self) -> bool {
        Instant::now() >= self.all_met_at()
    }

    /// Tells whether enough have answered. In doubt that is everybody, and the first who answer are not
    /// everybody: they tell of others.
    fn have_all_told(&self) -> bool {
        let is_done = self.inquiry.is_done(self.began.elapsed());
        is_done && (self.doubt == Doubt::None || self.has_met_all())
    }

    /// Tells whether there is nobody who could know anything.
    fn is_alone(&self) -> bool {
        let nobody_knew = self.inquiry.sworn().next().is_none() && !self.own.expects_peers;
        self.met.0.is_empty() && self.left.is_empty() && nobody_knew
    }

    async fn judge(&mut self) -> Option<Verdict> {
        let is_known = self.inquiry.heads().next().is_some();
        if let Some(epoch) = self.inquiry.later_epoch() {
            let found = Found::Gone;
            return Some(Verdict::Anew(Anew::Follow { epoch, found }));
        }
        if self.found == Found::New && is_known {
            let (epoch, found) = (self.log.epoch(), Found::Gone);
            return Some(Verdict::Anew(Anew::Follow { epoch, found }));
        }
        if !self.compared && is_known {
            let heads = self.inquiry.heads().map(|(head, _)| head.clone()).collect();
            match compare(self.log, heads).await {
                Comparison::Same => {
                    self.compared = true;
                    self.try_at = None;
                }
                Comparison::Missing(head) => return self.bring_back(head).await,
                Comparison::Unknown => return None,
                Comparison::Contradicts(size) => {
                    self.contradicted(size).await;
                    return None;
                }
            }
        }
        let is_done = self.has_told_itself && self.have_all_told();
        self.show();
        self.say_who_is_waited_for(is_done);
        if self.found == Found::Gone && !is_known {
            let nobody_has_it = self.is_alone() || (is_done && self.left.is_empty());
            let anew = Verdict::Anew(Anew::Next { last: None });
            let is_over = self.has_met_all() && self.has_told_itself;
            return (is_over && nobody_has_it).then_some(anew);
        }
        (is_done && Instant::now() >= self.least).then_some(Verdict::Sign)
    }

    /// Says once who has to answer before anything is signed.
    fn say_who_is_waited_for(&mut self, is_done: bool) {
        let in_doubt = self.doubt == Doubt::Reasonable && !is_done;
        if self.told_waiting || !in_doubt || !self.has_met_all() {
            return;
        }
        self.told_waiting = true;
        let away = |node: &&NodeId| !self.met.0.contains(node);
        let away: Vec<String> = self
            .inquiry
            .sworn()
            .filter(away)
            .map(NodeId::fmt_short)
            .collect();
        let silent: Vec<String> = self.inquiry.silent().map(NodeId::fmt_short).collect();
        let (answered, needed) = self.inquiry.answered();
        tracing::warn!(
            answered,
            needed,
            silent = silent.join(" "),
            away = away.join(" "),
            "nothing is signed before all who are known and all who have witnessed the audit log have shown \
             what they know of it: start them. The mesh forgets a node that is away for a day; a witness that it \
             has forgotten is waited for until audit.d/policy is removed and the node restarted"
        );
    }
}

async fn told_by(mesh: Mesh, node: NodeId, origin: Origin) -> Told {
    let notes = ask(&mesh, node, &origin).await;
    Told { node, notes }
}
