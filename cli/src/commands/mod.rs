//! One file for each command.

mod agent;
mod audit;
mod config;
mod detach;
mod init;
mod join;
mod keygen;
mod message;
mod peers;
mod start;
mod status;
mod stop;
mod version;

use crate::args::Command;
use crate::context::Context;
use crate::error::{Exit, Failure};

/// Runs a command that needs no home; `None` when it does.
pub(crate) fn run_anywhere(command: &Command) -> Option<Result<Exit, Failure>> {
    if let Command::Audit(command) = command {
        return audit::run_anywhere(command);
    }
    None
}

/// Runs a command.
pub(crate) fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Init(init) => init::run(&init, context),
        Command::Keygen { network } => keygen::run(network),
        Command::Start(start) if start.detach => detach::run(context),
        Command::Start(start) => start::run(&start, context),
        Command::Stop => stop::run(context),
        Command::Restart => restart(context),
        Command::Status(json) => status::run(json.json, context),
        Command::Peers(json) => peers::run(json.json, context),
        Command::Join(join) => join::run(&join, context),
        Command::Ticket => join::ticket(context),
        Command::Agent(command) => agent::run(command, context),
        Command::Message(message) => message::run(&message, context),
        Command::Audit(command) => audit::run(&command, context),
        Command::Config(command) => config::run(&command, context),
        Command::Version(json) => version::run(json.json),
    }
}

/// A node that could not start again is not stopped.
fn restart(context: &Context) -> Result<Exit, Failure> {
    context.check_start()?;
    stop::if_running(context)?;
    detach::run(context)
}
