//! The number of the node's audit log: it grows when a log cannot be continued and a new one begins.
//!
//! Other nodes know the log by its name, which holds this number, and demand that what they have seen
//! of it goes on. A log that begins anew under an old number would contradict itself for ever.

use std::io;
use std::path::{Path, PathBuf};

use openfang_audit::storage::without_name;
use openfang_audit::{Checkpoint, HEAD_BYTES_MAX, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};

use crate::config::Config;
use crate::files;
use crate::home::Home;
use crate::own_log::Found;

/// The number of the first log of a node.
pub const FIRST: u32 = 1;
/// What stands in place of a number when the key of the node has signed nothing yet.
const UNUSED: u32 = 0;
/// What belongs to one log beside its lines, in the folder of the audit log. What it knows of others is
/// not among it.
const HEAD_FILES: [&str; 7] = [
    "floor",
    "checkpoint",
    "closed",
    "hashes.0",
    "blocks",
    "cosigned",
    "lock",
];
/// The heads that say in their first line, and under their signature, which number the log has.
const SIGNED_FILES: [&str; 3] = ["floor", "checkpoint", "cosigned"];
/// The folder of the sealed lines.
const SEGMENTS: &str = "seg";
/// What the name of a folder begins with that keeps a log that was left.
const KEPT_PREFIX: &str = "epoch-";
/// Longer than the number, the intent, or a checkpoint.
const TEXT_BYTES_MAX: u64 = 4096;
/// How many names are tried.
const NAMES_MAX: u32 = 1_000;

/// Returns the number of the log that is there, without changing anything.
///
/// # Errors
/// When the file that holds it cannot be read or holds no number.
pub fn current(home: &Home) -> io::Result<u32> {
    Ok(stored(home)?
        .filter(|epoch| *epoch > UNUSED)
        .unwrap_or(FIRST))
}

/// The file does not hold the number of the log that is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} {}, and the signed heads beside the log are of number {signed}", path.display(), says(*.stored)
)]
pub struct OtherNumber {
    path: PathBuf,
    /// What the file holds; `None` when it is not there.
    stored: Option<u32>,
    signed: u32,
}

fn says(stored: Option<u32>) -> String {
    stored.map_or_else(
        || "is not there".to_owned(),
        |stored| format!("says {stored}"),
    )
}

impl OtherNumber {
    fn mend(&self) -> String {
        let Self {
            path,
            stored,
            signed,
        } = self;
        let path = path.display();
        match stored {
            // Number 7 may have been there, and number 1 was put back from a backup.
            Some(later) if later > signed => format!(
                "echo {signed} > {path}; but where an older log was put back over that of number {later}: put all files of number {later} back"
            ),
            Some(_) | None => format!("echo {signed} > {path}"),
        }
    }
}

/// Returns the number of the log that is there, when what is signed of it is of this number.
///
/// # Errors
/// As [`current`], and with [`OtherNumber`] inside when every signed head is of another number.
pub fn checked(home: &Home, me: (&NodeId, &VerifyingKey)) -> io::Result<u32> {
    let number = current(home)?;
    let mut other = None;
    for origin in signed(home, me) {
        if origin.epoch() == number {
            return Ok(number);
        }
        other = other.or(Some(origin.epoch()));
    }
    let Some(signed) = other else {
        return Ok(number);
    };
    let why = OtherNumber {
        path: home.audit_epoch(),
        stored: stored(home)?,
        signed,
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Returns of which logs of this node the heads are that are kept beside the lines. What is not signed by
/// its key, or cannot be read, says nothing.
pub fn signed(home: &Home, (node, key): (&NodeId, &VerifyingKey)) -> impl Iterator<Item = Origin> {
    let dir = home.audit_dir();
    SIGNED_FILES.iter().filter_map(move |name| {
        let note = head_text(&dir.join(name)).ok()?;
        let origin: Origin = note.lines().next()?.parse().ok()?;
        let own = origin.belongs_to(node) && SignedHead::open(&note, &origin, key).is_ok();
        own.then_some(origin)
    })
}

/// Tells whether a log was ever begun. Where one was and nothing of it is left, it was removed.
///
/// # Errors
/// As [`current`].
pub fn is_begun(home: &Home) -> io::Result<bool> {
    Ok(stored(home)?.is_some_and(|epoch| epoch > UNUSED))
}

/// The log that a start finds, or begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfStart {
    /// Its number.
    pub(crate) epoch: u32,
    /// What is there of it.
    pub(crate) found: Found,
}

/// Tells whether the key of the node may have signed before, and nothing tells what: its home was wiped.
///
/// # Errors
/// As [`current`].
pub fn is_wiped(home: &Home) -> io::Result<bool> {
    Ok(stored(home)?.is_none())
}

/// Looks which log there is. Where one is gone and nobody can be asked for it (`asks`), the number of
/// a new one is taken.
///
/// # Errors
/// When the file that holds it cannot be read or written, or holds no number.
pub(crate) fn of_start(config: &Config, asks: bool) -> io::Result<OfStart> {
    let home = &config.home;
    finish_turn(config)?;
    let known = stored(home)?;
    let there = is_there(&config.audit.log_path)? || is_there(&home.audit_dir().join("floor"))?;
    let (epoch, found) = match known {
        Some(UNUSED) | None if there => (FIRST, Found::Whole),
        Some(UNUSED) => (FIRST, Found::New),
        Some(known) if there => return Ok(OfStart::of(known, Found::Whole)),
        Some(known) if asks => return Ok(OfStart::of(known, Found::Gone)),
        Some(known) => (next(known)?, Found::New),
        // The key has been used, and nothing else is left.
        None if asks => (FIRST, Found::Gone),
        None => (FIRST + 1, Found::New),
    };
    files::replace(&home.audit_epoch(), format!("{epoch}\n").as_bytes())?;
    if epoch > FIRST {
        tracing::warn!(
            epoch,
            "the audit log is gone: a new one begins, and other nodes know it as another log"
        );
    }
    Ok(OfStart::of(epoch, found))
}

impl OfStart {
    fn of(epoch: u32, found: Found) -> Self {
        Self { epoch, found }
    }
}

/// Returns the number behind one.
pub(crate) fn next(epoch: u32) -> io::Result<u32> {
    let next = epoch.checked_add(1);
    next.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Leaves the log that is there for one with another number, which the next start begins. What is there
/// of it is kept in a folder of its own. `last` is the last head that is known of it.
///
/// # Errors
/// When a file cannot be moved or written. The next start goes on with it.
pub(crate) fn turn(config: &Config, to: u32, last: Option<&Checkpoint>) -> io::Result<()> {
    if let Some(last) = last {
        let path = config.home.audit_last_head();
        files::replace(&path, last.to_string().as_bytes())?;
    }
    begin_turn(config, to)?;
    finish_turn(config)
}

/// Writes what is meant to be done: to which number, and where the log that is left is kept. Whatever
/// ends half-way is gone on with under the same name.
fn begin_turn(config: &Config, to: u32) -> io::Result<Turn> {
    let from = stored(&config.home)?.unwrap_or(FIRST);
    let kept = Shelf::of(config).free_name(&format!("{KEPT_PREFIX}{from}"))?;
    let turn = Turn { to, kept };
    let intent = format!("{}\n{}\n", turn.to, turn.kept);
    files::replace(&config.home.audit_turn(), intent.as_bytes())?;
    Ok(turn)
}

/// Does what was begun by [`turn`].
fn finish_turn(config: &Config) -> io::Result<()> {
    let home = &config.home;
    let turn = match Intent::load(&home.audit_turn())? {
        None => return Ok(()),
        Some(Intent::Whole(turn)) => turn,
        Some(Intent::Unnamed(to)) => begin_turn(config, to)?,
    };
    let from = stored(home)?.unwrap_or(FIRST);
    if from != turn.to {
        Shelf::of(config).put(&turn.kept)?;
        files::replace(&home.audit_epoch(), format!("{}\n", turn.to).as_bytes())?;
    }
    files::remove(&home.audit_turn())
}

/// What is meant to be done with a log that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn {
    to: u32,
    /// The name of the folder that keeps it.
    kept: String,
}

/// What stands in the file of an intent.
enum Intent {
    Whole(Turn),
    /// A number alone: no folder was chosen, and nothing moved.
    Unnamed(u32),
}

impl Intent {
    fn load(path: &Path) -> io::Result<Option<Self>> {
        let Some(text) = text_of(path)? else {
            return Ok(None);
        };
        let mut lines = text.lines();
        let to = lines.next().and_then(|number| number.parse().ok());
        let found = match (to, lines.next(), lines.next()) {
            (Some(to), None, None) => Some(Self::Unnamed(to)),
            (Some(to), Some(kept), None) if is_kept_name(kept) => Some(Self::Whole(Turn {
                to,
                kept: kept.to_owned(),
            })),
            (Some(_) | None, _, _) => None,
        };
        let rubbish = || rubbish(path, "a number, and the name of a folder");
        found.map(Some).ok_or_else(rubbish)
    }
}

/// Whether a text is a name as [`begin_turn`] makes them, which leads nowhere else.
fn is_kept_name(name: &str) -> bool {
    let number = name.strip_prefix(KEPT_PREFIX);
    number.is_some_and(|number| {
        let plain = |byte: u8| byte.is_ascii_digit() || byte == b'-';
        !number.is_empty() && number.len() <= 32 && number.bytes().all(plain)
    })
}

/// Where logs that are left are kept: their heads in the folder of the audit log, their lines in the one
/// beside the file of lines, on the same disk. Mostly both are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelf {
    heads: PathBuf,
    lines: PathBuf,
    log_path: PathBuf,
}

impl Shelf {
    pub(crate) fn of(config: &Config) -> Self {
        Self::at(&config.home.audit_dir(), &config.audit.log_path)
    }

    pub(crate) fn at(dir: &Path, log_path: &Path) -> Self {
        Self {
            heads: dir.to_owned(),
            lines: log_path.with_extension("d"),
            log_path: log_path.to_owned(),
        }
    }

    /// Returns a name that no folder has: this one, or with a number behind it.
    pub(crate) fn free_name(&self, name: &str) -> io::Result<String> {
        for number in 1..=NAMES_MAX {
            let name = match number {
                1 => name.to_owned(),
                more => format!("{name}-{more}"),
            };
            if !is_taken(&self.heads.join(&name))? && !is_taken(&self.lines.join(&name))? {
                return Ok(name);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Moves everything of the log into folders of a name. What is moved already is passed over; nothing
    /// that is kept there is written over. Returns where the lines are.
    pub(crate) fn put(&self, name: &str) -> io::Result<PathBuf> {
        let (heads, lines) = (self.heads.join(name), self.lines.join(name));
        for folder in [&heads, &lines] {
            files::create_folder(folder)?;
        }
        for name in HEAD_FILES {
            move_away(&self.heads.join(name), &heads.join(name))?;
        }
        move_away(&self.lines.join(SEGMENTS), &lines.join(SEGMENTS))?;
        move_away(&self.log_path, &lines.join("audit.jsonl"))?;
        for path in [&heads, &lines, &heads.join("x"), &lines.join("x")] {
            files::sync_folder(path)?;
        }
        files::sync_folder(&self.log_path)?;
        Ok(lines)
    }
}

/// Renames a file or folder, under a name that is free. One that is not there is no error.
fn move_away(from: &Path, to: &Path) -> io::Result<()> {
    if !is_taken(from)? {
        return Ok(());
    }
    let mut free = to.to_owned();
    let mut number = 1;
    while is_taken(&free)? {
        number += 1;
        if number > NAMES_MAX {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{number}"));
        free = to.with_file_name(name);
    }
    std::fs::rename(from, &free)
}

/// Whether anything has this name, a link that leads nowhere as well.
fn is_taken(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

/// Returns what the log before this one ended with, when it was left by [`turn`].
///
/// # Errors
/// When the file is there and cannot be read.
pub(crate) fn last_head(home: &Home) -> io::Result<Option<Checkpoint>> {
    let read = files::read_plain(&home.audit_last_head(), TEXT_BYTES_MAX);
    match read.map(String::from_utf8) {
        Ok(text) => Ok(text.ok().and_then(|text| text.parse().ok())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

fn stored(home: &Home) -> io::Result<Option<u32>> {
    number_in(&home.audit_epoch())
}

fn number_in(path: &Path) -> io::Result<Option<u32>> {
    let Some(text) = text_of(path)? else {
        return Ok(None);
    };
    let number = text.trim().parse();
    number
        .map(Some)
        .map_err(|_not_a_number| rubbish(path, "a number"))
}

fn text_of(path: &Path) -> io::Result<Option<String>> {
    let read = files::read_plain(path, TEXT_BYTES_MAX);
    match read.map(String::from_utf8) {
        Ok(Ok(text)) => Ok(Some(text)),
        Ok(Err(_)) => Err(rubbish(path, "text")),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(io::Error::new(
            why.kind(),
            format!("{}: {why}", path.display()),
        )),
    }
}

/// Reads a head. Of a file that is longer than one, no more than shows that.
fn head_text(path: &Path) -> io::Result<String> {
    let most = u64::try_from(HEAD_BYTES_MAX).unwrap_or(u64::MAX);
    let text = String::from_utf8(files::read_plain(path, most)?);
    let mut text = text.map_err(|_not_text| rubbish(path, "a head"))?;
    text.truncate(without_name(text.as_bytes()).len());
    Ok(text)
}

fn rubbish(path: &Path, expected: &str) -> io::Error {
    let what = format!("{} does not hold {expected}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Says what helps where the number cannot be had.
#[must_use]
pub fn mend(why: &io::Error) -> String {
    if let Some(other) = other_number(why) {
        other.mend()
    } else if why.kind() == io::ErrorKind::InvalidData {
        "openfang audit verify says which number to write into audit.epoch: that at the end of the first line of a signed head, such as audit.d/floor".to_owned()
    } else {
        "ls -l audit.epoch, df -h".to_owned()
    }
}

/// Returns what is wrong with the number, where there is one and it is not that of the log.
#[must_use]
pub fn other_number(why: &io::Error) -> Option<&OtherNumber> {
    why.get_ref()?.downcast_ref()
}

/// Whether there is something in a file.
fn is_there(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(folder: &Path) -> Config {
        files::create(&folder.join("config.toml"), b"").expect("written");
        config::load(&Home::at(folder), &|_name| Ok(None)).expect("a configuration")
    }

    #[test]
    fn the_number_grows_when_the_log_is_gone_and_only_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let home = &config.home;
        let start = |asks| {
            let OfStart { epoch, found } = of_start(&config, asks).expect("a number");
            (epoch, found)
        };
        assert_eq!(current(home).expect("nothing yet"), FIRST);
        assert_eq!(
            start(true),
            (FIRST, Found::Gone),
            "a key without a trace of a log"
        );
        assert_eq!(start(false), (FIRST + 1, Found::New));
        files::replace(&home.audit_epoch(), b"0\n").expect("written");
        assert!(!is_begun(home).expect("readable"), "the key is new");
        assert_eq!(current(home).expect("nothing yet"), FIRST);
        assert_eq!(start(false), (FIRST, Found::New));
        files::create(&config.audit.log_path, b"{}\n").expect("written");
        assert_eq!(start(false), (FIRST, Found::Whole));
        std::fs::remove_file(&config.audit.log_path).expect("removed");
        std::fs::create_dir_all(home.audit_dir()).expect("made");
        files::create(&home.audit_dir().join("floor"), b"x").expect("written");
        assert_eq!(start(false), (FIRST, Found::Whole), "its floor is there");
        std::fs::remove_dir_all(home.audit_dir()).expect("removed");
        assert_eq!(start(true), (FIRST, Found::Gone), "peers may have it");
        assert_eq!(start(false), (FIRST + 1, Found::New));
        assert_eq!(current(home).expect("stored"), FIRST + 1);
        files::replace(&home.audit_epoch(), b"two").expect("written");
        let kind = of_start(&config, true).expect_err("no number").kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_number_that_is_not_that_of_the_signed_heads_is_told_with_theirs() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        let keys = openfang_id::NodeSeed::from_bytes([7; 32]).keys();
        let (node, key) = (keys.node_id(), keys.log.verifying_key());
        let put = |name: &str, seed: u8, epoch: u32| {
            let keys = openfang_id::NodeSeed::from_bytes([seed; 32]).keys();
            let head = Checkpoint {
                origin: Origin::of(&keys.node_id(), epoch),
                size: 7,
                root: openfang_audit::Hash::from_bytes([3; 32]),
            };
            let note = SignedHead::sign(head, &keys.log).note;
            files::replace(&home.audit_dir().join(name), note.as_bytes()).expect("written");
        };
        let number = |text: &str| {
            files::replace(&home.audit_epoch(), text.as_bytes()).expect("written");
            checked(&home, (&node, &key))
        };
        std::fs::create_dir_all(home.audit_dir()).expect("made");
        assert_eq!(number("9").expect("nothing speaks against it"), 9);
        put("floor", 8, 2);
        assert_eq!(number("9").expect("the head of another node"), 9);
        put("floor", 7, 2);
        assert_eq!(number("2").expect("right"), 2);
        for (wrong, says, mend) in [
            ("9", "says 9", "put all files of number 9 back"),
            ("1", "says 1", "echo 2 > "),
            ("0", "says 0", "echo 2 > "),
        ] {
            let why = number(wrong).expect_err("another number");
            assert!(why.to_string().contains(says), "{why}");
            assert!(why.to_string().contains("are of number 2"), "{why}");
            assert!(super::mend(&why).contains(mend), "{why}");
        }
        std::fs::remove_file(home.audit_epoch()).expect("removed");
        let why = checked(&home, (&node, &key)).expect_err("not the first");
        assert!(why.to_string().contains("is not there"), "{why}");
        // One of them is that of the log: the other is told by whoever judges the heads.
        put("checkpoint", 7, 3);
        assert_eq!(number("3").expect("one fits"), 3);
    }

    #[test]
    fn a_log_that_is_left_is_kept_wherever_the_machine_stops() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let home = &config.home;
        files::replace(&home.audit_epoch(), b"0\n").expect("written");
        of_start(&config, false).expect("new");
        let fill = || {
            std::fs::create_dir_all(home.audit_dir().join("seg")).expect("made");
            files::replace(&config.audit.log_path, b"{}\n").expect("written");
            for name in ["floor", "checkpoint", "seg/0.jsonl", "peers"] {
                files::replace(&home.audit_dir().join(name), b"x").expect("written");
            }
        };
        fill();
        let last = Checkpoint {
            origin: "n-0123456789abcdef.openfang.mesh/audit/1"
                .parse()
                .expect("an origin"),
            size: 7,
            root: openfang_audit::Hash::from_bytes([3; 32]),
        };
        turn(&config, FIRST + 1, Some(&last)).expect("left");
        assert_eq!(last_head(home).expect("readable"), Some(last));
        let now = of_start(&config, true).expect("gone on");
        assert_eq!((now.epoch, now.found), (FIRST + 1, Found::Gone));
        let kept = home.audit_dir().join("epoch-1");
        for name in ["audit.jsonl", "floor", "checkpoint", "seg/0.jsonl"] {
            assert!(kept.join(name).exists(), "{name}");
        }
        assert!(
            home.audit_dir().join("peers").exists(),
            "what is known of others stays"
        );

        // The machine stops when some files are moved.
        fill();
        files::replace(&home.audit_turn(), b"3\nepoch-2\n").expect("written");
        files::create_folder(&home.audit_dir().join("epoch-2")).expect("made");
        move_away(
            &home.audit_dir().join("floor"),
            &home.audit_dir().join("epoch-2/floor"),
        )
        .expect("moved");
        let now = of_start(&config, false).expect("finished");
        assert!(home.audit_dir().join("epoch-2/seg/0.jsonl").exists());
        assert!(!home.audit_dir().join("epoch-2-2").exists());
        assert!(!home.audit_turn().exists() && now.epoch >= 3, "{now:?}");
    }

    #[test]
    fn what_is_kept_of_an_earlier_log_is_never_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let home = &config.home;
        files::replace(&home.audit_epoch(), b"1\n").expect("written");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect(name);
        for name in ["audit.jsonl", "floor", "seg/0.jsonl"] {
            write(&format!("audit.d/epoch-1/{name}"), "precious");
        }
        write("audit.jsonl", "now");
        write("audit.d/seg/0.jsonl", "now");
        write("audit.d/floor", "now");
        // The intent of a version that chose no name.
        files::replace(&home.audit_turn(), b"2\n").expect("written");
        assert_eq!(of_start(&config, true).expect("gone on").epoch, 2);
        for name in ["audit.jsonl", "floor", "seg/0.jsonl"] {
            assert_eq!(read(&format!("audit.d/epoch-1/{name}")), "precious");
            assert_eq!(read(&format!("audit.d/epoch-1-2/{name}")), "now");
        }
        // Something is there again under the old names while the move is not done.
        write("audit.jsonl", "half");
        files::replace(&home.audit_epoch(), b"1\n").expect("written");
        files::replace(&home.audit_turn(), b"2\nepoch-1-2\n").expect("written");
        of_start(&config, true).expect("gone on");
        assert_eq!(read("audit.d/epoch-1-2/audit.jsonl"), "now");
        assert_eq!(read("audit.d/epoch-1-2/audit.jsonl-2"), "half");
    }

    #[test]
    fn an_intent_that_leads_elsewhere_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        for bad in [
            "",
            "x",
            "-1\n",
            "2\n../x\n",
            "2\nepoch-\n",
            "2\nepoch-1\nx\n",
            "2\n/\n",
        ] {
            files::replace(&config.home.audit_turn(), bad.as_bytes()).expect("written");
            let why = of_start(&config, true).expect_err(bad);
            assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{bad:?}");
            assert!(why.to_string().contains("audit.epoch.next"), "{why}");
        }
    }

    #[test]
    fn lines_of_their_own_place_are_kept_on_their_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (dir, log) = (
            folder.path().join("home/audit.d"),
            folder.path().join("logs/all.jsonl"),
        );
        for folder in [&dir, &folder.path().join("logs/all.d/seg")] {
            std::fs::create_dir_all(folder).expect("made");
        }
        std::fs::write(&log, "x").expect("written");
        std::fs::write(dir.join("floor"), "x").expect("written");
        let shelf = Shelf::at(&dir, &log);
        let kept = shelf.put("epoch-1").expect("kept");
        assert_eq!(kept, folder.path().join("logs/all.d/epoch-1"));
        assert!(kept.join("seg").exists() && kept.join("audit.jsonl").exists());
        assert!(dir.join("epoch-1/floor").exists() && !log.exists());
        assert_eq!(shelf.free_name("epoch-1").expect("a name"), "epoch-1-2");
    }
}
