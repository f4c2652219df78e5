//! The number of the node's audit log: it grows when a log cannot be continued and a new one begins.
//!
//! Other nodes know the log by its name, which holds this number, and demand that what they have seen
//! of it goes on. A log that begins anew under an old number would contradict itself for ever.

use std::io;
use std::path::Path;

use crate::config::Config;
use crate::files;
use crate::home::Home;

/// The number of the first log of a node.
pub const FIRST: u32 = 1;

/// Returns the number of the log that is there, without changing anything.
///
/// # Errors
/// When the file that holds it cannot be read or holds no number.
pub fn current(home: &Home) -> io::Result<u32> {
    Ok(stored(home)?.unwrap_or(FIRST))
}

/// Tells whether a log was ever begun. Where one was and nothing of it is left, it was removed.
///
/// # Errors
/// As [`current`].
pub fn is_begun(home: &Home) -> io::Result<bool> {
    Ok(stored(home)?.is_some())
}

/// Returns the number of the log that is there, or of the new one where there is none any more.
///
/// # Errors
/// When the file that holds it cannot be read or written, or holds no number.
pub(crate) fn of_start(config: &Config) -> io::Result<u32> {
    let home = &config.home;
    let known = stored(home)?;
    let there = is_there(&config.audit.log_path)? || is_there(&home.audit_dir().join("floor"))?;
    let epoch = match known {
        Some(known) if there => return Ok(known),
        Some(known) => known.checked_add(1).ok_or(io::ErrorKind::InvalidData)?,
        None => FIRST,
    };
    files::replace(&home.audit_epoch(), format!("{epoch}\n").as_bytes())?;
    if epoch > FIRST {
        tracing::warn!(
            epoch,
            "the audit log is gone: a new one begins, and other nodes know it as another log"
        );
    }
    Ok(epoch)
}

fn stored(home: &Home) -> io::Result<Option<u32>> {
    match std::fs::read_to_string(home.audit_epoch()) {
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
        assert_eq!(current(home).expect("nothing yet"), FIRST);
        assert_eq!(of_start(&config).expect("new"), FIRST);
        files::create(&config.audit.log_path, b"{}\n").expect("written");
        assert_eq!(of_start(&config).expect("there"), FIRST);
        std::fs::remove_file(&config.audit.log_path).expect("removed");
        std::fs::create_dir_all(home.audit_dir()).expect("made");
        files::create(&home.audit_dir().join("floor"), b"x").expect("written");
        assert_eq!(of_start(&config).expect("its floor is there"), FIRST);
        std::fs::remove_dir_all(home.audit_dir()).expect("removed");
        assert_eq!(of_start(&config).expect("anew"), FIRST + 1);
        assert_eq!(current(home).expect("stored"), FIRST + 1);
        files::replace(&home.audit_epoch(), b"two").expect("written");
        let kind = of_start(&config).expect_err("no number").kind();
        assert_eq!(kind, io::ErrorKind::InvalidData);
    }
}
