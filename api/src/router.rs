//! The table of contents.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use openfang_audit::witness::REQUEST_BYTES_MAX;
use openfang_schema::path;

use crate::edge::edge;
use crate::extract::{BODY_BYTES_MAX, MANIFEST_BODY_BYTES_MAX, MESSAGE_BODY_BYTES_MAX};
use crate::routes::{agents, audit, fallback, message, network, node, page, socket};
use crate::routes::{holdings, redact, tlog, witness};
use crate::state::{App, State};

/// Makes the routes. Each request should carry the address of its peer as
/// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo), as [`serve`](crate::serve()) sees to;
/// without it no request counts as made on this machine.
pub fn router(state: State) -> Router {
    let app = Arc::new(App::new(state));
    let manifest = DefaultBodyLimit::max(MANIFEST_BODY_BYTES_MAX);
    let text = DefaultBodyLimit::max(MESSAGE_BODY_BYTES_MAX);
    Router::new()
        .route(path::ROOT, get(page::root))
        .route(path::LOGO, get(page::logo))
        .route(path::FAVICON, get(page::favicon))
        .route(path::HEALTH, get(node::health))
        .route(path::STATUS, get(node::status))
        .route(path::VERSION, get(node::version))
        .route(path::SHUTDOWN, post(node::shutdown))
        .route(
            path::AGENTS,
            get(agents::list).post(agents::spawn).layer(manifest),
        )
        .route(path::AGENT, get(agents::detail).delete(agents::kill))
        .route(path::RESTART, post(agents::restart))
        .route(path::MESSAGE, post(message::send).layer(text))
        .route(path::STREAM, post(message::stream).layer(text))
        .route(path::WS, get(socket::open))
        .route(path::PEERS, get(network::peers))
        .route(path::NETWORK_STATUS, get(network::status))
        .route(path::NETWORK_JOIN, post(network::join))
        .route(path::NETWORK_TICKET, get(network::ticket))
        .route(path::AUDIT_RECENT, get(audit::recent))
        .route(path::AUDIT_REDACT, post(redact::redact))
        .route(path::AUDIT_VERIFY, get(audit::verify))
        .route(path::AUDIT_CHECKPOINT, get(audit::checkpoint))
        .route(path::AUDIT_WITNESSES, get(audit::witnesses))
        .route(path::AUDIT_MIRRORS, get(audit::mirrors))
        .merge(third_parties())
        .fallback(fallback::no_route)
        .method_not_allowed_fallback(fallback::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&app), edge))
        .with_state(app)
}

/// What those ask who check the log of this node, or what it knows of others.
fn third_parties() -> Router<Arc<App>> {
    Router::new()
        .route(path::AUDIT_TILE, get(tlog::tile))
        .route(path::AUDIT_PROOF, get(tlog::proof))
        .route(path::AUDIT_CONSISTENCY, get(tlog::consistency))
        .route(path::AUDIT_EVIDENCE, get(holdings::evidence))
        .route(path::AUDIT_PEERS, get(holdings::peers))
        .route(
            path::WITNESS_ADD,
            post(witness::add).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX)),
        )
        .route(path::WITNESS_CHECKPOINT, get(witness::checkpoint))
}
