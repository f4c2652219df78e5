//! This node as a witness of logs that are not of its mesh: those that its operator has named.
//!
//! Nothing says who asks. So a head counts when the log has signed it and nothing else does, and what
//! this node has cosigned for its mesh is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use openfang_api::PublicWitness;
use openfang_audit::Hash;
use openfang_audit::cosign::LogName;
use openfang_audit::evidence::Evidence;
use openfang_audit::note::Verifier;
use openfang_audit::witness::{AddCheckpoint, Trust};
use openfang_id::NodeId;
use openfang_mesh::{Answer, Question};
use tokio::sync::Semaphore;

use super::answering::{UNAVAILABLE, What, Window, freeze, what_of};

/// How long a question may wait and be answered: a witness answers within some flushes of the disk.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many questions of others may wait beside those of members, which come first in no other way.
const WAITING_MAX: usize = 16;
/// Nothing of that name is witnessed here: the status of HTTP.
const NOT_HERE: u16 = 404;

/// A window for everybody.
#[derive(Debug)]
pub(crate) struct PublicWindow {
    window: Window,
    logs: BTreeSet<Hash>,
    /// Each question that waits has one.
    places: Arc<Semaphore>,
}

impl PublicWindow {
    /// Opens it for some logs.
    pub(crate) fn new(window: Window, logs: &BTreeMap<String, Trust>) -> Self {
        let ids = logs.keys().filter_map(|name| name.parse::<LogName>().ok());
        Self {
            window,
            logs: ids.map(|name| name.id()).collect(),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// Tells whether a question is about one of the logs. What cannot be read is left to the witness,
    /// which says so.
    fn concerns(&self, what: &What) -> bool {
        match what {
            What::Add(body) => AddCheckpoint::parse(body)
                .map_or(true, |asked| self.logs.contains(&asked.head().origin.id())),
            What::Show(id) => self.logs.contains(id),
            What::ShowOwn => false,
        }
    }
}

impl PublicWitness for PublicWindow {
    fn ask(&self, question: Question) -> BoxFuture<'static, Answer> {
        let Some(what) = what_of(question).filter(|what| self.concerns(what)) else {
            return std::future::ready(Answer::status(NOT_HERE)).boxed();
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return std::future::ready(Answer::status(UNAVAILABLE)).boxed();
        };
        let window = self.window.clone();
        async move {
            let _place = place;
            let answer = tokio::time::timeout(DEADLINE, window.hand_in(None, what)).await;
            answer.unwrap_or_else(|_late| Answer::status(UNAVAILABLE))
        }
        .boxed()
    }
}

/// Returns the keys of the logs that the operator has named, and which of them have contradicted themselves. A
/// node is no witness of its own log.
pub(crate) fn trusted(
    logs: &[Verifier],
    own: &NodeId,
    evidence: impl Iterator<Item = Evidence>,
) -> BTreeMap<String, Trust> {
    let mut keys: BTreeMap<String, Vec<Verifier>> = BTreeMap::new();
    for log in logs {
        let name = log.name();
        let is_own = name
            .parse::<openfang_audit::Origin>()
            .is_ok_and(|origin| origin.belongs_to(own));
        if is_own {
            tracing::warn!(
                log = name,
                "audit.witness_logs names the log of this node, which it cannot witness"
            );
            continue;
        }
        keys.entry(name.to_owned()).or_default().push(log.clone());
    }
    let mut trusted = keys
        .into_iter()
        .map(|(name, keys)| (name, Trust::Keys(keys)))
        .collect();
    for evidence in evidence {
        freeze(&mut trusted, &evidence);
    }
    trusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_audit::note::Note;
    use openfang_audit::tree::leaf_hash;
    use openfang_id::{NodeSeed, SigningKey};
    use openfang_mesh::Verb;

    use super::super::counter;
    use crate::cosigner::RoleKey;
    use crate::home::Home;

    const NAME: &str = "log.example/one";

    fn add(name: &str) -> Question {
        let key = SigningKey::from_bytes(&[5; 32]);
        let root = data_encoding::BASE64.encode(leaf_hash(b"one").as_bytes());
        let note = Note::sign(&format!("{name}\n1\n{root}\n"), name, &key).expect("a note");
        let request = AddCheckpoint::new(0, Vec::new(), note).expect("a request");
        Question {
            verb: Verb::Post,
            path: "witness/add-checkpoint".to_owned(),
            body: request.to_string().into_bytes(),
        }
    }

    fn logs(own: &NodeId) -> BTreeMap<String, Trust> {
        let key = SigningKey::from_bytes(&[5; 32]).verifying_key();
        let log = |name: &str| Verifier::new(name, key).expect("a key");
        let of_this_node = openfang_audit::Origin::of(own, 3);
        trusted(
            &[log(NAME), log(of_this_node.as_str())],
            own,
            std::iter::empty(),
        )
    }

    #[test]
    fn the_queue_of_the_members_is_not_filled_by_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let seed = NodeSeed::from_bytes([1; 32]);
        let own = seed.keys().node_id();
        let key = RoleKey::choose(
            &Home::at(folder.path()),
            &seed,
            &own,
            openfang_audit::cosign::Role::Witness,
        );
        let key = key.expect("readable").expect("a key");
        let logs = logs(&own);
        assert_eq!(logs.len(), 1, "a node does not witness its own log");
        // Nobody answers at this counter.
        let (window, _counter) = counter(key, logs.clone());
        let public = PublicWindow::new(window, &logs);
        let status = |question: Question| {
            let answer = public.ask(question).now_or_never();
            answer.map(|answer| answer.status)
        };
        assert_eq!(status(add("log.example/two")), Some(NOT_HERE));
        let elsewhere = Question {
            path: "mirror/add-checkpoint".to_owned(),
            ..add(NAME)
        };
        assert_eq!(status(elsewhere), Some(NOT_HERE));
        let waiting: Vec<_> = (0..WAITING_MAX).map(|_| public.ask(add(NAME))).collect();
        assert_eq!(status(add(NAME)), Some(UNAVAILABLE));
        assert_eq!(status(add("log.example/two")), Some(NOT_HERE));
        drop(waiting);
        let again: Vec<_> = (0..WAITING_MAX).map(|_| public.ask(add(NAME))).collect();
        assert_eq!(again.len(), WAITING_MAX);
    }
}
