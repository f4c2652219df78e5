//! Runs testnets: the main job, benchmarks and simulations.

use std::process::ExitCode;

use clap::Parser;
use openfang_testnet::{bench, demo, scenario, sim};

/// Testnets of openfang: real nodes, and simulated ones.
#[derive(Debug, Parser)]
#[command(name = "openfang-testnet", version)]
enum Command {
    /// Start three nodes on this machine and show what a mesh of them does.
    Demo(demo::Args),
    /// Break real nodes on purpose, and show what must still hold.
    Run(scenario::Args),
    /// Measure this program beside the bare thing.
    Bench(bench::Args),
    /// Run a mesh in virtual time, from a seed.
    Sim(sim::Args),
}

/// The command line of `openfang` itself, so that one program can be a whole testnet.
const NODE_COMMAND: &str = "openfang";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|first| first == NODE_COMMAND) {
        return openfang_cli::main_from(std::env::args_os().skip(1));
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("OPENFANG_LOG"))
        .init();
    let command = Command::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!(%why, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(&args).await,
            Command::Run(args) => scenario::run(&args).await,
            Command::Bench(args) => bench::run(&args).await,
            Command::Sim(args) => sim::run(&args),
        }
    })
}
