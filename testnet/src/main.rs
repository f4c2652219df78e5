//! Runs testnets.
fn main() {}
