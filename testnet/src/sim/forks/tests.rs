//! A part of the run, from fixed seeds.

use super::*;

fn run(injected: u64, seed: u64) -> ForkReport {
    let report = simulate_forks(&ForkOptions { injected, seed });
    assert_eq!(report.failure, None, "{report}");
    report
}

#[test]
fn every_contradiction_is_found_by_all_and_nobody_else_is_accused() {
    let report = run(160, 1);
    assert_eq!(report.injected, 160);
    assert_eq!(report.kinds.len(), Kind::ALL.len(), "{report}");
    assert_eq!(report.evidence.len(), 3, "{report}");
    assert!(report.crashes > 20, "{report}");
}

#[test]
fn one_seed_gives_one_run() {
    assert_eq!(run(12, 7), run(12, 7));
    assert_ne!(run(12, 7), run(12, 8));
}
