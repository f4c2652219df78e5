//! The security headers of every answer, an error's as well (the security guide, "Headers
//! Applied"). The content policy is the strictest there is: this API serves data, not pages.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Names one request in the log and in its answer.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// What a handler says of an answer that never changes, and that alone may be kept. It was shown to one
/// who may see it: no cache that others share may keep it.
pub(crate) const IMMUTABLE: HeaderValue =
    HeaderValue::from_static("private, max-age=604800, immutable");

/// The headers that do not depend on the request. Browsers heed the transport header only over
/// TLS, as behind a proxy.
const FIXED: [(HeaderName, HeaderValue); 7] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        REFERRER_POLICY,
        HeaderValue::from_static("strict-origin-when-cross-origin"),
    ),
    (
        STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000; includeSubDomains"),
    ),
    (
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Adds them.
pub(crate) fn secure(headers: &mut HeaderMap) {
    headers.reserve(FIXED.len() + 4);
    for (name, value) in FIXED {
        let kept = name == CACHE_CONTROL && headers.get(CACHE_CONTROL) == Some(&IMMUTABLE);
        if !kept {
            headers.insert(name, value);
        }
    }
}
