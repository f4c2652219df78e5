//! Which web pages of other origins may read answers: five, all on this machine (the API guide,
//! "CORS Behavior"), with a key or without. No credentials, no wildcard, no reflection.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

/// The origins.
const ORIGINS: [&str; 5] = [
    "http://127.0.0.1:4200",
    "http://localhost:4200",
    "http://127.0.0.1:8080",
    "http://localhost:8080",
    "http://localhost:3000",
];
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, x-api-key");
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("retry-after, x-request-id");
/// How long a browser may remember the answer: ten minutes, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");

/// Whether a page of this origin may read answers.
pub(crate) fn is_listed(origin: &HeaderValue) -> bool {
    listed(origin).is_some()
}

fn listed(origin: &HeaderValue) -> Option<&'static str> {
    ORIGINS
        .into_iter()
        .find(|listed| listed.as_bytes() == origin.as_bytes())
}

/// Returns the listed origin of a request that states exactly one.
pub(crate) fn origin(headers: &HeaderMap) -> Option<&'static str> {
    let mut all = headers.get_all(ORIGIN).into_iter();
    let first = all.next()?;
    all.next().is_none().then(|| listed(first)).flatten()
}

/// Whether a request asks what it may ask, on behalf of a listed origin.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && origin(headers).is_some()
}

/// Adds what a preflight is answered with.
pub(crate) fn answer_preflight(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}

/// Adds what every answer carries: that it depends on the origin, and whether that one may read it.
pub(crate) fn mark(headers: &mut HeaderMap, origin: Option<&'static str>) {
    headers.append(VARY, VARY_ORIGIN);
    if let Some(origin) = origin {
        headers.insert(
            ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static(origin),
        );
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_origins_are_listed_and_nothing_that_resembles_them() {
        for origin in ORIGINS {
            assert!(is_listed(&HeaderValue::from_static(origin)), "{origin}");
        }
        for origin in [
            "null",
            "",
            "*",
            "http://127.0.0.1:3000",
            "https://localhost:3000",
            "http://localhost:3000/",
            "http://localhost:30000",
            "http://localhost",
            "http://LOCALHOST:3000",
            "http://localhost:3000.evil.example",
            "http://evil.example#http://localhost:3000",
        ] {
            assert!(!is_listed(&HeaderValue::from_static(origin)), "{origin}");
        }
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(ORIGIN, HeaderValue::from_static(ORIGINS[0]));
        assert_eq!(origin(&headers), Some(ORIGINS[0]));
        headers.append(ORIGIN, HeaderValue::from_static(ORIGINS[1]));
        assert_eq!(origin(&headers), None);
    }
}
