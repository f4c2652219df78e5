//! This node as a witness of logs that are not of its mesh: those that its operator has named.
//!
//! Nothing says who asks. So a head counts when the log has signed it and nothing else does, and what
//! this node has cosigned for its mesh is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use openfang_api::PublicWitness;
use openfang_audit::Hash;
use openfang_audit::cosign::LogName;
use openfang_audit::note::Verifier;
use openfang_audit::witness::Trust;
use openfang_id::NodeId;
use openfang_mesh::{Answer, Question};

use super::answering::{UNAVAILABLE, What, Window, what_of};

/// How long a question may wait and be answered: a witness answers within some flushes of the disk.
const DEADLINE: Duration = Duration::from_secs(10);
/// Nothing of that name is witnessed here: the status of HTTP.
const NOT_HERE: u16 = 404;

/// A window for everybody.
#[derive(Debug)]
pub(crate) struct PublicWindow {
    window: Window,
    logs: BTreeSet<Hash>,
}

impl PublicWindow {
    /// Opens it for some logs.
    pub(crate) fn new(window: Window, logs: &BTreeMap<String, Trust>) -> Self {
        let ids = logs.keys().filter_map(|name| name.parse::<LogName>().ok());
        Self {
            window,
            logs: ids.map(|name| name.id()).collect(),
        }
    }
}

impl PublicWitness for PublicWindow {
    fn ask(&self, question: Question) -> BoxFuture<'static, Answer> {
        let what = what_of(question).filter(|what| match what {
            What::Add(_) => true,
            What::Show(id) => self.logs.contains(id),
            What::ShowOwn => false,
        });
        let Some(what) = what else {
            return std::future::ready(Answer::status(NOT_HERE)).boxed();
        };
        let window = self.window.clone();
        async move {
            let answer = tokio::time::timeout(DEADLINE, window.hand_in(None, what)).await;
            answer.unwrap_or_else(|_late| Answer::status(UNAVAILABLE))
        }
        .boxed()
    }
}

/// Returns the keys of the logs that the operator has named. A node is no witness of its own log.
pub(crate) fn trusted(logs: &[Verifier], own: &NodeId) -> BTreeMap<String, Trust> {
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
    keys.into_iter()
        .map(|(name, keys)| (name, Trust::Keys(keys)))
        .collect()
}
