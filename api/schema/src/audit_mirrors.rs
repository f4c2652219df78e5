//! Who keeps copies of the audit log.

use serde::{Deserialize, Serialize};

/// The body of `GET /api/audit/mirrors`: who keeps copies of this node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditMirrors {
    /// The size of the newest signed head; `null` before the first.
    pub size: Option<u64>,
    /// How many copies there should be.
    pub wanted: usize,
    /// How many mirrors hold everything under the newest head.
    pub complete: usize,
    /// Up to which size there are as many copies as there should be.
    pub replicated: u64,
    /// Each mirror, those that were replaced last.
    pub mirrors: Vec<AuditMirror>,
}

/// One mirror of this node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditMirror {
    /// Its id.
    pub node_id: String,
    /// What it is called; empty when that is not known.
    pub node_name: String,
    /// Its key, as a C2SP verifier key.
    pub key: String,
    /// The size of the last head that it has cosigned, whose entries it says it holds; 0 for none.
    pub size: u64,
    /// When it did, by its clock; `null` for never.
    pub timestamp: Option<String>,
    /// How its last answer was: `new`, `uploading`, `holding`, `unreachable`, `ahead`, `full`, `refused`,
    /// `invalid`.
    pub standing: String,
    /// Whether it was replaced, and counts until there are enough copies without it.
    pub former: bool,
    /// Whether it has what it says it has: `unasked`, `shown`, `unproven`, `failed challenge`.
    pub challenge: String,
    /// One sentence, when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
