//! The number of the node's audit log: it grows when a log cannot be continued and a new one begins.
//!
//! Other nodes know the log by its name, which holds this number, and demand that what they have seen
//! of it goes on. A log that begins anew under an old number would contradict itself for ever.

use std::io;
use std::path::Path;

use openfang_audit::Checkpoint;

use crate::config::Config;
use crate::files;
use crate::home::Home;
use crate::own_log::Found;

/// The number of the first log of a node.
pub const FIRST: u32 = 1;
/// What stands in place of a number when the key of the node has signed nothing yet.
const UNUSED: u32 = 0;
/// What belongs to one log, in the folder of the audit log. What it knows of others is not among it.
const LOG_FILES: [&str; 8] = [
    "seg",
    "floor",
    "checkpoint",
    "closed",
    "hashes.0",
    "blocks",
    "cosigned",
    "lock",
];

/// Returns the number of the log that is there, without changing anything.
///
/// # Errors
/// When the file that holds it cannot be read or holds no number.
pub fn current(home: &Home) -> io::Result<u32> {
    Ok(stored(home)?
        .filter(|epoch| *epoch > UNUSED)
        .unwrap_or(FIRST))
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
pub(crate) fn is_wiped(home: &Home) -> io::Result<bool> {
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
    let intent = format!("{to}\n");
    files::replace(&config.home.audit_turn(), intent.as_bytes())?;
    finish_turn(config)
}

/// Does what was begun by [`turn`].
fn finish_turn(config: &Config) -> io::Result<()> {
    let home = &config.home;
    let Some(to) = number_in(&home.audit_turn())? else {
        return Ok(());
    };
    let from = stored(home)?.unwrap_or(FIRST);
    if from != to {
        let kept = home.audit_dir().join(format!("epoch-{from}"));
        move_log(&home.audit_dir(), &config.audit.log_path, &kept)?;
        files::replace(&home.audit_epoch(), format!("{to}\n").as_bytes())?;
    }
    files::remove(&home.audit_turn())
}

/// Moves everything of a log into a folder. What is moved already is passed over.
pub(crate) fn move_log(dir: &Path, log_path: &Path, to: &Path) -> io::Result<()> {
    files::create_folder(to)?;
    for name in LOG_FILES {
        move_away(&dir.join(name), &to.join(name))?;
    }
    move_away(log_path, &to.join("audit.jsonl"))?;
    files::sync_folder(log_path)
}

fn move_away(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
    }
}

/// Returns what the log before this one ended with, when it was left by [`turn`].
///
/// # Errors
/// When the file is there and cannot be read.
pub(crate) fn last_head(home: &Home) -> io::Result<Option<Checkpoint>> {
    match std::fs::read_to_string(home.audit_last_head()) {
        Ok(text) => Ok(text.parse().ok()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
}

fn stored(home: &Home) -> io::Result<Option<u32>> {
    number_in(&home.audit_epoch())
}

fn number_in(path: &Path) -> io::Result<Option<u32>> {
    match std::fs::read_to_string(path) {
        Ok(text) => match text.trim().parse() {
            Ok(epoch) => Ok(Some(epoch)),
            Err(_not_a_number) => Err(io::ErrorKind::InvalidData.into()),
        },
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why),
    }
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
        files::replace(&home.audit_turn(), b"3\n").expect("written");
        files::create_folder(&home.audit_dir().join("epoch-2")).expect("made");
        move_away(
            &home.audit_dir().join("floor"),
            &home.audit_dir().join("epoch-2/floor"),
        )
        .expect("moved");
        let now = of_start(&config, false).expect("finished");
        assert!(home.audit_dir().join("epoch-2/seg/0.jsonl").exists());
        assert!(!home.audit_turn().exists() && now.epoch >= 3, "{now:?}");
    }
}
