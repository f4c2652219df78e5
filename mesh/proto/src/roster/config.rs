//! What a roster is made from, and the numbers it goes by.

use std::time::Duration;

use openfang_id::{NodeId, NodeName, SigningKey};

use super::{Cosigners, Known, LogKey};

/// The most nodes with links to all others; above, each keeps [`PICKS`] links of its own choice and
/// as many of others. A full mesh is the fastest to notice a loss, and 63 links cost little.
pub const FULL_MESH_NODES: usize = 64;
/// How far above [`FULL_MESH_NODES`] a mesh must grow before links are closed, so that a node that
/// comes and goes does not turn the mesh over.
pub(super) const FULL_MESH_SLACK: usize = 16;
/// The links each node of a larger mesh keeps of its own choice; with those of others 16 on average.
pub const PICKS: usize = 8;
/// The most links of a node: a bootstrap node of a thousand others keeps working.
pub(super) const LINKS_MAX: usize = 256;
/// How long a link that nobody wants is kept, so that both ends can learn all there is.
pub(super) const LINK_GRACE: Duration = Duration::from_secs(10);
/// How long a link must have lasted when a mesh outgrows links to all, to be among the few kept for
/// its age: whoever makes many nodes at once is not to choose a node's neighbours.
pub(super) const LINK_LASTING: Duration = Duration::from_secs(60);
/// How many links are kept for their age.
pub(super) const LINKS_LASTING: usize = PICKS / 2;
/// How often links are looked over.
pub(super) const TRIM_EVERY: Duration = Duration::from_secs(5);
/// How long two connections between the same nodes may exist before one is closed.
pub(super) const SETTLE_AFTER: Duration = Duration::from_secs(1);

/// The most nodes of a roster. Beyond, new ones are refused until others are forgotten.
pub const NODES_MAX: usize = 4_096;
/// The most bytes of records: an average of 16 KiB for the most nodes.
pub const RECORDS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a node that is dead or has left is kept.
pub const KEEP_DEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// How many versions of forgotten nodes are remembered, so that old records do not come back.
pub(super) const FLOORS_MAX: usize = 10_000;
/// How often the roster is looked over for nodes to forget.
pub(super) const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Between two heartbeats on a link, in a full mesh.
pub(super) const BEAT: Duration = Duration::from_millis(500);
/// Between two heartbeats on a link, in a larger mesh.
pub(super) const BEAT_LARGE: Duration = Duration::from_secs(1);
/// How many heartbeats must be missing before a link is silent, when none get lost.
pub(super) const BEATS_MISSED: u32 = 3;
/// How many intervals a link may be silent at most, however many heartbeats get lost.
pub(super) const BEATS_MISSED_MAX: u32 = 20;

/// How long a lost connection is suspicious before it means death.
pub(super) const CLOSED_TO_DEAD: Duration = Duration::from_millis(800);
/// How long a lost connection is kept to oneself: most come back at once.
pub(super) const CLOSED_TO_TOLD: Duration = Duration::from_millis(300);
/// How long a node is suspected when enough others could not reach it: time for an answer.
pub(super) const REFUSED_TO_DEAD: Duration = Duration::from_millis(300);
/// How long a silent node is suspected when enough others find it silent too.
pub(super) const SILENT_TO_DEAD_MIN: Duration = Duration::from_millis(1_000);
/// How long a node is suspected when nobody else finds it silent.
pub(super) const SILENT_TO_DEAD_MAX: Duration = Duration::from_secs(8);
/// How many accusers are enough.
pub(super) const CONFIRMATIONS: usize = 3;
/// How long nodes are waited for that are known from disk, or that others vouch for with a doubt;
/// longer where messages get lost.
pub(super) const UNCONFIRMED_TO_DEAD: Duration = Duration::from_secs(10);
/// Between two accusations of a node that others reach and this one does not.
pub(super) const ACCUSE_AGAIN: Duration = Duration::from_secs(30);
/// How long a sign of life speaks against such an accusation.
pub(super) const ALIVE_RECENTLY: Duration = Duration::from_secs(60);
/// Between two refutations of this node.
pub(super) const REFUTE_EVERY: Duration = Duration::from_millis(200);

/// How long passed-on news waits for more of it, after other news has just gone. A single piece goes
/// at once; in a storm a message carries dozens, and what neighbours tell meanwhile is not told back.
pub(super) const COALESCE: Duration = Duration::from_millis(25);
/// How long it waits in a storm. Every neighbour tells the same then, and what two have told need
/// not be told a third.
pub(super) const COALESCE_BUSY: Duration = Duration::from_millis(120);
/// How many pieces in a second are a storm.
pub(super) const BUSY: usize = 40;
/// To how many neighbours the news of a storm goes: each of a thousand nodes telling all others of a
/// thousand records is what would hurt, not the second that anti-entropy takes.
pub(super) const FANOUT_BUSY: usize = 4;
/// To how many go records of nodes that this one has begun to vouch for, however busy: each needs the
/// word of two.
pub(super) const FANOUT_FIRST: usize = 12;
/// The most links that all get every piece of news.
pub(super) const PUSH_ALL: usize = 32;
/// Between two rounds of anti-entropy.
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The longest pause of rounds with a peer that bring nothing.
pub(super) const SYNC_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How many answered rounds may bring nothing before the pauses grow: what was sent can get lost.
pub(super) const SYNC_PATIENCE: u32 = 4;
/// How long a difference must last before a round is spent on it: news is mostly still on its way.
pub(super) const SYNC_SETTLED: Duration = Duration::from_millis(300);

/// The most origins that wait for evidence that they exist.
pub(super) const STRANGERS_MAX: usize = 1_024;
/// The most bytes of their records.
pub(super) const STRANGERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long one waits. Whoever vouches for it introduces it again.
pub(super) const STRANGER_KEPT: Duration = Duration::from_secs(300);
/// New origins that one link may introduce: 64 a second, a whole roster at once.
pub(super) const INTRODUCTIONS: (u32, u32) = (64, 1_024);
/// Strangers that are tried at the addresses they announce: 4 a second, 8 at once.
pub(super) const PROBES: (u32, u32) = (4, 8);
/// How long a stranger is left to those who may vouch for it before it is tried.
pub(super) const PROBE_AFTER: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(400));
/// How often one is tried.
pub(super) const PROBES_EACH: u32 = 3;
/// Before one is tried again; twice as long before the third time.
pub(super) const PROBE_AGAIN: Duration = Duration::from_secs(30);
/// The first pause after a stranger was not there, before the next of the same introducer is tried;
/// it doubles.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(125);
/// The longest such pause.
pub(super) const PROBE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The fewest neighbours that must vouch for a node.
pub(super) const VOUCHERS_MIN: usize = 2;
/// The most that are ever needed: whoever holds many links must not silence the others.
pub(super) const VOUCHERS_ENOUGH: usize = 8;
/// Of how many neighbours one must vouch for a node, when there are many.
pub(super) const VOUCHERS_ONE_IN: usize = 8;
/// How long a node must have had a single neighbour to take its word alone.
pub(super) const LONE_AFTER: Duration = Duration::from_secs(5);
/// How long a node that had others is not taken for one with a single neighbour: they may come back.
pub(super) const LONE_AGAIN: Duration = Duration::from_secs(300);
/// For how many nodes the word of a single neighbour is enough.
pub(super) const LONE_WORD_MAX: usize = 64;
/// How long what a single neighbour has said is believed once there are others.
pub(super) const LONE_WORD_KEPT: Duration = Duration::from_secs(10);
/// How often a node without a link, never met, is dialed before haste ends.
pub(super) const UNMET_TRIES: u32 = 3;
/// How many addresses of a node never met are dialed at once, of those it announces: chosen anew each
/// time. Whoever makes up nodes would have others dial a third party with all of them.
pub(super) const UNMET_ADDRS: usize = 2;
/// Dials to nodes never met, on the word of neighbours: 32 a second, 128 at once.
pub(super) const UNMET_DIALS: (u32, u32) = (32, 128);
/// How many of these at once, of 32; with eight strangers, a quarter is left for those once met.
pub(super) const UNMET_IN_FLIGHT: usize = 16;

/// Before an origin that signs two records of one version is reported again.
pub(super) const EQUIVOCATION_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The most such reports of all origins: a burst of 16, then one a minute.
pub(super) const EQUIVOCATIONS_AT_ONCE: u32 = 16;
/// Between two more.
pub(super) const EQUIVOCATION_EVERY: Duration = Duration::from_secs(60);

/// Records of one origin: 5 a second, 20 at once.
pub(super) const RECORDS_PER_ORIGIN: (u32, u32) = (5, 20);
/// Own records: a little less, so that peers never have to drop one.
pub(super) const OWN_RECORDS: (u32, u32) = (4, 16);
/// Accusations of one accuser: 4 a second, as many at once as a node has links in a full mesh.
pub(super) const CLAIMS_PER_NODE: (u32, u32) = (4, 64);
/// Digests and questions for proofs from one peer: 4 a second, 16 at once.
pub(super) const QUESTIONS_PER_LINK: (u32, u32) = (4, 16);
/// Summaries from one peer, of which each may be answered with a message of the largest size: 8 a
/// second, 16 at once.
pub(super) const SUMMARIES_PER_LINK: (u32, u32) = (8, 16);

/// Evidence from one peer that is looked at: 8 pieces a second, 64 at once. Two signatures are checked
/// for each.
pub(super) const EVIDENCE_PER_LINK: (u32, u32) = (8, 64);

/// Between two announcements of the own head.
pub(super) const HEAD_EVERY: Duration = Duration::from_millis(500);
/// The most heads of others passed on in one round.
pub(super) const HEADS_PER_ROUND: usize = 16;
/// Before a question for a proof is asked again.
pub(super) const PROOF_RETRY: Duration = Duration::from_secs(3);
/// The longest pause between two such questions.
pub(super) const PROOF_RETRY_MAX: Duration = Duration::from_secs(30);
/// The most questions to the own log at once.
pub(super) const TICKETS_MAX: usize = 64;

/// How long changes gather before they are written to disk.
pub(super) const PERSIST_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at a node without a link, at least; in a larger mesh only.
pub(super) const ROVE_MIN: Duration = Duration::from_secs(20);
/// Between two such looks, at most.
pub(super) const ROVE_MAX: Duration = Duration::from_secs(40);

/// Who a node is. No defaults: every field belongs to one node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node whose roster this is; [`Crypto::sign`] signs in its name.
    pub me: NodeId,
    /// What people call it.
    pub name: NodeName,
    /// The version of the software, at most 64 bytes; more is cut.
    pub software: String,
    /// The key and number of its audit log; `None` when it keeps none.
    pub log: Option<LogKey>,
    /// The keys with which it cosigns heads of other logs.
    pub cosigners: Cosigners,
    /// The most nodes to know; [`NODES_MAX`] unless memory is short.
    pub nodes_max: usize,
}

/// What a roster starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// This run of the node: one more than any before, and already on disk.
    pub incarnation: u64,
    /// What was known before; empty at first.
    pub known: Known,
    /// The seed of every random choice.
    pub seed: [u8; 32],
    /// The wall clock at the `now` of [`State::new`](super::State::new): Unix milliseconds.
    pub unix_ms: u64,
}

/// Signs in the name of this node, and checks what others have signed.
pub trait Crypto: Send {
    /// Signs with the identity key of this node.
    fn sign(&self, message: &[u8]) -> [u8; 64];
    /// Tells whether the signature is that node's over this message.
    fn verify(&self, by: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool;
}

/// Ed25519 with the identity key of the node (RFC 8032), verified strictly.
#[derive(Debug, Clone)]
pub struct Ed25519(pub SigningKey);

impl Crypto for Ed25519 {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }

    fn verify(&self, by: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
        by.verifying_key()
            .is_ok_and(|key| key.verify(message, signature).is_ok())
    }
}
