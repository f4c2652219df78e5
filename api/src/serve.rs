//! Answering on a socket: HTTP/1.1, with every resource of a connection bounded.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::Access;
use crate::failures::Client;
use crate::places::{Answering, Place, Places};

/// How long a connection may take to send the head of a request, or be idle between two, once a
/// request of it was let in. Until then it has [`STRANGER_IDLE`](crate::places::STRANGER_IDLE).
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The most a head may have, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most of a connection that is read ahead, in bytes; more than a head, whose bound is its own.
const READ_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// How long running requests may take to end once the node stops. Longer than the node lets turns run
/// on: a turn that is cut then ends with an error, and that still has to be told.
pub const DRAIN: Duration = Duration::from_secs(12);
/// The pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener cannot be used.
    #[error("cannot listen for the API: {0}")]
    Listener(#[source] io::Error),
}

/// Answers on `listener` until `shutdown` fires, then takes no more connections and lets running
/// requests end, at most [`DRAIN`] long, and cuts the rest.
///
/// Cancel safety: dropping it closes every connection at once, except open WebSockets, which end
/// with the shutdown token of the state.
///
/// # Errors
/// When the listener cannot be used at all.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let local = listener.local_addr().map_err(ServeError::Listener)?;
    tracing::info!(address = %local, "the API listens");
    let places = Places::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            (stream, peer) = accept(&listener) => {
                let Some(place) = places.take(Client::of(Some(peer.ip()))) else {
                    tracing::debug!("a connection was closed: too many are open");
                    continue;
                };
                connections.spawn(connection(stream, peer, router.clone(), shutdown.clone(), place));
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "requests were cut at the end of the API"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// Waits for a connection. A failure of one is never the end of all.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection. Once `shutdown` fires, the running one is the last.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
    place: Place,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let place = Arc::new(place);
    let routes = TowerToHyperService::new(router);
    let of_requests = Arc::clone(&place);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        answer(
            of_requests.answering(),
            Arc::clone(&of_requests),
            routes.call(request),
        )
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(READ_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.must_go() => return tracing::debug!("a silent connection was closed"),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = place.must_go() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Notes what an answer says about who is at the other end, and ends the connection of a stranger
/// with it when strangers are many.
async fn answer<E>(
    answering: Answering,
    place: Arc<Place>,
    answer: impl Future<Output = Result<Response, E>>,
) -> Result<Response, E> {
    let mut response = answer.await?;
    match response.extensions().get() {
        Some(Access::Key | Access::Loopback) => answering.trust(),
        Some(Access::Public) | None => {}
    }
    if place.should_close() {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}
