//! The tiers that run foreign code, and what each of them can do.
//!
//! Foreign code is everything that is not part of this program: a WebAssembly module, a container
//! image, a script. It runs in a [`Tier`] behind the trait [`Sandbox`], with every limit given and
//! nothing allowed by default. A tier that is missing is an error, [`TierMissing`], never a silent
//! weaker one. This program has none of the tiers yet: [`find`] says so for each.

use std::fmt;
use std::time::Duration;

/// What keeps foreign code apart from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// A WebAssembly module without any import but granted ones.
    Wasm,
    /// A container without network, with a read-only root.
    Container,
    /// A process of its own with a cleared environment.
    Subprocess,
}

impl Tier {
    /// All tiers, the strongest isolation first.
    pub const ALL: [Self; 3] = [Self::Wasm, Self::Container, Self::Subprocess];

    /// Returns the tier that a module of this form (`wasm:PATH`, `container:IMAGE`, `python:PATH`)
    /// needs; `None` for a module that is no foreign code.
    #[must_use]
    pub fn of_module(module: &str) -> Option<Self> {
        let (kind, rest) = module.split_once(':')?;
        if rest.is_empty() {
            return None;
        }
        match kind {
            "wasm" => Some(Self::Wasm),
            "container" => Some(Self::Container),
            "python" => Some(Self::Subprocess),
            _other => None,
        }
    }

    /// Returns the name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Container => "container",
            Self::Subprocess => "subprocess",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// This program cannot run code of that tier. Nothing was run; a program built with the tier can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this program has no {tier} sandbox, and foreign code runs in no weaker one")]
pub struct TierMissing {
    /// The tier that is missing.
    pub tier: Tier,
}

/// What one run may use. There is no unlimited value and no default: whoever runs foreign code
/// decides each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time for the whole run.
    pub deadline: Duration,
    /// The most memory, in bytes.
    pub memory_bytes_max: u64,
    /// The most output, in bytes.
    pub output_bytes_max: u64,
}

/// Why a run gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The code ran longer than [`Limits::deadline`] and was stopped.
    #[error("stopped at its deadline")]
    Deadline,
    /// The code asked for more memory than [`Limits::memory_bytes_max`] and was stopped.
    #[error("stopped at its memory limit")]
    Memory,
    /// The code wrote more than [`Limits::output_bytes_max`] and was stopped.
    #[error("stopped at its output limit")]
    Output,
    /// The code used something it was not granted and was stopped.
    #[error("stopped: {capability} was not granted")]
    Denied {
        /// The capability it lacks.
        capability: String,
    },
    /// The code failed by itself.
    #[error("failed: {reason}")]
    Failed {
        /// What it said, bounded by [`Limits::output_bytes_max`].
        reason: String,
    },
}

/// A tier that is present: runs one module on one input, within limits.
pub trait Sandbox: Send + Sync {
    /// Returns which tier it is.
    fn tier(&self) -> Tier;

    /// Runs the module to its end on the calling thread and returns its output.
    ///
    /// # Errors
    /// When a limit or a missing grant stopped it, or it failed; it never runs on afterwards.
    fn run(&self, module: &str, input: &[u8], limits: Limits) -> Result<Vec<u8>, RunError>;
}

/// Looks for a tier of this program.
///
/// # Errors
/// [`TierMissing`] when it was built without.
pub fn find(tier: Tier) -> Result<&'static dyn Sandbox, TierMissing> {
    Err(TierMissing { tier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tier_is_a_typed_error() {
        for tier in Tier::ALL {
            let missing = find(tier).map(Sandbox::tier);
            assert_eq!(missing, Err(TierMissing { tier }));
            assert!(TierMissing { tier }.to_string().contains(tier.as_str()));
        }
    }

    #[test]
    fn modules_name_their_tier() {
        let check = |module: &str, tier: Option<Tier>| {
            assert_eq!(Tier::of_module(module), tier, "{module}");
        };
        check("wasm:tools/a.wasm", Some(Tier::Wasm));
        check("python:agent.py", Some(Tier::Subprocess));
        check("container:alpine", Some(Tier::Container));
        check("builtin:chat", None);
        check("wasm:", None);
        check("wasm", None);
        check("", None);
    }
}
