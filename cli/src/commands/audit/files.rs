//! The files of the own log, what they are checked against, and other files that are handed in.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use openfang_audit::policy::Policy;
use openfang_audit::storage::without_name;
use openfang_audit::vault::VaultReader;
use openfang_audit::verify::{DamageKind, Report, Source, Verdict};
use openfang_audit::{HEAD_BYTES_MAX, Hash, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};
use openfang_node::audit_epoch::{FIRST, checked, is_begun, is_wiped, mend, other_number, signed};
use openfang_node::config::Config;
use openfang_node::files::read_plain;
use openfang_node::put_back::LeftBehind;

use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// Stands for stdin.
const STDIN: &str = "-";

/// The files of the log and what they are checked against.
pub(super) struct Files {
    pub(super) log_path: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) key: VerifyingKey,
    /// Whose log it is.
    pub(super) node: NodeId,
    pub(super) origin: Origin,
    /// Where the head is that the witnesses have cosigned, and by whose keys it is checked.
    cosigned: PathBuf,
    policy: PathBuf,
    /// What keeps the personal values that lines commit to.
    pub(super) vault: VaultReader,
    /// Whether this node can have peers.
    pub(super) network_on: bool,
    /// Whether this node keeps a log.
    pub(super) enabled: bool,
    /// Whether a start asks peers what they know of the log.
    pub(super) asks: bool,
    /// Where the lines are, when audit.log_path names another file.
    pub(super) left: Option<LeftBehind>,
    /// Where the node remembers what is doubtful about its log.
    doubt: PathBuf,
    /// Where the heads are that mirrors have cosigned.
    mirrored: PathBuf,
    /// Whether a log was ever begun.
    begun: bool,
    /// What the log is judged by and cannot be read, each with what helps.
    pub(super) unread: Vec<String>,
}

/// What is kept of the witnesses is written again by whoever has them.
pub(super) const MEND_KEPT: &str = "openfang start, or restart: the node writes it again as soon as its witnesses have cosigned its next head. Without a mesh: move audit.d/policy and audit.d/cosigned away";
/// The longest word of a doubt.
const DOUBT_BYTES_MAX: usize = 64;

/// What stands where a head should be.
pub(super) enum Kept {
    /// A head of this log.
    Head(SignedHead),
    /// Nothing, or the head of an earlier log.
    Nothing,
    /// Something else; why it is no head.
    Bad(String),
}

impl Files {
    /// Finds the log of this node.
    pub(super) fn of(context: &Context) -> Result<Self, Failure> {
        let mut files = Self::to_judge(context)?;
        match files.unread.pop() {
            None => Ok(files),
            Some(why) => Err(Failure::new(Exit::Usage, why)),
        }
    }

    /// The same for a judgement: what cannot be read is noted, and must not hide what can be found out
    /// without it.
    pub(super) fn to_judge(context: &Context) -> Result<Self, Failure> {
        let config = context.config()?;
        if !config.audit.enabled {
            say_disabled(&config, context)?;
        }
        let seed = openfang_node::keys::load(&context.home.node_key())
            .map_err(|why| Failure::new(Exit::Usage, why.to_string()))?;
        let keys = seed.keys();
        let mut files = Self {
            left: LeftBehind::find(&config),
            log_path: config.audit.log_path,
            dir: context.home.audit_dir(),
            key: keys.log.verifying_key(),
            node: keys.node_id(),
            origin: Origin::of(&keys.node_id(), FIRST),
            cosigned: context.home.cosigned_head(),
            policy: context.home.audit_policy(),
            vault: openfang_node::redaction::reader(&context.home, &seed.vault_key()),
            network_on: config.network.enabled && config.network.secret.is_some(),
            enabled: config.audit.enabled,
            asks: config.network.enabled && config.audit.enabled,
            doubt: context.home.audit_doubt(),
            mirrored: context.home.mirrored_heads(),
            begun: true,
            unread: Vec::new(),
        };
        let (node, key) = (files.node, files.key);
        let me = (&node, &key);
        let stored = checked(&context.home, me);
        // A key whose number is gone has signed before, and nothing tells what.
        let begun = || Ok::<bool, io::Error>(is_begun(&context.home)? || is_wiped(&context.home)?);
        match stored.and_then(|epoch| Ok((epoch, begun()?))) {
            Ok((epoch, begun)) => {
                files.origin = Origin::of(&node, epoch);
                files.begun = begun;
            }
            Err(why) => {
                let signed = signed(&context.home, me).next();
                files
                    .unread
                    .push(unread_number(context, &why, signed.as_ref()));
                files.origin = signed.unwrap_or(files.origin);
            }
        }
        Ok(files)
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source {
            log_path: &self.log_path,
            dir: &self.dir,
            key: &self.key,
            origin: &self.origin,
        }
    }

    /// About how many bytes of lines there are.
    pub(super) fn bytes(&self) -> u64 {
        let sealed = std::fs::read_dir(self.log_path.with_extension("d").join("seg"));
        let sealed = sealed.into_iter().flatten().flatten();
        let sealed = sealed.filter_map(|entry| entry.metadata().ok());
        let active = std::fs::metadata(&self.log_path).ok();
        sealed.chain(active).map(|found| found.len()).sum()
    }

    /// Names the file that an entry stands in: a sealed segment, or the one that is written to.
    pub(super) fn lines_of(&self, seq: u64) -> String {
        let folder = self.log_path.with_extension("d").join("seg");
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let holds = |name: &str| {
            let (first, end) = name.strip_suffix(".jsonl")?.split_once('-')?;
            let seqs = first.parse::<u64>().ok()?..end.parse::<u64>().ok()?;
            seqs.contains(&seq).then_some(())
        };
        let mut found = names.filter(|entry| entry.file_name().to_str().and_then(holds).is_some());
        let path = found
            .next()
            .map_or(self.log_path.clone(), |entry| entry.path());
        path.display().to_string()
    }

    /// Says in a word how it stands with the signing floor.
    pub(super) fn floor_word(&self) -> &'static str {
        match self.head(&self.dir.join("floor")) {
            Ok(Kept::Head(_)) => "there",
            Ok(Kept::Nothing) if !self.dir.join("floor").exists() => "missing",
            Ok(Kept::Nothing) => "of_another_log",
            Ok(Kept::Bad(_)) | Err(_) => "damaged",
        }
    }

    /// Says that the reserve for the last entries is gone: it is used when the disk is full.
    pub(super) fn missing_reserve(&self) -> Option<String> {
        let path = self.log_path.with_extension("d").join("reserve");
        (self.written() > 0 && !path.exists()).then(|| {
            format!(
                "        {} is not there: the disk was full, and it was used for the last entries; or it was removed. The node makes it again when there is room: df -h",
                path.display()
            )
        })
    }

    /// How many entries there are, by their leaf hashes.
    pub(super) fn written(&self) -> u64 {
        let hashes = std::fs::metadata(self.dir.join("hashes.0"));
        hashes.map_or(0, |found| found.len() / Hash::BYTES as u64)
    }

    /// Judges what the files alone cannot tell: an empty log that was begun has been removed.
    pub(super) fn judge(&self, mut report: Report) -> Report {
        if report.verdict == Verdict::Empty && self.begun {
            report.verdict = Verdict::Tampered {
                first_bad_seq: None,
                kind: DamageKind::Missing,
            };
        }
        report
    }

    pub(super) fn unreadable(&self, why: &dyn std::error::Error) -> Failure {
        let mut what = why.to_string();
        if let Some(source) = why.source() {
            what = format!("{what}: {source}");
        }
        Failure::new(Exit::Usage, what).mend(format!(
            "ls -l {} {}",
            self.log_path.display(),
            self.dir.display()
        ))
    }

    /// Returns the newest head that enough witnesses have cosigned, as far as it was kept.
    pub(super) fn cosigned(&self) -> Result<Kept, Failure> {
        self.head(&self.cosigned)
    }

    /// Returns the newest head that was published.
    pub(super) fn published(&self) -> Result<Kept, Failure> {
        self.head(&self.dir.join("checkpoint"))
    }

    /// How many entries the newest head covers that this node has signed and kept; `None` where one of them cannot
    /// be read.
    pub(super) fn signed(&self) -> Result<Option<u64>, Failure> {
        let mut most = 0;
        for head in [self.published()?, self.head(&self.dir.join("floor"))?] {
            match head {
                Kept::Head(head) => most = most.max(head.checkpoint.size),
                Kept::Nothing => {}
                Kept::Bad(_) => return Ok(None),
            }
        }
        Ok(Some(most))
    }

    fn head(&self, path: &Path) -> Result<Kept, Failure> {
        let Some(bytes) = read_if_there(path, HEAD_BYTES_MAX)? else {
            return Ok(Kept::Nothing);
        };
        let note = String::from_utf8_lossy(without_name(&bytes));
        let name = note.lines().next().unwrap_or_default();
        if name != self.origin.as_str() && name.parse::<Origin>().is_ok() {
            return Ok(Kept::Nothing);
        }
        Ok(match SignedHead::open(&note, &self.origin, &self.key) {
            Ok(head) => Kept::Head(head),
            Err(why) => Kept::Bad(format!("{} is damaged: {why}", path.display())),
        })
    }

    /// Returns the heads of this log that mirrors have cosigned, as far as they were kept.
    pub(super) fn mirrored(&self) -> Result<Vec<SignedHead>, Failure> {
        let notes = openfang_node::mirror::saved_notes(&self.mirrored)
            .map_err(|why| cannot_read(&self.mirrored, &why))?;
        let own = |note: &String| SignedHead::open(note, &self.origin, &self.key).ok();
        Ok(notes.iter().filter_map(own).collect())
    }

    /// Warns of files that should hold heads that mirrors have cosigned, and do not: nothing is compared with them.
    pub(super) fn warn_of_mirrored(&self) {
        let damaged = openfang_node::mirror::damaged_notes(&self.mirrored, (&self.node, &self.key));
        for path in damaged.unwrap_or_default() {
            render::message(&format!(
                "{} holds no head of this log that a mirror has cosigned: it is damaged, and nothing is compared with it\n    mend: openfang start, or restart: the node writes it again when that mirror has its next head",
                path.display()
            ));
        }
    }

    /// Returns the word for what the last run found to be doubtful about the log.
    pub(super) fn doubt(&self) -> Result<Option<String>, Failure> {
        let bytes = read_if_there(&self.doubt, DOUBT_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
    }

    /// Says what brings a head over entries that no signed head covers.
    pub(super) fn mend_unsigned(&self) -> String {
        let in_doubt = matches!(self.doubt(), Ok(Some(_)));
        if !self.enabled {
            format!("this node keeps no audit log any more, and signs nothing: {MEND_DISABLED}")
        } else if in_doubt && self.network_on {
            "openfang start, and wait: the log is in doubt (audit.doubt), and nothing is signed before the peers have said what they know of it; openfang audit witness status says whom it waits for".to_owned()
        } else if in_doubt {
            "openfang join: the log is in doubt (audit.doubt), and nothing is signed before those who may know of it were asked; or, when there never was a peer, network.enabled = false in config.toml, then openfang restart".to_owned()
        } else {
            "openfang start: a head is signed within a second, in a mesh when the peers have said what they know of the log; openfang audit witness status says what it waits for".to_owned()
        }
    }

    /// Returns whose keys are asked for under a head of this log: the witnesses that were kept, or nobody
    /// where there were never any.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        if let Some(policy) = self.kept_policy()? {
            return Ok(policy);
        }
        match self.missing_policy() {
            None => self.unwitnessed(),
            Some(why) => Err(Failure::new(Exit::Usage, why).mend(MEND_KEPT)),
        }
    }

    /// Says that the policy is missing, where something tells that there was one.
    pub(super) fn missing_policy(&self) -> Option<String> {
        let kept = match (self.cosigned(), self.mirrored()) {
            (Ok(Kept::Head(_) | Kept::Bad(_)), _) => {
                "its witnesses have cosigned (audit.d/cosigned)"
            }
            (_, Ok(heads)) if !heads.is_empty() => "its mirrors have cosigned (audit.d/mirrored)",
            (Ok(Kept::Nothing) | Err(_), _) => return None,
        };
        Some(format!(
            "{} is missing, or that of another log, and there is a head that {kept}: whose keys count for this log is not known",
            self.policy.display()
        ))
    }

    /// Returns the policy that was kept, if it is one of this log.
    pub(super) fn kept_policy(&self) -> Result<Option<Policy>, Failure> {
        let Some(bytes) = read_if_there(&self.policy, openfang_audit::policy::POLICY_BYTES_MAX)?
        else {
            return Ok(None);
        };
        let policy = parse_policy(&self.policy, &bytes, MEND_KEPT)?;
        let own = |log: &openfang_audit::policy::KnownLog| {
            log.key.name() == self.origin.as_str() && *log.key.key() == self.key
        };
        Ok(policy.logs().iter().any(own).then_some(policy))
    }

    /// Returns since when there are witnesses: microseconds since 1970.
    pub(super) fn witnessed_since(&self) -> Option<u64> {
        let written = std::fs::metadata(&self.policy).ok()?.modified().ok()?;
        let since = written.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_micros()).ok()
    }

    fn unwitnessed(&self) -> Result<Policy, Failure> {
        Policy::of_log(&self.origin, self.key, &[], 0)
            .map_err(|why| Failure::new(Exit::Failure, format!("no policy: {why}")))
    }
}

/// A node that is told to keep no log may have one from before.
fn say_disabled(config: &Config, context: &Context) -> Result<(), Failure> {
    let there = [
        config.audit.log_path.clone(),
        context.home.audit_dir().join("floor"),
    ];
    if there.iter().any(|path| path.exists()) {
        render::message(&format!(
            "{DISABLED}. What is said here is about the one it kept before"
        ));
        return Ok(());
    }
    Err(disabled())
}

/// What a node that keeps no log says to those who ask for it.
pub(super) fn disabled() -> Failure {
    Failure::new(Exit::Usage, DISABLED).mend(MEND_DISABLED)
}

const DISABLED: &str = "this node keeps no audit log: audit.enabled is false in config.toml";
const MEND_DISABLED: &str = "audit.enabled = true in config.toml, then openfang restart";

/// Says that the number of the log cannot be read, or is another one, and what to write there.
fn unread_number(context: &Context, why: &io::Error, signed: Option<&Origin>) -> String {
    if let Some(other) = other_number(why) {
        return format!(
            "the number of the log is wrong: {other}\n    mend: {}",
            mend(why)
        );
    }
    let path = context.home.audit_epoch();
    let path = path.display();
    let mend = match signed {
        Some(origin) => format!(
            "echo {} > {path}: the signed heads are of that number",
            origin.epoch()
        ),
        None => format!("put {path} back from a backup; it holds the number of the log"),
    };
    format!("the number of the log cannot be read: {why}\n    mend: {mend}")
}

/// Reads a policy that was handed in.
pub(super) fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let bytes = read(path, openfang_audit::policy::POLICY_BYTES_MAX)?;
    let mend = "openfang audit policy, on the node whose log it is";
    parse_policy(path, &bytes, mend)
}

fn parse_policy(path: &Path, bytes: &[u8], mend: &str) -> Result<Policy, Failure> {
    Policy::parse(bytes).map_err(|why| {
        let what = format!("{} is damaged: {why}", path.display());
        Failure::new(Exit::Usage, what).mend(mend)
    })
}

/// Reads a file that was handed in, or stdin; of one that is longer than `bytes_max`, a byte more.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let read = if path.as_os_str() == STDIN {
        take(io::stdin().lock(), bytes_max)
    } else {
        File::open(path).and_then(|file| take(file, bytes_max))
    };
    read.map_err(|why| cannot_read(path, &why))
}

fn read_if_there(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, Failure> {
    match read_plain(path, u64::try_from(bytes_max).unwrap_or(u64::MAX)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(cannot_read(path, &why)),
    }
}

fn take(file: impl io::Read, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that was asked for with `--out` and cannot be made.
pub(super) fn cannot_write(path: &Path, why: &io::Error) -> Failure {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
    let mend = if why.kind() == io::ErrorKind::AlreadyExists {
        "--out with the name of a file that does not exist".to_owned()
    } else if why.kind() == io::ErrorKind::NotFound {
        format!("mkdir -p {folder}")
    } else {
        format!("--out in a folder that can be written to: ls -ld {folder}, df -h {folder}")
    };
    let what = format!("cannot write {}: {why}", path.display());
    Failure::new(Exit::Usage, what).mend(mend)
}

fn cannot_read(path: &Path, why: &io::Error) -> Failure {
    let what = format!("cannot read {}: {why}", path.display());
    Failure::new(Exit::Usage, what).mend(format!("ls -l {}", path.display()))
}

/// Names a head in a sentence, and says what is not known of it.
pub(super) fn note_missing_quorum(kept: &Kept) {
    if let Kept::Bad(why) = kept {
        render::message(&format!(
            "the cosigned head is not used: {why}\n    mend: {MEND_KEPT}"
        ));
    }
}
