//! The kernel, as the rest of the node sees it.

use std::sync::Arc;
use std::time::Duration;

use openfang_id::{AgentId, AgentKey, AgentRef};

use crate::ports::Neighbours;
use crate::{
    AgentInfo, Auditor, Config, Delivery, KillError, Listed, Manifest, OpenError, Outgoing,
    Principal, Restarted, SendError, SpawnError, TurnStream,
};

/// A handle to the kernel; cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel(());

/// Owns the tasks of the kernel; dropping it cuts them.
#[derive(Debug)]
#[must_use = "dropping the owner stops the kernel"]
pub struct Owner(());

impl Kernel {
    /// Opens the database, and brings the agents back.
    ///
    /// # Errors
    /// When the database or the model client cannot be used.
    #[expect(
        clippy::unused_async,
        reason = "the seam: it will wait for the database"
    )]
    pub async fn open(
        _config: Config,
        _audit: Auditor,
        _neighbours: Arc<dyn Neighbours>,
    ) -> Result<(Self, Owner), OpenError> {
        Ok((Self(()), Owner(())))
    }

    /// Makes an agent of a manifest.
    ///
    /// # Errors
    /// When the name is taken, the module unknown, or it can be neither logged nor stored.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the log")]
    pub async fn spawn(
        &self,
        _manifest: Manifest,
        _principal: &Principal,
    ) -> Result<AgentInfo, SpawnError> {
        Err(SpawnError::ShuttingDown)
    }

    /// Returns the agents of this node, by name.
    #[must_use]
    pub fn list(&self) -> Vec<AgentInfo> {
        Vec::new()
    }

    /// Looks an agent of this node up.
    #[must_use]
    pub fn find(&self, _key: &AgentKey) -> Option<AgentInfo> {
        None
    }

    /// Returns the agents of the mesh: those of this node first, then by node, each by name.
    #[must_use]
    pub fn directory(&self) -> Vec<Listed> {
        Vec::new()
    }

    /// Ends an agent for good, with its sessions and its memory.
    ///
    /// # Errors
    /// When it is unknown, or it can be neither logged nor stored.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the log")]
    pub async fn kill(&self, _id: AgentId, _principal: &Principal) -> Result<(), KillError> {
        Err(KillError::ShuttingDown)
    }

    /// Cuts the running turns of an agent; its sessions and its memory stay.
    ///
    /// # Errors
    /// When it is unknown, or it cannot be logged.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the log")]
    pub async fn restart(
        &self,
        _id: AgentId,
        _principal: &Principal,
    ) -> Result<Restarted, KillError> {
        Err(KillError::ShuttingDown)
    }

    /// Sends a message to an agent anywhere in the mesh.
    ///
    /// # Errors
    /// When it was not taken.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the log")]
    pub async fn send(&self, _to: AgentRef, _message: Outgoing) -> Result<TurnStream, SendError> {
        Err(SendError::ShuttingDown)
    }

    /// Delivers a message to an agent of this node.
    ///
    /// # Errors
    /// When it was not taken.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the log")]
    pub async fn deliver(&self, _delivery: Delivery) -> Result<TurnStream, SendError> {
        Err(SendError::ShuttingDown)
    }
}

impl Owner {
    /// Takes no more messages, lets running turns end within the grace period, cuts the rest,
    /// and closes the database.
    #[expect(clippy::unused_async, reason = "the seam: it will wait for the turns")]
    pub async fn shutdown(self, _grace: Duration) {}
}
