//! The openfang command.
fn main() {}
