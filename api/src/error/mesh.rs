//! Errors of the mesh.

use openfang_id::AddrError;
use openfang_mesh::{AddrFailure, JoinError, TicketError, TicketParseError, Tried};
use openfang_schema::ErrorCode;

use super::ApiError;
use super::kernel::sentence;

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        let text = sentence(&error);
        match error {
            JoinError::NoAddress => Self::new(ErrorCode::InvalidParameter, text),
            JoinError::NoSecret => Self::asleep(),
            JoinError::OtherNetwork => Self::new(ErrorCode::OtherNetwork, text),
            JoinError::Start(_) => Self::new(ErrorCode::Unprocessable, text)
                .reason("network_not_started")
                .hint("[network] listen_addr in config.toml says where the network listens."),
            JoinError::Failed { tried } => not_reached(text, &tried),
            JoinError::ShuttingDown => Self::stopping(text),
        }
    }
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        let text = sentence(&error);
        match error {
            TicketError::Asleep => Self::asleep(),
            TicketError::NoAddress => Self::new(ErrorCode::Unprocessable, text)
                .reason("no_address")
                .hint("[network] listen_addr in config.toml says where the network listens."),
        }
    }
}

impl From<TicketParseError> for ApiError {
    fn from(error: TicketParseError) -> Self {
        Self::new(ErrorCode::InvalidTicket, sentence(&error))
            .hint("openfang ticket on a node of the mesh prints one; copy it whole.")
    }
}

impl From<AddrError> for ApiError {
    fn from(error: AddrError) -> Self {
        Self::new(
            ErrorCode::InvalidParameter,
            format!("The addr is not usable: {error}."),
        )
    }
}

/// A secret that was refused somewhere is what the caller can mend; then a ticket of this node.
fn not_reached(text: String, tried: &[Tried]) -> ApiError {
    let any = |test: fn(&AddrFailure) -> bool| tried.iter().any(|tried| test(&tried.why));
    if any(|why| matches!(why, AddrFailure::WrongSecret)) {
        return ApiError::new(ErrorCode::WrongSecret, text)
            .hint("Both nodes need the same shared secret: use a fresh ticket of the other node.");
    }
    if any(|why| matches!(why, AddrFailure::Itself)) {
        return ApiError::new(ErrorCode::JoinedItself, text)
            .hint("Use a ticket or an address of another node.");
    }
    ApiError::new(ErrorCode::Unreachable, text)
        .hint("Check the address, the port and the firewall of the other node.")
}
