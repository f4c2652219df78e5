//! What this node wrote down itself about its log: who has witnessed it, and heads that others have
//! cosigned.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::str::FromStr as _;

use openfang_audit::Origin;
use openfang_audit::mirror::NOTE_BYTES_MAX;
use openfang_audit::policy::{POLICY_BYTES_MAX, Policy};
use openfang_id::NodeId;

use crate::home::Home;
use crate::mirror;

/// What was written down.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Who has witnessed the log.
    pub(super) sworn: Vec<NodeId>,
    /// Heads of it. Nothing is checked.
    pub(super) notes: Vec<String>,
}

/// Reads what is left of it. What cannot be read is passed over: it is a help, and no more.
pub(super) fn read(home: &Home, me: &NodeId) -> Written {
    let policy = bytes_of(&home.audit_policy(), POLICY_BYTES_MAX);
    let sworn = policy.and_then(|bytes| witnesses_of(&bytes, me));
    let cosigned = bytes_of(&home.cosigned_head(), NOTE_BYTES_MAX);
    let cosigned = cosigned.and_then(|bytes| String::from_utf8(bytes).ok());
    let mirrored = mirror::saved_notes(&home.mirrored_heads());
    let mirrored = mirrored.unwrap_or_else(|why| {
        tracing::warn!(error = %why, "what mirrors have cosigned before cannot be read");
        Vec::new()
    });
    Written {
        sworn: sworn.unwrap_or_default(),
        notes: cosigned.into_iter().chain(mirrored).collect(),
    }
}

/// Returns the witnesses that a policy names, when it is one of a log of this node.
fn witnesses_of(policy: &[u8], me: &NodeId) -> Option<Vec<NodeId>> {
    let policy = Policy::parse(policy).ok()?;
    let is_own = |name: &str| Origin::from_str(name).is_ok_and(|origin| origin.belongs_to(me));
    if !policy.logs().iter().any(|log| is_own(log.key.name())) {
        return None;
    }
    let names = policy.witnesses().iter();
    let nodes = names.filter_map(|witness| witness.name.to_string().parse().ok());
    Some(nodes.filter(|node| node != me).collect())
}

fn bytes_of(path: &Path, most: usize) -> Option<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => (bytes.len() <= most).then_some(bytes),
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        Err(why) => {
            tracing::warn!(path = %path.display(), error = %why, "what this node wrote down about its audit log cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use openfang_audit::policy::quorum_for;
    use openfang_id::{Keys, NodeSeed};

    use super::*;
    use crate::files;

    fn keys(seed: u8) -> Keys {
        NodeSeed::from_bytes([seed; 32]).keys()
    }

    #[test]
    fn the_witnesses_come_from_the_policy_of_an_own_log_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        std::fs::create_dir_all(home.audit_dir()).expect("made");
        let me = keys(1).node_id();
        let nothing = read(&home, &me);
        assert!(nothing.sworn.is_empty() && nothing.notes.is_empty());
        let mut witnesses: Vec<NodeId> = (2..5).map(|seed| keys(seed).node_id()).collect();
        witnesses.sort();
        let named: Vec<_> = (2_u8..5)
            .map(|seed| (keys(seed).node_id(), keys(seed).witness.verifying_key()))
            .collect();
        for (owner, expected) in [(1, witnesses), (9, Vec::new())] {
            let origin = Origin::of(&keys(owner).node_id(), 2);
            let key = keys(owner).log.verifying_key();
            let policy = Policy::of_log(&origin, key, &named, quorum_for(3)).expect("a policy");
            files::replace(&home.audit_policy(), policy.as_bytes()).expect("written");
            let mut found = read(&home, &me).sworn;
            found.sort();
            assert_eq!(found, expected);
        }
        for damaged in [b"".as_slice(), b"\xff\xfe", &[b'x'; POLICY_BYTES_MAX + 1]] {
            std::fs::write(home.audit_policy(), damaged).expect("written");
            assert!(read(&home, &me).sworn.is_empty());
        }
        std::fs::write(home.cosigned_head(), "a note\n").expect("written");
        assert_eq!(read(&home, &me).notes, ["a note\n"]);
        std::fs::write(home.cosigned_head(), vec![b'x'; NOTE_BYTES_MAX + 1]).expect("written");
        assert!(read(&home, &me).notes.is_empty());
    }
}
