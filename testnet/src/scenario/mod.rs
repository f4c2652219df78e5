//! Scenarios on real processes: what must still hold when machines die, lie, or come back from a backup.
//!
//! However one ends, nothing of it stays, as with the demonstration.

mod audit;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::{Expired, Node, NotYet, Program, until};
use crate::demo::report::Report;
use crate::demo::signal::Wishes;
use crate::demo::steps::Failure;

/// All of it, once built, on a machine that is busy with something else too.
const LIMIT: Duration = Duration::from_secs(300);
/// A command that was cut off may write one more file.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `openfang-testnet run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to run.
    #[arg(value_enum)]
    scenario: Scenario,
    /// Print one JSON object a step, and a summary, instead of text.
    #[arg(long)]
    json: bool,
}

/// The scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Five nodes cosign and copy each other's audit logs; one is wiped, one rolled back, one damaged,
    /// one forked.
    Audit,
}

/// Runs a scenario. Success only if every step held.
pub async fn run(args: &Args) -> ExitCode {
    let mut report = Report::new(args.json);
    let program = match Program::this() {
        Ok(program) => program,
        Err(why) => return report.cannot_start(&why),
    };
    let mut wishes = match Wishes::listen() {
        Ok(wishes) => wishes,
        Err(why) => return report.cannot_start(&why),
    };
    let folder = match tempfile::Builder::new().prefix("openfang-run-").tempdir() {
        Ok(folder) => folder,
        Err(why) => return report.cannot_start(&why),
    };
    let mut nodes = Vec::new();
    let steps = async {
        match args.scenario {
            Scenario::Audit => audit::play(&program, folder.path(), &mut nodes, &mut report).await,
        }
    };
    let played = tokio::select! {
        played = tokio::time::timeout(LIMIT, steps) => played.unwrap_or_else(|_elapsed| {
            Err(Failure::claim(format!("not done after {LIMIT:?}")))
        }),
        name = wishes.next() => Err(Failure::Interrupted(name)),
    };
    take_down(&mut nodes).await;
    if let Err(why) = remove(folder.path()).await {
        report.remark(&why.to_string());
    }
    match played {
        Ok(()) => report.done(),
        Err(Failure::Interrupted(name)) => report.interrupted(name),
        Err(failure) => report.failed(&failure),
    }
}

async fn take_down(nodes: &mut [Node]) {
    futures::future::join_all(nodes.iter_mut().map(Node::end)).await;
}

/// Removes the homes, which hold keys.
async fn remove(folder: &Path) -> Result<(), Expired> {
    let look = || async {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(why) => Err(NotYet::saw(why)),
        }
    };
    let removed = until("the folder of the nodes to go", REMOVE_LIMIT, look).await;
    removed.map(drop)
}
