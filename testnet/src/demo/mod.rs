//! The main job, end to end: three real nodes, agents that work together across them, a node that
//! dies and comes back, and a log that is altered behind its node's back.

mod args;
mod cast;
mod model;
mod report;
mod scripted;
mod steps;

pub use args::{Args, Model};

use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::Program;
use report::Report;

/// All of it, once built, on a machine that is busy with something else too.
const DEMO_LIMIT: Duration = Duration::from_secs(300);

/// Runs the demonstration. Success only if every step held.
pub async fn run(args: &Args) -> ExitCode {
    let mut report = Report::new(args.json);
    let program = match Program::this() {
        Ok(program) => program,
        Err(why) => return report.cannot_start(&why),
    };
    let folder = match tempfile::Builder::new().prefix("openfang-demo-").tempdir() {
        Ok(folder) => folder,
        Err(why) => return report.cannot_start(&why),
    };
    let ran = tokio::time::timeout(
        DEMO_LIMIT,
        steps::all(args, &program, folder.path(), &mut report),
    )
    .await;
    match ran {
        Ok(Ok(cast)) => finish(args, report, cast, folder).await,
        Ok(Err(failure)) => report.failed(&failure),
        Err(_elapsed) => report.failed(&steps::Failure::claim(format!(
            "not done after {DEMO_LIMIT:?}"
        ))),
    }
}

async fn finish(
    args: &Args,
    mut report: Report,
    mut cast: cast::Cast,
    folder: tempfile::TempDir,
) -> ExitCode {
    if args.keep {
        let kept = folder.keep();
        return report.kept(&mut cast, &kept);
    }
    match steps::clean_up(&mut report, &mut cast).await {
        Ok(()) => report.done(),
        Err(failure) => report.failed(&failure),
    }
}
