//! The vault: values about persons that lines commit to, sealed, and erasable.
//!
//! A folder beside the log. Each run of the node that has something to keep begins a file of its own, and a
//! longer run several ([`record`]): keys of subjects, wrapped by a key that comes from the seed of the node, and
//! openings, sealed by the key of their subject (XChaCha20-Poly1305). An opening is durable before the line
//! that commits to it; one whose line was never written is harmless. An opening belongs to a commitment, not
//! to a number: no repair of the log can give it to another entry.
//!
//! What is erased is overwritten, and the disk has confirmed it. A disk that keeps old blocks, a snapshot or a
//! backup is beyond that: there, what was erased with the key of its subject stays unreadable only as long
//! as no older copy of the file is put back.

pub mod record;
mod redaction;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use openfang_id::VaultKey;
use zeroize::Zeroizing;

use crate::commit::{CommitmentKey, commit, hmac};
use crate::event::Hidden;
use crate::value::Field;
use crate::{Hash, Line};
use record::{Handle, KeyId, KeyRecord, MARK, OpeningRecord, Record, Records};
pub(crate) use redaction::{Intent, Plan};
pub use redaction::{IntentError, parse_intent};

/// The folder of the vault, in that of the log.
pub const FOLDER: &str = "vault";
/// A longer file is followed by another one.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// How much of a file is read: its last write may have gone beyond [`FILE_BYTES_MAX`] by a batch of entries.
const READ_BYTES_MAX: u64 = 32 << 20;
/// Subjects whose keys are remembered; with more, the memory begins anew, and so do their keys.
const SUBJECTS_MAX: usize = 4096;
/// How the names of the files end.
const SUFFIX: &str = ".vault";

/// What a commitment of a line stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revealed {
    /// This value, checked against the commitment.
    Value(String),
    /// It was erased, or never kept here.
    Erased,
    /// A secret: nobody keeps those.
    Secret,
    /// What is kept for it does not open it; or nothing is found, and a file of the vault is damaged that may
    /// hold it.
    Unreadable,
}

/// The reading half of the vault of a node. Needs no lock.
#[derive(Clone)]
pub struct VaultReader {
    dir: PathBuf,
    /// Wraps the keys of subjects.
    wrap: Zeroizing<[u8; 32]>,
    /// Makes handles of the names of subjects.
    index: Zeroizing<[u8; 32]>,
}

/// The vault of a node whose log is open.
pub struct Vault {
    reader: VaultReader,
    entropy: Entropy,
    keys: Mutex<SubjectKeys>,
    active: Mutex<Active>,
    /// Held while something is erased: one redaction at a time.
    redacting: Mutex<()>,
}

/// A sealed opening, before its entry has a number.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    key: KeyId,
    field: Field,
    commitment: Hash,
    sealed: Vec<u8>,
}

/// Keys of subjects that were found, each as far as it could be unwrapped.
type Unwrapped = BTreeMap<KeyId, Option<Zeroizing<[u8; 32]>>>;

/// The keys of subjects that are in use.
#[derive(Default)]
struct SubjectKeys {
    known: BTreeMap<Handle, (KeyId, Zeroizing<[u8; 32]>)>,
    /// Records of keys that are not written yet: they are, before the first opening that needs them.
    unwritten: Vec<u8>,
}

/// The file that is written to.
#[derive(Default)]
struct Active {
    file: Option<(u64, File, u64)>,
    /// The number of the next file; 0 before anyone has looked.
    next: u64,
}

/// Random numbers: HMAC-SHA256 of a count under a random key, which was handed in.
struct Entropy {
    seed: Zeroizing<[u8; 32]>,
    count: AtomicU64,
}

impl Entropy {
    fn next(&self) -> Zeroizing<[u8; 32]> {
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Zeroizing::new(hmac(&self.seed, [&count[..]]))
    }

    fn take<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.next()[..N]);
        out
    }
}

impl VaultReader {
    /// Looks into the vault in a folder.
    #[must_use]
    pub fn new(dir: &Path, key: &VaultKey) -> Self {
        let derive = |label: &[u8]| Zeroizing::new(hmac(key.as_bytes(), [label]));
        Self {
            dir: dir.to_owned(),
            wrap: derive(b"openfang/audit-vault/wrap/v1"),
            index: derive(b"openfang/audit-vault/index/v1"),
        }
    }

    /// Opens what lines commit to, each checked against its commitment: for each line its commitments.
    ///
    /// # Errors
    /// When a file cannot be read. One that is damaged is no error.
    pub fn reveal(&self, lines: &[Line]) -> io::Result<Vec<Vec<(Field, Revealed)>>> {
        let all = lines.iter().flat_map(|line| line.commitments.iter());
        let wanted: BTreeSet<Hash> = all.map(|(_, commitment)| commitment).collect();
        let found = self.openings(&wanted)?;
        let ids = found.values().map(|kept| kept.key).collect();
        let keys = self.unwrapped(&ids)?;
        // What is not found was erased, unless it may stand where nothing can be read.
        let is_missing = found.len() < wanted.len() || keys.len() < ids.len();
        let absent = if is_missing && !self.unread()?.is_empty() {
            Revealed::Unreadable
        } else {
            Revealed::Erased
        };
        let reveal = |(field, commitment): (Field, Hash)| {
            let revealed = match (field, found.get(&commitment)) {
                (Field::Value, _) => Revealed::Secret,
                (Field::Session | Field::Target | Field::User, None) => absent.clone(),
                (Field::Session | Field::Target | Field::User, Some(kept)) => {
                    match keys.get(&kept.key) {
                        Some(Some(key)) => open(key, kept)
                            .filter(|_| kept.field == field)
                            .map_or(Revealed::Unreadable, Revealed::Value),
                        Some(None) => Revealed::Unreadable,
                        None => absent.clone(),
                    }
                }
            };
            (field, revealed)
        };
        let of_line = |line: &Line| line.commitments.iter().map(reveal).collect();
        Ok(lines.iter().map(of_line).collect())
    }

    /// Finds the openings of commitments.
    fn openings(&self, wanted: &BTreeSet<Hash>) -> io::Result<BTreeMap<Hash, Opening>> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        self.each(|record| {
            if let Record::Opening(opening) = record
                && wanted.contains(&opening.commitment)
            {
                found.insert(opening.commitment, Opening::from(opening));
            }
        })?;
        Ok(found)
    }

    /// Finds and unwraps keys; nothing stands in the place of one that cannot be unwrapped.
    fn unwrapped(&self, wanted: &BTreeSet<KeyId>) -> io::Result<Unwrapped> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        self.each(|record| {
            if let Record::Key(key) = record
                && wanted.contains(&key.id)
            {
                found.insert(key.id, self.unwrap(&key));
            }
        })?;
        Ok(found)
    }

    fn unwrap(&self, key: &KeyRecord) -> Option<Zeroizing<[u8; 32]>> {
        let message = Payload {
            msg: &key.wrapped,
            aad: &about_key(&key.id, &key.handle),
        };
        let cipher = XChaCha20Poly1305::new((&*self.wrap).into());
        let opened = cipher.decrypt(&XNonce::from(key.nonce), message);
        let opened = Zeroizing::new(opened.ok()?);
        Some(Zeroizing::new(opened.as_slice().try_into().ok()?))
    }

    /// Returns what stands for a subject in the files.
    fn handle(&self, subject: &str) -> Handle {
        let name = Zeroizing::new(subject.trim().to_ascii_lowercase());
        let mac = hmac(&self.index, [name.as_bytes()]);
        let mut handle = [0; 16];
        handle.copy_from_slice(&mac[..16]);
        handle
    }

    /// Shows every record of every file.
    fn each(&self, mut show: impl FnMut(Record<'_>)) -> io::Result<()> {
        for (_, path) in self.files()? {
            let bytes = read(&path)?;
            for (_, record) in Records::of(&bytes) {
                show(record);
            }
        }
        Ok(())
    }

    /// Lists the files with their numbers, the oldest first.
    fn files(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let listed = match std::fs::read_dir(&self.dir) {
            Ok(listed) => listed,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(why),
        };
        let mut files = Vec::new();
        for entry in listed {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(SUFFIX));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                files.push((number, path));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}{SUFFIX}"))
    }
}

impl Vault {
    /// Opens the vault in a folder, which is made when it is missing. Only the holder of the log may do so.
    /// `seed` are 32 random bytes that were never used before.
    ///
    /// # Errors
    /// When the folder can be neither found nor made.
    pub fn open(dir: &Path, key: &VaultKey, seed: Zeroizing<[u8; 32]>) -> io::Result<Self> {
        let reader = VaultReader::new(dir, key);
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let next = reader.files()?.last().map_or(1, |(last, _)| last + 1);
        Ok(Self {
            reader,
            entropy: Entropy {
                seed,
                count: AtomicU64::new(0),
            },
            keys: Mutex::default(),
            active: Mutex::new(Active { file: None, next }),
            redacting: Mutex::default(),
        })
    }

    /// Returns the reading half.
    #[must_use]
    pub fn reader(&self) -> &VaultReader {
        &self.reader
    }

    /// Commits to a value about a person and seals it. Never waits for the disk.
    pub(crate) fn seal(&self, field: Field, hidden: &Hidden) -> Opening {
        let key: CommitmentKey = self.entropy.next();
        let commitment = commit(&key, field, hidden.value.as_bytes());
        let (id, subject) = self.key_of(self.reader.handle(&hidden.subject));
        let mut plain = Zeroizing::new(Vec::with_capacity(key.len() + hidden.value.len()));
        plain.extend_from_slice(key.as_slice());
        plain.extend_from_slice(hidden.value.as_bytes());
        Opening {
            sealed: seal(
                &subject,
                &nonce_of(&commitment),
                (&plain, &about_opening(&id, field, &commitment)),
            ),
            key: id,
            field,
            commitment,
        }
    }

    /// Commits to a secret. Nobody keeps the key.
    pub(crate) fn commit_to(&self, field: Field, secret: &[u8]) -> Hash {
        commit(&self.entropy.next(), field, secret)
    }

    /// Returns the key of a subject, a new one when none is remembered.
    fn key_of(&self, handle: Handle) -> (KeyId, Zeroizing<[u8; 32]>) {
        let mut keys = lock(&self.keys);
        if let Some(found) = keys.known.get(&handle) {
            return found.clone();
        }
        let (id, key) = (self.entropy.take(), self.entropy.next());
        let nonce = self.entropy.take();
        let wrapped = seal(
            &self.reader.wrap,
            &nonce,
            (key.as_slice(), &about_key(&id, &handle)),
        );
        let record = KeyRecord {
            id,
            handle,
            nonce,
            wrapped: wrapped
                .try_into()
                .expect("32 bytes and the 16 of the tag are 48"),
        };
        record::push_key(&mut keys.unwritten, &record);
        if keys.known.len() >= SUBJECTS_MAX {
            keys.known.clear();
        }
        keys.known.insert(handle, (id, key.clone()));
        (id, key)
    }

    /// Writes openings with the numbers of their entries, durably.
    ///
    /// # Errors
    /// When they are not known to be durable; nothing may then commit to them.
    pub(crate) fn write<'a>(
        &self,
        openings: impl Iterator<Item = (u64, &'a Opening)>,
    ) -> io::Result<()> {
        let mut bytes = std::mem::take(&mut lock(&self.keys).unwritten);
        let of_keys = bytes.len();
        for (seq, opening) in openings {
            record::push_opening(&mut bytes, &opening.record(seq));
        }
        let written = self.append(&bytes);
        if written.is_err() {
            // Entries that come later need them.
            bytes.truncate(of_keys);
            let mut keys = lock(&self.keys);
            bytes.append(&mut keys.unwritten);
            keys.unwritten = bytes;
        }
        written
    }

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut active = lock(&self.active);
        let (number, mut file, len) = match active.file.take() {
            Some(found) if found.2 < FILE_BYTES_MAX => found,
            Some(_) | None => {
                let number = active.next;
                // After a failure half-way its number is not free.
                active.next += 1;
                (number, self.begin(number)?, MARK.len() as u64)
            }
        };
        // When this fails, the next write goes to another file: behind half a record nothing is found.
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        if written.is_err()
            && let Err(why) = file.set_len(len)
        {
            tracing::warn!(number, error = %why, "half a record is left in a file of the vault, which counts as damaged from now on");
        }
        written?;
        active.file = Some((number, file, len + bytes.len() as u64));
        Ok(())
    }

    fn begin(&self, number: u64) -> io::Result<File> {
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.reader.path(number))?;
        file.write_all(MARK)?;
        sync_dir(&self.reader.dir)?;
        Ok(file)
    }
}

impl Opening {
    /// Returns what the line holds.
    pub(crate) fn commitment(&self) -> Hash {
        self.commitment
    }

    fn record(&self, seq: u64) -> OpeningRecord<'_> {
        OpeningRecord {
            seq,
            key: self.key,
            field: self.field,
            commitment: self.commitment,
            sealed: &self.sealed,
        }
    }
}

impl From<OpeningRecord<'_>> for Opening {
    fn from(record: OpeningRecord<'_>) -> Self {
        Self {
            key: record.key,
            field: record.field,
            commitment: record.commitment,
            sealed: record.sealed.to_vec(),
        }
    }
}

impl fmt::Debug for VaultReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultReader({})", self.dir.display())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.reader.dir.display())
    }
}

/// Opens an opening; `None` when it is not what was sealed, or not that of its commitment.
fn open(key: &[u8; 32], kept: &Opening) -> Option<String> {
    let message = Payload {
        msg: &kept.sealed,
        aad: &about_opening(&kept.key, kept.field, &kept.commitment),
    };
    let nonce = nonce_of(&kept.commitment);
    let cipher = XChaCha20Poly1305::new(key.into());
    let opened = cipher.decrypt(&XNonce::from(nonce), message);
    let opened = Zeroizing::new(opened.ok()?);
    let (key, value) = opened.split_first_chunk::<32>()?;
    let is_right = commit(key, kept.field, value) == kept.commitment;
    is_right.then(|| std::str::from_utf8(value).ok().map(str::to_owned))?
}

fn seal(key: &[u8; 32], nonce: &[u8; 24], (msg, aad): (&[u8], &[u8])) -> Vec<u8> {
    XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), Payload { msg, aad })
        .expect("what is sealed is far shorter than the 256 GiB the cipher takes")
}

/// A commitment is random, and made once: a part of it is a nonce that is never used again.
fn nonce_of(commitment: &Hash) -> [u8; 24] {
    let mut nonce = [0; 24];
    nonce.copy_from_slice(&commitment.as_bytes()[..24]);
    nonce
}

/// What a wrapped key is bound to.
fn about_key(id: &KeyId, handle: &Handle) -> Vec<u8> {
    [&MARK[..], b"key", id, handle].concat()
}

/// What a sealed opening is bound to.
fn about_opening(key: &KeyId, field: Field, commitment: &Hash) -> Vec<u8> {
    let field = [record::number_of(field)];
    [&MARK[..], b"opening", key, &field, commitment.as_bytes()].concat()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(READ_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
