//! What a node is told, read before anything starts.

use std::io;
use std::net::SocketAddr;

use openfang_audit::cosign::Role;
use openfang_audit::storage::is_floor_in_place;
use openfang_id::{Keys, NodeId, VaultKey};

use super::RunError;
use crate::config::{Config, Lookup};
use crate::cosigner::RoleKey;
use crate::home::{Home, Lock};
use crate::own_log::{Anew, Found, Mark};
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
pub fn prepare(home: &Home, environment: Lookup<'_>) -> Result<Prepared, RunError> {
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

/// Says which file it is that cannot be read or written.
pub(super) fn doubt_of(home: &Home) -> impl Fn(io::Error) -> RunError + use<> {
    let path = home.audit_doubt();
    move |why| RunError::Doubt {
        path: path.clone(),
        why,
    }
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
        // Whoever forgot its log has forgotten what it has cosigned.
        let (forgets, found) = match anew {
            Anew::Next { last } => (last.is_some(), Found::New),
            Anew::Follow { found, .. } => (true, *found),
        };
        let home = self.config.home.clone();
        if forgets {
            Mark::RolledBack.store(&home).map_err(doubt_of(&home))?;
        }
        audit_epoch::turn(&self.config, to, last).map_err(epoch)?;
        if forgets {
            self.forget_cosigners()?;
        }
        let remembered = match Mark::of(found) {
            Some(mark) => mark.store(&home),
            None => Mark::clear(&home),
        };
        remembered.map_err(doubt_of(&home))?;
        self.listen_again = listen;
        self.found_before = Some(found);
        Ok(())
    }

    /// Retires the keys with which this node cosigns when nothing tells what they have cosigned: the home
    /// was wiped, or the last run ended before it could do so.
    pub(super) fn forget_what_is_lost(&mut self) -> Result<(), RunError> {
        let home = self.config.home.clone();
        let wiped = audit_epoch::is_wiped(&home).map_err(|why| RunError::Epoch { why })?;
        let mark = Mark::load(&home).map_err(doubt_of(&home))?;
        let rolled_back = mark == Some(Mark::RolledBack);
        // What others had cosigned may be newer than what stands in files that were put back.
        let is_elsewhere = mark.is_none() && self.is_elsewhere().map_err(doubt_of(&home))?;
        if wiped || rolled_back || is_elsewhere {
            self.forget_cosigners()?;
        }
        if rolled_back {
            Mark::Retired.store(&home).map_err(doubt_of(&home))?;
        }
        Ok(())
    }

    /// Tells whether the files of the audit log are not where this node wrote them, and it has cosigned.
    fn is_elsewhere(&self) -> io::Result<bool> {
        let dir = self.config.home.audit_dir();
        let is_put_back = dir.join("floor").try_exists()? && !is_floor_in_place(&dir)?;
        let keys = self.witness.iter().chain(&self.mirror);
        let used: io::Result<Vec<bool>> = keys.map(RoleKey::is_used).collect();
        Ok(is_put_back && used?.contains(&true))
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

#[cfg(test)]
mod tests {
    use openfang_audit::{Checkpoint, Hash, Origin};
    use openfang_id::NodeSeed;

    use super::*;
    use crate::files;

    const SEED: [u8; 32] = [7; 32];

    /// A home whose log was begun.
    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        home.create().expect("private");
        std::fs::create_dir_all(home.audit_dir()).expect("made");
        files::create(&home.config(), b"").expect("written");
        keys::create(&home.node_key(), &NodeSeed::from_bytes(SEED)).expect("written");
        files::replace(&home.audit_epoch(), b"1\n").expect("written");
        (folder, home)
    }

    fn start(home: &Home) -> Prepared {
        let mut prepared = prepare(home, &|_name| Ok(None)).expect("prepared");
        prepared.forget_what_is_lost().expect("forgotten");
        prepared
    }

    fn keys_of(prepared: &Prepared) -> [Option<[u8; 32]>; 2] {
        let keys = [&prepared.witness, &prepared.mirror];
        keys.map(|key| key.as_ref().map(RoleKey::public))
    }

    fn cosigners(home: &Home) -> [Option<[u8; 32]>; 2] {
        keys_of(&start(home))
    }

    #[test]
    fn a_start_retires_the_keys_that_the_last_run_could_not_retire_any_more() {
        let (_folder, home) = home();
        let before = cosigners(&home);
        assert_eq!(cosigners(&home), before, "nothing is doubtful");
        Mark::RolledBack.store(&home).expect("written");
        let after = cosigners(&home);
        for (before, after) in before.iter().zip(&after) {
            assert!(after.is_some() && before != after);
        }
        assert_eq!(Mark::load(&home).expect("read"), Some(Mark::Retired));
        assert_eq!(cosigners(&home), after, "once");
        for other in [Mark::Gone, Mark::NoFloor] {
            other.store(&home).expect("written");
            assert_eq!(cosigners(&home), after);
        }
    }

    #[test]
    fn whoever_begins_anew_remembers_why_and_cosigns_with_other_keys_unless_nothing_was_known() {
        let last = Checkpoint {
            origin: Origin::of(&NodeSeed::from_bytes(SEED).keys().node_id(), 1),
            size: 7,
            root: Hash::from_bytes([3; 32]),
        };
        let follow = |found| Anew::Follow { epoch: 1, found };
        for (anew, retires, mark) in [
            (follow(Found::Back), true, Some(Mark::Retired)),
            (follow(Found::Gone), true, Some(Mark::Gone)),
            (Anew::Next { last: Some(last) }, true, None),
            (Anew::Next { last: None }, false, None),
        ] {
            let (_folder, home) = home();
            let mut prepared = start(&home);
            let before = keys_of(&prepared);
            Mark::NoFloor.store(&home).expect("written");
            prepared.begin_anew(&anew, None).expect("begun");
            assert_eq!(keys_of(&prepared) != before, retires, "{anew:?}");
            assert_eq!(Mark::load(&home).expect("read"), mark, "{anew:?}");
        }
    }
}
