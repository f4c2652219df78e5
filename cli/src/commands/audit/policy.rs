//! `openfang audit policy`: what others need to check proofs, heads and exports of this log.

use super::files::Files;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

pub(super) fn run(files: &Files, context: &Context) -> Result<Exit, Failure> {
    let policy = files.policy()?;
    if policy.witnesses().is_empty() {
        let gone = if files.network_on {
            ", or audit.d/policy was removed with all that would tell"
        } else {
            ""
        };
        render::message(&format!(
            "no witness has cosigned this log yet{gone}: under this policy the signature of the log is all \
             there is, and nothing speaks against this node itself"
        ));
    }
    render::piece(&String::from_utf8_lossy(policy.as_bytes()))?;
    if let Some(own) = own_key(context) {
        render::piece(&format!(
            "# This node cosigns the heads of other logs as\n# {own}\n"
        ))?;
    }
    Ok(Exit::Ok)
}

/// The key of this node as a witness, for the policies of others.
pub(super) fn own_key(context: &Context) -> Option<String> {
    let seed = openfang_node::keys::load(&context.home.node_key()).ok()?;
    let key = openfang_node::witness_key(&context.home, &seed).ok()??;
    Some(key.to_string())
}
