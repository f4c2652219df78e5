//! Who keeps copies of the audit log.

use openfang_audit::feed::{MirrorStatus, Mirroring, Proven, Standing};
use openfang_id::NodeId;
use openfang_schema as schema;

use super::rfc3339;
use crate::state::State;

/// Shows who keeps copies of the log.
pub(crate) fn audit_mirrors(state: &State, status: Mirroring) -> schema::AuditMirrors {
    let view = state.mesh.view();
    let name_of = |id: &NodeId| {
        let node = view.node(id);
        node.map_or_else(String::new, |node| node.record.record().name.to_string())
    };
    let mirrors = status.mirrors.into_iter().map(|mirror| {
        let name = name_of(&mirror.node);
        audit_mirror(mirror, name)
    });
    schema::AuditMirrors {
        size: status.size,
        wanted: status.wanted,
        complete: status.complete,
        replicated: status.replicated,
        mirrors: mirrors.collect(),
    }
}

fn audit_mirror(mirror: MirrorStatus, node_name: String) -> schema::AuditMirror {
    let (standing, mut reason) = standing(mirror.standing);
    let challenge = match mirror.proven {
        Proven::Unasked => "unasked",
        Proven::Shown => "shown",
        Proven::Unproven => "unproven",
        Proven::Failed => {
            let why = "It has cosigned entries that it does not show when asked for them.";
            reason = Some(why.to_owned());
            "failed challenge"
        }
    };
    schema::AuditMirror {
        node_id: mirror.node.to_string(),
        node_name,
        key: mirror.key.to_string(),
        size: mirror.size,
        timestamp: mirror
            .time
            .map(|time| rfc3339(time.saturating_mul(1_000_000))),
        standing: standing.to_owned(),
        former: mirror.former,
        challenge: challenge.to_owned(),
        reason,
    }
}

fn standing(standing: Standing) -> (&'static str, Option<String>) {
    match standing {
        Standing::New => ("new", None),
        Standing::Uploading(next) => ("uploading", Some(format!("Entry {next} is the next."))),
        Standing::Holding => ("holding", None),
        Standing::Unreachable => ("unreachable", None),
        Standing::Ahead(size) => (
            "ahead",
            Some(format!(
                "It has a log of this node with {size} entries, more than there are: this log was \
                 rolled back, or another machine has the key of this node."
            )),
        ),
        Standing::Full => (
            "full",
            Some(
                "Its copy may not grow: audit.mirror_quota_mb on that node, or its disk."
                    .to_owned(),
            ),
        ),
        Standing::Refused(status) => ("refused", Some(super::refusal(status))),
        Standing::Invalid => (
            "invalid",
            Some("What it sends is no cosignature of its key.".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openfang_audit::cosign::{CosignerKey, Role};
    use openfang_id::NodeSeed;

    #[test]
    fn a_failed_challenge_is_never_called_tampered() {
        let keys = NodeSeed::from_bytes([3; 32]).keys();
        let node = keys.node_id();
        let shown = |standing, proven| {
            let mirror = MirrorStatus {
                node,
                key: CosignerKey::of(&node, Role::Mirror, keys.mirror.verifying_key()),
                size: 7,
                time: Some(1_700_000_000),
                standing,
                former: false,
                proven,
            };
            let shown = audit_mirror(mirror, "b".to_owned());
            (
                shown.standing,
                shown.challenge,
                shown.reason.unwrap_or_default(),
            )
        };
        let check = |standing, proven, words: (&str, &str), contains: &str| {
            let (one, other, reason) = shown(standing, proven);
            assert_eq!((one.as_str(), other.as_str()), words);
            assert!(
                reason.contains(contains) && !reason.contains("tamper"),
                "{reason}"
            );
        };
        check(Standing::Holding, Proven::Shown, ("holding", "shown"), "");
        check(
            Standing::Unreachable,
            Proven::Unproven,
            ("unreachable", "unproven"),
            "",
        );
        check(
            Standing::Holding,
            Proven::Failed,
            ("holding", "failed challenge"),
            "does not show",
        );
        check(
            Standing::Full,
            Proven::Unasked,
            ("full", "unasked"),
            "mirror_quota_mb",
        );
        check(
            Standing::Ahead(9),
            Proven::Shown,
            ("ahead", "shown"),
            "9 entries",
        );
        check(
            Standing::Uploading(5),
            Proven::Unasked,
            ("uploading", "unasked"),
            "Entry 5",
        );
    }
}
