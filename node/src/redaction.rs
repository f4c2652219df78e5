//! What keeps secrets and personal values out of the audit log of this node, and what erases such values while
//! the node does not run. A node that runs does that itself, for whoever asks its API.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openfang_audit::guard::{Guard, Known};
use openfang_audit::vault::{self, Vault, VaultReader};
use openfang_audit::{CloseError, Erase, Log, OpenError, Options, RedactError, Redacted};
use openfang_id::VaultKey;
use zeroize::Zeroizing;

use crate::audit_epoch;
use crate::clock::{self, MachineClock, NoRandom};
use crate::config::Config;
use crate::home::Home;
use crate::run::Prepared;

/// Why nothing was erased, except where the cause says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The node is told to keep no log.
    #[error(
        "this node keeps no audit log: audit.enabled is false in config.toml\n    mend: audit.enabled = true in config.toml, then do it again: what was kept before can be erased then"
    )]
    Off,
    /// The node keeps no log, or has not begun it.
    #[error("this node has no audit log\n    mend: openfang start begins one")]
    NoLog,
    /// Part of the log is missing: only a start, which asks the peers, may go on with it.
    #[error(
        "{path} is missing, or another log is about to begin: the peers must be asked first\n    mend: openfang start, and then again"
    )]
    NotWhole {
        /// What is missing.
        path: PathBuf,
    },
    /// The number of the log cannot be read.
    #[error(
        "audit.epoch, the number of the audit log: {0}\n    mend: {mend}", mend = audit_epoch::mend(.0)
    )]
    Epoch(#[source] io::Error),
    /// The system gave no random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The log cannot be opened.
    #[error("{0}\n    mend: openfang audit verify")]
    Open(#[from] OpenError),
    /// It cannot be erased.
    #[error(transparent)]
    Redact(#[from] RedactError),
    /// It is erased, and the log did not close well.
    #[error("it is erased, but {0}\n    mend: openfang audit verify")]
    Close(#[from] CloseError),
}

/// Makes what stands in front of the log: it knows the secrets that the node was told, and has the vault.
pub(crate) fn guard(
    prepared: &Prepared,
    dir: &Path,
    seed: Zeroizing<[u8; 32]>,
) -> io::Result<Guard> {
    let vault = Vault::open(&dir.join(vault::FOLDER), prepared.vault(), seed)?;
    let known = Known::default().with(prepared.secrets());
    Ok(Guard::new(known, Some(vault)))
}

/// Looks into the vault of a home.
#[must_use]
pub fn reader(home: &Home, key: &VaultKey) -> VaultReader {
    VaultReader::new(&home.audit_dir().join(vault::FOLDER), key)
}

/// Erases what lines commit to, in the log of a node that does not run. The entry about it is signed by the next
/// start, which asks the peers first, as always. Blocks.
///
/// # Errors
/// When it was not done.
pub fn redact_offline(
    prepared: &Prepared,
    what: Erase<'_>,
    reason: &str,
) -> Result<Redacted, OfflineError> {
    let (config, keys) = (prepared.config(), prepared.keys());
    let begun = audit_epoch::is_begun(&config.home).map_err(OfflineError::Epoch)?;
    if !config.audit.enabled {
        return Err(OfflineError::Off);
    }
    if !begun {
        return Err(OfflineError::NoLog);
    }
    let me = (&keys.node_id(), &keys.log.verifying_key());
    let epoch = audit_epoch::checked(&config.home, me).map_err(OfflineError::Epoch)?;
    must_be_whole(config)?;
    let options = Options {
        log_path: config.audit.log_path.clone(),
        dir: config.home.audit_dir(),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: u64::from_be_bytes(clock::random()?),
        epoch,
        held: config.network.enabled && config.network.secret.is_some(),
    };
    let seed = Zeroizing::new(clock::random()?);
    let guard = |dir: &Path| guard(prepared, dir, seed);
    let (log, _opened) = Log::open_guarded(options, Arc::new(MachineClock), guard)?;
    let redacted = log.redact(what, reason, "cli".into());
    let closed = log.close();
    let redacted = redacted?;
    closed?;
    Ok(redacted)
}

/// A log that is gone, or has no floor, may be longer elsewhere: opening it here would hide that from the start.
fn must_be_whole(config: &Config) -> Result<(), OfflineError> {
    let floor = config.home.audit_dir().join("floor");
    for path in [&config.audit.log_path, &floor] {
        if !path.exists() {
            let path = path.clone();
            return Err(OfflineError::NotWhole { path });
        }
    }
    let turn = config.home.audit_turn();
    if turn.try_exists().unwrap_or(true) {
        return Err(OfflineError::NotWhole { path: floor });
    }
    Ok(())
}
