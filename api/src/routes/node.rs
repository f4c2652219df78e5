//! The node itself: health, status, version, shutdown.

use axum::extract::State;
use axum::http::StatusCode;
use openfang_schema::{Health, HealthStatus, ShutdownReply, Version};

use super::{Answer, AppState, json, ok};
use crate::extract::Caller;
use crate::peers;
use crate::wire;

/// `GET /api/health`: whether it works, and no more.
pub(crate) async fn health(State(app): AppState) -> Answer {
    let degraded = app
        .state
        .audit
        .as_ref()
        .is_some_and(|log| log.health() != openfang_audit::Health::Ok)
        || peers::own_conviction(&app.state).is_some()
        || wire::disputed(&app.state).is_some();
    ok(&Health {
        status: if degraded {
            HealthStatus::Degraded
        } else {
            HealthStatus::Ok
        },
        version: app.state.info.version.clone(),
    })
}

/// `GET /api/status`
pub(crate) async fn status(State(app): AppState) -> Answer {
    ok(&wire::status(&app))
}

/// `GET /api/version`
pub(crate) async fn version(State(app): AppState) -> Answer {
    let info = app.state.info.clone();
    ok(&Version {
        name: "openfang".to_owned(),
        version: info.version,
        build_date: info.build_date,
        git_sha: info.git_sha,
        rust_version: info.rust_version,
        platform: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
    })
}

/// `POST /api/shutdown`: the answer is sent before the node ends, because it drains first.
pub(crate) async fn shutdown(State(app): AppState, Caller(principal): Caller) -> Answer {
    tracing::info!(%principal, "shutdown asked for");
    app.state.shutdown.cancel();
    json(
        StatusCode::ACCEPTED,
        &ShutdownReply {
            status: "shutting_down".to_owned(),
        },
    )
}
