//! The mesh: peers, state, joining, inviting.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use openfang_audit::Event;
use openfang_audit::inquiry::Signing;
use openfang_id::{NodeId, PeerAddr, SharedSecret};
use openfang_kernel::Principal;
use openfang_mesh::{Epoch, Mesh, Ticket};
use openfang_schema::{ErrorCode, JoinReply, JoinRequest, PeersReply, SecretText, TicketReply};

use tokio::sync::watch;

use super::{Answer, AppState, ok};
use crate::error::ApiError;
use crate::extract::{Body, Caller};
use crate::state::{App, JoinStore, KeepError, Membership, State as Given};
use crate::{peers, wire};

/// The number of a secret that comes without one, as in a configuration.
const FIRST_EPOCH: Epoch = Epoch(1);
/// The record of a new neighbour arrives within a round trip.
const INTRODUCED_WITHIN: Duration = Duration::from_secs(1);

/// `GET /api/peers`
pub(crate) async fn peers(State(app): AppState) -> Answer {
    let peers = peers::all(&app.state);
    let total = wire::count(peers.len());
    ok(&PeersReply { peers, total })
}

/// `GET /api/network/status`
pub(crate) async fn status(State(app): AppState) -> Answer {
    ok(&peers::status(&app.state))
}

/// `POST /api/network/join`: logged before it is tried, stored once it has worked, whether the caller waits for
/// that or not.
pub(crate) async fn join(
    State(app): AppState,
    Caller(principal): Caller,
    Body(request): Body<JoinRequest>,
) -> Answer {
    check_enabled(&app.state)?;
    let membership = membership(&request)?;
    at_store(&app.state.persist, &membership, |store, it| store.check(it)).await?;
    let node = app
        .carry_out(join_now(Arc::clone(&app), principal, membership))
        .await?;
    introduced(&app.state.mesh, node).await;
    asked(app.state.signing.clone()).await;
    ok(&JoinReply {
        status: "joined".to_owned(),
        node: peers::named(&app.state, node),
        connected_peers: peers::connected(&app.state),
    })
}

async fn join_now(
    app: Arc<App>,
    principal: Principal,
    membership: Membership,
) -> Result<NodeId, ApiError> {
    let user = principal.to_string();
    let what = "network.bootstrap_peers network.shared_secret: join";
    let event = Event::config_change_by(what, principal.in_log(&user));
    // A join is what a node does whose log waits for peers to be asked.
    let announced = app.announce_in_doubt(event).await?;
    let Membership { peers, secret } = membership.clone();
    let joined = match app.state.mesh.join(peers, secret).await {
        Ok(joined) => joined,
        Err(why) => {
            announced.failed("nobody was joined");
            return Err(why.into());
        }
    };
    if let Err(why) = at_store(&app.state.persist, &membership, |store, it| store.keep(it)).await {
        announced.failed("joined until the next start: it could not be stored");
        return Err(why);
    }
    announced.done();
    Ok(joined.node)
}

/// `GET /api/network/ticket`: gives the shared secret away, which is why it is logged.
pub(crate) async fn ticket(State(app): AppState, Caller(principal): Caller) -> Answer {
    check_enabled(&app.state)?;
    let ticket = app.state.mesh.ticket()?;
    let user = principal.to_string();
    let what = "network.shared_secret: ticket made";
    let event = Event::config_change_by(what, principal.in_log(&user));
    let announced = app.announce(event).await?;
    let answer = ok(&TicketReply {
        ticket: SecretText::new(ticket.expose().to_string()),
        node: wire::here(&app.state),
        addresses: ticket.peers().iter().map(ToString::to_string).collect(),
    });
    announced.done();
    answer
}

/// What is switched off is not asleep: no secret wakes it.
fn check_enabled(state: &Given) -> Result<(), ApiError> {
    if state.info.network_enabled {
        return Ok(());
    }
    let text = "The mesh is switched off in the configuration of this node.";
    Err(ApiError::new(ErrorCode::NetworkDisabled, text).hint(peers::SWITCH_ON))
}

/// Waits a moment until the node that was reached has said who it is. It is joined in any case.
async fn introduced(mesh: &Mesh, node: NodeId) {
    let mut changed = mesh.changed();
    let there = changed.wait_for(|view| {
        view.nodes
            .iter()
            .any(|seen| seen.id == node && seen.link.is_some())
    });
    if tokio::time::timeout(INTRODUCED_WITHIN, there)
        .await
        .is_err()
    {
        tracing::debug!(node.id = %node, "joined, and not yet introduced");
    }
}

/// Waits a moment until those who were met have said that the audit log is the newest, as they do where
/// nothing is wrong: until then this node signs and cosigns nothing. It is joined in any case.
async fn asked(mut signing: watch::Receiver<Signing>) {
    let free = signing.wait_for(|standing| *standing == Signing::Free);
    if tokio::time::timeout(INTRODUCED_WITHIN, free).await.is_err() {
        tracing::debug!("joined, and the audit log is not signed yet");
    }
}

/// Reads a ticket, or an address with an optional secret.
fn membership(request: &JoinRequest) -> Result<Membership, ApiError> {
    match (&request.ticket, &request.addr) {
        (Some(ticket), None) if request.secret.is_none() => {
            let ticket: Ticket = ticket.expose().trim().parse()?;
            Ok(Membership {
                peers: ticket.peers().to_vec(),
                secret: Some((ticket.epoch(), ticket.secret().clone())),
            })
        }
        (None, Some(addr)) => {
            let secret = request.secret.as_ref().map(secret).transpose()?;
            Ok(Membership {
                peers: PeerAddr::parse_all(addr)?,
                secret: secret.map(|secret| (FIRST_EPOCH, secret)),
            })
        }
        (Some(_), _) | (None, None) => Err(ApiError::new(
            ErrorCode::InvalidBody,
            "Give either a ticket, or an addr with an optional secret.",
        )),
    }
}

fn secret(text: &SecretText) -> Result<SharedSecret, ApiError> {
    SharedSecret::parse(text.expose().trim()).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidSecret,
            format!("The secret is not usable: {error}."),
        )
    })
}

/// Has a join checked or stored where blocking is allowed.
async fn at_store(
    store: &Arc<dyn JoinStore>,
    membership: &Membership,
    work: fn(&dyn JoinStore, &Membership) -> Result<(), KeepError>,
) -> Result<(), ApiError> {
    let (store, membership) = (Arc::clone(store), membership.clone());
    let done = tokio::task::spawn_blocking(move || work(&*store, &membership)).await;
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(KeepError::OtherNetwork)) => Err(ApiError::new(
            ErrorCode::OtherNetwork,
            "This node belongs to another network: its configuration or network.toml has another secret.",
        )
        .hint("Leave it first: remove network.toml, and shared_secret from config.toml, then: openfang restart")),
        Ok(Err(KeepError::Failed { reason })) => {
            Err(ApiError::internal("Storing the join", &reason))
        }
        Err(panicked) => Err(ApiError::internal("Storing the join", &panicked)),
    }
}
