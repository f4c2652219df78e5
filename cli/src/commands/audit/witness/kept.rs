//! Who has cosigned the log of a node that does not run, as far as it was kept in its files.

use openfang_audit::note::Note;
use openfang_audit::policy::{Evaluation, Policy};
use openfang_audit::rfc3339;
use serde_json::{Value, json};

use super::super::files::{Files, Kept, MEND_KEPT};
use super::super::policy::own_key;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// What the files say.
struct Found {
    published: Option<u64>,
    /// What was cosigned by the witnesses last, and by whom.
    cosigned: Option<(u64, Option<Evaluation>)>,
    policy: Option<Policy>,
    /// How many entries the heads have that mirrors have cosigned.
    mirrored: Vec<u64>,
    doubt: Option<String>,
    /// What is damaged or missing.
    lacks: Vec<String>,
}

/// Prints it.
pub(super) fn run(as_json: bool, context: &Context) -> Result<Exit, Failure> {
    let files = Files::of(context)?;
    let found = load(&files)?;
    let key = own_key(context);
    if as_json {
        render::json(&object(&found, key))?;
        return Ok(Exit::Ok);
    }
    render::message("the node does not run: this is what its files say");
    for line in text(&found) {
        render::line(&line)?;
    }
    if let Some(policy) = found
        .policy
        .as_ref()
        .filter(|policy| !policy.witnesses().is_empty())
    {
        let rows = rows(policy, &found);
        render::line(&render::table(&["WITNESS", "COSIGNED AT"], &rows))?;
    }
    render::line(&super::own_key_text(key))?;
    for lack in &found.lacks {
        render::message(&format!("{lack}\n    mend: {MEND_KEPT}"));
    }
    Ok(Exit::Ok)
}

fn load(files: &Files) -> Result<Found, Failure> {
    let mut lacks = Vec::new();
    let policy = files.kept_policy().unwrap_or_else(|why| {
        lacks.push(why.what().to_owned());
        None
    });
    if policy.is_none() && lacks.is_empty() {
        lacks.extend(files.missing_policy());
    }
    let published = match files.published()? {
        Kept::Head(head) => Some(head.checkpoint.size),
        Kept::Nothing => None,
        Kept::Bad(why) => {
            lacks.push(why);
            None
        }
    };
    let cosigned = match files.cosigned()? {
        Kept::Head(head) => {
            let note = head.note.parse::<Note>().ok();
            let judged = note.and_then(|note| policy.as_ref()?.evaluate(&note).ok());
            Some((head.checkpoint.size, judged))
        }
        Kept::Nothing => {
            let of = policy.as_ref().map_or(0, |policy| policy.witnesses().len());
            if of > 0 {
                lacks.push(format!(
                    "no head that enough of {of} witnesses have cosigned is there: none was, or audit.d/cosigned was removed"
                ));
            }
            None
        }
        Kept::Bad(why) => {
            lacks.push(why);
            None
        }
    };
    let mirrored = files.mirrored()?;
    files.warn_of_mirrored();
    Ok(Found {
        published,
        cosigned,
        policy,
        mirrored: mirrored.iter().map(|head| head.checkpoint.size).collect(),
        doubt: files.doubt()?,
        lacks,
    })
}

fn text(found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    if found.doubt.is_some() {
        lines.push(
            "signing   not before the peers were asked what they know of this log (audit.doubt)"
                .to_owned(),
        );
    }
    lines.push(match found.published {
        Some(size) => format!("head      {size} entries, signed by this node"),
        None => "head      none that can be read".to_owned(),
    });
    lines.push(match &found.cosigned {
        None => "complete  no cosigned head is there".to_owned(),
        Some((size, Some(judged))) => {
            let enough = if judged.reached {
                "enough"
            } else {
                "fewer than enough"
            };
            let of = found
                .policy
                .as_ref()
                .map_or(0, |policy| policy.witnesses().len());
            format!(
                "complete  {size} entries, cosigned by {} of {of}, which is {enough}",
                judged.cosignatures.len()
            )
        }
        Some((size, None)) => format!("complete  {size} entries; by whom cannot be said"),
    });
    lines.push(match found.mirrored.iter().max() {
        Some(most) => format!(
            "copies    of {} mirrors, the newest of {most} entries",
            found.mirrored.len()
        ),
        None => "copies    no mirror has cosigned, as far as was kept".to_owned(),
    });
    lines
}

fn rows(policy: &Policy, found: &Found) -> Vec<Vec<String>> {
    let witnesses = policy.witnesses().iter();
    witnesses
        .map(|witness| {
            let time = time_of(&witness.name.to_string(), found);
            vec![
                witness.name.to_string(),
                time.unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect()
}

fn time_of(name: &str, found: &Found) -> Option<String> {
    let (_, judged) = found.cosigned.as_ref()?;
    let mut all = judged.as_ref()?.cosignatures.iter();
    let one = all.find(|one| one.witness.to_string() == name)?;
    Some(rfc3339(one.time.saturating_mul(1_000_000)))
}

fn object(found: &Found, own_key: Option<String>) -> Value {
    let witnesses: Vec<Value> = found
        .policy
        .iter()
        .flat_map(|policy| policy.witnesses())
        .map(|witness| {
            let name = witness.name.to_string();
            json!({ "node_id": name, "cosigned_at": time_of(&name, found) })
        })
        .collect();
    let cosigned = found.cosigned.as_ref();
    let judged = cosigned.and_then(|(_, judged)| judged.as_ref());
    json!({
        "running": false,
        "size": found.published,
        "kept_size": cosigned.map(|(size, _)| size),
        "reached": judged.map(|judged| judged.reached),
        "cosigned": judged.map(|judged| judged.cosignatures.len()),
        "witnesses": witnesses,
        "mirrored": found.mirrored,
        "doubt": found.doubt,
        "lacks": found.lacks,
        "own_key": own_key,
    })
}
