//! `openfang-testnet sim`: a simulation from the command line.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;

use super::forks::{ForkOptions, simulate_forks};
use super::report::{Options, Report, simulate};
use super::scenario::NAMES;

/// What is simulated.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The roster: who is in the mesh, what they run, who lives.
    Roster(RosterArgs),
    /// Audit logs that contradict themselves, among logs that crash: all are found, nobody else is.
    Forks(ForksArgs),
}

#[derive(Debug, clap::Args)]
struct ForksArgs {
    /// How many logs contradict themselves.
    #[arg(long, default_value_t = 10_000)]
    injected: u64,
    /// The seed; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RosterArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    nodes: u32,
    /// The seed; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The share of messages that get lost, in percent.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=90))]
    loss: u32,
    /// How many simulated seconds, at least.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What happens to the nodes.
    #[arg(long, default_value = "mixed", value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    scenario: String,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs a simulation and prints what it has shown.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let args = match &args.what {
        What::Roster(args) => args,
        What::Forks(args) => return run_forks(args),
    };
    let options = Options {
        nodes: usize::try_from(args.nodes).unwrap_or(usize::MAX),
        seed: args.seed,
        loss_percent: args.loss,
        seconds: args.seconds,
        scenario: args.scenario.clone(),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a simulation takes is a figure of its own; nothing in it depends on it"
    )]
    let begin = Instant::now();
    let Some(report) = simulate(&options) else {
        return ExitCode::FAILURE;
    };
    let wall_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let printed = if args.json {
        print_json(&report, wall_ms)
    } else {
        print_text(&report, wall_ms)
    };
    match printed {
        Ok(()) if report.ok => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn run_forks(args: &ForksArgs) -> ExitCode {
    let options = ForkOptions {
        injected: args.injected,
        seed: args.seed,
    };
    let report = simulate_forks(&options);
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        serde_json::to_value(&report)
            .map_err(std::io::Error::from)
            .and_then(|value| writeln!(out, "{value}"))
    } else {
        writeln!(out, "{report}")
    };
    match printed {
        Ok(()) if report.failure.is_none() => ExitCode::SUCCESS,
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

fn print_json(report: &Report, wall_ms: u64) -> std::io::Result<()> {
    let mut value = serde_json::to_value(report)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("wall_ms".to_owned(), wall_ms.into());
    }
    writeln!(std::io::stdout().lock(), "{value}")
}

fn print_text(report: &Report, wall_ms: u64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} nodes, scenario {}, seed {}, {} % loss: {} s simulated in {:.1} s, {} steps",
        report.nodes,
        report.scenario,
        report.seed,
        report.loss_percent,
        report.simulated_ms / 1_000,
        f64::from(u32::try_from(wall_ms).unwrap_or(u32::MAX)) / 1_000.0,
        report.steps,
    )?;
    if let Some(join) = report.join_ms {
        writeln!(
            out,
            "  all joined              {join:>6} ms after the last start"
        )?;
    }
    let spreads = [
        ("spawn seen by all", report.spawn_seen_by_all),
        ("kill seen by all", report.kill_seen_by_all),
        ("silence seen by all", report.silence_seen_by_all),
        ("partition healed", report.heal),
    ];
    for (what, spread) in spreads {
        if let Some(spread) = spread {
            writeln!(
                out,
                "  {what:<22} p50 {:>6} ms   p99 {:>6} ms   max {:>6} ms   of {}",
                spread.p50_ms, spread.p99_ms, spread.max_ms, spread.count
            )?;
        }
    }
    writeln!(
        out,
        "  false deaths {}; a node sent {} messages and {} bytes a second, {} idle",
        report.false_deaths,
        report.messages_per_node_s,
        report.bytes_per_node_s,
        report.idle_bytes_per_node_s.unwrap_or(0.0),
    )?;
    if let Some(dials) = report.vain_dials {
        writeln!(
            out,
            "  a node dialed made-up addresses {dials} times at most"
        )?;
    }
    match &report.failure {
        None => Ok(()),
        Some(why) => writeln!(out, "  FAILED with seed {}: {why}", report.seed),
    }
}
