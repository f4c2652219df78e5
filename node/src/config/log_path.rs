//! Where the audit log is written: mistakes that can be seen before the first entry.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::problem::{ConfigErrors, Problem, ProblemKind};
use super::{Audit, Config};
use crate::home::Home;

/// What else the home holds: no entry may be written there.
const FILES: [&str; 9] = [
    "config.toml",
    "config.seen",
    "node.key",
    "network.toml",
    "daemon.json",
    "lock",
    "audit.epoch",
    "audit.epoch.next",
    "openfang.log",
];
/// The same for everything in these.
const FOLDERS: [&str; 4] = ["audit.d", "data", "mesh", "agents"];
/// What the name of the folder beside the lines ends in.
const BESIDE: &str = "d";

/// Says what is wrong with a path, as far as its name tells.
pub(super) fn problem(home: &Home, path: &Path) -> Option<ProblemKind> {
    let (path, home) = (plain(path), plain(home.path()));
    let shown = || path.display().to_string();
    if path.extension().is_some_and(|end| end == BESIDE) {
        return Some(ProblemKind::LogPathBeside { path: shown() });
    }
    let within = path.strip_prefix(&home).ok()?;
    let first = within.components().next().map(Component::as_os_str);
    let Some(first) = first.and_then(|name| name.to_str()) else {
        return Some(ProblemKind::LogPathOwn { path: shown() });
    };
    let alone = within.components().count() == 1;
    let own = alone && (FILES.contains(&first) || first.ends_with(".bound"));
    (own || FOLDERS.contains(&first)).then(|| ProblemKind::LogPathOwn { path: shown() })
}

/// Resolves what a path says by itself, without a look at the disk.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                plain.push(component);
            }
        }
    }
    plain
}

impl Config {
    /// Looks whether the audit log can be written where it should be; returns what is not wrong and most
    /// likely not meant.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_log_path(&self) -> Result<Option<String>, ConfigErrors> {
        let Audit {
            log_path,
            log_path_at,
            ..
        } = &self.audit;
        let fail = |kind| {
            let place = *log_path_at;
            Err(ConfigErrors::new(
                &self.home.config(),
                vec![Problem { place, kind }],
            ))
        };
        let path = log_path.display().to_string();
        match std::fs::metadata(log_path) {
            Ok(found) if found.is_file() => return Ok(None),
            Ok(_) => return fail(ProblemKind::LogPathFolder { path }),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => {
                let (why, kind) = (why.to_string(), why.kind());
                return fail(ProblemKind::LogPathUnusable { path, why, kind });
            }
        }
        let folder = log_path.parent().unwrap_or(log_path);
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(None);
        }
        Ok(Some(format!(
            "the folder {} of audit.log_path does not exist: the first start makes it",
            folder.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_file_of_the_home_is_written_to() {
        let home = Home::at(Path::new("/h/.openfang"));
        let is_bad = |path: &str| problem(&home, &home.path().join(path)).is_some();
        for good in [
            "audit.jsonl",
            "logs/node.key",
            "audit-data.jsonl",
            "/var/log/config.toml",
            "../lock",
        ] {
            assert!(!is_bad(good), "{good}");
        }
        for bad in [
            "node.key",
            "./config.toml",
            "logs/../lock",
            "/h/.openfang/audit.epoch",
            "../.openfang/daemon.json",
            "mirror.0.bound",
            "audit.d/floor",
            "mesh/roster",
            "data",
            ".",
            "audit.d",
            "/var/log/audit.d",
        ] {
            assert!(is_bad(bad), "{bad}");
        }
    }
}
