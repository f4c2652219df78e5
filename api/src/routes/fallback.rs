//! What is asked for and is not there.

use axum::http::Uri;

use crate::error::ApiError;

/// A path nothing answers to.
pub(crate) async fn no_route(uri: Uri) -> ApiError {
    ApiError::no_route(&uri.path().chars().take(200).collect::<String>())
}

/// A method the route has no use for; the router adds the header `Allow`.
pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}
