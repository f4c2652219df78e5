//! The files of a log that is mended, with copies and without.

use std::io;
use std::path::{Path, PathBuf};

use openfang_audit::proof::{BuildError, subtree_root};
use openfang_audit::repair::{Difference, Patch};
use openfang_audit::storage::{FsReader, FsStorage, Reader, without_name};
use openfang_audit::tile::{Progress, TileError, TileNodes};
use openfang_audit::tree::EMPTY_ROOT;
use openfang_audit::verify::{Damage, DamageKind, Verdict, VerifyError, verify_files};
use openfang_audit::{Checkpoint, HEAD_BYTES_MAX, Hash, Origin, SignedHead, repair};
use openfang_id::VerifyingKey;

use super::{Accepted, Cut, RepairError, Repaired, Replaced};
use crate::audit_epoch::Shelf;
use crate::files::read_plain;
use crate::mirror::{self, PeerTiles, PeerTilesError};
use crate::run::Prepared;

/// The files of the log.
pub(super) struct Files {
    log_path: PathBuf,
    dir: PathBuf,
    key: (VerifyingKey, openfang_id::SigningKey),
    origin: Origin,
}

/// What was done without a copy.
pub(super) struct Local {
    /// Whether the signing floor was raised to the published head.
    pub(super) floor: bool,
    /// Whether a damaged published head was made again.
    pub(super) published: bool,
    pub(super) cut: Option<Cut>,
    accepted: Option<Accepted>,
    /// Whether the log now is what was signed, and has its signing floor.
    pub(super) is_whole: bool,
    /// The same, of a log that has entries.
    pub(super) is_intact: bool,
}

impl Local {
    pub(super) fn repaired(self) -> Repaired {
        Repaired {
            floor: self.floor,
            published: self.published,
            cut: self.cut,
            accepted: self.accepted,
            ..Repaired::default()
        }
    }
}

impl Files {
    pub(super) fn of(prepared: &Prepared, epoch: u32) -> Self {
        let keys = prepared.keys();
        Self {
            log_path: prepared.config().audit.log_path.clone(),
            dir: prepared.config().home.audit_dir(),
            key: (keys.log.verifying_key(), keys.log.clone()),
            origin: Origin::of(&prepared.node_id(), epoch),
        }
    }

    fn open(&self) -> Result<FsStorage, RepairError> {
        let holder = format!("pid {} audit repair", std::process::id());
        Ok(FsStorage::open(&self.log_path, &self.dir, &holder)?)
    }

    fn io(&self) -> impl Fn(io::Error) -> RepairError + use<> {
        let path = self.log_path.clone();
        move |source| RepairError::Io {
            path: path.clone(),
            source,
        }
    }

    /// Does what needs no copy: takes what has no signed heads as it stands, if that is wanted, and cuts off
    /// what is no part of the log. A node that is in no mesh can do no more.
    pub(super) fn mend_alone(&self, accept: bool, in_mesh: bool) -> Result<Local, RepairError> {
        if self.is_gone()? {
            return self.nothing(accept, in_mesh);
        }
        let storage = self.open()?;
        let mut local = Local {
            floor: self.raise_floor(&storage)?,
            published: self.publish_again(&storage)?,
            cut: self.cut(&storage)?,
            accepted: None,
            is_whole: false,
            is_intact: false,
        };
        let has_floor = self.signed_head("floor")?.is_some();
        if accept && !has_floor {
            local.accepted = Some(self.accept(&storage)?);
            local.cut = self.cut(&storage)?;
        }
        let verdict = self.verdict()?;
        let is_good = matches!(verdict, Verdict::Intact { .. } | Verdict::Empty);
        local.is_whole = is_good && (has_floor || local.accepted.is_some());
        local.is_intact = local.is_whole && verdict != Verdict::Empty;
        if in_mesh || local.is_whole || verdict == Verdict::Empty {
            local.is_whole |= verdict == Verdict::Empty;
            return Ok(local);
        }
        let what = match verdict {
            Verdict::Tampered {
                first_bad_seq,
                kind,
            } if kind != DamageKind::Head || has_floor || self.dir.join("checkpoint").exists() => {
                Damage {
                    first_bad_seq,
                    kind,
                }
                .to_string()
            }
            Verdict::Tampered { .. } => "its signed heads are gone".to_owned(),
            Verdict::Intact { .. } | Verdict::Empty => "its signing floor is gone".to_owned(),
        };
        if accept && has_floor {
            return Err(RepairError::NotNeeded { what });
        }
        Err(RepairError::Alone {
            what,
            heads_gone: !has_floor && self.can_accept()?,
        })
    }

    /// Tells whether nothing is there of the log, neither lines nor heads. Opening it would make both.
    fn is_gone(&self) -> Result<bool, RepairError> {
        let sealed = self.log_path.with_extension("d").join("seg");
        let heads = ["floor", "checkpoint", "hashes.0"].map(|name| self.dir.join(name));
        for path in heads.iter().chain([&self.log_path, &sealed]) {
            let is_there = path.try_exists().map_err(|source| RepairError::Io {
                path: path.clone(),
                source,
            })?;
            if is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What there is to mend where nothing is: what peers have of it.
    fn nothing(&self, accept: bool, in_mesh: bool) -> Result<Local, RepairError> {
        if accept {
            return Err(not_acceptable());
        }
        Ok(Local {
            floor: false,
            published: false,
            cut: None,
            accepted: None,
            is_whole: !in_mesh,
            is_intact: false,
        })
    }

    /// Raises a floor that was put back to an older one to the published head, when the entries lead there:
    /// a higher floor lets nothing be signed that a lower one would not.
    fn raise_floor(&self, storage: &FsStorage) -> Result<bool, RepairError> {
        let (Some(floor), Some(published)) =
            (self.signed_head("floor")?, self.signed_head("checkpoint")?)
        else {
            return Ok(false);
        };
        let higher = published.checkpoint.size > floor.checkpoint.size;
        if !higher || self.leads_to(storage, &published.checkpoint)?.is_none() {
            return Ok(false);
        }
        storage.set_floor(&published).map_err(self.io())?;
        Ok(true)
    }

    /// Makes a published head that is damaged again: the signing floor is never below it.
    fn publish_again(&self, storage: &FsStorage) -> Result<bool, RepairError> {
        let there = self.dir.join("checkpoint").exists();
        let (Some(floor), None) = (self.signed_head("floor")?, self.signed_head("checkpoint")?)
        else {
            return Ok(false);
        };
        if there {
            self.put_head_aside("checkpoint")?;
            storage.set_heads(&floor).map_err(self.io())?;
        }
        Ok(there)
    }

    /// Counts the entries, when they lead to a head.
    fn leads_to(&self, storage: &FsStorage, head: &Checkpoint) -> Result<Option<u64>, RepairError> {
        repair::standing(storage, Some(head)).map_err(self.io())
    }

    fn verdict(&self) -> Result<Verdict, RepairError> {
        let report = verify_files(&self.log_path, &self.dir, &self.key.0, &self.origin);
        let VerifyError::Unreadable { path, source } = match report {
            Ok(report) => return Ok(report.verdict),
            Err(why) => why,
        };
        Err(RepairError::Io { path, source })
    }

    /// Cuts off what is no part of the log.
    fn cut(&self, storage: &FsStorage) -> Result<Option<Cut>, RepairError> {
        let found = repair::behind(storage, &self.origin, &self.key.0).map_err(self.io())?;
        let Some(behind) = found else {
            return Ok(None);
        };
        let name = storage.set_aside(&behind).map_err(self.io())?;
        Ok(Some(Cut {
            seq: behind.seq,
            bytes: behind.bytes.end - behind.bytes.start,
            why: behind.why,
            kept: self.dir.join("evidence").join(name),
        }))
    }

    /// Tells whether the entries can be taken as they stand: nothing signed speaks against them, and each of
    /// them is an entry.
    fn can_accept(&self) -> Result<bool, RepairError> {
        let reader = FsReader::open(&self.log_path, &self.dir)
            .map_err(|(path, source)| RepairError::Io { path, source })?;
        Ok(self.acceptable(&reader)?.is_some())
    }

    /// Counts the entries, when every head of the log that is left here leads to them, whoever cosigned it,
    /// and each of them is an entry. An empty log is not taken as it stands: one that was begun is gone.
    fn acceptable<R: Reader>(&self, reader: &R) -> Result<Option<u64>, RepairError> {
        let mut entries = repair::standing(reader, None).map_err(self.io())?;
        for head in self.own_heads()? {
            let standing = repair::standing(reader, Some(&head.checkpoint)).map_err(self.io())?;
            entries = entries.and(standing);
        }
        Ok(entries.filter(|entries| *entries > 0))
    }

    /// Returns every head of the log that is left here.
    fn own_heads(&self) -> Result<Vec<SignedHead>, RepairError> {
        let mut heads = Vec::new();
        for name in ["floor", "checkpoint", "cosigned"] {
            heads.extend(self.signed_head(name)?);
        }
        let mirrored = mirror::saved_notes(&self.dir.join("mirrored")).map_err(self.io())?;
        let signed = |note: String| SignedHead::open(&note, &self.origin, &self.key.0).ok();
        heads.extend(mirrored.into_iter().filter_map(signed));
        Ok(heads)
    }

    /// Makes a signing floor for entries that have none: the newest head that is left of them, or that of the
    /// empty log.
    fn accept(&self, storage: &FsStorage) -> Result<Accepted, RepairError> {
        let Some(entries) = self.acceptable(storage)? else {
            return Err(not_acceptable());
        };
        let newest = self.own_heads()?;
        let newest = newest.into_iter().max_by_key(|head| head.checkpoint.size);
        for name in ["floor", "checkpoint"] {
            if self.signed_head(name)?.is_none() {
                self.put_head_aside(name)?;
            }
        }
        let (floor, accepted) = match newest {
            Some(head) => {
                let size = head.checkpoint.size;
                (head, Accepted::Published { size })
            }
            None => {
                let nothing = Checkpoint {
                    origin: self.origin.clone(),
                    size: 0,
                    root: EMPTY_ROOT,
                };
                let head = SignedHead::sign(nothing, &self.key.1);
                (head, Accepted::Unsigned { entries })
            }
        };
        storage.set_floor(&floor).map_err(self.io())?;
        Ok(accepted)
    }

    pub(super) fn mend(
        &self,
        tiles: &PeerTiles,
        head: Checkpoint,
        mut progress: impl FnMut(Progress),
    ) -> Result<Repaired, RepairError> {
        let storage = self.open()?;
        let reader = FsReader::open(&self.log_path, &self.dir)
            .map_err(|(path, source)| RepairError::Io { path, source })?;
        let mut repaired = Repaired {
            head: Some(head.clone()),
            ..Repaired::default()
        };
        let patches = match repair::repair(&reader, tiles, &head, &mut progress) {
            Ok(patches) => patches,
            Err(repair::RepairError::TooMuch { .. }) => {
                drop(storage);
                repaired.put_aside = Some(self.put_aside()?);
                return Ok(repaired);
            }
            Err(why) => return Err(self.failed(why)),
        };
        self.one_history(&reader, (tiles, &head), &patches)?;
        storage.mend(&patches).map_err(self.io())?;
        repaired.patches = patches.iter().map(replaced).collect();
        if !self.is_above_all_signed(&head)? {
            if self.signed_head("floor")?.is_none() {
                self.put_head_aside("floor")?;
            }
        } else if self.needs_floor(&head)? {
            let signed = SignedHead::sign(head, &self.key.1);
            storage.set_heads(&signed).map_err(self.io())?;
            repaired.floor = true;
        }
        repaired.cut = self.cut(&storage)?;
        Ok(repaired)
    }

    /// Tells whether the copies are of the history that this log has signed. Putting one in the place of the
    /// other would mend nothing.
    fn one_history(
        &self,
        reader: &FsReader,
        (tiles, head): (&PeerTiles, &Checkpoint),
        patches: &[Patch],
    ) -> Result<(), RepairError> {
        let nodes = TileNodes::open(tiles, head.size, head.root).map_err(RepairError::Copies)?;
        for own in self.own_heads()? {
            let own = own.checkpoint;
            let is_other = if own.size <= head.size {
                root_at(&nodes, own.size)? != own.root
            } else {
                // The lines are those that were signed, and the copies have others.
                let standing = repair::standing(reader, Some(&own)).map_err(self.io())?;
                !patches.is_empty() && standing.is_some()
            };
            if is_other {
                return Err(RepairError::TwoHistories { size: own.size });
            }
        }
        Ok(())
    }

    fn failed(&self, why: repair::RepairError<PeerTilesError>) -> RepairError {
        match why {
            repair::RepairError::Io(source) => RepairError::Io {
                path: self.log_path.clone(),
                source,
            },
            repair::RepairError::Source(why) => RepairError::Copies(why),
            repair::RepairError::NotALine { seq } => RepairError::NotALine { seq },
            repair::RepairError::TooMuch { .. } => RepairError::Cut,
        }
    }

    /// Reads one of the heads; `None` when it is not there, or none of this log.
    fn signed_head(&self, name: &str) -> Result<Option<SignedHead>, RepairError> {
        let path = self.dir.join(name);
        let note = match read_plain(&path, HEAD_BYTES_MAX as u64) {
            Ok(note) => String::from_utf8_lossy(without_name(&note)).into_owned(),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RepairError::Io { path, source }),
        };
        Ok(SignedHead::open(&note, &self.origin, &self.key.0).ok())
    }

    /// Tells whether no head is left here that is larger than that of the copies: a floor below it would
    /// let the log sign a second history.
    fn is_above_all_signed(&self, head: &Checkpoint) -> Result<bool, RepairError> {
        let above = |signed: &SignedHead| signed.checkpoint.size <= head.size;
        Ok(self.own_heads()?.iter().all(above))
    }

    /// Puts a head that cannot be read aside. Without a floor, the next start asks the peers.
    fn put_head_aside(&self, name: &str) -> Result<(), RepairError> {
        let path = self.dir.join(name);
        match std::fs::rename(&path, self.dir.join(format!("{name}.damaged"))) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RepairError::Io { path, source }),
        }
    }

    /// Tells whether the floor is missing, unreadable, or below what the copies have: what was signed since
    /// the last copy stays the floor.
    fn needs_floor(&self, head: &Checkpoint) -> Result<bool, RepairError> {
        let floor = self.signed_head("floor")?;
        Ok(floor.is_none_or(|floor| floor.checkpoint.size < head.size))
    }

    /// Puts the whole log aside: the next start of the node fetches it.
    fn put_aside(&self) -> Result<PathBuf, RepairError> {
        let shelf = Shelf::at(&self.dir, &self.log_path);
        let name = shelf.free_name("damaged");
        let kept = name.and_then(|name| shelf.put(&name));
        kept.map_err(|source| RepairError::Io {
            path: self.dir.join("damaged"),
            source,
        })
    }
}

fn not_acceptable() -> RepairError {
    RepairError::Alone {
        what: "its entries are gone, damaged, or not those of a head that it has signed, and not taken \
               as they stand"
            .to_owned(),
        heads_gone: false,
    }
}

/// A file of lines that was not there before: an empty one is not left behind.
pub(super) struct Fresh(Option<PathBuf>);

impl Fresh {
    pub(super) fn before(log_path: &Path) -> Self {
        let is_new = matches!(log_path.try_exists(), Ok(false));
        Self(is_new.then(|| log_path.to_owned()))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Some(path) = &self.0 else {
            return;
        };
        let is_empty = std::fs::metadata(path).is_ok_and(|found| found.len() == 0);
        if is_empty && let Err(why) = crate::files::remove(path) {
            tracing::warn!(path = %path.display(), error = %why, "an empty audit log is left behind");
        }
    }
}

/// Returns the root of the first entries of the copies.
fn root_at(nodes: &TileNodes<&PeerTiles>, size: u64) -> Result<Hash, RepairError> {
    if size == 0 {
        return Ok(EMPTY_ROOT);
    }
    subtree_root(nodes, 0, size).map_err(|why| match why {
        BuildError::Nodes(why) => RepairError::Copies(why),
        BuildError::Range => RepairError::Copies(TileError::Range),
    })
}

fn replaced(patch: &Patch) -> Replaced {
    let Difference {
        first_seq,
        end_seq,
        entries,
        bytes,
        bad,
    } = patch.difference();
    Replaced {
        first_seq,
        end_seq,
        entries,
        bad_bytes: bytes,
        kept_bytes: bad.len() as u64,
        fetched_seq: patch.first_seq,
        fetched: patch.entries,
    }
}
