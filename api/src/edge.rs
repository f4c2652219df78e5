//! What happens to every request before and after its handler: a number, a span, the decision
//! about access, CORS and the security headers. One layer, so that no route can be forgotten.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use openfang_schema::path;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::auth::{self, Access, Decision, Denial, Reach, RequestFacts};
use crate::cors;
use crate::error::{ApiError, too_many_failures};
use crate::failures::Client;
use crate::headers::{self, X_REQUEST_ID};
use crate::state::App;

/// Who is at the other end of the socket, as far as an address tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) Client);

/// What stands for the route of a path that has none.
const NO_ROUTE: &str = "(none)";

/// The layer.
pub(crate) async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = app.next_request_id();
    let origin = cors::origin(request.headers());
    let template = request.extensions().get::<MatchedPath>().cloned();
    let route = template.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        http.method = %request.method(),
        http.route = route,
        request.id = id.to_str().unwrap_or_default(),
    );
    let method = request.method().clone();
    let mut response = guarded(&app, route, request, next)
        .instrument(span.clone())
        .await;
    let headers = response.headers_mut();
    headers::secure(headers);
    cors::mark(headers, origin);
    headers.insert(X_REQUEST_ID, id);
    app.flush_failures();
    span.in_scope(|| log(&method, response.status(), started));
    response
}

/// Decides, and lets the handler run.
async fn guarded(app: &Arc<App>, route: &str, mut request: Request, next: Next) -> Response {
    if cors::is_preflight(request.method(), request.headers()) {
        let mut response = StatusCode::NO_CONTENT.into_response();
        cors::answer_preflight(response.headers_mut());
        return response;
    }
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0.ip());
    let client = Client::of(peer);
    let facts = RequestFacts {
        peer,
        reach: reach(request.method(), route),
        version: request.version(),
        authority: request.uri().authority().map(|it| it.as_str()),
        query: request.uri().query(),
        headers: request.headers(),
    };
    match auth::decide(&facts, &app.state.auth) {
        Decision::Deny(denial) => denied(app, client, denial),
        Decision::Allow(access) => {
            if access == Access::Key {
                app.on_key_used(client, || format!("{} {route}", request.method()));
            }
            let mut response = match check_parameters(access, route, request.uri().query()) {
                Ok(()) => {
                    request.extensions_mut().insert(access);
                    request.extensions_mut().insert(Peer(client));
                    next.run(request).await
                }
                Err(error) => error.into_response(),
            };
            // The connection is told whom it serves.
            response.extensions_mut().insert(access);
            response
        }
    }
}

/// A parameter that nobody reads is a mistake of the caller. The public routes take any: what checks
/// on health from outside likes to add a number against caches.
fn check_parameters(access: Access, route: &str, query: Option<&str>) -> Result<(), ApiError> {
    let known: &[&str] = match route {
        path::AGENTS => &["scope"],
        path::AUDIT_RECENT => &["n", "limit", "reveal"],
        path::AUDIT_CONSISTENCY => &["from", "to"],
        path::WS => &["key", "token"],
        _other => &[],
    };
    let is_route = route != NO_ROUTE && access != Access::Public;
    let names = query.unwrap_or_default().split('&');
    let unknown = names
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or_default())
        .find(|name| !known.contains(name));
    match unknown {
        Some(name) if is_route => Err(ApiError::unknown_parameter(name, known)),
        Some(_) | None => Ok(()),
    }
}

/// Four routes are open to everyone, for reading only, and so is the witness, for logs elsewhere. Those that give the node or the mesh away, or
/// decide what runs on it, have power.
fn reach(method: &Method, route: &str) -> Reach {
    let reads = *method == Method::GET || *method == Method::HEAD;
    let posts = *method == Method::POST;
    match route {
        path::HEALTH | path::ROOT | path::LOGO | path::FAVICON if reads => Reach::Public,
        path::WITNESS_ADD if posts => Reach::Public,
        path::WITNESS_CHECKPOINT if reads => Reach::Public,
        path::WS => Reach::WebSocket,
        path::NETWORK_TICKET => Reach::Power,
        path::AGENTS | path::SHUTDOWN | path::RESTART | path::NETWORK_JOIN | path::AUDIT_REDACT
            if posts =>
        {
            Reach::Power
        }
        path::AGENT if *method == Method::DELETE => Reach::Power,
        _other => Reach::Protected,
    }
}

fn denied(app: &App, client: Client, denial: Denial) -> Response {
    match app.on_denied(client, denial) {
        Ok(()) => ApiError::from(denial).into_response(),
        Err(wait) => too_many_failures(wait).into_response(),
    }
}

/// The end of a request; what changes something is told at INFO. No query and no header is logged.
fn log(method: &Method, status: StatusCode, started: Instant) {
    let code = status.as_u16();
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    if status.is_server_error() {
        tracing::warn!(
            http.status = code,
            request.duration_ms = duration_ms,
            "answered"
        );
    } else if method.is_safe() {
        tracing::debug!(
            http.status = code,
            request.duration_ms = duration_ms,
            "answered"
        );
    } else {
        tracing::info!(
            http.status = code,
            request.duration_ms = duration_ms,
            "answered"
        );
    }
}
