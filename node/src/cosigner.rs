//! The keys with which a node cosigns for others, and which generation of each it may use.
//!
//! A cosigner that has forgotten what it has promised must never sign with the same key again. So each
//! role has a row of keys, made from the seed: when the state of one is lost, the next takes its place.

use std::io;
use std::path::Path;

use openfang_audit::cosign::{Cosigner, CosignerKey, Role};
use openfang_audit::mirror;
use openfang_audit::witness::{FileStore, StoreOpenError, Witness};
use openfang_id::{NodeId, NodeSeed};

use crate::home::Home;

/// The most generations: whoever loses the state of a cosigner so often has another problem.
const GENERATIONS_MAX: u32 = 64;
/// The file of the state.
const HEADS: &str = "heads";
/// What it is called when its key is retired although it is there.
const RETIRED: &str = "heads.retired";
/// What the damaged head of a copy is called from then on.
const DAMAGED: &str = "complete.damaged";

/// The key with which this node cosigns in a role, and where its promises are kept.
#[derive(Debug, Clone)]
pub(crate) struct RoleKey {
    home: Home,
    role: Role,
    generation: u32,
    cosigner: Cosigner,
}

impl RoleKey {
    /// Chooses the first generation whose promises are not lost. `None` when there is none. Nothing on
    /// the disk is changed.
    ///
    /// # Errors
    /// When the home cannot be looked at.
    pub(crate) fn choose(
        home: &Home,
        seed: &NodeSeed,
        node: &NodeId,
        role: Role,
    ) -> io::Result<Option<Self>> {
        for generation in 0..GENERATIONS_MAX {
            let key = match role {
                Role::Witness => seed.witness_key(generation),
                Role::Mirror => seed.mirror_key(generation),
            };
            let cosigner = Cosigner::of(node, role, key);
            if is_retired(home, (role, generation), cosigner.public())? {
                continue;
            }
            if generation > 0 {
                tracing::warn!(
                    generation,
                    ?role,
                    "what this node has cosigned with an earlier key is lost or damaged: that key is retired"
                );
            }
            return Ok(Some(Self {
                home: home.clone(),
                role,
                generation,
                cosigner,
            }));
        }
        Ok(None)
    }

    /// Returns the public key.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.cosigner_key().key().to_bytes()
    }

    /// Returns the public key with the name that stands in notes.
    pub(crate) fn cosigner_key(&self) -> &CosignerKey {
        self.cosigner.public()
    }

    /// Returns the home.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Tells whether it has ever cosigned.
    ///
    /// # Errors
    /// When the home cannot be looked at.
    pub(crate) fn is_used(&self) -> io::Result<bool> {
        self.home
            .cosigner_bound(self.role, self.generation)
            .try_exists()
    }

    /// Opens the state.
    ///
    /// # Errors
    /// See [`StoreOpenError`].
    pub(crate) fn open(&self) -> Result<Witness<FileStore>, StoreOpenError> {
        self.retire_earlier()?;
        let store = FileStore::open(
            &self.home.cosigner_state(self.role, self.generation),
            &self.home.cosigner_bound(self.role, self.generation),
            self.cosigner.public(),
            &format!("pid {}", std::process::id()),
        )?;
        Ok(Witness::new(self.cosigner.clone(), store))
    }

    /// Retires this generation: what it has promised elsewhere or earlier is not known here. Its state
    /// must not be open.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub(crate) fn forget(&self) -> io::Result<()> {
        // What was used and has no state is retired.
        drop(self.open().map_err(io::Error::other)?);
        let state = self.home.cosigner_state(self.role, self.generation);
        move_aside(&state.join(HEADS), &state.join(RETIRED))
    }

    /// Makes it last that the earlier generations are retired: their state is moved aside first, the
    /// damaged heads of copies that were the reason after it.
    fn retire_earlier(&self) -> io::Result<()> {
        for generation in 0..self.generation {
            let state = self.home.cosigner_state(self.role, generation);
            move_aside(&state.join(HEADS), &state.join(RETIRED))?;
        }
        if self.role == Role::Witness {
            return Ok(());
        }
        for kept in mirror::kept_heads(&self.home.mirror_copies())? {
            if kept.head.is_none() {
                move_aside(&kept.path, &kept.path.with_file_name(DAMAGED))?;
            }
        }
        Ok(())
    }
}

/// Tells whether a generation has cosigned and what it said is gone, or cannot be read any more.
fn is_retired(home: &Home, (role, generation): (Role, u32), key: &CosignerKey) -> io::Result<bool> {
    let is_there = |path: &Path| path.try_exists();
    if !is_there(&home.cosigner_bound(role, generation))? {
        return Ok(false);
    }
    let state = home.cosigner_state(role, generation);
    if !is_there(&state.join(HEADS))? || FileStore::is_damaged(&state, key)? {
        return Ok(true);
    }
    // A mirror also promises to hold what the heads of its copies say.
    let forgotten = role == Role::Mirror
        && mirror::kept_heads(&home.mirror_copies())?
            .iter()
            .any(|kept| kept.head.is_none());
    Ok(forgotten)
}

/// Renames a file durably; one that is not there is no error.
fn move_aside(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
    }
    crate::files::sync_folder(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        folder: tempfile::TempDir,
        seed: NodeSeed,
    }

    impl Node {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().expect("a folder"),
                seed: NodeSeed::from_bytes([7; 32]),
            }
        }

        fn choose(&self, role: Role) -> RoleKey {
            let home = Home::at(self.folder.path());
            let node = self.seed.keys().node_id();
            let key = RoleKey::choose(&home, &self.seed, &node, role);
            key.expect("readable").expect("a generation")
        }
    }

    #[test]
    fn a_key_is_kept_as_long_as_its_state_is_there() {
        for role in [Role::Witness, Role::Mirror] {
            let node = Node::new();
            let first = node.choose(role);
            assert_eq!(first.generation, 0);
            assert_eq!(node.choose(role).generation, 0, "choosing changes nothing");
            drop(first.open().expect("a new state"));
            assert_eq!(node.choose(role).public(), first.public());
            drop(node.choose(role).open().expect("the same state"));
            let other = Node::new();
            other.choose(role).forget().expect("retired");
            assert_eq!(other.choose(role).generation, 1);
        }
    }

    #[test]
    fn a_key_whose_state_is_lost_is_retired_for_ever() {
        for role in [Role::Witness, Role::Mirror] {
            let node = Node::new();
            let first = node.choose(role);
            drop(first.open().expect("a new state"));
            let state = first.home().cosigner_state(role, 0);
            std::fs::remove_dir_all(&state).expect("removed");
            let second = node.choose(role);
            assert_eq!(second.generation, 1);
            assert_ne!(second.public(), first.public());
            drop(second.open().expect("a new state"));
            assert_eq!(node.choose(role).generation, 1);
            let lost = first.open().expect_err("it has forgotten");
            assert!(matches!(lost, StoreOpenError::StateLost), "{lost}");
        }
    }

    #[test]
    fn a_key_whose_state_is_damaged_is_retired_and_the_next_one_works() {
        for role in [Role::Witness, Role::Mirror] {
            let node = Node::new();
            let first = node.choose(role);
            drop(first.open().expect("a new state"));
            let heads = first.home().cosigner_state(role, 0).join(HEADS);
            std::fs::write(&heads, b"rotten").expect("written");
            let second = node.choose(role);
            assert_eq!(second.generation, 1);
            assert!(heads.exists(), "choosing changes nothing");
            drop(second.open().expect("a new state"));
            assert!(!heads.exists() && heads.with_file_name(RETIRED).exists());
            assert_eq!(node.choose(role).public(), second.public());
        }
    }

    #[test]
    fn a_mirror_that_forgot_what_it_holds_retires_its_key_once() {
        let node = Node::new();
        let first = node.choose(Role::Mirror);
        drop(first.open().expect("a new state"));
        let copy = first.home().mirror_copies().join("00");
        std::fs::create_dir_all(&copy).expect("made");
        std::fs::write(copy.join("complete"), b"rotten").expect("written");
        assert_eq!(node.choose(Role::Witness).generation, 0);
        let second = node.choose(Role::Mirror);
        assert_eq!(second.generation, 1);
        assert!(copy.join("complete").exists(), "choosing changes nothing");
        drop(second.open().expect("a new state"));
        assert!(!copy.join("complete").exists() && copy.join(DAMAGED).exists());
        let third = node.choose(Role::Mirror);
        assert_eq!(third.public(), second.public(), "retired once, not again");
        drop(third.open().expect("the state of the second"));
    }

    #[test]
    fn a_crash_while_retiring_is_made_good() {
        let node = Node::new();
        drop(node.choose(Role::Mirror).open().expect("a new state"));
        let home = Home::at(node.folder.path());
        let copy = home.mirror_copies().join("00");
        std::fs::create_dir_all(&copy).expect("made");
        std::fs::write(copy.join("complete"), b"rotten").expect("written");
        // As far as the first step.
        let state = home.cosigner_state(Role::Mirror, 0);
        move_aside(&state.join(HEADS), &state.join(RETIRED)).expect("moved");
        let second = node.choose(Role::Mirror);
        assert_eq!(second.generation, 1);
        drop(second.open().expect("a new state"));
        assert_eq!(node.choose(Role::Mirror).generation, 1);
    }
}
