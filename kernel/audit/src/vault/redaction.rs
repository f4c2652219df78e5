//! Erasing: what is to be erased is written down first, and done again when it was interrupted.
//!
//! The order: the intent is durable, then the entries that announce it, then the openings and keys are
//! overwritten, then the intent is removed. Announced first, so that the log never keeps quiet about something
//! that is gone; with the intent before, so that what was announced is done in the end. What was announced and
//! may not be done is withdrawn the same way: the intent says so before the log does.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::TryLockError;

use data_encoding::HEXLOWER;

use super::record::{KeyId, Record, Records, erased};
use super::{READ_BYTES_MAX, Vault, VaultReader, lock, read, sync_dir};
use crate::checkpoint::parse_decimal;
use crate::{Hash, Origin};

/// The file of what is being erased.
const INTENT: &str = "redacting";
/// How it begins.
const INTENT_MARK: &str = "openfang/redaction/1";
/// The longest such file: the numbers of millions of entries.
const INTENT_BYTES_MAX: usize = 32 << 20;

/// What is to be erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Openings, by what the lines hold.
    pub(crate) openings: BTreeSet<Hash>,
    /// Keys of a subject, and all openings that they have sealed.
    pub(crate) keys: BTreeSet<KeyId>,
}

/// What is to be erased, and how the log tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    /// Which log.
    pub(crate) origin: Origin,
    /// How many entries it had before: the ones that tell of it are behind them.
    pub(crate) from: u64,
    /// The numbers of the entries, as they stand in each entry that tells of it.
    pub(crate) seqs: Vec<String>,
    pub(crate) reason: String,
    pub(crate) user: String,
    /// The entries that tell of it, when it will not be done after all.
    pub(crate) withdrawn: Vec<u64>,
    pub(crate) plan: Plan,
}

/// Why a file is no intent to erase something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file of a redaction is damaged")]
pub struct IntentError;

/// Reads the file of an intent. Every accepted one is written as the same bytes.
///
/// # Errors
/// When it is none.
pub fn parse_intent(bytes: &[u8]) -> Result<impl AsRef<[u8]> + use<>, IntentError> {
    Intent::parse(bytes).map(|intent| intent.to_string())
}

impl std::fmt::Display for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{INTENT_MARK}")?;
        writeln!(f, "origin {}", self.origin)?;
        writeln!(f, "from {}", self.from)?;
        writeln!(f, "reason {}", self.reason)?;
        writeln!(f, "user {}", self.user)?;
        for seqs in &self.seqs {
            writeln!(f, "seqs {seqs}")?;
        }
        for seq in &self.withdrawn {
            writeln!(f, "withdrawn {seq}")?;
        }
        for key in &self.plan.keys {
            writeln!(f, "key {}", HEXLOWER.encode(key))?;
        }
        for opening in &self.plan.openings {
            writeln!(f, "opening {opening}")?;
        }
        writeln!(f, "end")
    }
}

impl Intent {
    fn parse(bytes: &[u8]) -> Result<Self, IntentError> {
        let text = std::str::from_utf8(bytes).map_err(|_not_utf8| IntentError)?;
        let mut lines = text.strip_suffix("end\n").ok_or(IntentError)?.lines();
        if bytes.len() > INTENT_BYTES_MAX || lines.next() != Some(INTENT_MARK) {
            return Err(IntentError);
        }
        let mut field = |name: &str| {
            let line = lines.next().and_then(|line| line.split_once(' '));
            let (key, value) = line.ok_or(IntentError)?;
            if key == name {
                Ok(value)
            } else {
                Err(IntentError)
            }
        };
        let origin = field("origin")?.parse();
        let mut intent = Self {
            origin: origin.map_err(|_not_an_origin| IntentError)?,
            from: parse_decimal(field("from")?).ok_or(IntentError)?,
            reason: field("reason")?.to_owned(),
            user: field("user")?.to_owned(),
            seqs: Vec::new(),
            withdrawn: Vec::new(),
            plan: Plan::default(),
        };
        for line in lines {
            match line.split_once(' ').ok_or(IntentError)? {
                ("seqs", seqs) => intent.seqs.push(seqs.to_owned()),
                ("withdrawn", seq) => {
                    let seq = parse_decimal(seq).ok_or(IntentError)?;
                    intent.withdrawn.push(seq);
                }
                ("key", key) => {
                    let mut id = KeyId::default();
                    let decoded = HEXLOWER.decode(key.as_bytes());
                    let decoded = decoded.map_err(|_not_hex| IntentError)?;
                    if decoded.len() != id.len() {
                        return Err(IntentError);
                    }
                    id.copy_from_slice(&decoded);
                    intent.plan.keys.insert(id);
                }
                ("opening", hash) => {
                    let hash = hash.parse().map_err(|_not_a_hash| IntentError)?;
                    intent.plan.openings.insert(hash);
                }
                (_unknown, _value) => return Err(IntentError),
            }
        }
        // One spelling: in order, nothing twice.
        if intent.to_string().as_bytes() == bytes {
            Ok(intent)
        } else {
            Err(IntentError)
        }
    }
}

impl VaultReader {
    /// Tells which of these openings are still kept.
    pub(crate) fn still_kept(&self, wanted: &BTreeSet<Hash>) -> io::Result<BTreeSet<Hash>> {
        let kept = self.openings(wanted)?;
        let mut keys = BTreeSet::new();
        self.each(|record| {
            if let Record::Key(key) = record {
                keys.insert(key.id);
            }
        })?;
        let is_kept = kept
            .into_iter()
            .filter(|(_, opening)| keys.contains(&opening.key));
        Ok(is_kept.map(|(commitment, _)| commitment).collect())
    }

    /// Finds what is kept of a subject: its keys, and what is sealed by them, each opening with the number
    /// that its entry had.
    pub(crate) fn kept_of(&self, subject: &str) -> io::Result<(Plan, Vec<(u64, Hash)>)> {
        let handle = self.handle(subject);
        let mut plan = Plan::default();
        self.each(|record| {
            if let Record::Key(key) = record
                && key.handle == handle
            {
                plan.keys.insert(key.id);
            }
        })?;
        let mut found = Vec::new();
        if !plan.keys.is_empty() {
            self.each(|record| {
                if let Record::Opening(opening) = record
                    && plan.keys.contains(&opening.key)
                {
                    found.push((opening.seq, opening.commitment));
                }
            })?;
        }
        Ok((plan, found))
    }

    /// Returns the files that are damaged, or cannot be read to their end: what they hold there belongs to nobody
    /// that could be named. One that ends in the middle of a record may have been cut: what a line commits to was
    /// written, whole, before the line.
    ///
    /// # Errors
    /// When the folder, or one of them, cannot be read at all.
    pub fn unread(&self) -> io::Result<Vec<PathBuf>> {
        let mut unread = Vec::new();
        for (_, path) in self.files()? {
            let bytes = read(&path)?;
            let mut records = Records::of(&bytes);
            while records.next().is_some() {}
            let too_long = bytes.len() as u64 >= READ_BYTES_MAX;
            if records.is_damaged() || records.is_cut() || too_long {
                unread.push(path);
            }
        }
        Ok(unread)
    }

    fn intent_path(&self) -> PathBuf {
        self.dir.join(INTENT)
    }
}

impl Vault {
    /// Lets one redaction be under way, and no other.
    pub(crate) fn redacting(&self) -> std::sync::MutexGuard<'_, ()> {
        lock(&self.redacting)
    }

    /// As [`Vault::redacting`], and none when one is under way.
    pub(crate) fn try_redacting(&self) -> Option<std::sync::MutexGuard<'_, ()>> {
        match self.redacting.try_lock() {
            Ok(one) => Some(one),
            Err(TryLockError::Poisoned(one)) => Some(one.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What comes of these keys' subjects from now on is sealed by new keys. What was sealed and still waits for
    /// the log can be opened no more.
    pub(crate) fn forget(&self, keys: &BTreeSet<KeyId>) {
        lock(&self.keys)
            .known
            .retain(|_, (id, _)| !keys.contains(id));
    }

    /// Writes down what is about to be erased, durably.
    pub(crate) fn intend(&self, intent: &Intent) -> io::Result<()> {
        let text = intent.to_string();
        if text.len() > INTENT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let path = self.reader.intent_path();
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_dir(&self.reader.dir)
    }

    /// Returns what was about to be erased when the node ended. A file that is none is put aside.
    pub(crate) fn intended(&self) -> io::Result<Option<Intent>> {
        let path = self.reader.intent_path();
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        match Intent::parse(&bytes) {
            Ok(intent) => Ok(Some(intent)),
            Err(why) => {
                let aside = path.with_extension("damaged");
                std::fs::rename(&path, &aside)?;
                tracing::error!(kept = %aside.display(), error = %why, "a redaction was under way, and what it was to erase cannot be read: do it again");
                Ok(None)
            }
        }
    }

    /// Forgets what was about to be erased.
    pub(crate) fn done(&self) -> io::Result<()> {
        match std::fs::remove_file(self.reader.intent_path()) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            Ok(()) | Err(_) => {}
        }
        sync_dir(&self.reader.dir)
    }

    /// Overwrites openings and keys, durably; then removes files that hold no opening any more. Can be done
    /// again. Entries are written meanwhile: what is overwritten was written before.
    pub(crate) fn erase(&self, plan: &Plan) -> io::Result<()> {
        self.forget(&plan.keys);
        self.overwrite(|record| match record {
            Record::Opening(opening) => {
                plan.openings.contains(&opening.commitment) || plan.keys.contains(&opening.key)
            }
            Record::Key(_) => false,
            // It may be so by half.
            Record::Erased => true,
        })?;
        self.overwrite(|record| match record {
            Record::Key(key) => plan.keys.contains(&key.id),
            Record::Opening(_) | Record::Erased => false,
        })?;
        self.sweep()
    }

    fn overwrite(&self, is_meant: impl Fn(&Record<'_>) -> bool) -> io::Result<()> {
        for (_, path) in self.reader.files()? {
            let bytes = read(&path)?;
            let mut file: Option<File> = None;
            for (body, record) in Records::of_any(&bytes) {
                let (at, zeros) = erased(&body);
                let is_done = bytes[body.clone()].iter().all(|byte| *byte == 0);
                if !is_meant(&record) || (record == Record::Erased && is_done) {
                    continue;
                }
                let open = match file.take() {
                    Some(open) => open,
                    None => OpenOptions::new().write(true).open(&path)?,
                };
                open.write_all_at(&zeros, at)?;
                file = Some(open);
            }
            if let Some(file) = file {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Removes files whose openings are all erased, except the one that is written to.
    fn sweep(&self) -> io::Result<()> {
        let first_kept = {
            let active = lock(&self.active);
            let written_to = active.file.as_ref().map(|(number, _, _)| *number);
            written_to.unwrap_or(active.next)
        };
        let mut removed = false;
        let mut needed = BTreeSet::new();
        self.reader.each(|record| {
            if let Record::Opening(opening) = record {
                needed.insert(opening.key);
            }
        })?;
        let in_use: BTreeSet<KeyId> = lock(&self.keys).known.values().map(|(id, _)| *id).collect();
        for (number, path) in self.reader.files()? {
            if number >= first_kept {
                continue;
            }
            let bytes = read(&path)?;
            let is_needed = Records::of(&bytes).any(|(_, record)| match record {
                Record::Opening(_) => true,
                Record::Key(key) => needed.contains(&key.id) || in_use.contains(&key.id),
                Record::Erased => false,
            });
            if !is_needed {
                std::fs::remove_file(&path)?;
                removed = true;
            }
        }
        if removed {
            sync_dir(&self.reader.dir)?;
        }
        Ok(())
    }
}
