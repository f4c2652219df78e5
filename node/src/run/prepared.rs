//! What a node is told, read before anything starts.

use std::net::SocketAddr;

use openfang_audit::cosign::Role;
use openfang_id::{Keys, NodeId, VaultKey};

use super::RunError;
use crate::config::{Config, Lookup};
use crate::cosigner::RoleKey;
use crate::home::Lock;
use crate::own_log::{Anew, Found};
use crate::{audit_epoch, config, hardening, keys, notify};

/// What was read before anything was started. Holds the home.
#[derive(Debug)]
#[must_use = "dropping it gives the home back"]
pub struct Prepared {
    pub(super) config: Config,
    pub(super) keys: Keys,
    /// Seals what the audit log commits to.
    pub(super) vault: VaultKey,
    pub(super) witness: Option<RoleKey>,
    pub(super) mirror: Option<RoleKey>,
    pub(super) model_keys: openfang_kernel::ModelKeys,
    pub(super) notify_socket: Option<zeroize::Zeroizing<String>>,
    /// Where the API listens when the node starts anew.
    pub(super) listen_again: Option<SocketAddr>,
    /// What was found of the audit log before the node started anew.
    pub(super) found_before: Option<Found>,
    pub(super) lock: Lock,
}

/// Takes the home and reads everything the node is told. Opens no port and changes nothing on the
/// disk; before it reads the first secret, it has the process write no core file.
///
/// # Errors
/// Whatever would keep the node from starting, with what mends it.
pub fn prepare(home: &crate::home::Home, environment: Lookup<'_>) -> Result<Prepared, RunError> {
    home.check_private()?;
    let lock = home.lock()?;
    let hardened = hardening::no_core_dumps();
    let mut config = config::load(home, environment)?;
    if let Err(why) = hardened {
        let warning = format!("a crash may write the secrets of this node to a core file: {why}");
        config.warnings.push(warning);
    }
    let seed = keys::load(&home.node_key())?;
    let keys = seed.keys();
    let mut role_key = |role, does| {
        RoleKey::choose(home, &seed, &keys.node_id(), role).unwrap_or_else(|why| {
            let warning =
                format!("this node {does} no audit logs: its folder cannot be read: {why}");
            config.warnings.push(warning);
            None
        })
    };
    let witness = role_key(Role::Witness, "witnesses");
    let mirror =
        role_key(Role::Mirror, "mirrors").filter(|_key| config.audit.mirror_quota_bytes > 0);
    let mut model_keys = openfang_kernel::ModelKeys::default();
    for variable in openfang_kernel::provider::key_variables() {
        if let Some(key) = environment(variable)? {
            model_keys.insert(variable, key);
        }
    }
    Ok(Prepared {
        config,
        keys,
        vault: seed.vault_key(),
        witness,
        mirror,
        model_keys,
        notify_socket: environment(notify::VARIABLE)?,
        listen_again: None,
        found_before: None,
        lock,
    })
}

impl Prepared {
    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Prepares for another start, with another audit log or the one that peers know.
    pub(super) fn begin_anew(
        &mut self,
        anew: &Anew,
        listen: Option<SocketAddr>,
    ) -> Result<(), RunError> {
        let epoch = |why| RunError::Epoch { why };
        let now = audit_epoch::current(&self.config.home).map_err(epoch)?;
        let (to, last) = match anew {
            Anew::Next { last } => (audit_epoch::next(now).map_err(epoch)?, last.as_ref()),
            Anew::Follow { epoch, .. } => (*epoch, None),
        };
        audit_epoch::turn(&self.config, to, last).map_err(epoch)?;
        self.listen_again = listen;
        self.found_before = match anew {
            Anew::Next { .. } => Some(Found::New),
            // Whoever forgot its log has forgotten what it has cosigned.
            Anew::Follow { found, .. } => {
                self.forget_cosigners()?;
                Some(*found)
            }
        };
        Ok(())
    }

    /// Retires the keys with which this node cosigns when nothing tells what they have cosigned.
    pub(super) fn forget_when_wiped(&mut self) -> Result<(), RunError> {
        let wiped = audit_epoch::is_wiped(&self.config.home);
        if wiped.map_err(|why| RunError::Epoch { why })? {
            self.forget_cosigners()?;
        }
        Ok(())
    }

    /// Retires the keys with which this node cosigns.
    fn forget_cosigners(&mut self) -> Result<(), RunError> {
        let seed = keys::load(&self.config.home.node_key())?;
        for (key, role) in [
            (&mut self.witness, Role::Witness),
            (&mut self.mirror, Role::Mirror),
        ] {
            if let Some(forgotten) = key.take() {
                let failed = |why| RunError::Write {
                    path: self.config.home.audit_dir(),
                    why,
                };
                forgotten.forget().map_err(failed)?;
                *key = RoleKey::choose(&self.config.home, &seed, &self.keys.node_id(), role)
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Returns the keys of the node.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns what seals the values that the audit log commits to.
    pub(crate) fn vault(&self) -> &VaultKey {
        &self.vault
    }

    /// Returns every secret that the node was told, and that must not come up in a log.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let api = self.config.api.key.as_ref();
        let mesh = self.config.network.secret.as_ref();
        let api = api.map(|key| key.expose().as_bytes());
        let mesh = mesh.map(|(_, secret)| secret.as_bytes());
        api.into_iter().chain(mesh).chain(self.model_keys.secrets())
    }

    /// Returns who the node is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.keys.node_id()
    }
}
