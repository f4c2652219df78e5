//! Benchmarks: each figure beside its peer, measured in the same run on the same machine.
//!
//! A figure without the figure of the bare thing beside it says more about the machine than about
//! this program. So every run measures both, and prints their ratio. `docs/BENCHMARKS.md` holds the
//! figures of one machine, and the commands that make them.

mod args;
mod audit;
mod calls;
mod cosign;
mod http;
mod proofs;
mod raw_disk;
mod raw_libp2p;
mod replicate;
mod start;
mod stats;

pub use args::{Args, What};

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

/// Why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The bare libp2p connection failed.
    #[error(transparent)]
    Raw(#[from] raw_libp2p::RawError),
    /// A node process failed.
    #[error(transparent)]
    Node(#[from] crate::cluster::NodeError),
    /// Something did not happen in time.
    #[error(transparent)]
    Expired(#[from] crate::cluster::Expired),
    /// A request over HTTP failed.
    #[error(transparent)]
    Api(#[from] crate::cluster::ApiError),
    /// A mesh could not be started.
    #[error("mesh: {0}")]
    Mesh(#[from] openfang_mesh::StartError),
    /// A call failed.
    #[error("call: {0}")]
    Call(#[from] openfang_mesh::CallError),
    /// A log could not be opened.
    #[error("audit log: {0}")]
    Log(#[from] openfang_audit::OpenError),
    /// An entry was not appended.
    #[error("append: {0}")]
    Append(#[from] openfang_audit::AppendError),
    /// An entry is not in the log.
    #[error("append: {0}")]
    Audit(#[from] openfang_kernel::AuditError),
    /// A file or a socket.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What came back is not what a correct program gives.
    #[error("{0}")]
    Wrong(String),
}

/// Runs the benchmarks that were asked for and prints one JSON object each.
pub async fn run(args: &Args) -> ExitCode {
    for what in args.wanted() {
        let figures = match what {
            What::Start => start::measure(args.rounds).await,
            What::Call => calls::measure(args.rounds).await,
            What::Http => http::measure(args.rounds).await,
            What::Audit => audit::measure(args.rounds).await,
            What::Replicate => replicate::measure(args.rounds).await,
        };
        match figures {
            Ok(figures) => print(args, what, &figures),
            Err(why) => {
                print(args, what, &json!({ "failed": why.to_string() }));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn print(args: &Args, what: What, figures: &Value) {
    let object = json!({ "bench": what.name(), "figures": figures });
    let text = if args.json {
        object.to_string()
    } else {
        format!("{object:#}")
    };
    if writeln!(std::io::stdout(), "{text}").is_err() {
        tracing::debug!("nobody reads the figures");
    }
}
