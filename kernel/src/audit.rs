//! The kernel's way into the audit log.

/// Why an entry is not in the log. What it was about must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log takes no entries any more: its disk failed, or it was found damaged.
    #[error("the audit log takes no entries: {reason}")]
    Unavailable {
        /// What happened to it.
        reason: String,
    },
    /// The log is closed: the node is stopping.
    #[error("the audit log is closed")]
    Closed,
}

/// Writes entries into the audit log of the node.
#[derive(Debug, Clone)]
pub struct Auditor(());

impl Auditor {
    /// For a node whose audit log is switched off: everything is allowed, nothing is written.
    #[must_use]
    pub fn disabled() -> Self {
        Self(())
    }
}
