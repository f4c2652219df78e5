//! Simulator, process testnets, scenarios and benchmarks.
