//! The mesh: peers, state, joining, inviting.

use std::sync::Arc;

use axum::extract::State;
use openfang_audit::Event;
use openfang_id::{PeerAddr, SharedSecret};
use openfang_mesh::{Epoch, Ticket};
use openfang_schema::{ErrorCode, JoinReply, JoinRequest, PeersReply, SecretText, TicketReply};

use super::{Answer, AppState, ok};
use crate::error::ApiError;
use crate::extract::{Body, Caller};
use crate::state::{JoinStore, KeepError, Membership};
use crate::{peers, wire};

/// The number of a secret that comes without one, as in a configuration.
const FIRST_EPOCH: Epoch = Epoch(1);

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

/// `POST /api/network/join`: logged before it is tried, stored once it has worked.
pub(crate) async fn join(
    State(app): AppState,
    Caller(principal): Caller,
    Body(request): Body<JoinRequest>,
) -> Answer {
    let (membership, epoch) = membership(&request)?;
    let what = format!("network.bootstrap_peers network.shared_secret: join by {principal}");
    app.record(Event::config_change(&what)).await?;
    let Membership { peers, secret } = membership.clone();
    let secret = secret.map(|secret| (epoch, secret));
    let joined = app.state.mesh.join(peers, secret).await?;
    keep(Arc::clone(&app.state.persist), membership).await?;
    ok(&JoinReply {
        status: "joined".to_owned(),
        node: peers::named(&app.state, joined.node),
        connected_peers: peers::connected(&app.state),
    })
}

/// `GET /api/network/ticket`: gives the shared secret away, which is why it is logged.
pub(crate) async fn ticket(State(app): AppState, Caller(principal): Caller) -> Answer {
    let ticket = app.state.mesh.ticket()?;
    let what = format!("network.shared_secret: ticket made for {principal}");
    app.record(Event::config_change(&what)).await?;
    ok(&TicketReply {
        ticket: SecretText::new(ticket.expose().to_string()),
        node: wire::here(&app.state),
        addresses: ticket.peers().iter().map(ToString::to_string).collect(),
    })
}

/// Reads a ticket, or an address with an optional secret.
fn membership(request: &JoinRequest) -> Result<(Membership, Epoch), ApiError> {
    match (&request.ticket, &request.addr) {
        (Some(ticket), None) if request.secret.is_none() => {
            let ticket: Ticket = ticket.expose().trim().parse()?;
            let membership = Membership {
                peers: ticket.peers().to_vec(),
                secret: Some(ticket.secret().clone()),
            };
            Ok((membership, ticket.epoch()))
        }
        (None, Some(addr)) => {
            let membership = Membership {
                peers: PeerAddr::parse_all(addr)?,
                secret: request.secret.as_ref().map(secret).transpose()?,
            };
            Ok((membership, FIRST_EPOCH))
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

/// Stores a join where blocking is allowed.
async fn keep(store: Arc<dyn JoinStore>, membership: Membership) -> Result<(), ApiError> {
    let stored = tokio::task::spawn_blocking(move || store.keep(&membership)).await;
    match stored {
        Ok(Ok(())) => Ok(()),
        Ok(Err(KeepError::OtherNetwork)) => Err(ApiError::new(
            ErrorCode::OtherNetwork,
            "This node has joined, but another network is stored and will be joined after a restart.",
        )),
        Ok(Err(KeepError::Failed { reason })) => {
            Err(ApiError::internal("Storing the join", &reason))
        }
        Err(panicked) => Err(ApiError::internal("Storing the join", &panicked)),
    }
}
