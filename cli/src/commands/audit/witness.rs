//! `openfang audit witness`: who cosigns the heads of this node's log, and who keeps copies of it. Asks
//! the running node; without one, what was kept is read from the files.

mod kept;

use openfang_schema::{
    AuditMirror, AuditMirrors, AuditSigning, AuditWitness, AuditWitnesses, CosignState,
    CosignStrength, SigningState, path,
};
use serde::Serialize;

use super::evidence;
use super::files::{Files, Kept, disabled};
use super::policy::own_key;
use super::redact::AUDIT_OFF;
use super::verify::{MEND_CONVICTED, MEND_SPENT};
use crate::args::Witness;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// All of it, as JSON: the fields of the witnesses, and the others under names of their own.
#[derive(Debug, Serialize)]
struct Cosigners {
    /// Whether this is the word of the running node.
    running: bool,
    #[serde(flatten)]
    witnesses: AuditWitnesses,
    mirroring: AuditMirrors,
    /// The size of the cosigned head that is kept beside the log.
    kept_size: Option<u64>,
    /// The key with which this node cosigns for others.
    own_key: Option<String>,
}

pub(super) fn run(command: &Witness, context: &Context) -> Result<Exit, Failure> {
    let Witness::Status(json) = command;
    if context.home.held_by()?.is_none() {
        return kept::run(json.json, context);
    }
    let client = context.client()?;
    let reply = Cosigners {
        running: true,
        witnesses: context
            .block_on(client.get(path::AUDIT_WITNESSES))
            .map_err(of_node)?,
        mirroring: context.block_on(client.get(path::AUDIT_MIRRORS))?,
        kept_size: kept_size(context),
        own_key: own_key(context),
    };
    if json.json {
        render::json(&reply)?;
        return Ok(Exit::Ok);
    }
    let Cosigners {
        running: _,
        witnesses,
        mirroring,
        kept_size,
        own_key,
    } = reply;
    render::line(&summary(&witnesses, kept_size, is_convicted(context)))?;
    if !witnesses.witnesses.is_empty() {
        let headings = ["NAME", "STANDING", "COSIGNED", "ID", "NOTE"];
        let rows: Vec<Vec<String>> = witnesses.witnesses.iter().map(row).collect();
        render::line(&render::table(&headings, &rows))?;
    }
    render::line(&copies(&mirroring))?;
    if !mirroring.mirrors.is_empty() {
        let headings = ["NAME", "STANDING", "HOLDS", "CHALLENGE", "ID", "NOTE"];
        let rows: Vec<Vec<String>> = mirroring.mirrors.iter().map(mirror_row).collect();
        render::line(&render::table(&headings, &rows))?;
    }
    render::line(&own_key_text(own_key))?;
    Ok(Exit::Ok)
}

/// A node that is told to keep no log has no witnesses, and says what all commands say then.
fn of_node(why: Failure) -> Failure {
    match why.reason() {
        Some(AUDIT_OFF) => disabled(),
        Some(_) | None => why,
    }
}

fn own_key_text(own_key: Option<String>) -> String {
    match own_key {
        Some(key) => format!("own key   {key}, with which this node cosigns the heads of others"),
        None => "own key   none: this node cosigns for nobody".to_owned(),
    }
}

/// What helps a log that is not signed, where something does.
fn mend_of(signing: &AuditSigning, convicted: bool) -> Option<&'static str> {
    match signing.state {
        SigningState::Free | SigningState::Restoring => None,
        // In its first seconds a node asks everybody, and nothing is wrong.
        SigningState::Asking => (!signing.silent.is_empty()).then_some(MEND_SILENT),
        SigningState::Behind => Some(MEND_BEHIND),
        SigningState::Contradicted if convicted => Some(MEND_SPENT),
        SigningState::Contradicted => Some(MEND_CONTRADICTED),
    }
}

/// Where everybody has to answer and some do not.
const MEND_SILENT: &str = "start the nodes that are named. One that is gone for good is waited for until the mesh has forgotten it, a day after it was last seen; when it has witnessed this log, remove audit.d/policy then, and: openfang restart";

/// Where peers know a longer log.
pub(crate) const MEND_BEHIND: &str =
    "start the nodes that have a copy: this one fetches what is missing by itself";
/// Where the log has two histories.
pub(crate) const MEND_CONTRADICTED: &str = "is another machine running with the key of this node? When none is: openfang stop, move audit.jsonl and audit.d away, make a new audit.d and copy the folder vault of the old one into it, which has what entries conceal, openfang start: it goes on as the peers have it";

/// Whether evidence against this node is known here.
fn is_convicted(context: &Context) -> bool {
    let Ok(files) = Files::to_judge(context) else {
        return false;
    };
    let known = evidence::known(&files).unwrap_or_default();
    let mut valid = known.valid.iter();
    valid.any(|(_, found)| evidence::is_against(found, &files.origin))
}

/// The size of the head that is kept: a node that was restarted may not have a newer one yet.
fn kept_size(context: &Context) -> Option<u64> {
    let files = Files::of(context).ok()?;
    match files.cosigned().ok()? {
        Kept::Head(head) => Some(head.checkpoint.size),
        Kept::Nothing | Kept::Bad(_) => None,
    }
}

fn copies(reply: &AuditMirrors) -> String {
    let AuditMirrors {
        wanted,
        complete,
        replicated,
        mirrors,
        ..
    } = reply;
    let now = mirrors.iter().filter(|mirror| !mirror.former).count();
    let everything = |of| match complete {
        0 => format!("none of {of} holds everything yet"),
        some => format!("{some} of {of} hold everything"),
    };
    let text = match (mirrors.len(), now) {
        (0, _) => "none: no other node of the mesh mirrors audit logs".to_owned(),
        (all, now) if now < *wanted => format!(
            "{}; {wanted} copies are wanted, and no more nodes that mirror can be reached",
            everything(all)
        ),
        (_, _) if *replicated == 0 => {
            format!(
                "{}; no entry is at {wanted} of them yet",
                everything(*wanted)
            )
        }
        (_, _) => format!(
            "{}; {wanted} hold the first {replicated} entries",
            everything(*wanted)
        ),
    };
    format!("copies    {text}")
}

fn mirror_row(mirror: &AuditMirror) -> Vec<String> {
    let standing = if mirror.former {
        format!("{}, replaced", mirror.standing)
    } else {
        mirror.standing.clone()
    };
    vec![
        name_of(&mirror.node_name, &mirror.node_id),
        standing,
        mirror.size.to_string(),
        mirror.challenge.clone(),
        mirror.node_id.clone(),
        mirror.reason.clone().unwrap_or_default(),
    ]
}

fn summary(reply: &AuditWitnesses, kept_size: Option<u64>, convicted: bool) -> String {
    let signing = reply.signing.reason.as_ref();
    let mend = mend_of(&reply.signing, convicted);
    let mend = mend.map_or_else(String::new, |mend| format!("    mend: {mend}\n"));
    let signing = signing.map_or_else(String::new, |why| {
        format!(
            "signing   not now: {}. {why}\n{mend}",
            word(reply.signing.state)
        )
    });
    let is_one_history = convicted && reply.signing.state != SigningState::Contradicted;
    let spent = format!("evidence  against THIS NODE\n    mend: {MEND_CONVICTED}\n");
    let signing = if is_one_history {
        format!("{signing}{spent}")
    } else {
        signing
    };
    let complete = complete(reply, kept_size);
    let Some(size) = reply.size else {
        return format!("{signing}head      none signed since the start\ncomplete  {complete}");
    };
    let of = reply.witnesses.len();
    let state = match reply.state {
        CosignState::Signed if of == 0 => {
            "signed by this node; nobody is there to cosign it".to_owned()
        }
        CosignState::Signed => format!("signed by this node, and cosigned by none of {of} yet"),
        CosignState::Partial | CosignState::Complete => {
            format!("cosigned by {} of {of}", reply.cosigned)
        }
    };
    let needed = match reply.strength {
        CosignStrength::Unwitnessed => {
            "none: no other node that witnesses audit logs can be reached".to_owned()
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
    format!("{signing}head      {size} entries, {state}\nneeded    {needed}\ncomplete  {complete}")
}

fn word(state: SigningState) -> &'static str {
    match state {
        SigningState::Free => "free",
        SigningState::Asking => "asking",
        SigningState::Behind => "behind",
        SigningState::Restoring => "restoring",
        SigningState::Contradicted => "CONTRADICTED",
    }
}

/// What is shown in the place of a name: a node that nobody tells of any more has none.
fn name_of(name: &str, id: &str) -> String {
    if name.is_empty() {
        let end: String = id
            .chars()
            .rev()
            .take(6)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        format!("(gone …{end})")
    } else {
        name.to_owned()
    }
}

fn complete(reply: &AuditWitnesses, kept_size: Option<u64>) -> String {
    match (&reply.complete, kept_size) {
        (Some(head), _) => format!(
            "{} entries, cosigned by enough at {}",
            head.size, head.timestamp
        ),
        (None, Some(kept)) => format!(
            "{kept} entries, cosigned before this node was started and kept in audit.d/cosigned"
        ),
        (None, None) => "none is known here: audit.d/cosigned is not there".to_owned(),
    }
}

fn row(witness: &AuditWitness) -> Vec<String> {
    vec![
        name_of(&witness.node_name, &witness.node_id),
        witness.standing.clone(),
        witness.size.to_string(),
        witness.node_id.clone(),
        witness.reason.clone().unwrap_or_default(),
    ]
}
