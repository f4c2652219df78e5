//! The main job, end to end: three real nodes, agents that work together across them, a node that
//! dies and comes back, and a log that is altered behind its node's back.
//!
//! However it ends, nothing of it stays: not after a failed step, not after SIGINT, SIGTERM or
//! SIGHUP. When it is killed outright its nodes end by themselves, and only their homes stay. With
//! `--keep` everything stays, unless a signal ends it.

mod args;
mod cast;
mod model;
pub(crate) mod report;
mod scripted;
pub(crate) mod signal;
pub(crate) mod steps;

pub use args::{Args, Model};

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::{Expired, NotYet, Program, until};
use cast::Cast;
use report::Report;
use signal::Wishes;
use steps::Failure;

/// All of it, once built, on a machine that is busy with something else too.
const DEMO_LIMIT: Duration = Duration::from_secs(300);
/// A command that was cut off may write one more file.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// Runs the demonstration. Success only if every step held.
pub async fn run(args: &Args) -> ExitCode {
    let mut report = Report::new(args.json);
    let program = match Program::this() {
        Ok(program) => program.outliving(args.keep),
        Err(why) => return report.cannot_start(&why),
    };
    let mut wishes = match Wishes::listen() {
        Ok(wishes) => wishes,
        Err(why) => return report.cannot_start(&why),
    };
    let folder = match tempfile::Builder::new().prefix("openfang-demo-").tempdir() {
        Ok(folder) => folder,
        Err(why) => return report.cannot_start(&why),
    };
    let mut stage = None;
    let played = tokio::select! {
        played = play(args, (&program, folder.path()), &mut stage, &mut report) => played,
        name = wishes.next() => Err(Failure::Interrupted(name)),
    };
    let interrupted = matches!(played, Err(Failure::Interrupted(_)));
    match stage {
        Some(cast) if args.keep && !interrupted => report.kept(cast, &folder.keep()),
        stage => {
            take_down(stage, &mut wishes).await;
            match remove(folder.path()).await {
                Ok(_took) if interrupted => {
                    report.remark("the nodes were stopped and their homes removed");
                }
                Ok(_took) => {}
                Err(why) => report.remark(&why.to_string()),
            }
        }
    }
    match played {
        Ok(()) => report.done(),
        Err(Failure::Interrupted(name)) => report.interrupted(name),
        Err(failure) => report.failed(&failure),
    }
}

/// All steps, and the end, unless everything shall be kept.
async fn play(
    args: &Args,
    place: (&Program, &Path),
    stage: &mut Option<Cast>,
    report: &mut Report,
) -> Result<(), Failure> {
    let steps = async {
        steps::all(args, place, stage, report).await?;
        match stage {
            Some(cast) if !args.keep => steps::clean_up(report, cast).await,
            Some(_) | None => Ok(()),
        }
    };
    tokio::time::timeout(DEMO_LIMIT, steps)
        .await
        .unwrap_or_else(|_elapsed| {
            let what = format!("not done after {DEMO_LIMIT:?}");
            Err(Failure::claim(what))
        })
}

/// Ends what still runs: in good order, or at once when somebody asks again.
async fn take_down(stage: Option<Cast>, wishes: &mut Wishes) {
    let Some(mut cast) = stage else {
        return;
    };
    tokio::select! {
        () = cast.end() => return,
        _again = wishes.next() => {}
    }
    for node in cast.nodes() {
        if let Err(why) = node.kill().await {
            tracing::error!(%why, "it may still run");
        }
    }
}

/// Removes the homes, which hold keys.
async fn remove(folder: &Path) -> Result<((), Duration), Expired> {
    let look = || async {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(why) => Err(NotYet::saw(why)),
        }
    };
    until("the folder of the nodes to go", REMOVE_LIMIT, look).await
}
