//! Whether the audit log is signed, and what keeps it from that.

use std::time::Duration;

use openfang_audit::inquiry::Signing;
use openfang_id::NodeId;
use openfang_mesh::{Status, View};
use openfang_schema as schema;
use openfang_schema::ErrorCode;

use super::name_in;
use crate::error::ApiError;
use crate::state::State;

/// Peers that are asked answer within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Entries that come back, and nodes that are to be started, take longer.
const RETRY_LATER: Duration = Duration::from_secs(10);

/// Shows it.
pub(crate) fn of(state: &State) -> schema::AuditSigning {
    let standing = state.signing.borrow().clone();
    let view = state.mesh.view();
    let asleep = matches!(state.mesh.status(), Status::Asleep);
    shown(&standing, asleep, |node| named(&view, node))
}

/// What keeps heads from being signed now.
pub(super) fn unsigned(state: &State) -> Option<String> {
    let reason = of(state).reason;
    reason.map(|reason| format!("Not signed now. {reason}"))
}

/// How the log stands to what peers hold of it, where that is more or something else.
pub(crate) fn disputed(state: &State) -> Option<(&'static str, Option<String>)> {
    let word = match *state.signing.borrow() {
        Signing::Contradicted { .. } => "contradicted",
        Signing::Behind { .. } => "behind",
        Signing::Asking { .. }
        | Signing::Waiting { .. }
        | Signing::Restoring { .. }
        | Signing::Free => return None,
    };
    Some((word, of(state).reason))
}

/// Says that no head can be shown for now; `None` where that is not because the log is not signed.
pub(crate) fn not_now(state: &State) -> Option<ApiError> {
    let (word, wait) = match *state.signing.borrow() {
        Signing::Free | Signing::Contradicted { .. } => return None,
        Signing::Asking { .. } => ("asking", RETRY_AFTER),
        Signing::Waiting { .. } => ("asking", RETRY_LATER),
        Signing::Behind { .. } => ("behind", RETRY_LATER),
        Signing::Restoring { .. } => ("restoring", RETRY_LATER),
    };
    let reason = of(state).reason.unwrap_or_default();
    let refused = ApiError::new(
        ErrorCode::NotSigned,
        format!("The audit log of this node is not signed now. {reason}"),
    );
    Some(refused.reason(word).retry_after(wait).hint(
        "Ask again; GET /api/audit/witnesses tells in signing what is waited for, and for whom.",
    ))
}

fn shown(
    signing: &Signing,
    asleep: bool,
    name_of: impl Fn(&NodeId) -> String,
) -> schema::AuditSigning {
    let mut silent: Vec<String> = Vec::new();
    let (state, reason) = match signing {
        Signing::Free => (schema::SigningState::Free, None),
        Signing::Asking { .. } if asleep => (schema::SigningState::Asking, Some(ASLEEP.to_owned())),
        Signing::Asking { answered, needed } => {
            let reason = asking(*answered, *needed);
            (schema::SigningState::Asking, Some(reason))
        }
        Signing::Waiting {
            answered,
            needed,
            silent: waited_for,
        } => {
            silent = waited_for.iter().map(&name_of).collect();
            let reason = waiting((*answered, *needed), &silent);
            (schema::SigningState::Asking, Some(reason))
        }
        Signing::Behind {
            size,
            silent: waited_for,
        } => {
            silent = waited_for.iter().map(&name_of).collect();
            let reason = format!(
                "Peers know a head of {size} entries. None that can be reached has them; not heard of: {}.",
                if silent.is_empty() {
                    "none".to_owned()
                } else {
                    silent.join(", ")
                }
            );
            (schema::SigningState::Behind, Some(reason))
        }
        Signing::Restoring { done, total } => {
            let reason = format!("{done} of {total} entries are back from copies of peers.");
            (schema::SigningState::Restoring, Some(reason))
        }
        Signing::Contradicted { size } => {
            let reason = format!(
                "Peers hold a head of {size} entries that this log has signed and does not lead to: it has two histories."
            );
            (schema::SigningState::Contradicted, Some(reason))
        }
    };
    schema::AuditSigning {
        state,
        reason,
        silent,
    }
}

const ASLEEP: &str = "This node is in no mesh, so that nobody can be asked what they know of this log: openfang join; or, where there \
     never was a peer, network.enabled = false in config.toml.";

fn asking(answered: usize, needed: usize) -> String {
    match needed {
        0 => "Peers are asked what they know of this log: none has been met yet.".to_owned(),
        needed => format!(
            "Peers are asked what they know of this log: {answered} of the {needed} that are needed have answered."
        ),
    }
}

fn waiting((answered, needed): (usize, usize), silent: &[String]) -> String {
    if needed == 0 {
        return "Nobody is met who could say what they know of this log.".to_owned();
    }
    format!(
        "Everybody has to say first what they know of this log: {answered} of {needed} have; not heard of: {}.",
        silent.join(", ")
    )
}

/// The name and the id of a node.
fn named(view: &View, node: &NodeId) -> String {
    match name_in(view, node) {
        name if name.is_empty() => node.to_string(),
        name => format!("{name} ({node})"),
    }
}

#[cfg(test)]
mod tests {
    use openfang_id::NodeSeed;

    use super::*;

    fn say(signing: &Signing) -> schema::AuditSigning {
        shown(signing, false, NodeId::fmt_short)
    }

    #[test]
    fn who_is_waited_for_is_named_and_nobody_is_counted_as_some_of_none() {
        let node = NodeSeed::from_bytes([7; 32]).keys().node_id();
        let waiting = Signing::Waiting {
            answered: 1,
            needed: 2,
            silent: vec![node],
        };
        let told = say(&waiting);
        assert_eq!(told.state, schema::SigningState::Asking);
        assert_eq!(told.silent, [node.fmt_short()]);
        let reason = told.reason.expect("a reason");
        assert!(
            reason.contains("1 of 2") && reason.contains(&node.fmt_short()),
            "{reason}"
        );
        let (answered, needed) = (0, 0);
        let asking = Signing::Asking { answered, needed };
        let nobody = Signing::Waiting {
            answered,
            needed,
            silent: Vec::new(),
        };
        for signing in [asking, nobody] {
            let reason = say(&signing).reason.expect("a reason");
            assert!(!reason.contains('0'), "{reason}");
        }
    }

    #[test]
    fn a_node_in_no_mesh_says_how_to_join_one() {
        let (answered, needed) = (0, 0);
        let told = shown(
            &Signing::Asking { answered, needed },
            true,
            NodeId::fmt_short,
        );
        let reason = told.reason.expect("a reason");
        assert!(reason.contains("openfang join"), "{reason}");
    }
}
