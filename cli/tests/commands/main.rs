//! The real program, in homes of its own, on free ports.

mod audit;
mod backups;
mod daemon;
mod exports;
mod files;
mod harness;
mod manifests;
mod mends;
mod mesh;
mod proofs;
mod redact;
mod repairs;
mod stranger;
mod talk;
mod verdicts;
mod watching;
