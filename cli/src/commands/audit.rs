//! `openfang audit`: the log of this node, read from its files whether the node runs or not.

mod check;
mod evidence;
mod export;
mod files;
mod policy;
mod prove;
mod redact;
mod repair;
mod show;
mod since;
mod verify;
mod witness;

use crate::args::Audit;
use crate::context::Context;
use crate::error::{Exit, Failure};

use files::Files;

/// Runs a command of the group.
pub(crate) fn run(command: Audit, context: &Context) -> Result<Exit, Failure> {
    let files = || Files::of(context);
    match command {
        Audit::Verify(args) => verify::run(&files()?, &args, context),
        Audit::Show(show) => show::run(&files()?, &show, context),
        Audit::Export(args) => export::run(&files()?, &args),
        Audit::Prove(args) => prove::run(&files()?, &args),
        Audit::Check(args) => check::run(&args, || files()?.policy()),
        Audit::Evidence(args) => evidence::run(&args, &files()?),
        Audit::Policy => policy::run(&files()?, context),
        Audit::Repair(args) => repair::run(&args, context),
        Audit::Redact(args) => redact::run(args, context),
        Audit::Witness(command) => witness::run(&command, context),
    }
}

/// Runs a command of the group that needs neither a home nor a node; `None` when it does.
pub(crate) fn run_anywhere(command: &Audit) -> Option<Result<Exit, Failure>> {
    match command {
        Audit::Check(args) if args.policy.is_some() => Some(check::run(args, || {
            Err(Failure::new(Exit::Usage, "there is no policy"))
        })),
        Audit::Evidence(args) => evidence::run_anywhere(args),
        Audit::Verify(_)
        | Audit::Show(_)
        | Audit::Export(_)
        | Audit::Prove(_)
        | Audit::Check(_)
        | Audit::Policy
        | Audit::Repair(_)
        | Audit::Redact(_)
        | Audit::Witness(_) => None,
    }
}
