//! `openfang version`.

use serde::Serialize;

use crate::error::{Exit, Failure};
use crate::render;

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    platform: &'static str,
    arch: &'static str,
}

/// Prints the version of this program, which may differ from that of a running daemon.
pub(crate) fn run(json: bool) -> Result<Exit, Failure> {
    let version = Version {
        name: "openfang",
        version: openfang_node::VERSION,
        platform: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    if json {
        render::json(&version)?;
    } else {
        render::line(&format!("{} {}", version.name, version.version))?;
    }
    Ok(Exit::Ok)
}
