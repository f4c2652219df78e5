//! The kernel's way into the audit log: asynchronous, bounded, and never silent.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use openfang_audit::collect::{Cosigned, Witnessing};
use openfang_audit::inquiry::Signing;
use openfang_audit::policy::Strength;
use openfang_audit::{
    Ack, AppendError, Cause, Event, Flush, Health, Kind, Log, Origin, Outcome, Public, Seq,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use crate::tasks::ignore_gone;

/// How many entries may wait to become durable: more callers than this wait for a place. Below what
/// the queue of the log holds, so that [`Auditor::note`] finds room beside them.
const WAITING_MAX: usize = 2048;

/// How long an entry may wait for the witnesses.
const COSIGNED_WITHIN: Duration = Duration::from_secs(10);
/// How long where there are too few of them for one to be away: each of them could prevent everything.
const COSIGNED_WITHIN_BY_FEW: Duration = Duration::from_secs(2);

/// How long a change waits for the log to be signed. A log that nothing is wrong with is, ten seconds after the
/// start at the latest, whoever is away.
const SIGNED_WITHIN: Duration = Duration::from_secs(12);

/// What an entry must be before what it is about is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Taken by the operating system, and on the disk within this time: a machine that loses its power
    /// in between has done what its log does not tell.
    Interval(Duration),
    /// On the disk.
    Durable,
    /// Under a head that a quorum of the witnesses has cosigned, as far as there are any.
    Quorum,
}

/// What entries must be, and who tells that they are.
#[derive(Debug, Clone)]
pub struct Demands {
    /// What most entries must be.
    pub ordinary: Durability,
    /// What entries must be that change what the node is, lets in or may do ([`Kind::is_change`]).
    pub changes: Durability,
    /// How it stands with the witnesses.
    pub witnessing: watch::Receiver<Witnessing>,
    /// Whether the log is signed: as long as it is not, its last entries may have to make room.
    pub signing: watch::Receiver<Signing>,
}

impl Demands {
    /// Returns what an entry must be. Of its own start and end a node tells itself.
    fn of(&self, kind: Kind) -> Durability {
        if kind.is_change() {
            self.changes
        } else if matches!(kind, Kind::NodeStart | Kind::NodeStop | Kind::EpochStart) {
            Durability::Durable
        } else {
            self.ordinary
        }
    }
}

/// Why an entry is not known to be in the log. What it was about must not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log refused it, or could not make it durable.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log went away without an answer.
    #[error("the audit log gave no answer")]
    Lost,
    /// The log is not signed, because peers may know more of it than there is: an entry about a change might
    /// have to make room, and the change would stand in no log.
    #[error(
        "peers have not said yet what they know of the audit log of this node: an entry about a change might \
         have to make room for others"
    )]
    InDoubt,
    /// The log has two histories and is not signed any more: nobody could ever check an entry about a change.
    #[error("the audit log of this node has signed two histories, and signs nothing more")]
    Contradicted,
    /// It is in the log, and the witnesses have not cosigned it. One that says so comes after it.
    #[error(
        "entry {} was cosigned by too few witnesses in time: {needed} of {witnesses} have to",
        seq.0
    )]
    NotCosigned {
        /// Which entry.
        seq: Seq,
        /// How many witnesses have to cosign.
        needed: usize,
        /// How many there are.
        witnesses: usize,
    },
    /// It is in the log, and the log did not come to sign a head over it: nobody was asked to cosign one. Another
    /// entry says that it was not done.
    #[error(
        "entry {} is under no signed head: {}", seq.0, unsigned(*kind)
    )]
    NotSigned {
        /// Which entry.
        seq: Seq,
        /// Why the log is not written, where that is known.
        kind: Option<ErrorKind>,
    },
}

fn unsigned(kind: Option<ErrorKind>) -> String {
    match kind {
        Some(kind) => format!("the audit log cannot be written: {kind}"),
        None => "the audit log was not signed in time".to_owned(),
    }
}

/// Where entries go. [`Log`] is the one that counts; tests have others.
pub trait Sink: Send + Sync + 'static {
    /// Queues an entry without blocking; `ack` is called once, when it is as safe as `flush` says or has
    /// failed.
    ///
    /// # Errors
    /// When it was not queued; `ack` is not called then.
    fn append(&self, event: Event, flush: Flush, ack: Ack) -> Result<(), AppendError>;

    /// Returns the name of the log.
    fn origin(&self) -> &Origin;

    /// Tells whether an entry is under a head that the log has signed.
    fn has_signed(&self, _seq: Seq) -> bool {
        true
    }

    /// Tells why the log is not written now, if so.
    fn failing(&self) -> Option<ErrorKind> {
        None
    }
}

impl Sink for Log {
    fn append(&self, event: Event, flush: Flush, ack: Ack) -> Result<(), AppendError> {
        self.append_with(event, flush, ack)
    }

    fn origin(&self) -> &Origin {
        Self::origin(self)
    }

    fn has_signed(&self, seq: Seq) -> bool {
        self.signed_size() > seq.0
    }

    fn failing(&self) -> Option<ErrorKind> {
        match self.health() {
            Health::Failing { kind } => Some(kind),
            Health::Ok | Health::Damaged { .. } | Health::Poisoned { .. } => None,
        }
    }
}

/// Writes entries into the audit log of the node; cheap to clone.
#[derive(Clone)]
pub struct Auditor(Option<Arc<Inner>>);

struct Inner {
    sink: Box<dyn Sink>,
    places: Semaphore,
    demands: Option<Demands>,
}

impl Auditor {
    /// For an open log; every entry must be on the disk, and no more.
    #[must_use]
    pub fn new(sink: impl Sink) -> Self {
        Self::demanding(sink, None)
    }

    /// For an open log, whose entries must be what is demanded.
    #[must_use]
    pub fn with(sink: impl Sink, demands: Demands) -> Self {
        Self::demanding(sink, Some(demands))
    }

    fn demanding(sink: impl Sink, demands: Option<Demands>) -> Self {
        Self(Some(Arc::new(Inner {
            sink: Box::new(sink),
            places: Semaphore::new(WAITING_MAX),
            demands,
        })))
    }

    /// For a node whose audit log is switched off: everything is allowed, nothing is written.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Writes an entry and waits until it is what is demanded of its kind. `None` when the log is switched
    /// off. What is changed by somebody who asks for it is announced instead ([`Auditor::announce`]).
    ///
    /// Cancel safety: an entry that was queued may become durable although nobody waits for it; one that
    /// waits for witnesses is then followed by another, which says that it was not done.
    ///
    /// # Errors
    /// When the entry is not known to be what it must be: what it is about must not be done.
    pub async fn record(&self, event: Event) -> Result<Option<Seq>, AuditError> {
        let Some(inner) = &self.0 else {
            return Ok(None);
        };
        match self.demanded(event.kind()) {
            Durability::Interval(time) => inner.append(event, Flush::Within(time)).await.map(Some),
            Durability::Durable => inner.append(event, Flush::AtOnce).await.map(Some),
            quorum @ Durability::Quorum => {
                let announced = inner.announce(self, event, quorum).await?;
                Ok(announced.done())
            }
        }
    }

    /// Writes an entry about a change that somebody asks for, and waits until it is what is demanded of its
    /// kind. Only with what this returns may the change be made; unless that is told that it was, another
    /// entry follows which says that it was not. As long as the log is not signed nothing is changed; that is
    /// waited for, for a moment.
    ///
    /// Cancel safety: when this is dropped, an entry that was queued is followed by the other one.
    ///
    /// # Errors
    /// When the entry is not known to be what it must be: the change must not be made.
    pub async fn announce(&self, event: Event) -> Result<Announced, AuditError> {
        let Some(inner) = &self.0 else {
            return Ok(Announced::in_no_log());
        };
        inner.signed().await?;
        let demanded = self.demanded(event.kind());
        let mut announced = inner.announce(self, event, demanded).await?;
        // It may have come into doubt meanwhile.
        if let Err(why) = inner.doubt() {
            announced.why = Why::InDoubt;
            return Err(why);
        }
        Ok(announced)
    }

    /// As [`Auditor::announce`], for what must be possible while the log is in doubt: what ends the doubt, and
    /// what was changed while the node did not run, of which it only takes note. Nobody cosigns such a log,
    /// and so nobody is waited for.
    ///
    /// Cancel safety: as [`Auditor::announce`].
    ///
    /// # Errors
    /// As [`Auditor::announce`].
    pub async fn announce_in_doubt(&self, event: Event) -> Result<Announced, AuditError> {
        let Some(inner) = &self.0 else {
            return Ok(Announced::in_no_log());
        };
        let demanded = match inner.doubt() {
            Ok(()) => self.demanded(event.kind()),
            Err(_in_doubt) => Durability::Durable,
        };
        inner.announce(self, event, demanded).await
    }

    /// Waits until an entry that is on the disk is what is demanded of its kind.
    ///
    /// # Errors
    /// When it does not become that: what it is about must not be done.
    pub async fn settled(&self, kind: Kind, seq: Seq) -> Result<(), AuditError> {
        match &self.0 {
            Some(inner) => inner.settled(self.demanded(kind), seq).await,
            None => Ok(()),
        }
    }

    /// Returns what an entry must be.
    fn demanded(&self, kind: Kind) -> Durability {
        let demands = self.0.as_ref().and_then(|inner| inner.demands.as_ref());
        demands.map_or(Durability::Durable, |demands| demands.of(kind))
    }

    /// Writes an entry about something that has happened already and cannot be refused any more.
    /// Does not wait; a failure is logged with the kind of the entry.
    pub fn note(&self, event: Event) {
        let Some(inner) = &self.0 else {
            return;
        };
        let kind = event.kind();
        let flush = match self.demanded(kind) {
            // Nobody waits for it: it is signed with the next head.
            Durability::Quorum => Flush::AtOnce,
            demanded @ (Durability::Interval(_) | Durability::Durable) => flush_of(demanded),
        };
        let ack: Ack = Box::new(move |durable| {
            if let Err(why) = durable {
                tracing::error!(audit.ev = %kind, %why, "an entry is not in the audit log");
            }
        });
        if let Err(why) = inner.sink.append(event, flush, ack) {
            tracing::error!(audit.ev = %kind, %why, "an entry is not in the audit log");
        }
    }

    /// Returns how other logs point at an entry of this one.
    #[must_use]
    pub fn cause(&self, seq: Option<Seq>) -> Option<Cause> {
        let inner = self.0.as_ref()?;
        Some(Cause {
            origin: inner.sink.origin().clone(),
            seq: seq?.0,
        })
    }
}

impl Inner {
    /// Writes an entry and waits until it is answered.
    async fn append(&self, event: Event, flush: Flush) -> Result<Seq, AuditError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_closed| AuditError::Lost)?;
        let (answer, result) = oneshot::channel();
        let ack: Ack = Box::new(move |durable| {
            // Whoever waited may have gone away: the entry is written all the same.
            ignore_gone(answer.send(durable));
        });
        self.sink.append(event, flush, ack)?;
        Ok(result.await.map_err(|_lost| AuditError::Lost)??)
    }

    /// Writes an entry about a change. Whoever drops the answer, here, on its way, or later, has the log say that
    /// the change was not made.
    async fn announce(
        &self,
        auditor: &Auditor,
        event: Event,
        demanded: Durability,
    ) -> Result<Announced, AuditError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_closed| AuditError::Lost)?;
        let (answer, result) = oneshot::channel();
        let flush = flush_of(demanded);
        let (auditor, announced) = (auditor.clone(), event.clone());
        let ack: Ack = Box::new(move |durable: Result<Seq, AppendError>| {
            let answered = durable.map(|seq| Announced {
                auditor,
                entry: Some((seq, announced)),
                why: Why::Interrupted,
            });
            ignore_gone(answer.send(answered));
        });
        self.sink.append(event, flush, ack)?;
        let mut announced = result.await.map_err(|_lost| AuditError::Lost)??;
        if let Some(seq) = announced.seq()
            && let Err(why) = self.settled(demanded, seq).await
        {
            announced.why = match why {
                AuditError::NotSigned { .. } => Why::NotSigned,
                AuditError::NotCosigned { .. }
                | AuditError::Append(_)
                | AuditError::Lost
                | AuditError::InDoubt
                | AuditError::Contradicted => Why::NotCosigned,
            };
            return Err(why);
        }
        Ok(announced)
    }

    /// Waits until an entry that is on the disk is what is demanded.
    async fn settled(&self, demanded: Durability, seq: Seq) -> Result<(), AuditError> {
        let (Some(demands), Durability::Quorum) = (&self.demands, demanded) else {
            return Ok(());
        };
        let cosigned = cosigned(demands.witnessing.clone(), seq).await;
        // Witnesses are not to blame for a head that they were not shown.
        if cosigned.is_err() && !self.sink.has_signed(seq) {
            let kind = self.sink.failing();
            return Err(AuditError::NotSigned { seq, kind });
        }
        cosigned
    }

    /// Waits for the log to be signed.
    async fn signed(&self) -> Result<(), AuditError> {
        let Some(demands) = &self.demands else {
            return Ok(());
        };
        let mut signing = demands.signing.clone();
        let decided = |now: &Signing| matches!(now, Signing::Free | Signing::Contradicted { .. });
        // Whether it has come to that in time is looked at next.
        drop(timeout(SIGNED_WITHIN, signing.wait_for(decided)).await);
        self.doubt()
    }

    /// Tells whether the log is signed.
    fn doubt(&self) -> Result<(), AuditError> {
        let Some(demands) = &self.demands else {
            return Ok(());
        };
        match &*demands.signing.borrow() {
            Signing::Free => Ok(()),
            Signing::Asking { .. }
            | Signing::Waiting { .. }
            | Signing::Behind { .. }
            | Signing::Restoring { .. } => Err(AuditError::InDoubt),
            Signing::Contradicted { .. } => Err(AuditError::Contradicted),
        }
    }
}

/// A change that stands in the log, and is not made yet. Dropped before it was told that the change was made,
/// it has the log say that it was not.
#[must_use = "dropped, it says in the log that nothing was done"]
#[derive(Debug)]
pub struct Announced {
    auditor: Auditor,
    entry: Option<(Seq, Event)>,
    why: Why,
}

/// Why what was announced was not done.
#[derive(Debug)]
enum Why {
    /// Whoever was to do it was stopped before the end.
    Interrupted,
    /// Too few witnesses have cosigned the entry.
    NotCosigned,
    /// The log did not sign it.
    NotSigned,
    /// The log came into doubt.
    InDoubt,
    /// It was tried.
    Failed(String),
}

impl Announced {
    fn in_no_log() -> Self {
        Self {
            auditor: Auditor::disabled(),
            entry: None,
            why: Why::Interrupted,
        }
    }

    /// Returns the number of the entry; `None` when the log is switched off.
    #[must_use]
    pub fn seq(&self) -> Option<Seq> {
        self.entry.as_ref().map(|(seq, _)| *seq)
    }

    /// The change was made. Returns the number of the entry.
    pub fn done(mut self) -> Option<Seq> {
        self.entry.take().map(|(seq, _)| seq)
    }

    /// The change was tried, and not made: why, in words that anybody may read.
    pub fn failed(mut self, why: &str) {
        self.why = Why::Failed(why.to_owned());
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Some((seq, event)) = self.entry.take() else {
            return;
        };
        if let Some(cause) = self.auditor.cause(Some(seq)) {
            let outcome = match &self.why {
                Why::Interrupted => Outcome::Failed("interrupted".into()),
                Why::NotCosigned => Outcome::Denied("not cosigned".into()),
                Why::NotSigned => Outcome::Denied("not signed".into()),
                Why::InDoubt => Outcome::Denied("the log is in doubt".into()),
                Why::Failed(why) => Outcome::Failed(Public::text(why)),
            };
            self.auditor.note(event.not_done(&cause, outcome));
        }
    }
}

/// How an entry is written of which so much is demanded.
fn flush_of(demanded: Durability) -> Flush {
    match demanded {
        Durability::Interval(time) => Flush::Within(time),
        Durability::Durable => Flush::AtOnce,
        // Whose cosignatures are waited for is signed without delay.
        Durability::Quorum => Flush::Signed,
    }
}

/// Waits until a quorum has cosigned an entry. Without witnesses nobody is waited for; where there are too
/// few for one to be away, not for long, and not in the end.
async fn cosigned(mut witnessing: watch::Receiver<Witnessing>, seq: Seq) -> Result<(), AuditError> {
    if is_cosigned(&mut witnessing, seq, COSIGNED_WITHIN_BY_FEW).await {
        return Ok(());
    }
    let strength = witnessing.borrow().strength;
    if !matches!(strength, Strength::Prevents { .. }) {
        tracing::warn!(
            audit.seq = seq.0,
            "too few witnesses have cosigned a change, and it is made: with so few of them they detect, and \
             do not prevent"
        );
        return Ok(());
    }
    let left = COSIGNED_WITHIN - COSIGNED_WITHIN_BY_FEW;
    if is_cosigned(&mut witnessing, seq, left).await {
        return Ok(());
    }
    let now = witnessing.borrow();
    Err(AuditError::NotCosigned {
        seq,
        needed: now.needed,
        witnesses: now.witnesses.len(),
    })
}

async fn is_cosigned(
    witnessing: &mut watch::Receiver<Witnessing>,
    seq: Seq,
    within: Duration,
) -> bool {
    let covers = |cosigned: &Cosigned| cosigned.size > seq.0;
    let enough = |now: &Witnessing| now.needed == 0 || now.quorum.as_ref().is_some_and(covers);
    let reached = timeout(within, witnessing.wait_for(enough)).await;
    matches!(reached, Ok(Ok(_)))
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(inner) => write!(f, "Auditor({})", inner.sink.origin().as_str()),
            None => f.write_str("Auditor(disabled)"),
        }
    }
}
