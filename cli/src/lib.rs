//! The openfang command: turns this machine into a node of an agent mesh, and talks to it.
//!
//! Commands speak HTTP to the running daemon, which they find by `daemon.json` in the home; `start`
//! is the daemon itself; `init`, `keygen`, `config` and `audit` work on the files. Data goes to
//! stdout, messages to stderr. Exit codes stand in `openfang --help`.

mod args;
mod client;
mod commands;
mod context;
mod error;
mod render;
mod sse;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;
use crate::context::Context;
use crate::error::Exit;

/// Runs one command line, the name of the program first, and returns its exit code.
///
/// `openfang` is this and nothing else; a testnet carries it too, so that one program can be the
/// nodes and what watches them.
#[must_use]
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    openfang_node::hardening::private_files();
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(why) => return usage(&why),
    };
    let done = commands::run_anywhere(&args.command).unwrap_or_else(|| {
        Context::new().and_then(|context| commands::run(args.command, &context))
    });
    match done {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_closed_pipe() => Exit::Ok.into(),
        Err(failure) => {
            render::message(&failure.to_string());
            failure.exit().into()
        }
    }
}

/// Help and version are no errors; everything else is a usage error.
fn usage(why: &clap::Error) -> ExitCode {
    let exit = if why.use_stderr() {
        Exit::Usage
    } else {
        Exit::Ok
    };
    match why.print() {
        Ok(()) | Err(_) => exit.into(),
    }
}
