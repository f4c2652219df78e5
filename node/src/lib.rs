//! Configuration, wiring, tasks, signals and telemetry of one node.
