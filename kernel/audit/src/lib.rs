//! RFC 6962 Merkle log: tree, proofs, signed checkpoints and the append-only store.
