//! Why a log was not mended.

use std::io;
use std::path::PathBuf;

use openfang_audit::storage::LockError;
use openfang_audit::tile::TileError;
use openfang_mesh::StartError;

use crate::mirror::PeerTilesError;

/// Why a log was not mended. Every message ends with what helps.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The node is in no mesh, and the log cannot be mended without a copy.
    #[error(
        "this node is in no mesh, so that nobody has a copy of its log: {what}\n    mend: {}", alone(*.heads_gone)
    )]
    Alone {
        /// What is wrong with the log.
        what: String,
        /// Whether nothing is but that the signed heads are gone.
        heads_gone: bool,
    },
    /// A node of a mesh is not to take its entries as they stand.
    #[error(
        "this node is in a mesh: what its log was, others can say, and --accept is for a node without one\n    mend: openfang start, which asks the peers what they know; openfang audit repair without --accept"
    )]
    NotAlone,
    /// There are signed heads: nothing has to be taken as it stands.
    #[error(
        "the log has a signing floor that holds: what it says is not given up, and --accept changes nothing: {what}\n    mend: openfang audit verify; put the files back from a backup that verifies"
    )]
    NotNeeded {
        /// What is wrong with the log.
        what: String,
    },
    /// The mesh did not start.
    #[error("the mesh did not start: {0}\n    mend: openfang stop, if the node runs elsewhere")]
    Mesh(#[from] StartError),
    /// No other node has this name or id.
    #[error(
        "no other node of the mesh is called {name:?}, as far as this node knows\n    mend: --from with one of: {known}; or without --from, to use every copy that can be reached"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Who is known.
        known: String,
    },
    /// No peer that is wanted came.
    #[error("{}\n    mend: start a node that mirrors this one; openfang peers on another node tells which run. A log that is gone needs no repair: openfang start waits for its copies, and fetches it", nobody(.wanted.as_deref()))]
    Unreachable {
        /// Who was waited for; `None` for anyone.
        wanted: Option<String>,
    },
    /// There is no copy.
    #[error("{asked} a copy of this log\n    mend: {}", no_copy(*.all))]
    NoCopy {
        /// Who was asked, and that there is none: the begin of the sentence.
        asked: String,
        /// Whether everybody was asked who can be reached.
        all: bool,
    },
    /// What the copies hold was signed, and so was what is here.
    #[error(
        "this log has signed {size} entries that are not those of the copies: it has two histories, and nothing was changed. It went on from a backup without its mesh, or another machine has the key of this node\n    mend: when no other machine has it, move audit.jsonl and audit.d away, make a new audit.d and copy the folder vault of the old one into it, then openfang start: it goes on as the peers have it. Where evidence convicts this node (openfang audit evidence) its identity is spent for the peers that have it: only those whose operator puts its id into audit.allow_convicted go on with it"
    )]
    TwoHistories {
        /// Of how many entries the head is that does not fit.
        size: u64,
    },
    /// The number of the log cannot be read or written.
    #[error(
        "audit.epoch, the number of the audit log: {why}\n    mend: {}",
        crate::audit_epoch::mend(why)
    )]
    Epoch {
        /// What the system said.
        #[source]
        why: io::Error,
    },
    /// The files cannot be used.
    #[error("the audit log: {why}\n    mend: {}", mend_lock(why))]
    Lock {
        /// Why not.
        #[from]
        why: LockError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}\n    mend: {}", crate::files::mend(path, source.kind()))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The copies cannot be read, or are not what was signed.
    #[error("the copies of the log: {0}\n    mend: --from another node")]
    Copies(#[source] TileError<PeerTilesError>),
    /// An entry of the copies is not one line.
    #[error("entry {seq} of the copies is not one line\n    mend: --from another node")]
    NotALine {
        /// Its number.
        seq: u64,
    },
    /// The work was cut short.
    #[error("the repair was ended\n    mend: openfang audit repair")]
    Cut,
}

fn alone(heads_gone: bool) -> &'static str {
    if heads_gone {
        "put audit.d/floor and audit.d/checkpoint back from the newest backup; or openfang audit repair --accept, which takes the entries as they stand. Entries that were signed later and shown to somebody contradict what is signed from then on"
    } else {
        "put the files back from a backup that verifies; or move audit.jsonl and audit.d away, and the next start begins a new log, in the next epoch"
    }
}

fn no_copy(all: bool) -> &'static str {
    if all {
        "openfang peers, on another node, tells who is away and may have one. When nobody has: put the files back from a backup that verifies; or move audit.jsonl and audit.d away, then openfang start, and when all peers have answered a new log begins, in the next epoch"
    } else {
        "--from another node, or without --from to ask all that can be reached"
    }
}

fn nobody(wanted: Option<&str>) -> String {
    let no = |name: &str| format!("the node {name} does not answer");
    wanted.map_or_else(|| "no other node of the mesh answers".to_owned(), no)
}

fn mend_lock(why: &LockError) -> String {
    match why {
        LockError::Held { .. } => "openfang stop".to_owned(),
        LockError::Io { path, source } => crate::files::mend(path, source.kind()),
    }
}
