//! Which status, code and fields each error of the layers below has.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::IntoResponse as _;
use openfang_id::{AgentId, NodeSeed, PeerAddr};
use openfang_kernel::{
    AuditError, KillError, Looked, Manifest, ModelError, SendError, SpawnError, StoreError,
    TurnError,
};
use openfang_mesh::{AddrFailure, JoinError, TicketError, Tried};
use openfang_schema::{ErrorBody, ErrorCode};

use super::ApiError;
use crate::auth::Denial;

#[track_caller]
fn check(error: impl Into<ApiError>, status: u16, code: ErrorCode) -> ErrorBody {
    let error: ApiError = error.into();
    assert_eq!(error.status.as_u16(), status, "{error:?}");
    assert_eq!(error.body.code, code, "{error:?}");
    let text = &error.body.error;
    assert!(
        text.ends_with(['.', '?', '!']) && text.starts_with(char::is_uppercase),
        "not a sentence: {text}"
    );
    error.into_body()
}

fn node() -> openfang_id::NodeId {
    NodeSeed::from_bytes([7; 32]).keys().node_id()
}

fn not_logged() -> AuditError {
    AuditError::Lost
}

#[test]
fn every_error_of_a_message_has_its_status() {
    let body = check(
        SendError::UnknownAgent {
            looked_for: "ghost@north".parse().expect("a reference"),
            where_looked: Looked::On(node(), "north".parse().expect("a name")),
        },
        404,
        ErrorCode::UnknownAgent,
    );
    assert_eq!(body.looked_for.as_deref(), Some("ghost@north"));
    assert_eq!(body.where_looked.as_deref(), Some("on node north"));
    let body = check(
        SendError::AmbiguousNode {
            looked_for: "scribe@north".parse().expect("a reference"),
            nodes: vec![node()],
        },
        409,
        ErrorCode::Ambiguous,
    );
    assert_eq!(body.candidates, vec![format!("scribe@{}", node())]);
    assert_eq!(body.looked_for.as_deref(), Some("scribe@north"));
    assert!(body.hint.is_some(), "it says what to do");
    let body = check(
        SendError::AmbiguousAgent {
            looked_for: "scribe".parse().expect("a reference"),
            nodes: vec![node()],
        },
        409,
        ErrorCode::Ambiguous,
    );
    assert_eq!(body.candidates, vec![format!("scribe@{}", node())]);
    let unknown = SendError::UnknownNode {
        looked_for: "south".parse().expect("a node"),
    };
    check(unknown, 404, ErrorCode::UnknownNode);
    let body = check(
        SendError::Unreachable {
            node: node(),
            node_name: Some("north".parse().expect("a name")),
        },
        502,
        ErrorCode::Unreachable,
    );
    assert_eq!(body.node.map(|node| node.name).as_deref(), Some("north"));
    let body = check(
        SendError::Convicted {
            node: node(),
            node_name: Some("north".parse().expect("a name")),
            kind: "fork".to_owned(),
            evidence: "ab.json".to_owned(),
        },
        403,
        ErrorCode::Refused,
    );
    assert_eq!(body.reason.as_deref(), Some("node_convicted"));
    assert!(
        body.error.contains("fork, evidence ab.json"),
        "{}",
        body.error
    );
    let allow = format!("allow_convicted = [\"{}\"]", node());
    assert!(body.hint.is_some_and(|hint| hint.contains(&allow)));
    let body = check(
        SendError::Busy {
            retry_after: Duration::from_millis(1500),
        },
        503,
        ErrorCode::Busy,
    );
    assert_eq!(body.retry_after_ms, Some(1500));
}

#[test]
fn every_refusal_of_a_message_has_its_status() {
    let refused = SendError::Refused {
        reason: "no".to_owned(),
    };
    check(refused, 403, ErrorCode::Refused);
    check(SendError::TimedOut, 504, ErrorCode::TimedOut);
    let body = check(
        SendError::TooLarge { bytes: 9, max: 8 },
        413,
        ErrorCode::TooLarge,
    );
    assert_eq!(body.limit_bytes, Some(8));
    check(SendError::TooDeep { depth: 9 }, 508, ErrorCode::TooDeep);
    let crashed = SendError::NotRunning {
        name: "a".parse().expect("a name"),
        reason: "its module is gone".to_owned(),
    };
    check(crashed, 409, ErrorCode::AgentNotRunning);
    let body = check(
        SendError::NotLogged(not_logged()),
        503,
        ErrorCode::NotLogged,
    );
    assert!(
        !format!("{body:?}").contains("no answer"),
        "the cause stays here"
    );
    check(SendError::AlreadyRan, 409, ErrorCode::AlreadyRan);
    check(SendError::ShuttingDown, 503, ErrorCode::ShuttingDown);
    let body = check(
        SendError::Remote {
            code: "iteration_limit".to_owned(),
            message: "too many".to_owned(),
        },
        502,
        ErrorCode::AgentFailed,
    );
    assert_eq!(body.reason.as_deref(), Some("iteration_limit"));
}

#[test]
fn every_error_of_a_turn_has_its_status() {
    check(TurnError::Cancelled, 503, ErrorCode::Cancelled);
    let late = TurnError::TimedOut {
        after: Duration::from_secs(1),
    };
    check(late, 504, ErrorCode::TimedOut);
    check(TurnError::Killed, 502, ErrorCode::AgentFailed);
    check(TurnError::ShuttingDown, 503, ErrorCode::ShuttingDown);
    let body = check(
        TurnError::Model(ModelError::NoKey {
            provider: "groq".to_owned(),
            variable: "GROQ_API_KEY".to_owned(),
        }),
        502,
        ErrorCode::ModelFailed,
    );
    assert_eq!(body.reason.as_deref(), Some("model_no_key"));
    let body = check(
        TurnError::Model(ModelError::RateLimited {
            retry_after: Some(Duration::from_secs(7)),
        }),
        502,
        ErrorCode::ModelFailed,
    );
    assert_eq!(body.retry_after_ms, Some(7000));
    for limit in [
        TurnError::IterationLimit { max: 50 },
        TurnError::ToolCallLimit { max: 60 },
        TurnError::AnswerTooLong { max: 1 },
    ] {
        check(limit, 502, ErrorCode::AgentFailed);
    }
    let body = check(
        TurnError::OverLimit {
            limit: "max_llm_tokens_per_hour",
            retry_after: Duration::from_secs(60),
        },
        429,
        ErrorCode::RateLimited,
    );
    assert_eq!(body.reason.as_deref(), Some("over_limit"));
    check(
        TurnError::NotLogged(not_logged()),
        503,
        ErrorCode::NotLogged,
    );
    check(
        TurnError::Storage(StoreError::Closed),
        500,
        ErrorCode::Internal,
    );
    let unreached = TurnError::NotDelivered(Box::new(SendError::TimedOut));
    check(unreached, 504, ErrorCode::TimedOut);
    check(TurnError::Cut, 502, ErrorCode::CutOff);
    let remote = TurnError::Remote {
        code: "model_no_key".to_owned(),
        message: "no key".to_owned(),
    };
    check(remote, 502, ErrorCode::ModelFailed);
}

#[test]
fn every_error_of_spawning_and_killing_has_its_status() {
    let holder = AgentId::from_random([1; 16]);
    let twice = SpawnError::DuplicateName {
        name: "a".parse().expect("a name"),
        holder,
    };
    check(twice, 409, ErrorCode::DuplicateName);
    let body = check(
        SpawnError::UnknownModule {
            module: "builtin:nothing".to_owned(),
        },
        422,
        ErrorCode::Unprocessable,
    );
    assert_eq!(body.reason.as_deref(), Some("unknown_module"));
    check(
        SpawnError::TooMany { max: 1 },
        422,
        ErrorCode::Unprocessable,
    );
    check(
        SpawnError::NotLogged(not_logged()),
        503,
        ErrorCode::NotLogged,
    );
    check(
        SpawnError::Storage(StoreError::Closed),
        500,
        ErrorCode::Internal,
    );
    check(SpawnError::ShuttingDown, 503, ErrorCode::ShuttingDown);
    check(
        KillError::Unknown { id: holder },
        404,
        ErrorCode::UnknownAgent,
    );
    check(
        KillError::NotLogged(not_logged()),
        503,
        ErrorCode::NotLogged,
    );
    let not_signed = AuditError::NotSigned {
        seq: openfang_audit::Seq(7),
        kind: Some(std::io::ErrorKind::StorageFull),
    };
    let body = check(KillError::NotLogged(not_signed), 503, ErrorCode::NotLogged);
    for part in ["entry 7", "no storage space", "was not done"] {
        assert!(body.error.contains(part), "{}", body.error);
    }
    assert!(!body.error.contains("witness"), "{}", body.error);
    assert_eq!(body.reason.as_deref(), Some("not_signed"));
    assert!(body.hint.is_some_and(|hint| hint.contains("df -h")));
    let not_cosigned = AuditError::NotCosigned {
        seq: openfang_audit::Seq(17),
        needed: 3,
        witnesses: 4,
    };
    let body = check(
        KillError::NotLogged(not_cosigned),
        503,
        ErrorCode::NotLogged,
    );
    for part in ["entry 17", "3 of 4 witnesses", "was not done"] {
        assert!(body.error.contains(part), "{}", body.error);
    }
    check(
        KillError::Storage(StoreError::Closed),
        500,
        ErrorCode::Internal,
    );
    check(KillError::ShuttingDown, 503, ErrorCode::ShuttingDown);
}

#[test]
fn a_manifest_error_names_its_place() {
    let error = Manifest::parse("name = \"a\"\nversion = 7\n", "manifest_toml")
        .expect_err("a version is a text");
    let body = check(error, 400, ErrorCode::InvalidManifest);
    assert_eq!(body.line, Some(2));
}

#[test]
fn every_error_of_joining_has_its_status() {
    check(JoinError::NoAddress, 400, ErrorCode::InvalidParameter);
    check(JoinError::NoSecret, 409, ErrorCode::NetworkAsleep);
    check(JoinError::OtherNetwork, 409, ErrorCode::OtherNetwork);
    check(JoinError::ShuttingDown, 503, ErrorCode::ShuttingDown);
    check(TicketError::Asleep, 409, ErrorCode::NetworkAsleep);
    check(TicketError::NoAddress, 422, ErrorCode::Unprocessable);
    let tried = |whys: &[AddrFailure]| JoinError::Failed {
        tried: whys
            .iter()
            .map(|why| Tried {
                addr: PeerAddr::parse_all("10.0.0.7:4200").expect("addresses")[0].clone(),
                why: why.clone(),
            })
            .collect(),
    };
    let cases = [
        (vec![AddrFailure::TimedOut], 502, ErrorCode::Unreachable),
        (
            vec![AddrFailure::TimedOut, AddrFailure::WrongSecret],
            403,
            ErrorCode::WrongSecret,
        ),
        (
            vec![AddrFailure::Itself, AddrFailure::TimedOut],
            409,
            ErrorCode::JoinedItself,
        ),
        (
            vec![AddrFailure::OtherNode { found: node() }],
            502,
            ErrorCode::Unreachable,
        ),
    ];
    for (whys, status, code) in cases {
        check(tried(&whys), status, code);
    }
}

#[test]
fn every_denial_has_its_status() {
    for (denial, status, code) in [
        (Denial::Ambiguous, 400, ErrorCode::AmbiguousRequest),
        (Denial::KeyRequired, 401, ErrorCode::KeyRequired),
        (Denial::InvalidKey, 401, ErrorCode::InvalidKey),
        (Denial::LocalOnly, 403, ErrorCode::LocalOnly),
        (Denial::ForeignHost, 421, ErrorCode::ForeignHost),
        (Denial::OriginRefused, 403, ErrorCode::OriginRefused),
    ] {
        check(denial, status, code);
        assert_eq!(denial.word(), code.as_str());
    }
}

#[test]
fn every_code_has_an_error_status_and_the_headers_that_go_with_it() {
    for code in ErrorCode::ALL {
        let error = ApiError::new(*code, "Text.").retry_after(Duration::from_millis(1));
        let response = error.into_response();
        let status = response.status();
        assert!(
            status.is_client_error() || status.is_server_error(),
            "{code}"
        );
        let internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(internal, *code == ErrorCode::Internal, "{code}");
        let asks = response.headers().contains_key(WWW_AUTHENTICATE);
        assert_eq!(asks, status == StatusCode::UNAUTHORIZED, "{code}");
        assert_eq!(
            response.headers()[RETRY_AFTER],
            "1",
            "whole seconds, rounded up"
        );
    }
}

#[test]
fn who_meets_a_node_that_stops_is_told_to_ask_again() {
    for error in [
        ApiError::shutting_down(),
        ApiError::from(SendError::ShuttingDown),
        ApiError::from(KillError::ShuttingDown),
    ] {
        let body = error.into_body();
        assert_eq!(body.code, ErrorCode::ShuttingDown);
        assert!(body.retry_after_ms.is_some(), "{body:?}");
        let hint = body.hint.expect("a hint");
        assert!(
            hint.contains("Ask again") && hint.contains("openfang start"),
            "{hint}"
        );
    }
}
