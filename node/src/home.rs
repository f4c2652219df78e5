//! The folder a node lives in: where each file is, who may read it, and who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Lookup;
use crate::files;

/// The environment variable that names the home.
const VARIABLE: &str = "OPENFANG_HOME";
/// The home in the user's folder.
const FOLDER: &str = ".openfang";

/// How often a held lock is tried.
const LOCK_ATTEMPTS: u32 = 5;
/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The folder of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

/// Why a home cannot be used. Every message ends with what mends it.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither variable is set.
    #[error(
        "no home: neither OPENFANG_HOME nor HOME is set\n    mend: export OPENFANG_HOME=/var/lib/openfang"
    )]
    Unnamed,
    /// The folder does not exist.
    #[error("{path}: there is no node here yet\n    mend: openfang init --quick")]
    Missing {
        /// The home.
        path: PathBuf,
    },
    /// The folder cannot be written to.
    #[error(
        "{path}: not writable: {why}\n    mend: chown -R \"$USER\" {path} && chmod u+rwX {path}"
    )]
    NotWritable {
        /// The home, or the file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// Another daemon works in it.
    #[error("{path}: held by another openfang daemon{}\n    mend: openfang stop, or another OPENFANG_HOME", pid_text(*.pid))]
    Held {
        /// The home.
        path: PathBuf,
        /// The other daemon, when it could be read.
        pid: Option<u32>,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// The right to be the one daemon of a home. Given back when dropped or when the process ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _file: File,
}

impl Home {
    /// Takes the home of `OPENFANG_HOME`, or `.openfang` in the user's folder. Nothing is created.
    ///
    /// # Errors
    /// [`HomeError::Unnamed`] when neither is known.
    pub fn from_environment(environment: Lookup<'_>) -> Result<Self, HomeError> {
        let named = |name| environment(name).filter(|text| !text.is_empty());
        if let Some(path) = named(VARIABLE) {
            return Ok(Self::at(Path::new(path.as_str())));
        }
        let user = named("HOME").ok_or(HomeError::Unnamed)?;
        Ok(Self::at(&Path::new(user.as_str()).join(FOLDER)))
    }

    /// Takes a folder.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned()))
    }

    /// Creates the folder, for its owner alone, when it is not there.
    ///
    /// # Errors
    /// [`HomeError::NotWritable`].
    pub fn create(&self) -> Result<(), HomeError> {
        files::create_folder(&self.0).map_err(|why| self.not_writable(why))
    }

    /// Becomes the one daemon of this home.
    ///
    /// # Errors
    /// When the folder is missing or not writable, or another daemon holds it.
    pub fn lock(&self) -> Result<Lock, HomeError> {
        if !self.0.is_dir() {
            return Err(HomeError::Missing {
                path: self.0.clone(),
            });
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.join("lock"))
            .map_err(|why| self.not_writable(why))?;
        self.take(&mut file)?;
        file.set_len(0)
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|why| self.not_writable(why))?;
        Ok(Lock { _file: file })
    }

    /// Asks whether a daemon holds this home, without holding it longer than the question takes.
    ///
    /// # Errors
    /// When the lock file is there and cannot be opened.
    pub fn held_by(&self) -> io::Result<Option<u32>> {
        let mut file = match File::open(self.0.join("lock")) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(read_pid(&mut file)),
            Err(TryLockError::Error(why)) => Err(why),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Hashes of the configuration at the last start.
    #[must_use]
    pub fn fingerprint(&self) -> PathBuf {
        self.0.join("config.seen")
    }

    /// The seed of the node's keys.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// What `openfang join` stored.
    #[must_use]
    pub fn network_state(&self) -> PathBuf {
        self.0.join("network.toml")
    }

    /// How to reach the running daemon.
    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.0.join("daemon.json")
    }

    /// The audit log, unless the configuration names another file.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// What belongs to the audit log: lock, floor, checkpoint, hashes.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.0.join("audit.d")
    }

    /// The number of the audit log.
    #[must_use]
    pub fn audit_epoch(&self) -> PathBuf {
        self.0.join("audit.epoch")
    }

    /// The kernel's database.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The manifests of agents, one folder each.
    #[must_use]
    pub fn agents(&self) -> PathBuf {
        self.0.join("agents")
    }

    /// What the mesh remembers.
    #[must_use]
    pub fn mesh(&self) -> PathBuf {
        self.0.join("mesh")
    }

    /// What a detached daemon writes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("openfang.log")
    }

    /// Whoever asks whether the home is held holds it for that moment, too: a moment later it is
    /// free, or really held.
    fn take(&self, file: &mut File) -> Result<(), HomeError> {
        for _attempt in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(why)) => return Err(self.not_writable(why)),
            }
        }
        Err(HomeError::Held {
            path: self.0.clone(),
            pid: read_pid(file),
        })
    }

    fn not_writable(&self, why: io::Error) -> HomeError {
        HomeError::NotWritable {
            path: self.0.clone(),
            why,
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn a_home_has_one_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert_eq!(home.held_by().expect("asked"), None);
        let lock = home.lock().expect("the first");
        let me = Some(std::process::id());
        assert!(matches!(home.lock(), Err(HomeError::Held { pid, .. }) if pid == me));
        assert_eq!(home.held_by().expect("asked"), me);
        drop(lock);
        assert_eq!(home.held_by().expect("asked"), None);
        let _again = home.lock().expect("free again");
    }

    #[test]
    fn a_home_that_is_missing_or_no_folder_is_refused_with_what_mends_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(&folder.path().join("none"));
        let shown = home.lock().expect_err("missing").to_string();
        assert!(shown.ends_with("mend: openfang init --quick"), "{shown}");
        let file = folder.path().join("file");
        files::create(&file, b"").expect("created");
        let shown = Home::at(&file.join("home"))
            .create()
            .expect_err("below a file")
            .to_string();
        assert!(
            shown.contains("not writable") && shown.contains("mend: "),
            "{shown}"
        );
    }

    #[test]
    fn the_variable_wins_over_the_folder_of_the_user() {
        let at = |home: Option<&str>, user: Option<&str>| {
            let lookup = |name: &str| {
                let text = if name == VARIABLE { home } else { user };
                text.map(|text| Zeroizing::new(text.to_owned()))
            };
            Home::from_environment(&lookup)
                .map(|home| home.path().to_owned())
                .ok()
        };
        assert_eq!(at(Some("/a"), Some("/u")), Some("/a".into()));
        assert_eq!(at(Some(""), Some("/u")), Some("/u/.openfang".into()));
        assert_eq!(at(None, None), None);
    }
}
