//! Who may make a request: one pure decision, from what the request shows and what is configured.
//!
//! A key opens everything. Without a key, a request is trusted only when it was made on this
//! machine *and* nothing says that somebody else is behind it: a loopback socket alone proves
//! nothing, because a reverse proxy, a web page and a rebound DNS name all arrive over one. A
//! forwarder that adds nothing to the bytes cannot be told apart from a program of this machine.
//! So what gives the node or the mesh away needs the key from everywhere, where there is one.
//! Nothing here reads a clock or keeps a count; see `failures` for those.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use openfang_id::ApiKey;
use openfang_schema::ws::SUBPROTOCOL;

use crate::cors;

/// What the operator configured.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The key that opens the API; `None` leaves only requests made on this machine.
    pub key: Option<ApiKey>,
    /// Whether requests made on this machine need the key, too.
    pub require_local: bool,
    /// The address the API is bound to, with the real port: the one a `Host` of this machine names.
    pub listen: SocketAddr,
}

/// What kind of route was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Open to everyone.
    Public,
    /// Open to those who may.
    Protected,
    /// Open to those who may, and with power over the node or the mesh: the key is needed on this
    /// machine, too, when one is configured.
    Power,
    /// As protected, and a browser cannot set headers: the key may stand in the query or in the
    /// subprotocol, and the origin is checked because no CORS rule protects a WebSocket.
    WebSocket,
}

/// What a request shows of itself.
#[derive(Debug)]
pub struct RequestFacts<'a> {
    /// The other end of the socket; `None` when nobody knows.
    pub peer: Option<IpAddr>,
    /// What was matched.
    pub reach: Reach,
    /// HTTP version.
    pub version: Version,
    /// The host of the request target, when it is in absolute form.
    pub authority: Option<&'a str>,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// Why a request is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The route is open to everyone.
    Public,
    /// The key was presented.
    Key,
    /// The request was made on this machine.
    Loopback,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// A header that decides stands twice, or two of them contradict each other.
    Ambiguous,
    /// A key is configured, and none was presented.
    KeyRequired,
    /// What was presented is not the key.
    InvalidKey,
    /// No key is configured, and the request was not made on this machine.
    LocalOnly,
    /// The request was made on this machine, under a name that is not this machine's.
    ForeignHost,
    /// A web page of another origin made the request.
    OriginRefused,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let through.
    Allow(Access),
    /// Turned away.
    Deny(Denial),
}

/// Headers of which a second copy would make it unclear which one counts.
const SINGLE: [HeaderName; 5] = [AUTHORIZATION, X_API_KEY, HOST, ORIGIN, SEC_FETCH_SITE];
/// Another way to present the key.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Fetch Metadata: how the page that made a request relates to this server.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What proxies, tunnels and edges of clouds add: how such a name begins, with `-` for `_`.
const PROXY_PREFIXES: [&str; 36] = [
    "akamai-",
    "cdn-",
    "cf-",
    "client-ip",
    "cloudfront-",
    "do-connecting-",
    "fastly-",
    "fly-",
    "forwarded",
    "incap-",
    "ngrok-",
    "proxy-",
    "tailscale-",
    "true-client-",
    "via",
    "x-akamai-",
    "x-amz-cf-",
    "x-amzn-",
    "x-appengine-",
    "x-arr-",
    "x-azure-",
    "x-client-",
    "x-cloud-trace-",
    "x-cluster-client-",
    "x-envoy-",
    "x-forwarded",
    "x-forwarder",
    "x-host",
    "x-nginx-",
    "x-original-",
    "x-proxy",
    "x-real-",
    "x-remote-",
    "x-rewrite-",
    "x-sucuri-",
    "x-vercel-",
];
/// The names of this machine.
const OWN_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// The names the key has in the query of a WebSocket.
const QUERY_KEYS: [&str; 2] = ["key", "token"];
const HTTP_PORT: u16 = 80;

/// Decides about one request.
///
/// A presented key decides: when it is right the request is let through, when it is wrong it is
/// not, wherever it comes from. Without one, or when none is configured, the place decides.
#[must_use]
pub fn decide(facts: &RequestFacts<'_>, config: &AuthConfig) -> Decision {
    if facts.reach == Reach::Public {
        return Decision::Allow(Access::Public);
    }
    if SINGLE.iter().any(|name| is_repeated(facts.headers, name)) {
        return Decision::Deny(Denial::Ambiguous);
    }
    let verdict = match &config.key {
        Some(key) => match presented(facts, key) {
            Presented::Right => Ok(Access::Key),
            Presented::Wrong => Err(Denial::InvalidKey),
            Presented::Nothing if facts.reach == Reach::Power => Err(Denial::KeyRequired),
            Presented::Nothing => by_place(facts, config),
        },
        None => by_place(facts, config),
    };
    match verdict {
        Ok(access) if facts.reach == Reach::WebSocket => by_socket_origin(facts, config, access),
        Ok(access) => Decision::Allow(access),
        Err(denial) => Decision::Deny(denial),
    }
}

enum Presented {
    Nothing,
    Right,
    Wrong,
}

/// Compares everything that was presented as a key; one wrong one spoils the right ones, so that
/// a proxy that adds its own header and a client that forges one cannot be played off.
fn presented(facts: &RequestFacts<'_>, key: &ApiKey) -> Presented {
    let mut seen = Presented::Nothing;
    let mut take = |candidate: &[u8]| {
        let right = key.matches(candidate) && !matches!(seen, Presented::Wrong);
        seen = if right {
            Presented::Right
        } else {
            Presented::Wrong
        };
    };
    if let Some(value) = facts.headers.get(AUTHORIZATION)
        && let Some(candidate) = bearer(value)
    {
        take(candidate);
    }
    if let Some(value) = facts.headers.get(X_API_KEY) {
        take(value.as_bytes());
    }
    if facts.reach == Reach::WebSocket {
        for candidate in query_keys(facts.query) {
            take(&candidate);
        }
        if let Some(candidate) = subprotocol_key(facts.headers) {
            take(candidate);
        }
    }
    seen
}

/// Returns what follows `Bearer`. Another scheme is not for this server: a proxy may have asked
/// for it.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let bytes = value.as_bytes().trim_ascii();
    let (scheme, rest) = bytes.split_at_checked(SUBPROTOCOL.len())?;
    let ends = rest.first().is_none_or(|byte| *byte == b' ');
    (scheme.eq_ignore_ascii_case(SUBPROTOCOL.as_bytes()) && ends).then(|| rest.trim_ascii())
}

fn query_keys(query: Option<&str>) -> impl Iterator<Item = Vec<u8>> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| QUERY_KEYS.contains(name))
        .map(|(_, value)| percent_decoded(value))
}

/// Decodes `%41`; `+` stays, because keys made with `openssl rand -base64` hold it and people
/// paste them as they are. What is not valid stays as it is and will not match.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = bytes
            .get(at + 1..at + 3)
            .filter(|pair| byte == b'%' && pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(pair.unwrap_or(byte));
        at += if pair.is_some() { 3 } else { 1 };
    }
    out
}

/// Returns the subprotocol that follows `bearer` in the offer.
fn subprotocol_key(headers: &HeaderMap) -> Option<&[u8]> {
    let mut offers = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    offers.find(|offer| *offer == SUBPROTOCOL.as_bytes())?;
    Some(offers.next().unwrap_or_default())
}

fn by_place(facts: &RequestFacts<'_>, config: &AuthConfig) -> Result<Access, Denial> {
    let refused = match config.key {
        Some(_) => Denial::KeyRequired,
        None => Denial::LocalOnly,
    };
    let port = config.listen.port();
    if config.require_local || !is_direct(facts) {
        return Err(refused);
    }
    if !is_own_host(facts, port) {
        return Err(Denial::ForeignHost);
    }
    let site_ok = facts
        .headers
        .get(SEC_FETCH_SITE)
        .is_none_or(|site| site.as_bytes() == b"same-origin" || site.as_bytes() == b"none");
    match facts.headers.get(ORIGIN) {
        None if site_ok => Ok(Access::Loopback),
        Some(origin) if is_own_origin(origin, port) && site_ok => Ok(Access::Loopback),
        Some(origin) if cors::is_listed(origin) && config.key.is_some() => Err(refused),
        Some(_) | None => Err(Denial::OriginRefused),
    }
}

/// Whether the client itself is at the other end of the socket, on this machine. HTTP/1.0 is what
/// a proxy speaks that was not told to name the client.
fn is_direct(facts: &RequestFacts<'_>) -> bool {
    let loopback = facts
        .peer
        .is_some_and(|peer| peer.to_canonical().is_loopback());
    let proxied = facts
        .headers
        .keys()
        .any(|name| is_of_a_proxy(name.as_str()));
    loopback && !proxied && facts.version >= Version::HTTP_11
}

/// Whether a header, in lower case, is one that something between the client and here adds.
fn is_of_a_proxy(name: &str) -> bool {
    let same = |byte: u8| if byte == b'_' { b'-' } else { byte };
    PROXY_PREFIXES.iter().any(|prefix| {
        name.len() >= prefix.len()
            && name
                .bytes()
                .map(same)
                .zip(prefix.bytes())
                .all(|(a, b)| a == b)
    })
}

fn is_own_host(facts: &RequestFacts<'_>, port: u16) -> bool {
    let host = facts
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .is_some_and(|host| is_own_authority(host, port));
    host && facts
        .authority
        .is_none_or(|authority| is_own_authority(authority, port))
}

fn is_own_authority(authority: &str, port: u16) -> bool {
    OWN_HOSTS.iter().any(|own| {
        let Some((name, rest)) = authority.split_at_checked(own.len()) else {
            return false;
        };
        let port_ok = match rest.strip_prefix(':') {
            Some(digits) => is_port(digits, port),
            None => rest.is_empty() && port == HTTP_PORT,
        };
        name.eq_ignore_ascii_case(own) && port_ok
    })
}

fn is_port(digits: &str, port: u16) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse() == Ok(port)
}

fn is_own_origin(origin: &HeaderValue, port: u16) -> bool {
    origin
        .to_str()
        .ok()
        .and_then(|origin| origin.strip_prefix("http://"))
        .is_some_and(|authority| is_own_authority(authority, port))
}

/// A WebSocket of a web page is opened only for a page of this server, of a listed origin, or,
/// with the key, of the host the request was made to (a page served through the same proxy).
fn by_socket_origin(facts: &RequestFacts<'_>, config: &AuthConfig, access: Access) -> Decision {
    let Some(origin) = facts.headers.get(ORIGIN) else {
        return Decision::Allow(access);
    };
    let same_host = || {
        let host = facts.headers.get(HOST).map(HeaderValue::as_bytes);
        let scheme_end = origin.as_bytes().windows(3).position(|w| w == b"://");
        access == Access::Key
            && scheme_end.is_some_and(|at| origin.as_bytes().get(at + 3..) == host)
            && host.is_some()
    };
    if is_own_origin(origin, config.listen.port()) || cors::is_listed(origin) || same_host() {
        Decision::Allow(access)
    } else {
        Decision::Deny(Denial::OriginRefused)
    }
}

fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).into_iter().nth(1).is_some()
}

#[cfg(test)]
mod tests;
