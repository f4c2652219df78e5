//! Whether the audit log stands where this node wrote it, or was put back from a backup.

use std::io;
use std::path::{Path, PathBuf};

use openfang_audit::storage::is_floor_in_place;

use crate::config::Config;
use crate::home::Home;

/// Tells whether the files of a log that peers may know are not those that this node wrote, as when a backup
/// is put back or a home is moved. What a node wrote that never met peers is for nobody to contradict.
///
/// # Errors
/// When a file cannot be read.
pub fn is_put_back(home: &Home) -> io::Result<bool> {
    Ok(has_met_peers(home)? && !is_floor_in_place(&home.audit_dir())?)
}

/// The lines of the log are in another file than `audit.log_path` names: the setting was changed, and the file
/// was not moved along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// Where they are.
    pub from: PathBuf,
    /// Where they should be.
    pub to: PathBuf,
}

impl LeftBehind {
    /// Looks for the lines where they are by default, and under that name beside where they should be. There
    /// must be signed heads, and no lines.
    #[must_use]
    pub fn find(config: &Config) -> Option<Self> {
        let (home, to) = (&config.home, &config.audit.log_path);
        if to.exists() || !home.audit_dir().join("floor").exists() {
            return None;
        }
        let places = [home.path().join(NAME), to.with_file_name(NAME)];
        let has_lines = |path: &PathBuf| path != to && is_filled(path);
        let from = places.into_iter().find(has_lines)?;
        let to = to.clone();
        Some(Self { from, to })
    }

    /// Says what moves the log.
    #[must_use]
    pub fn mend(&self) -> String {
        let segments = |path: &Path| path.with_extension("d").join("seg").display().to_string();
        let (from, to) = (self.from.display(), self.to.display());
        let sealed = if self.from.with_extension("d").join("seg").exists() {
            let (from, to) = (segments(&self.from), segments(&self.to));
            format!(", and the folder {from} to {to}")
        } else {
            String::new()
        };
        format!(
            "openfang stop, if it runs; move {from} to {to}{sealed}; or set audit.log_path back. When {from} is none of this log: move that away"
        )
    }
}

/// What the file of lines is called by default.
const NAME: &str = "audit.jsonl";

fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// Tells whether the node has been in a mesh, and others in it.
fn has_met_peers(home: &Home) -> io::Result<bool> {
    Ok(home.audit_policy().try_exists()? || home.network_state().try_exists()?)
}
