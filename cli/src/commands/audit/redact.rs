//! `openfang audit redact`: erases personal values, through the node when it runs.

use std::collections::BTreeSet;
use std::time::Duration;

use openfang_audit::{Erase, RedactError, Redacted, Seqs};
use openfang_node::config::process_environment;
use openfang_node::redaction::{OfflineError, redact_offline};
use openfang_schema::{ErrorCode, RedactReply, RedactRequest, path};

use crate::args::Redact;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// The word of the API for a node that keeps no log.
pub(super) const AUDIT_OFF: &str = "audit_off";
/// A vault of years is read and written to.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(args: &Redact, context: &Context) -> Result<Exit, Failure> {
    if args.reason.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "a redaction needs a reason")
            .mend("--reason 'asked by the subject'"));
    }
    let as_json = args.json.json;
    let reply = if context.home.held_by()?.is_some() {
        let request = RedactRequest {
            seqs: args.subject.is_none().then(|| args.seqs.clone()),
            subject: args.subject.clone(),
            reason: args.reason.clone(),
        };
        let client = context.client()?;
        context
            .block_on(client.post(path::AUDIT_REDACT, &request, TIMEOUT))
            .map_err(of_node)?
    } else {
        offline(args, context)?
    };
    if as_json {
        render::json(&reply)?;
    } else {
        render::line(&text(&reply))?;
    }
    Ok(Exit::Ok)
}

fn offline(args: &Redact, context: &Context) -> Result<RedactReply, Failure> {
    let prepared = openfang_node::prepare(&context.home, &process_environment)
        .map_err(|why| Failure::new(Exit::Failure, why.to_string()))?;
    let seqs: BTreeSet<u64> = args.seqs.iter().copied().collect();
    let what = match &args.subject {
        Some(name) => Erase::Subject(name),
        None => Erase::Entries(&seqs),
    };
    let done = redact_offline(&prepared, what, args.reason.trim()).map_err(|why| failure(&why))?;
    Ok(reply(&done))
}

fn reply(done: &Redacted) -> RedactReply {
    RedactReply {
        entries: done.entries.iter().copied().collect(),
        values: u64::try_from(done.openings).unwrap_or(u64::MAX),
        elsewhere: u64::try_from(done.elsewhere).unwrap_or(u64::MAX),
        told_in: done.told_in.iter().map(|seq| seq.0).collect(),
    }
}

/// What the running node refuses ends as what this command refuses by itself.
fn of_node(why: Failure) -> Failure {
    if why.reason() == Some(AUDIT_OFF) {
        why.ends_with(Exit::Usage)
    } else if why.code() == Some(ErrorCode::Unprocessable) {
        why.ends_with(Exit::NotFound)
    } else if why.code() == Some(ErrorCode::InvalidBody) {
        why.ends_with(Exit::Usage)
    } else {
        why
    }
}

/// The codes and reasons are those of the running node.
fn failure(why: &OfflineError) -> Failure {
    let refused = |reason| (Exit::NotFound, ErrorCode::Unprocessable, Some(reason));
    let (exit, code, reason) = match why {
        OfflineError::Redact(RedactError::Count(_) | RedactError::Reason(_)) => {
            (Exit::Usage, ErrorCode::InvalidBody, None)
        }
        OfflineError::Redact(RedactError::NoVault) => refused("no_vault"),
        OfflineError::Redact(RedactError::NoSuchEntry { .. }) => refused("no_such_entry"),
        OfflineError::Redact(RedactError::NothingPersonal { .. }) => refused("nothing_personal"),
        OfflineError::Redact(RedactError::NothingKept) => refused("nothing_kept"),
        OfflineError::Off => (Exit::Usage, ErrorCode::Unprocessable, Some(AUDIT_OFF)),
        OfflineError::NoLog => (Exit::NotFound, ErrorCode::Unprocessable, None),
        OfflineError::Redact(
            RedactError::InDoubt
            | RedactError::Waits
            | RedactError::NotLogged(_)
            | RedactError::NotAsDemanded,
        )
        | OfflineError::NotWhole { .. } => (Exit::Failure, ErrorCode::NotLogged, None),
        OfflineError::Redact(RedactError::Incomplete { .. }) => {
            (Exit::Failure, ErrorCode::Internal, Some("vault_damaged"))
        }
        OfflineError::Redact(
            RedactError::Read(_) | RedactError::Vault(_) | RedactError::Unfinished(_),
        )
        | OfflineError::Epoch(_)
        | OfflineError::Random(_)
        | OfflineError::Open(_)
        | OfflineError::Close(_) => (Exit::Failure, ErrorCode::Internal, None),
    };
    let failure = Failure::new(exit, why.to_string());
    match mend_of(why) {
        Some(mend) => failure.mend(mend),
        None => failure,
    }
    .coded(code, reason)
}

/// What helps, where the text does not say it.
fn mend_of(why: &OfflineError) -> Option<&'static str> {
    match why {
        OfflineError::Redact(why) => match why {
            RedactError::NoSuchEntry { .. } => Some(MEND_NUMBER),
            RedactError::NothingPersonal { .. } | RedactError::NothingKept => Some(MEND_VALUES),
            RedactError::NoVault => Some("openfang start, which makes the vault"),
            RedactError::Count(_) => Some("openfang audit redact with fewer numbers at once"),
            RedactError::Reason(_) => Some("a shorter --reason"),
            RedactError::Read(_) => Some("openfang audit verify"),
            RedactError::Vault(_) | RedactError::NotLogged(_) => Some("df -h, and ls -l audit.d"),
            // They say it.
            RedactError::InDoubt
            | RedactError::Waits
            | RedactError::NotAsDemanded
            | RedactError::Incomplete { .. }
            | RedactError::Unfinished(_) => None,
        },
        OfflineError::Off
        | OfflineError::NoLog
        | OfflineError::NotWhole { .. }
        | OfflineError::Epoch(_)
        | OfflineError::Random(_)
        | OfflineError::Open(_)
        | OfflineError::Close(_) => None,
    }
}

const MEND_NUMBER: &str = "openfang audit show --limit 1 shows the last entry; the first one is 0";
const MEND_VALUES: &str =
    "openfang audit show --reveal shows which entries hold values that can be erased";

fn text(reply: &RedactReply) -> String {
    let numbers = |seqs: &[u64]| {
        let texts = Seqs::split(&seqs.iter().copied().collect());
        texts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let here = reply.values.saturating_sub(reply.elsewhere);
    let of_entries = format!("{here} values of entries {}", numbers(&reply.entries));
    let others = format!(
        "{} of no entry of this log (of an earlier epoch, set aside, or never written)",
        reply.elsewhere
    );
    let what = match (here, reply.elsewhere) {
        (_, 0) => of_entries,
        (0, _) => others,
        (_, _) => format!("{of_entries}, and {others}"),
    };
    format!("erased {what}; told in entry {}", numbers(&reply.told_in))
}
