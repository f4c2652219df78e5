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

use crate::args::{Audit, EvidenceVerify, Witness};
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

use files::Files;
pub(crate) use verify::{MEND_CONVICTED, MEND_POISONED, MEND_SPENT};
pub(crate) use witness::{MEND_BEHIND, MEND_CONTRADICTED};

/// Runs a command of the group. With `--json` a failure is told as JSON as well, for programs.
pub(crate) fn run(command: &Audit, context: &Context) -> Result<Exit, Failure> {
    tell(Form::of(command), run_command(command, context))
}

fn run_command(command: &Audit, context: &Context) -> Result<Exit, Failure> {
    let files = || Files::of(context);
    match command {
        Audit::Verify(args) => verify::run(&Files::to_judge(context)?, args, context),
        Audit::Show(show) => show::run(&files()?, show, context),
        Audit::Export(args) => export::run(&files()?, args),
        Audit::Prove(args) => prove::run(&files()?, args, context),
        Audit::Check(args) => check::run(args, || files()?.policy()),
        Audit::Evidence(args) => evidence::run(args, &files()?),
        Audit::Policy => policy::run(&files()?, context),
        Audit::Repair(args) => repair::run(args, context),
        Audit::Redact(args) => redact::run(args, context),
        Audit::Witness(command) => witness::run(command, context),
    }
}

/// In which form a failure is told beside its text on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// In none.
    Text,
    /// As one object on stdout.
    Object,
    /// As one line on stdout, behind those that are there.
    Line,
    /// As one line on stderr: stdout takes what is exported.
    Aside,
}

impl Form {
    fn of(command: &Audit) -> Self {
        let object = |json: bool| if json { Self::Object } else { Self::Text };
        match command {
            Audit::Verify(args) => object(args.json.json),
            Audit::Show(args) if args.json => Self::Line,
            Audit::Show(_) | Audit::Prove(_) | Audit::Policy => Self::Text,
            Audit::Export(args) if args.out.is_none() && args.json.json => Self::Aside,
            Audit::Export(args) => object(args.json.json),
            Audit::Check(args) => object(args.json.json),
            Audit::Evidence(args) => object(match &args.verify {
                Some(EvidenceVerify::Verify(args)) => args.json.json,
                None => args.json.json,
            }),
            Audit::Repair(args) => object(args.json.json),
            Audit::Redact(args) => object(args.json.json),
            Audit::Witness(Witness::Status(json)) => object(json.json),
        }
    }
}

fn tell(form: Form, done: Result<Exit, Failure>) -> Result<Exit, Failure> {
    let Err(failure) = &done else {
        return done;
    };
    if form == Form::Text || failure.is_closed_pipe() {
        return done;
    }
    let mut why = failure.to_json();
    why["exit"] = (failure.exit() as u8).into();
    match form {
        Form::Object => render::json(&why)?,
        Form::Line => render::json_line(&why)?,
        Form::Aside => render::message(&why.to_string()),
        Form::Text => {}
    }
    done
}

/// Runs a command of the group that needs neither a home nor a node; `None` when it does.
pub(crate) fn run_anywhere(command: &Audit) -> Option<Result<Exit, Failure>> {
    let done = match command {
        // Where there is no home, there is no policy either, which is said.
        Audit::Check(args) => Some(check::run(args, || Files::of(&Context::new()?)?.policy())),
        Audit::Evidence(args) => evidence::run_anywhere(args),
        Audit::Verify(_)
        | Audit::Show(_)
        | Audit::Export(_)
        | Audit::Prove(_)
        | Audit::Policy
        | Audit::Repair(_)
        | Audit::Redact(_)
        | Audit::Witness(_) => None,
    };
    done.map(|done| tell(Form::of(command), done))
}
