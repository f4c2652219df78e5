//! The audit log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One entry, as a line of the log says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Position in the log, from 0.
    pub seq: u64,
    /// When.
    pub timestamp: String,
    /// The agent it is about; empty when it is about none.
    pub agent_id: String,
    /// What happened, such as `message_in` or `auth_failed`.
    pub action: String,
    /// The rest of the entry, as JSON text.
    pub detail: String,
    /// `ok`, or how it failed.
    pub outcome: String,
    /// RFC 6962 leaf hash of the line, 64 characters of lower-case hex.
    pub hash: String,
    /// The line itself, without its end: what was hashed.
    pub line: String,
    /// What the line commits to, by field: only where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<BTreeMap<String, AuditValue>>,
}

/// What a commitment of a line stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditValue {
    /// Whether it can be opened.
    pub state: AuditValueState,
    /// The value, checked against the commitment; only where it can be opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Whether what a line commits to can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditValueState {
    /// It can.
    Value,
    /// It was erased, or never kept on this node. No damage.
    Erased,
    /// It is a secret, which nobody keeps.
    Secret,
    /// What is kept for it does not open it.
    Unreadable,
}

/// The body of `POST /api/audit/redact`: either `seqs` or `subject`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactRequest {
    /// The numbers of the entries whose personal values are erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seqs: Option<Vec<u64>>,
    /// Whose values are erased, in all entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why; stands in the log.
    pub reason: String,
}

impl std::fmt::Debug for RedactRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedactRequest(redacted)")
    }
}

/// The answer of `POST /api/audit/redact`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactReply {
    /// The entries that commit to what was erased.
    pub entries: Vec<u64>,
    /// How many values were erased.
    pub values: u64,
    /// How many of them are of no entry of this log: of an earlier epoch, of an entry that was set aside, or never
    /// written.
    #[serde(default)]
    pub elsewhere: u64,
    /// The entries that tell of it.
    pub told_in: Vec<u64>,
}

/// The body of `GET /api/audit/recent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecent {
    /// The latest entries, oldest first.
    pub entries: Vec<AuditEntry>,
    /// Entries in the whole log.
    pub total: u64,
    /// Root hash of the latest signed head; empty when there is none.
    pub tip_hash: String,
    /// The latest signed head, a C2SP checkpoint; `null` when there is none.
    pub checkpoint: Option<String>,
}

/// The body of `GET /api/audit/verify`. The status is 200 whatever the outcome: the check ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerify {
    /// Whether the file on disk is what was written.
    pub valid: bool,
    /// Entries checked.
    pub entries: u64,
    /// How many of them were written after the last signed head: of these only the order and the form
    /// can be checked.
    pub unsigned_entries: u64,
    /// Root hash of what was checked; empty when it could not be computed.
    pub tip_hash: String,
    /// The first entry that is not what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad_seq: Option<u64>,
    /// What kind of damage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// One sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The body of `GET /api/audit/witnesses`: who cosigns the heads of this node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditWitnesses {
    /// The size of the newest signed head; `null` before the first.
    pub size: Option<u64>,
    /// How far its cosignatures are.
    pub state: CosignState,
    /// How many have cosigned it.
    pub cosigned: usize,
    /// How many must, of all in `witnesses`.
    pub needed: usize,
    /// What that many are worth.
    pub strength: CosignStrength,
    /// Each witness.
    pub witnesses: Vec<AuditWitness>,
    /// The newest head that enough have cosigned.
    pub complete: Option<CosignedHead>,
    /// Whether heads are signed, and what keeps them from that.
    pub signing: AuditSigning,
}

/// Whether the heads of the log are signed. After a start, peers are asked first what they know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSigning {
    /// Which of all states.
    pub state: SigningState,
    /// One sentence, unless they are signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who is waited for, each as a name and an id, or the id alone of a node that nobody knows any more. Not
    /// in the first seconds, in which everybody is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}

/// The states of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigningState {
    /// They are signed.
    Free,
    /// Peers are being asked.
    Asking,
    /// Peers know a longer log, and its entries cannot be had.
    Behind,
    /// Lost entries are being fetched from peers.
    Restoring,
    /// The log has two histories.
    Contradicted,
}

/// How far the cosignatures of a head are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CosignState {
    /// Signed by the log alone.
    Signed,
    /// Cosigned, by fewer than are needed.
    Partial,
    /// Cosigned by enough.
    Complete,
}

/// What the cosignatures of a quorum are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CosignStrength {
    /// There is no witness.
    Unwitnessed,
    /// Two views of the log can both be cosigned; whoever compares them finds out.
    Detects,
    /// No two views can both be cosigned by enough, while fewer than a third of the witnesses lie.
    Prevents,
}

/// One witness of this node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditWitness {
    /// Its id.
    pub node_id: String,
    /// What it is called; empty when that is not known.
    pub node_name: String,
    /// Its key, as a C2SP verifier key.
    pub key: String,
    /// What it has cosigned last, as far as is known; 0 for nothing.
    pub size: u64,
    /// How its last answer was: `new`, `cosigned`, `unreachable`, `ahead`, `refused`, `invalid`.
    pub standing: String,
    /// One sentence, when there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A head that enough witnesses have cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CosignedHead {
    /// How many entries.
    pub size: u64,
    /// The latest of the times at which it was cosigned.
    pub timestamp: String,
    /// The head with all its signatures, a C2SP checkpoint.
    pub checkpoint: String,
}

/// The body of `GET /api/audit/consistency`: that the log of `to` entries begins with that of `from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditConsistency {
    /// The name of the log.
    pub origin: String,
    /// The smaller size.
    pub from: u64,
    /// The larger size.
    pub to: u64,
    /// The hashes of the proof of RFC 6962, section 2.1.2, in base64.
    pub proof: Vec<String>,
}

/// The body of `GET /api/audit/evidence`: proofs that a log or a cosigner has contradicted itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvidence {
    /// Each that holds.
    pub evidence: Vec<EvidenceFile>,
    /// Files among them that prove nothing, or cannot be read; the log of the node names them.
    pub worthless: usize,
    /// The names of those that have the name of evidence, and are damaged: what they have proved is not known.
    pub damaged: Vec<String>,
    /// What the log tells of and is not there.
    pub missing: Vec<MissingEvidence>,
    /// How many more files there are, which were not looked at.
    pub left_out: usize,
}

/// Evidence that the log of the node tells of, and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingEvidence {
    /// The name of the file.
    pub file: String,
    /// The log that it is about.
    pub about: Option<String>,
}

/// One proof that a log or a cosigner has contradicted itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceFile {
    /// The name of the file: the SHA-256 of its bytes, and `.json`.
    pub file: String,
    /// `equivocation`, `fork` or `cosigner`.
    pub kind: String,
    /// The key that has signed both heads, as a C2SP verifier key.
    pub accused: String,
    /// The log that the heads are of.
    pub origin: String,
    /// The two heads.
    pub heads: Vec<EvidenceHead>,
    /// The file itself, byte for byte: `openfang audit evidence verify` checks it.
    pub content: String,
}

/// A head of an evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceHead {
    /// How many entries.
    pub size: u64,
    /// The root, 64 characters of lower-case hex.
    pub root: String,
}

/// The body of `GET /api/audit/peers`: what the peers say they hold of this node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPeers {
    /// The name of the log.
    pub origin: String,
    /// How many entries the log has here.
    pub size: u64,
    /// Each peer that witnesses or mirrors logs.
    pub peers: Vec<AuditPeer>,
}

/// What one peer says it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPeer {
    /// Its id.
    pub node_id: String,
    /// What it is called.
    pub node_name: String,
    /// Whether it has answered.
    pub answered: bool,
    /// The last head that it has cosigned as a witness.
    pub witness: Option<HeldHead>,
    /// The head of the copy that it holds as a mirror.
    pub mirror: Option<HeldHead>,
}

/// A head that a peer shows. Its signature was not checked here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldHead {
    /// How many entries it is about.
    pub size: u64,
    /// Whether it is larger than the log is here.
    pub ahead: bool,
    /// The head with its signatures, a C2SP checkpoint.
    pub checkpoint: String,
}
