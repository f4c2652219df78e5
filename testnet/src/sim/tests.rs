//! Meshes that must hold, from fixed seeds. Times are simulated: they depend on the seed alone.

use openfang_id::NodeSeed;
use openfang_ofp::Instant;
use openfang_ofp::roster::{Event, Rng, Version};

use super::invariants::{Violation, Watch};
use super::model::Model;
use super::{NAMES, Options, Report, Spread, simulate};

fn run(scenario: &str, nodes: usize, seed: u64) -> Report {
    run_lossy(scenario, nodes, seed, (0, 0))
}

fn run_lossy(
    scenario: &str,
    nodes: usize,
    seed: u64,
    (loss_percent, seconds): (u32, u64),
) -> Report {
    let options = Options {
        nodes,
        seed,
        loss_percent,
        seconds,
        scenario: scenario.to_owned(),
    };
    let report = simulate(&options).expect("a scenario of that name");
    assert!(
        report.ok,
        "seed {seed}: {scenario}, {nodes} nodes: {:?}",
        report.failure
    );
    assert_eq!(
        report.false_deaths, 0,
        "seed {seed}: {scenario}, {nodes} nodes"
    );
    report
}

/// The worst of 99 in a hundred, in simulated milliseconds.
fn p99(spread: Option<Spread>) -> u64 {
    spread.expect("something was measured").p99_ms
}

#[test]
fn every_scenario_holds_for_three_nodes_with_real_signatures() {
    for scenario in NAMES {
        for seed in 1..=8 {
            let report = run(scenario, 3, seed);
            assert!(report.real_crypto);
        }
    }
}

#[test]
fn every_scenario_holds_for_few_nodes() {
    for scenario in NAMES {
        for nodes in [1, 2, 5, 12, 40] {
            run(scenario, nodes, 7);
        }
    }
}

#[test]
fn three_nodes_learn_within_the_bars() {
    for seed in 1..=8 {
        let report = run("mixed", 3, seed);
        assert!(p99(report.spawn_seen_by_all) <= 100, "seed {seed}");
        assert!(p99(report.kill_seen_by_all) <= 1_000, "seed {seed}");
        assert!(
            p99(run("losses", 3, seed).kill_seen_by_all) <= 1_000,
            "seed {seed}"
        );
    }
}

#[test]
fn a_hundred_nodes_learn_within_the_bars() {
    for seed in 1..=4 {
        let report = run("mixed", 100, seed);
        assert!(p99(report.spawn_seen_by_all) <= 150, "seed {seed}");
        assert!(p99(report.kill_seen_by_all) <= 1_000, "seed {seed}");
        assert!(p99(report.silence_seen_by_all) <= 6_000, "seed {seed}");
        assert!(p99(report.heal) <= 2_000, "seed {seed}");
        let idle = report.idle_bytes_per_node_s.expect("a quiet while");
        assert!(idle <= 6_000.0, "seed {seed}: {idle} bytes a second");
    }
}

#[test]
fn a_hundred_nodes_hold_through_every_scenario() {
    for scenario in NAMES {
        run(scenario, 100, 11);
    }
}

#[test]
fn a_thousand_nodes_learn_within_the_bars() {
    let report = run("brief", 1_000, 1);
    assert!(p99(report.spawn_seen_by_all) <= 300);
    assert!(p99(report.kill_seen_by_all) <= 1_000);
    assert!(p99(report.silence_seen_by_all) <= 9_000);
    let idle = report.idle_bytes_per_node_s.expect("a quiet while");
    assert!(idle <= 3_000.0, "{idle} bytes a second");
}

#[test]
fn a_member_that_makes_up_thousands_of_nodes_breaks_nothing() {
    for (nodes, seed) in [(3, 1), (3, 2), (12, 1), (40, 1), (100, 1)] {
        let report = run("sybil", nodes, seed);
        assert!(p99(report.kill_seen_by_all) <= 1_000, "{nodes} nodes");
        let silence = if nodes <= 3 { 4_000 } else { 9_000 };
        assert!(p99(report.silence_seen_by_all) <= silence, "{nodes} nodes");
        assert!(report.vain_dials.is_some(), "{nodes} nodes");
    }
}

#[test]
fn nobody_is_held_for_dead_while_half_of_all_messages_get_lost() {
    let report = run_lossy("steady", 100, 3, (50, 600));
    assert!(report.simulated_ms >= 600_000);
    run_lossy("steady", 3, 3, (50, 3_600));
}

#[test]
fn a_lossy_network_delays_and_does_not_prevent() {
    for loss in [10, 30, 50] {
        for nodes in [3, 20, 100] {
            run_lossy("mixed", nodes, 5, (loss, 0));
            run_lossy("restarts", nodes, 5, (loss, 0));
        }
    }
    for seed in [6, 7, 8, 11, 18, 19] {
        run_lossy("restarts", 100, seed, (50, 0));
    }
}

#[test]
fn nodes_with_few_links_hear_of_what_those_with_many_spawn() {
    // Seeds in which the last to come had a handful of links, to nodes with dozens.
    for seed in [7, 10, 14, 15, 23] {
        let report = run("mixed", 100, seed);
        assert!(p99(report.spawn_seen_by_all) <= 150, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for nodes in [3, 30] {
        assert_eq!(run("mixed", nodes, 42), run("mixed", nodes, 42));
    }
    assert_ne!(run("mixed", 30, 42).steps, run("mixed", 30, 43).steps);
}

#[test]
fn a_version_that_goes_back_is_found() {
    let mut rng = Rng::from_number(1);
    let model = Model::new(2, false, &mut rng, Instant(0));
    let mut watch = Watch::new(2);
    let node = NodeSeed::from_bytes([1; 32]).keys().node_id();
    let recorded = |sequence| Event::Recorded {
        node,
        version: Version {
            incarnation: 1,
            sequence,
        },
    };
    // Nobody holds the record that was announced: that is found too.
    let forged = Violation::Forged { at: 0, of: node };
    assert_eq!(
        watch.check(&model, 0, &recorded(2), Instant(0)),
        Err(forged)
    );
    let back = watch.check(&model, 0, &recorded(1), Instant(0));
    assert!(
        matches!(back, Err(Violation::Back { at: 0, .. })),
        "{back:?}"
    );
}
