//! Which generation of its witness key a node may use.

use std::io;
use std::path::Path;

use openfang_audit::cosign::{Cosigner, Role};
use openfang_audit::witness::{FileStore, StoreOpenError, Witness};
use openfang_id::{NodeId, NodeSeed};

use crate::home::Home;

/// The most generations: whoever loses the state of a witness so often has another problem.
const GENERATIONS_MAX: u32 = 64;

/// The key with which this node cosigns, and where its promises are kept.
#[derive(Debug, Clone)]
pub(crate) struct WitnessKey {
    home: Home,
    generation: u32,
    cosigner: Cosigner,
}

impl WitnessKey {
    /// Chooses the first generation whose promises are not lost. `None` when there is none.
    ///
    /// # Errors
    /// When the home cannot be looked at.
    pub(crate) fn choose(home: &Home, seed: &NodeSeed, node: &NodeId) -> io::Result<Option<Self>> {
        for generation in 0..GENERATIONS_MAX {
            if is_retired(home, generation)? {
                continue;
            }
            if generation > 0 {
                tracing::warn!(
                    generation,
                    "what this node has cosigned with an earlier witness key is lost: that key is retired"
                );
            }
            let key = seed.witness_key(generation);
            return Ok(Some(Self {
                home: home.clone(),
                generation,
                cosigner: Cosigner::of(node, Role::Witness, key),
            }));
        }
        Ok(None)
    }

    /// Returns the public key.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.cosigner.public().key().to_bytes()
    }

    /// Opens the state.
    ///
    /// # Errors
    /// See [`StoreOpenError`].
    pub(crate) fn open(&self) -> Result<Witness<FileStore>, StoreOpenError> {
        let store = FileStore::open(
            &self.home.witness_state(self.generation),
            &self.home.witness_bound(self.generation),
            self.cosigner.public(),
            &format!("pid {}", std::process::id()),
        )?;
        Ok(Witness::new(self.cosigner.clone(), store))
    }
}

/// Tells whether a generation has cosigned and its state is gone.
fn is_retired(home: &Home, generation: u32) -> io::Result<bool> {
    let is_there = |path: &Path| path.try_exists();
    Ok(is_there(&home.witness_bound(generation))?
        && !is_there(&home.witness_state(generation).join("heads"))?)
}
