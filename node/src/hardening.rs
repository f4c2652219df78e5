//! What the process asks of the system for its own protection: files for their owner alone, and no
//! picture of its memory on the disk.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Everything the process makes from now on is its owner's alone, whatever the umask of the shell.
pub fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Secrets stand in the memory of a node: a crash writes no core file, the system's collector of
/// crashes gets none, and no other process of the same user can read or trace it.
///
/// # Errors
/// When the system does not allow it.
pub fn no_core_dumps() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_not_dumped() {
        no_core_dumps().expect("allowed");
        assert_eq!(
            rustix::process::dumpable_behavior().expect("asked"),
            DumpableBehavior::NotDumpable
        );
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
