//! What lines of the audit log commit to: shown to the owner, or erased.

use std::collections::BTreeSet;

use axum::extract::State;
use openfang_audit::vault::Revealed;
use openfang_audit::{
    Erase, Field, Kind, Line, Log, Public, REASON_BYTES_MAX, RedactError, Redacted,
};
use openfang_kernel::Auditor;
use openfang_schema::{ErrorCode, RedactReply, RedactRequest};

use tokio::runtime::Handle;

use super::audit::{blocking, log};
use super::{Answer, AppState, ok};
use crate::error::{ApiError, IN_DOUBT, not_logged};
use crate::extract::{Body, Caller};
use crate::state::State as Given;
use crate::wire;

/// The longest name of a subject.
const SUBJECT_BYTES_MAX: usize = 256;

/// What is asked for, checked.
enum Wanted {
    Entries(BTreeSet<u64>),
    Subject(String),
}

/// `POST /api/audit/redact`: logged before it is done, durable when it is answered.
pub(crate) async fn redact(
    State(app): AppState,
    Caller(principal): Caller,
    Body(request): Body<RedactRequest>,
) -> Answer {
    let log = log(&app.state)?;
    let wanted = wanted(request)?;
    let auditor = app.state.auditor.clone();
    let done = app
        .carry_out(erase((log, auditor), wanted, principal.to_string()))
        .await?;
    ok(&RedactReply {
        entries: done.entries.into_iter().collect(),
        values: wire::count(done.openings),
        elsewhere: wire::count(done.elsewhere),
        told_in: done.told_in.into_iter().map(|seq| seq.0).collect(),
    })
}

/// Erases, once the entry about it is what is demanded of a change.
async fn erase(
    (log, auditor): (Log, Auditor),
    (wanted, reason): (Wanted, String),
    user: String,
) -> Result<Redacted, ApiError> {
    let runtime = Handle::current();
    let done = blocking(move || {
        let what = match &wanted {
            Wanted::Entries(seqs) => Erase::Entries(seqs),
            Wanted::Subject(name) => Erase::Subject(name),
        };
        let mut refused = None;
        let may = |told| {
            let settled = runtime.block_on(auditor.settled(Kind::Redact, told));
            refused = settled.err();
            refused.is_none()
        };
        let done = log.redact_when(what, &reason, Public::text(&user), may);
        (done, refused)
    });
    match done.await? {
        (Err(RedactError::NotAsDemanded), Some(why)) => Err(not_logged(&why)),
        (done, _) => done.map_err(|why| refused(&why)),
    }
}

/// Opens what lines commit to.
pub(super) async fn reveal(
    log: Log,
    lines: Vec<Line>,
) -> Result<(Vec<Line>, Vec<Vec<(Field, Revealed)>>), ApiError> {
    let revealed = blocking(move || log.reveal(&lines).map(|revealed| (lines, revealed)));
    let revealed = revealed.await?;
    revealed.map_err(|why| ApiError::internal("Reading the vault of the audit log", &why))
}

/// Personal values are for the owner alone: being on this machine is not enough.
pub(super) fn only_with_the_key(state: &Given) -> ApiError {
    let text = "Personal values are shown to the holder of the API key only.";
    if state.auth.key.is_some() {
        return ApiError::new(ErrorCode::KeyRequired, text);
    }
    ApiError::new(ErrorCode::Refused, text).hint(
        "This node has none: openfang keygen --api makes one for api.key; openfang audit show --reveal works without.",
    )
}

fn wanted(request: RedactRequest) -> Result<(Wanted, String), ApiError> {
    let refuse = |text: &str| ApiError::new(ErrorCode::InvalidBody, text);
    let reason = request.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        let text = format!("reason must have 1 to {REASON_BYTES_MAX} bytes.");
        return Err(refuse(&text));
    }
    let wanted = match (request.seqs, request.subject) {
        (Some(seqs), None) => Wanted::Entries(seqs.into_iter().collect()),
        (None, Some(name)) if !name.trim().is_empty() && name.len() <= SUBJECT_BYTES_MAX => {
            Wanted::Subject(name)
        }
        (None, Some(_)) => return Err(refuse("subject must have 1 to 256 bytes.")),
        (Some(_), Some(_)) | (None, None) => {
            return Err(refuse("Give either seqs or subject."));
        }
    };
    Ok((wanted, reason.to_owned()))
}

fn refused(why: &RedactError) -> ApiError {
    let said = |code, reason: &str| ApiError::new(code, sentence(why)).reason(reason);
    match why {
        RedactError::Count(_) | RedactError::Reason(_) => {
            ApiError::new(ErrorCode::InvalidBody, sentence(why))
        }
        RedactError::NoVault => said(ErrorCode::Unprocessable, "no_vault"),
        RedactError::NoSuchEntry { .. } => said(ErrorCode::Unprocessable, "no_such_entry")
            .hint("openfang audit show --limit 1 shows the last entry, the first one is 0."),
        RedactError::NothingPersonal { .. } => said(ErrorCode::Unprocessable, "nothing_personal")
            .hint(
                "openfang audit show --reveal shows which entries hold values that can be erased.",
            ),
        RedactError::NothingKept => said(ErrorCode::Unprocessable, "nothing_kept").hint(
            "openfang audit show --reveal shows which entries hold values that can be erased.",
        ),
        RedactError::NotLogged(_) | RedactError::NotAsDemanded => {
            ApiError::new(ErrorCode::NotLogged, sentence(why))
        }
        RedactError::InDoubt | RedactError::Waits => said(ErrorCode::NotLogged, IN_DOUBT),
        RedactError::Incomplete { .. } => {
            tracing::error!(error = %why, "a redaction is not complete");
            said(ErrorCode::Internal, "vault_damaged")
        }
        RedactError::Read(_) => ApiError::internal("Reading the audit log", why),
        RedactError::Vault(_) | RedactError::Unfinished(_) => {
            ApiError::internal("Erasing from the vault of the audit log", why)
        }
    }
}

fn sentence(why: &RedactError) -> String {
    let text = why.to_string();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}
