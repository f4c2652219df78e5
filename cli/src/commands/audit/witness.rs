//! `openfang audit witness`: who cosigns the heads of this node's log. Asks the running node.

use openfang_schema::{AuditWitness, AuditWitnesses, CosignState, CosignStrength, path};

use crate::args::Witness;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

pub(super) fn run(command: &Witness, context: &Context) -> Result<Exit, Failure> {
    let Witness::Status(json) = command;
    let client = context.client()?;
    let reply: AuditWitnesses = context.block_on(client.get(path::AUDIT_WITNESSES))?;
    if json.json {
        render::json(&reply)?;
        return Ok(Exit::Ok);
    }
    render::line(&summary(&reply))?;
    if !reply.witnesses.is_empty() {
        let headings = ["NAME", "STANDING", "COSIGNED", "ID", "NOTE"];
        let rows: Vec<Vec<String>> = reply.witnesses.iter().map(row).collect();
        render::line(&render::table(&headings, &rows))?;
    }
    Ok(Exit::Ok)
}

fn summary(reply: &AuditWitnesses) -> String {
    let signing = reply.signing.reason.as_ref();
    let signing = signing.map_or_else(String::new, |why| format!("signing   not now. {why}\n"));
    let Some(size) = reply.size else {
        return format!("{signing}head      none yet");
    };
    let of = reply.witnesses.len();
    let state = match reply.state {
        CosignState::Signed => "signed by this node alone".to_owned(),
        CosignState::Partial | CosignState::Complete => {
            format!("cosigned by {} of {of}", reply.cosigned)
        }
    };
    let needed = match reply.strength {
        CosignStrength::Unwitnessed => {
            "none: no other node of the mesh witnesses audit logs".to_owned()
        }
        CosignStrength::Detects => format!(
            "{} of {of}: detects two views of this log, does not prevent them",
            reply.needed
        ),
        CosignStrength::Prevents => format!(
            "{} of {of}: no two views of this log can both have enough",
            reply.needed
        ),
    };
    let complete = reply.complete.as_ref().map_or_else(
        || "none".to_owned(),
        |head| format!("{} entries, {}", head.size, head.timestamp),
    );
    format!("{signing}head      {size} entries, {state}\nneeded    {needed}\ncomplete  {complete}")
}

fn row(witness: &AuditWitness) -> Vec<String> {
    vec![
        witness.node_name.clone(),
        witness.standing.clone(),
        witness.size.to_string(),
        witness.node_id.clone(),
        witness.reason.clone().unwrap_or_default(),
    ]
}
