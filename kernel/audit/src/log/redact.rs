//! Erasing what lines of an open log commit to. The lines, their proofs and all copies stay as they are.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use super::open::{append, io_error};
use super::shared::Shared;
use super::writer::Writer;
use super::{AppendError, Log, OpenError, ProveError};
use crate::event::{Cause, Event, Outcome};
use crate::seqs::Seqs;
use crate::value::{Field, Public};
use crate::vault::{Intent, Plan, Revealed, Vault};
use crate::{Hash, Line, Seq};

/// The longest reason, in bytes: it stands in one entry, whole.
pub const REASON_BYTES_MAX: usize = 200;
/// The most entries that are named in one request.
const NAMED_MAX: usize = 4096;
/// What stands before the number of values that are of no entry of the log, where numbers of entries stand.
const OF_NO_ENTRY: &str = "of no entry: ";
/// How many entries are read at a time.
const READ_AT_ONCE: u64 = 256;

/// Whose openings are to be erased.
#[derive(Debug, Clone, Copy)]
pub enum Erase<'a> {
    /// Those of these entries.
    Entries(&'a BTreeSet<u64>),
    /// Those of whoever has this name.
    Subject(&'a str),
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The entries that commit to it.
    pub entries: BTreeSet<u64>,
    /// How many openings there were.
    pub openings: usize,
    /// How many of them are of no entry of this log: of an earlier epoch, of an entry that was set aside, or
    /// never written.
    pub elsewhere: usize,
    /// The entries that tell of it.
    pub told_in: Vec<Seq>,
}

/// Why nothing was erased, except where a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// The log was opened without a vault.
    #[error("this audit log has no vault: it keeps nothing that could be erased")]
    NoVault,
    /// The log may not be signed: what is written now may have to make room for entries that were lost, and
    /// with it what tells of an erasure.
    #[error(
        "peers have not said yet what they know of this log, and until then an entry that tells of an erasure \
         may not stay: start the node if it does not run, and try again when openfang audit witness status \
         says that the log is signed"
    )]
    InDoubt,
    /// The reason is empty, or would not stand in the entry whole.
    #[error("a reason must have 1 to {REASON_BYTES_MAX} bytes, not {0}")]
    Reason(usize),
    /// More entries than one request may name, or none.
    #[error("name 1 to {NAMED_MAX} entries, not {0}")]
    Count(usize),
    /// There is no such entry.
    #[error("there is no entry {seq}: the log has {size}")]
    NoSuchEntry {
        /// Which.
        seq: u64,
        /// How many there are.
        size: u64,
    },
    /// The entry holds nothing personal.
    #[error("entry {seq} commits to nothing that could be erased")]
    NothingPersonal {
        /// Which.
        seq: u64,
    },
    /// It was erased before, or never kept here.
    #[error("nothing of it is kept here (any more)")]
    NothingKept,
    /// What could be found was erased, and told. Parts of the vault cannot be read.
    #[error(
        "{values} values were erased, but these files of the vault are damaged, and what stands in them behind the \
         damage was not looked at: {}; put a whole copy of them back and redact again, or remove them, and \
         all that is left in them is gone",
        shown_paths(files)
    )]
    Incomplete {
        /// How many were erased.
        values: usize,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// It was announced in the log, which came into doubt meanwhile. It is done, and told if the entry does not
    /// stay, when the log is signed again.
    #[error(
        "the audit log came into doubt while it was announced: it is done, and told again if need be, when the \
         log is signed again; openfang audit witness status says when"
    )]
    Waits,
    /// The entries cannot be read.
    #[error("the entries cannot be read: {0}")]
    Read(#[source] ProveError),
    /// What tells of it did not become what is demanded of such an entry. Another entry says that nothing was
    /// erased.
    #[error(
        "the entry that tells of it did not become what is demanded of one, so that nothing is erased"
    )]
    NotAsDemanded,
    /// The entry about it cannot be written.
    #[error("nothing is erased that cannot be logged: {0}")]
    NotLogged(#[source] AppendError),
    /// The vault cannot be read, or not be written to before anything was announced.
    #[error("the vault cannot be used: {0}")]
    Vault(#[source] io::Error),
    /// It was announced in the log and only partly done. The next redaction or the next start finishes it.
    #[error(
        "the log tells of it, but it is not finished: {0}; the next redaction, or the next start of the node, finishes it"
    )]
    Unfinished(#[source] io::Error),
}

impl Log {
    /// Opens what lines commit to, as far as it is kept: for each line its commitments. Blocks.
    ///
    /// # Errors
    /// When the vault cannot be read.
    pub fn reveal(&self, lines: &[Line]) -> io::Result<Vec<Vec<(Field, Revealed)>>> {
        match self.inner.shared.guard.vault() {
            Some(vault) => vault.reader().reveal(lines),
            None => Ok(lines.iter().map(nothing_kept).collect()),
        }
    }

    /// Erases what lines commit to, and tells of it in the log. Blocks until both are durable.
    ///
    /// # Errors
    /// When it was not done.
    pub fn redact(
        &self,
        what: Erase<'_>,
        reason: &str,
        user: Public<'_>,
    ) -> Result<Redacted, RedactError> {
        self.redact_when(what, reason, user, |_told| true)
    }

    /// As [`Log::redact`], once `may` says that the entries which tell of it are all that is demanded of them; it
    /// is asked with the last of them, which is durable, and may block.
    ///
    /// # Errors
    /// As [`Log::redact`].
    pub fn redact_when(
        &self,
        what: Erase<'_>,
        reason: &str,
        user: Public<'_>,
        may: impl FnOnce(Seq) -> bool,
    ) -> Result<Redacted, RedactError> {
        let shared = &self.inner.shared;
        let vault = shared.guard.vault().ok_or(RedactError::NoVault)?;
        if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(RedactError::Reason(reason.len()));
        }
        let _one_at_a_time = vault.redacting();
        if self.is_held() {
            return Err(RedactError::InDoubt);
        }
        if let Some(left) = vault.intended().map_err(RedactError::Vault)? {
            let mut log = |event: Event| self.append_durably(event);
            end(shared, vault, &left, &mut log).map_err(|why| match why {
                Unended::Log(why) => RedactError::NotLogged(why),
                Unended::Vault(why) => RedactError::Unfinished(why),
            })?;
        }
        let unread = vault.reader().unread().map_err(RedactError::Vault)?;
        let planned = match what {
            Erase::Entries(seqs) => plan_of_entries(shared, vault, seqs),
            Erase::Subject(name) => plan_of_subject(shared, vault, name),
        };
        let Planned {
            entries,
            openings,
            elsewhere,
            is_all,
            plan,
        } = match planned {
            // It may be in what cannot be read.
            Err(RedactError::NothingKept) => {
                return complete(unread, 0).and(Err(RedactError::NothingKept));
            }
            planned => planned?,
        };
        let seqs = numbers_of(&entries, elsewhere);
        let mut intent = Intent {
            origin: shared.origin.clone(),
            from: self.size(),
            // As the line will have it: it is looked for.
            reason: shown(shared, reason),
            user: shown(shared, user.as_str()),
            seqs,
            withdrawn: Vec::new(),
            plan,
        };
        let told_in = self.tell(vault, &intent)?;
        let is_as_demanded = told_in.last().is_none_or(|last| may(*last));
        if self.is_held() {
            return Err(RedactError::Waits);
        }
        if !is_as_demanded {
            // In this order: what the log says was not erased never is by a redaction that was left.
            intent.withdrawn = told_in.iter().map(|seq| seq.0).collect();
            vault.intend(&intent).map_err(RedactError::Unfinished)?;
            take_word_back(shared, &intent, &mut |event| self.append_durably(event))
                .map_err(RedactError::NotLogged)?;
            vault.done().map_err(RedactError::Vault)?;
            return Err(RedactError::NotAsDemanded);
        }
        vault.erase(&intent.plan).map_err(RedactError::Unfinished)?;
        // Otherwise it is kept in mind: what tells of it may be set aside.
        if !self.is_held() {
            vault.done().map_err(RedactError::Unfinished)?;
        }
        if !is_all {
            complete(unread, openings)?;
        }
        Ok(Redacted {
            entries,
            openings,
            elsewhere,
            told_in,
        })
    }

    /// Writes down what is about to be erased, then the entries that tell of it.
    fn tell(&self, vault: &Vault, intent: &Intent) -> Result<Vec<Seq>, RedactError> {
        vault.intend(intent).map_err(RedactError::Vault)?;
        let mut told_in = Vec::new();
        for numbers in &intent.seqs {
            match self.append_durably(told_of(intent, numbers)) {
                Ok(seq) => told_in.push(seq),
                Err(why) => {
                    if told_in.is_empty() {
                        vault.done().map_err(RedactError::Vault)?;
                    }
                    return Err(RedactError::NotLogged(why));
                }
            }
        }
        Ok(told_in)
    }

    fn append_durably(&self, event: Event) -> Result<Seq, AppendError> {
        let (sender, receiver) = sync_channel(1);
        let ack = Box::new(move |result| {
            if sender.send(result).is_err() {
                tracing::debug!("nobody waits for the entry any more");
            }
        });
        self.append(event, ack)?;
        receiver.recv().unwrap_or(Err(AppendError::Closed))
    }
}

/// Finishes a redaction that was under way when the last run ended, or when the log came into doubt. Does nothing
/// while the log is held: what tells of it might have to make room.
pub(super) fn finish(shared: &Shared, writer: &mut Writer) -> Result<(), OpenError> {
    let Some(vault) = shared.guard.vault() else {
        return Ok(());
    };
    if shared.held.load(Ordering::Acquire) {
        return Ok(());
    }
    // One that is under way ends by itself.
    let Some(_one_at_a_time) = vault.try_redacting() else {
        return Ok(());
    };
    let failed = |source| io_error("finish a redaction in", &shared.options.dir, source);
    let Some(left) = vault.intended().map_err(failed)? else {
        return Ok(());
    };
    let mut log = |event| append(shared, writer, event);
    end(shared, vault, &left, &mut log).map_err(|why| match why {
        Unended::Log(why) => why,
        Unended::Vault(why) => failed(why),
    })?;
    tracing::warn!(log.origin = %shared.origin, entries = left.seqs.join(","), "a redaction that was interrupted is finished");
    Ok(())
}

/// Why a redaction that was left could not be ended.
enum Unended<E> {
    Log(E),
    Vault(io::Error),
}

/// Does what is left of a redaction: all that it announced, or what says that it was not done.
fn end<T, E>(
    shared: &Shared,
    vault: &Vault,
    left: &Intent,
    write: &mut impl FnMut(Event) -> Result<T, E>,
) -> Result<(), Unended<E>> {
    if left.withdrawn.is_empty() {
        announce(shared, left, write).map_err(Unended::Log)?;
        vault.erase(&left.plan).map_err(Unended::Vault)?;
    } else {
        take_word_back(shared, left, write).map_err(Unended::Log)?;
    }
    vault.done().map_err(Unended::Vault)
}

/// Returns what stands in the entries that tell of it: the numbers of others, and how many values are of none.
fn numbers_of(entries: &BTreeSet<u64>, elsewhere: usize) -> Vec<String> {
    let numbers = Seqs::split(entries);
    let others = (elsewhere > 0).then(|| format!("{OF_NO_ENTRY}{elsewhere}"));
    let numbers = numbers.iter().map(ToString::to_string);
    numbers.chain(others).collect()
}

/// Fails when not all of the vault was looked at.
fn complete(files: Vec<PathBuf>, values: usize) -> Result<(), RedactError> {
    if files.is_empty() {
        return Ok(());
    }
    Err(RedactError::Incomplete { values, files })
}

fn shown_paths(files: &[PathBuf]) -> String {
    let shown: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    shown.join(", ")
}

/// Writes the entries about a redaction that the log does not have yet.
fn announce<T, E>(
    shared: &Shared,
    intent: &Intent,
    write: &mut impl FnMut(Event) -> Result<T, E>,
) -> Result<(), E> {
    let told = told_since(shared, intent);
    let told: BTreeSet<_> = told.into_iter().filter_map(|line| line.target).collect();
    for numbers in &intent.seqs {
        // Numbers of an earlier log say nothing here.
        if told.contains(numbers) || intent.origin != shared.origin {
            continue;
        }
        drop(write(told_of(intent, numbers))?);
    }
    Ok(())
}

/// Writes that what the entries about a redaction tell of was not done, where the log does not say so yet.
fn take_word_back<T, E>(
    shared: &Shared,
    intent: &Intent,
    write: &mut impl FnMut(Event) -> Result<T, E>,
) -> Result<(), E> {
    let told = told_since(shared, intent);
    for (numbers, seq) in intent.seqs.iter().zip(&intent.withdrawn) {
        let announced = Cause {
            origin: intent.origin.clone(),
            seq: *seq,
        };
        let said = announced.to_string();
        let is_there = told.iter().any(|line| line.seq.0 == *seq);
        let is_said = told.iter().any(|line| line.cause.as_ref() == Some(&said));
        // An announcement that did not stay needs no answer.
        if is_there && !is_said {
            let outcome = Outcome::Denied("not cosigned".into());
            let event = told_of(intent, numbers).not_done(&announced, outcome);
            drop(write(event)?);
        }
    }
    Ok(())
}

/// Returns the entry that tells of these numbers.
fn told_of(intent: &Intent, numbers: &str) -> Event {
    let reason = Public::text(&intent.reason);
    Event::redact_again(numbers, reason, Public::text(&intent.user))
}

/// Finds the entries about a redaction that were written. One that cannot be read is none.
fn told_since(shared: &Shared, intent: &Intent) -> Vec<Line> {
    let size = shared.size.load(Ordering::Acquire);
    let mut told = Vec::new();
    let mut from = intent.from;
    while from < size {
        let until = size.min(from + READ_AT_ONCE);
        let lines = shared.entries(from..until).unwrap_or_default();
        let lines = lines.iter().filter_map(|line| Line::parse(line).ok());
        told.extend(lines.filter(|line| {
            line.ev == crate::Kind::Redact.as_str()
                && line.act.as_deref() == Some(intent.reason.as_str())
        }));
        from = until;
    }
    told
}

/// What will be erased.
struct Planned {
    /// Of which entries of this log.
    entries: BTreeSet<u64>,
    openings: usize,
    /// How many of the openings are of no entry of this log.
    elsewhere: usize,
    /// Whether that is all there ever was of it, so that nothing can stand where the vault cannot be read.
    is_all: bool,
    plan: Plan,
}

fn plan_of_entries(
    shared: &Shared,
    vault: &Vault,
    seqs: &BTreeSet<u64>,
) -> Result<Planned, RedactError> {
    if seqs.is_empty() || seqs.len() > NAMED_MAX {
        return Err(RedactError::Count(seqs.len()));
    }
    let mut wanted = Vec::new();
    for seq in seqs {
        let found = openable(&read(shared, *seq)?);
        if found.is_empty() {
            return Err(RedactError::NothingPersonal { seq: *seq });
        }
        wanted.extend(found.into_iter().map(|commitment| (*seq, commitment)));
    }
    let all = wanted.iter().map(|(_, commitment)| *commitment).collect();
    let kept = vault
        .reader()
        .still_kept(&all)
        .map_err(RedactError::Vault)?;
    wanted.retain(|(_, commitment)| kept.contains(commitment));
    if wanted.is_empty() {
        return Err(RedactError::NothingKept);
    }
    Ok(Planned {
        is_all: kept.len() == all.len(),
        entries: wanted.iter().map(|(seq, _)| *seq).collect(),
        openings: wanted.len(),
        elsewhere: 0,
        plan: Plan {
            openings: kept,
            keys: BTreeSet::new(),
        },
    })
}

fn plan_of_subject(shared: &Shared, vault: &Vault, name: &str) -> Result<Planned, RedactError> {
    let (plan, found) = vault.reader().kept_of(name).map_err(RedactError::Vault)?;
    // What comes from now on is another matter.
    vault.forget(&plan.keys);
    let mut entries = BTreeSet::new();
    let openings = found.len();
    let mut elsewhere = 0;
    for (seq, commitment) in found {
        // Where the entry was lost, never written, or is of an earlier epoch, no line of this log commits to it.
        match read(shared, seq) {
            Ok(line) if openable(&line).contains(&commitment) => {
                entries.insert(seq);
            }
            Ok(_) | Err(RedactError::NoSuchEntry { .. }) => elsewhere += 1,
            Err(why) => return Err(why),
        }
    }
    if openings == 0 {
        return Err(RedactError::NothingKept);
    }
    Ok(Planned {
        entries,
        openings,
        elsewhere,
        is_all: false,
        plan,
    })
}

fn read(shared: &Shared, seq: u64) -> Result<Line, RedactError> {
    let size = shared.size.load(Ordering::Acquire);
    if seq >= size {
        return Err(RedactError::NoSuchEntry { seq, size });
    }
    let found = shared.entries(seq..seq + 1).map_err(RedactError::Read)?;
    let line = found.first().map(|line| Line::parse(line));
    match line {
        Some(Ok(line)) => Ok(line),
        Some(Err(_)) | None => Err(RedactError::Read(ProveError::Damaged { seq: Some(seq) })),
    }
}

/// The commitments that can have an opening.
fn openable(line: &Line) -> BTreeSet<Hash> {
    let of_persons = line
        .commitments
        .iter()
        .filter(|(field, _)| *field != Field::Value);
    of_persons.map(|(_, commitment)| commitment).collect()
}

fn nothing_kept(line: &Line) -> Vec<(Field, Revealed)> {
    let revealed = |field| match field {
        Field::Value => Revealed::Secret,
        Field::Session | Field::Target | Field::User => Revealed::Erased,
    };
    let commitments = line.commitments.iter();
    commitments
        .map(|(field, _)| (field, revealed(field)))
        .collect()
}

/// A text as the line will have it.
fn shown(shared: &Shared, text: &str) -> String {
    let event = Event::redact_again("", Public::text(text), "node");
    let act = shared.guard.admit(event).event.act;
    act.map(String::from).unwrap_or_default()
}
