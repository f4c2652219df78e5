//! One run, and what it has shown.

use std::time::Duration;

use openfang_ofp::roster::Rng;
use serde::Serialize;

use super::probe::Spread;
use super::scenario;
use super::world::{RunError, World};

/// The most nodes that sign for real: beyond, signatures are all a run would do.
const REAL_CRYPTO_NODES: usize = 10;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// The seed of everything.
    pub seed: u64,
    /// The share of messages that get lost, in percent.
    pub loss_percent: u32,
    /// How many simulated seconds, at least.
    pub seconds: u64,
    /// The name of the scenario.
    pub scenario: String,
}

/// What a run has shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether everything held.
    pub ok: bool,
    /// What did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The name of the scenario.
    pub scenario: String,
    /// How many nodes there were.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
    /// The share of messages that got lost, in percent.
    pub loss_percent: u32,
    /// Whether signatures were real.
    pub real_crypto: bool,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Events that happened.
    pub steps: u64,
    /// From the start of the last node until all agreed.
    pub join_ms: Option<u64>,
    /// Until a spawned agent was known to all.
    pub spawn_seen_by_all: Option<Spread>,
    /// Until a killed process was dead for all.
    pub kill_seen_by_all: Option<Spread>,
    /// Until a vanished machine was dead for all.
    pub silence_seen_by_all: Option<Spread>,
    /// From the end of a partition until all agreed.
    pub heal: Option<Spread>,
    /// How often a steady node was held for dead.
    pub false_deaths: u64,
    /// How often one node dialed addresses of made-up nodes, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vain_dials: Option<u64>,
    /// Messages each node sent, a second.
    pub messages_per_node_s: f64,
    /// Bytes each node sent, a second, without any framing below.
    pub bytes_per_node_s: f64,
    /// The same while nothing happened.
    pub idle_bytes_per_node_s: Option<f64>,
}

/// Runs a simulation. `None` when there is no scenario of that name.
#[must_use]
pub fn simulate(options: &Options) -> Option<Report> {
    let mut rng = Rng::from_number(options.seed);
    let scenario = scenario::build(&options.scenario, options.nodes, options.seconds, &mut rng)?;
    let real_crypto = options.nodes <= REAL_CRYPTO_NODES;
    let loss = options.loss_percent.min(100) * 65_536 / 100;
    let mut world = World::new(options.nodes, loss, real_crypto, rng);
    let outcome = world.run(&scenario);
    Some(report(options, real_crypto, &world, outcome))
}

fn report(
    options: &Options,
    real_crypto: bool,
    world: &World,
    outcome: Result<(), RunError>,
) -> Report {
    let elapsed = world.elapsed();
    let (quiet, quiet_for) = world.quiet;
    let failure = outcome.err().map(|why| why.to_string());
    Report {
        ok: failure.is_none(),
        failure,
        scenario: options.scenario.clone(),
        nodes: options.nodes,
        seed: options.seed,
        loss_percent: options.loss_percent,
        real_crypto,
        simulated_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        steps: world.steps,
        join_ms: world.probes.join,
        spawn_seen_by_all: Spread::of(&world.probes.spawn),
        kill_seen_by_all: Spread::of(&world.probes.kill),
        silence_seen_by_all: Spread::of(&world.probes.silence),
        heal: Spread::of(&world.probes.heal),
        false_deaths: world.watch.false_deaths,
        vain_dials: world.vain_dials(),
        messages_per_node_s: rate(world.sent.messages, options.nodes, elapsed),
        bytes_per_node_s: rate(world.sent.bytes, options.nodes, elapsed),
        idle_bytes_per_node_s: (!quiet_for.is_zero())
            .then(|| rate(quiet.bytes, options.nodes, quiet_for)),
    }
}

/// Returns how many a node and a second, to one decimal.
#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people; counts stay far below 2^52"
)]
fn rate(count: u64, nodes: usize, elapsed: Duration) -> f64 {
    let rate = count as f64 / nodes.max(1) as f64 / elapsed.as_secs_f64().max(0.001);
    (rate * 10.0).round() / 10.0
}
