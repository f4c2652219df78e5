//! What connects the parts: each states what it needs of the others as a trait, and the answers are
//! here. Nothing in this module decides anything; it translates.

mod configs;
mod convert;
mod events;
mod host;
mod joined;
mod neighbours;

pub(crate) use configs::{Handles, api_state, kernel_config, mesh_config};
pub(crate) use events::Recorder;
pub(crate) use host::NodeHost;
pub(crate) use neighbours::MeshNeighbours;
