//! The folder a node lives in: where each file is, who may read it, and who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openfang_audit::cosign::Role;

use crate::config::{Lookup, NotText};
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
    /// A variable that should name it holds no text.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// Others can look into the folder.
    #[error(
        "{path}: other users can look into the home of this node (mode {mode:04o})\n    mend: chmod 700 {path}"
    )]
    Exposed {
        /// The home.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Whether a daemon holds it cannot be asked.
    #[error("{path}: cannot be read: {why}\n    mend: {}", files::mend(path, why.kind()))]
    NotReadable {
        /// The file that was asked.
        path: PathBuf,
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// The folder cannot be written to.
    #[error("{path}: not writable: {why}\n    mend: {}", files::mend(path, why.kind()))]
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
    /// [`HomeError::Unnamed`] when neither is known, [`HomeError::NotText`] when one is no text.
    pub fn from_environment(environment: Lookup<'_>) -> Result<Self, HomeError> {
        let named = |name| Ok::<_, NotText>(environment(name)?.filter(|text| !text.is_empty()));
        if let Some(path) = named(VARIABLE)? {
            return Ok(Self::at(Path::new(path.as_str())));
        }
        let user = named("HOME")?.ok_or(HomeError::Unnamed)?;
        Ok(Self::at(&Path::new(user.as_str()).join(FOLDER)))
    }

    /// Takes a folder.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned()))
    }

    /// Creates the folder, for its owner alone, when it is not there. An empty folder, or one that is
    /// a home already, becomes its owner's alone; then the mode it had is returned.
    ///
    /// # Errors
    /// [`HomeError::NotWritable`]; [`HomeError::Exposed`] for a folder with other things in it, which
    /// others may have to reach.
    pub fn create(&self) -> Result<Option<u32>, HomeError> {
        let fail = |why| self.not_writable(why);
        files::create_folder(&self.0).map_err(fail)?;
        let Some(mode) = files::exposed(&self.0).map_err(fail)? else {
            return Ok(None);
        };
        let is_home = self.config().exists() || self.node_key().exists();
        if !is_home && self.0.read_dir().map_err(fail)?.next().is_some() {
            return Err(HomeError::Exposed {
                path: self.0.clone(),
                mode,
            });
        }
        files::make_private(&self.0).map_err(fail)?;
        Ok(Some(mode))
    }

    /// Checks that nobody but its owner can do anything with the folder.
    ///
    /// # Errors
    /// When it is missing, or somebody can.
    pub fn check_private(&self) -> Result<(), HomeError> {
        let exposed = if self.0.is_file() {
            Err(io::Error::from(io::ErrorKind::NotADirectory))
        } else {
            files::exposed(&self.0)
        };
        match exposed {
            Ok(None) => Ok(()),
            Ok(Some(mode)) => Err(HomeError::Exposed {
                path: self.0.clone(),
                mode,
            }),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Err(HomeError::Missing {
                path: self.0.clone(),
            }),
            Err(why) => Err(HomeError::NotReadable {
                path: self.0.clone(),
                why,
            }),
        }
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
    pub fn held_by(&self) -> Result<Option<u32>, HomeError> {
        let path = self.0.join("lock");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(HomeError::NotReadable { path, why }),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(read_pid(&mut file)),
            Err(TryLockError::Error(why)) => Err(HomeError::NotReadable { path, why }),
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

    /// What this node has promised as a cosigner of other logs, by generation of its key.
    #[must_use]
    pub fn cosigner_state(&self, role: Role, generation: u32) -> PathBuf {
        let folder = match role {
            Role::Witness => "witness",
            Role::Mirror => "mirror.state",
        };
        self.audit_dir().join(format!("{folder}/{generation}"))
    }

    /// Says that a generation of a cosigner's key has been used. Not in the folder of its state, so
    /// that both are not lost together.
    #[must_use]
    pub fn cosigner_bound(&self, role: Role, generation: u32) -> PathBuf {
        let name = match role {
            Role::Witness => "witness",
            Role::Mirror => "mirror",
        };
        self.0.join(format!("{name}.{generation}.bound"))
    }

    /// The copies of other logs.
    #[must_use]
    pub fn mirror_copies(&self) -> PathBuf {
        self.audit_dir().join("mirror")
    }

    /// The heads of the own log that its mirrors have cosigned.
    #[must_use]
    pub fn mirrored_heads(&self) -> PathBuf {
        self.audit_dir().join("mirrored")
    }

    /// The last head of the audit log that enough witnesses have cosigned.
    #[must_use]
    pub fn cosigned_head(&self) -> PathBuf {
        self.audit_dir().join("cosigned")
    }

    /// By whose keys the cosigned head of the audit log is checked.
    #[must_use]
    pub fn audit_policy(&self) -> PathBuf {
        self.audit_dir().join("policy")
    }

    /// Evidence against other nodes, and pieces that were cut off from the own log.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.audit_dir().join("evidence")
    }

    /// The number of the audit log.
    #[must_use]
    pub fn audit_epoch(&self) -> PathBuf {
        self.0.join("audit.epoch")
    }

    /// The number of the next audit log, while the one before is being put aside.
    #[must_use]
    pub(crate) fn audit_turn(&self) -> PathBuf {
        self.0.join("audit.epoch.next")
    }

    /// What is doubtful about the audit log. Beside it: who puts the log back does not take it along.
    #[must_use]
    pub fn audit_doubt(&self) -> PathBuf {
        self.0.join("audit.doubt")
    }

    /// The last head that is known of the audit log before this one.
    #[must_use]
    pub(crate) fn audit_last_head(&self) -> PathBuf {
        self.audit_dir().join("last-head")
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
    fn a_home_that_others_can_look_into_is_refused_or_made_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let open = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder.path(), mode).expect("set");
        };
        let home = Home::at(folder.path());
        for mode in [0o750, 0o701, 0o755] {
            open(mode);
            let shown = home.check_private().expect_err("exposed").to_string();
            let mend = format!("mend: chmod 700 {}", folder.path().display());
            assert!(shown.ends_with(&mend), "{shown}");
        }
        assert_eq!(home.create().expect("empty"), Some(0o755));
        home.check_private().expect("private");
        assert_eq!(home.create().expect("private"), None);
        // Somebody else's things: not ours to close.
        files::create(&folder.path().join("thing"), b"").expect("created");
        open(0o755);
        assert!(matches!(home.create(), Err(HomeError::Exposed { .. })));
        files::create(&home.config(), b"").expect("created");
        assert_eq!(home.create().expect("a home"), Some(0o755));
    }

    #[test]
    fn a_variable_that_is_no_text_is_not_passed_over() {
        let lookup = |name: &str| {
            if name == VARIABLE {
                let variable = name.to_owned();
                return Err(NotText { variable });
            }
            Ok(Some(Zeroizing::new("/u".to_owned())))
        };
        let refused = Home::from_environment(&lookup).expect_err("no text");
        assert!(matches!(&refused, HomeError::NotText(_)), "{refused}");
    }

    #[test]
    fn the_variable_wins_over_the_folder_of_the_user() {
        let at = |home: Option<&str>, user: Option<&str>| {
            let lookup = |name: &str| {
                let text = if name == VARIABLE { home } else { user };
                Ok(text.map(|text| Zeroizing::new(text.to_owned())))
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
