//! One table for the decision: what a request shows, and what becomes of it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use openfang_id::ApiKey;

use super::{Access, AuthConfig, Decision, Denial, Reach, RequestFacts, decide, percent_decoded};

const KEY: &str = "ofk-test+0123456789abcdef/0123456789=";
const OWN: &str = "127.0.0.1:4200";

const KEYED: Decision = Decision::Allow(Access::Key);
const LOCAL: Decision = Decision::Allow(Access::Loopback);
const PUBLIC: Decision = Decision::Allow(Access::Public);
const AMBIGUOUS: Decision = Decision::Deny(Denial::Ambiguous);
const KEY_REQUIRED: Decision = Decision::Deny(Denial::KeyRequired);
const INVALID_KEY: Decision = Decision::Deny(Denial::InvalidKey);
const LOCAL_ONLY: Decision = Decision::Deny(Denial::LocalOnly);
const FOREIGN_HOST: Decision = Decision::Deny(Denial::ForeignHost);
const ORIGIN_REFUSED: Decision = Decision::Deny(Denial::OriginRefused);

/// A request; every case starts from a plain one made with curl on this machine.
#[derive(Clone)]
struct Case {
    peer: Option<&'static str>,
    reach: Reach,
    version: Version,
    authority: Option<&'static str>,
    query: Option<String>,
    headers: HeaderMap,
    require_local: bool,
}

fn local() -> Case {
    bare("127.0.0.1").with("host", OWN)
}

fn remote() -> Case {
    bare("203.0.113.9").with("host", "203.0.113.1:4200")
}

fn bare(peer: &'static str) -> Case {
    Case {
        peer: Some(peer),
        reach: Reach::Protected,
        version: Version::HTTP_11,
        authority: None,
        query: None,
        headers: HeaderMap::new(),
        require_local: false,
    }
}

impl Case {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("a header value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn bearer(self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    fn query(mut self, query: impl Into<String>) -> Self {
        self.query = Some(query.into());
        self
    }

    fn ws(mut self) -> Self {
        self.reach = Reach::WebSocket;
        self
    }

    fn power(mut self) -> Self {
        self.reach = Reach::Power;
        self
    }

    fn public(mut self) -> Self {
        self.reach = Reach::Public;
        self
    }

    fn strict(mut self) -> Self {
        self.require_local = true;
        self
    }

    fn http10(mut self) -> Self {
        self.version = Version::HTTP_10;
        self
    }

    fn absolute(mut self, authority: &'static str) -> Self {
        self.authority = Some(authority);
        self
    }

    fn decide(&self, key: Option<&str>) -> Decision {
        let config = AuthConfig {
            key: key.map(|key| ApiKey::parse(key).expect("a key")),
            require_local: self.require_local,
            listen: OWN.parse().expect("an address"),
        };
        let facts = RequestFacts {
            peer: self.peer.map(|peer| peer.parse().expect("an address")),
            reach: self.reach,
            version: self.version,
            authority: self.authority,
            query: self.query.as_deref(),
            headers: &self.headers,
        };
        decide(&facts, &config)
    }
}

/// Checks one request against a server with a key and against one without.
#[track_caller]
fn check(case: &Case, with_key: Decision, without_key: Decision) {
    assert_eq!(case.decide(Some(KEY)), with_key, "with a key");
    assert_eq!(case.decide(None), without_key, "without a key");
}

#[test]
fn a_plain_local_request_is_trusted() {
    check(&local(), LOCAL, LOCAL);
    check(&bare("::1").with("host", "[::1]:4200"), LOCAL, LOCAL);
    check(&bare("::ffff:127.0.0.1").with("host", OWN), LOCAL, LOCAL);
    check(
        &bare("127.3.2.1").with("host", "LocalHost:4200"),
        LOCAL,
        LOCAL,
    );
    check(&local().absolute("localhost:4200"), LOCAL, LOCAL);
    for origin in [
        "http://127.0.0.1:4200",
        "http://localhost:4200",
        "http://[::1]:4200",
    ] {
        check(&local().with("origin", origin), LOCAL, LOCAL);
    }
    for site in ["same-origin", "none"] {
        check(&local().with("sec-fetch-site", site), LOCAL, LOCAL);
    }
}

#[test]
fn a_local_request_can_be_made_to_need_the_key() {
    check(&local().strict(), KEY_REQUIRED, LOCAL_ONLY);
    check(&local().strict().bearer(KEY), KEYED, LOCAL_ONLY);
    check(&local().strict().public(), PUBLIC, PUBLIC);
}

/// A forwarder that adds nothing looks like a program of this machine.
#[test]
fn power_over_the_node_needs_the_key_from_everywhere() {
    check(&local().power(), KEY_REQUIRED, LOCAL);
    check(&local().power().bearer(KEY), KEYED, LOCAL);
    check(&local().power().bearer("x"), INVALID_KEY, LOCAL);
    check(&remote().power(), KEY_REQUIRED, LOCAL_ONLY);
    check(&remote().power().bearer(KEY), KEYED, LOCAL_ONLY);
    let page = local().power().with("origin", "http://evil.example");
    check(&page, KEY_REQUIRED, ORIGIN_REFUSED);
}

#[test]
fn a_request_from_elsewhere_needs_the_key() {
    check(&remote(), KEY_REQUIRED, LOCAL_ONLY);
    check(&remote().bearer(KEY), KEYED, LOCAL_ONLY);
    check(&remote().with("x-api-key", KEY), KEYED, LOCAL_ONLY);
    check(&remote().public(), PUBLIC, PUBLIC);
    // A name of this machine in a header proves nothing about the socket.
    check(
        &bare("203.0.113.9").with("host", OWN),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
    check(
        &bare("10.0.0.1").with("host", OWN),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
    check(
        &bare("2001:db8::1").with("host", OWN),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
    let mut unknown = local();
    unknown.peer = None;
    check(&unknown, KEY_REQUIRED, LOCAL_ONLY);
}

#[test]
fn the_key_is_found_in_its_spellings() {
    for value in [
        format!("Bearer {KEY}"),
        format!("bearer {KEY}"),
        format!("BEARER   {KEY}  "),
    ] {
        check(&remote().with("authorization", &value), KEYED, LOCAL_ONLY);
    }
    // A proxy may ask for a password of its own and pass it on.
    let both = remote()
        .with("authorization", "Basic dTpw")
        .with("x-api-key", KEY);
    check(&both, KEYED, LOCAL_ONLY);
    check(
        &remote().with("authorization", "Basic dTpw"),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
}

#[test]
fn what_is_not_the_key_does_not_open() {
    let wrong = [
        "",
        " ",
        "x",
        "ofk-test+0123456789abcdef/0123456789",
        "ofk-test+0123456789abcdef/0123456789==",
        "OFK-TEST+0123456789ABCDEF/0123456789=",
        "undefined",
        "null",
    ];
    for key in wrong {
        check(&remote().bearer(key), INVALID_KEY, LOCAL_ONLY);
        check(&remote().with("x-api-key", key), INVALID_KEY, LOCAL_ONLY);
        check(
            &remote().ws().query(format!("key={key}")),
            INVALID_KEY,
            LOCAL_ONLY,
        );
        check(
            &remote().ws().query(format!("token={key}")),
            INVALID_KEY,
            LOCAL_ONLY,
        );
    }
    check(
        &remote().with("authorization", "Bearer"),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    // A scheme that only begins like it is another scheme.
    let glued = remote().with("authorization", &format!("Bearer{KEY}"));
    check(&glued, KEY_REQUIRED, LOCAL_ONLY);
    // A wrong key is told so on this machine, too; without a configured key there is nothing to compare with.
    check(&local().bearer("x"), INVALID_KEY, LOCAL);
    check(&local().with("x-api-key", ""), INVALID_KEY, LOCAL);
    check(&local().bearer(KEY), KEYED, LOCAL);
    // Cookies are no credential.
    let cookie = remote().with("cookie", &format!("openfang_session={KEY}"));
    check(&cookie, KEY_REQUIRED, LOCAL_ONLY);
}

#[test]
fn a_header_that_stands_twice_decides_nothing() {
    let wrong = format!("Bearer {}", "x".repeat(40));
    let right = format!("Bearer {KEY}");
    for (first, second) in [(&right, &wrong), (&wrong, &right), (&right, &right)] {
        let case = remote()
            .with("authorization", first)
            .with("authorization", second);
        check(&case, AMBIGUOUS, AMBIGUOUS);
    }
    check(
        &remote().with("x-api-key", KEY).with("x-api-key", "x"),
        AMBIGUOUS,
        AMBIGUOUS,
    );
    check(&local().with("host", "evil.example"), AMBIGUOUS, AMBIGUOUS);
    let origins = local()
        .with("origin", "http://127.0.0.1:4200")
        .with("origin", "http://evil.example");
    check(&origins, AMBIGUOUS, AMBIGUOUS);
    let sites = local()
        .with("sec-fetch-site", "none")
        .with("sec-fetch-site", "cross-site");
    check(&sites, AMBIGUOUS, AMBIGUOUS);
    // Two different headers: one wrong key spoils the other.
    check(
        &remote().bearer(KEY).with("x-api-key", "x"),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().bearer("x").with("x-api-key", KEY),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().bearer(KEY).with("x-api-key", KEY),
        KEYED,
        LOCAL_ONLY,
    );
}

#[test]
fn a_proxy_ends_the_trust_in_the_socket() {
    for name in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-anything",
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-original-forwarded-for",
        "true-client-ip",
        "cf-connecting-ip",
        "x-forwarded",
        "x_forwarded_for",
        "x-forwarded_for",
        "client-ip",
        "cf-ray",
        "cf-worker",
        "x-amzn-trace-id",
        "fly-client-ip",
        "x-azure-clientip",
        "tailscale-user-login",
        "ngrok-trace",
        "x-envoy-attempt-count",
        "x-original-url",
        "x-proxyuser-ip",
        "proxy-connection",
        "do-connecting-ip",
        "x-appengine-user-ip",
        "x-cloud-trace-context",
    ] {
        for value in ["203.0.113.9", "127.0.0.1", ""] {
            let case = local().with(name, value);
            check(&case, KEY_REQUIRED, LOCAL_ONLY);
            check(&case.bearer(KEY), KEYED, LOCAL_ONLY);
        }
    }
    for name in [
        "accept",
        "user-agent",
        "x-api",
        "x-client",
        "cfg",
        "vi",
        "traceparent",
    ] {
        check(&local().with(name, "x"), LOCAL, LOCAL);
    }
    check(&local().http10(), KEY_REQUIRED, LOCAL_ONLY);
    check(&local().http10().bearer(KEY), KEYED, LOCAL_ONLY);
}

#[test]
fn a_foreign_host_ends_the_trust_in_the_socket() {
    for host in [
        "evil.example",
        "evil.example:4200",
        "localhost.evil.example:4200",
        "localhost:80",
        "localhost",
        "localhost:",
        "localhost:+4200",
        "localhost:42000",
        "localhost.:4200",
        "localhost:4200.evil.example",
        "user@localhost:4200",
        "0.0.0.0:4200",
        "127.0.0.2:4200",
        "127.1:4200",
        "2130706433:4200",
        "[::]:4200",
        "::1:4200",
        "[::1]",
        "",
        "\u{e9}ocalhost:4200",
    ] {
        let case = bare("127.0.0.1").with("host", host);
        check(&case, FOREIGN_HOST, FOREIGN_HOST);
        check(&case.bearer(KEY), KEYED, FOREIGN_HOST);
    }
    check(&bare("127.0.0.1"), FOREIGN_HOST, FOREIGN_HOST);
    check(
        &local().absolute("evil.example"),
        FOREIGN_HOST,
        FOREIGN_HOST,
    );
    check(&bare("127.0.0.1").absolute(OWN), FOREIGN_HOST, FOREIGN_HOST);
}

#[test]
fn a_foreign_page_ends_the_trust_in_the_socket() {
    for origin in [
        "http://evil.example",
        "https://127.0.0.1:4200",
        "http://127.0.0.1:4201",
        "http://127.0.0.1",
        "http://127.0.0.1:4200/",
        "http://127.0.0.1:4200.evil.example",
        "null",
        "",
        "file://",
        "chrome-extension://abc",
    ] {
        check(
            &local().with("origin", origin),
            ORIGIN_REFUSED,
            ORIGIN_REFUSED,
        );
        // With the key, CORS alone says who may read the answer.
        check(
            &local().with("origin", origin).bearer(KEY),
            KEYED,
            ORIGIN_REFUSED,
        );
    }
    // A listed origin may read answers, and has to bring the key.
    let listed = local().with("origin", "http://localhost:3000");
    check(&listed, KEY_REQUIRED, ORIGIN_REFUSED);
    check(&listed.bearer(KEY), KEYED, ORIGIN_REFUSED);
    for site in [
        "cross-site",
        "same-site",
        "",
        "SAME-ORIGIN",
        "none, cross-site",
    ] {
        check(
            &local().with("sec-fetch-site", site),
            ORIGIN_REFUSED,
            ORIGIN_REFUSED,
        );
        let own = local().with("origin", "http://127.0.0.1:4200");
        check(
            &own.with("sec-fetch-site", site),
            KEY_REQUIRED,
            ORIGIN_REFUSED,
        );
    }
}

#[test]
fn a_key_in_the_query_opens_a_web_socket_only() {
    let encoded = "ofk-test%2B0123456789abcdef%2f0123456789%3D";
    for query in [
        format!("key={KEY}"),
        format!("token={KEY}"),
        format!("a=b&token={KEY}&c"),
        format!("key={encoded}"),
    ] {
        check(&remote().ws().query(query.clone()), KEYED, LOCAL_ONLY);
        check(&remote().query(query.clone()), KEY_REQUIRED, LOCAL_ONLY);
        check(&local().query(query), LOCAL, LOCAL);
    }
    check(
        &remote().ws().query(format!("key={KEY}&key=x")),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().ws().query(format!("Key={KEY}")),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
    check(&remote().ws().query("key"), KEY_REQUIRED, LOCAL_ONLY);
}

#[test]
fn a_key_in_the_subprotocol_opens_a_web_socket_only() {
    let protocol = "sec-websocket-protocol";
    let offer = format!("bearer, {KEY}");
    check(&remote().ws().with(protocol, &offer), KEYED, LOCAL_ONLY);
    check(&remote().with(protocol, &offer), KEY_REQUIRED, LOCAL_ONLY);
    let two = remote().ws().with(protocol, "bearer").with(protocol, KEY);
    check(&two, KEYED, LOCAL_ONLY);
    check(
        &remote().ws().with(protocol, "bearer"),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().ws().with(protocol, "bearer, x"),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().ws().with(protocol, &format!("{KEY}, bearer")),
        INVALID_KEY,
        LOCAL_ONLY,
    );
    check(
        &remote().ws().with(protocol, "chat, superchat"),
        KEY_REQUIRED,
        LOCAL_ONLY,
    );
}

#[test]
fn a_web_socket_of_a_foreign_page_is_not_opened() {
    check(&local().ws(), LOCAL, LOCAL);
    check(
        &local().ws().with("origin", "http://localhost:4200"),
        LOCAL,
        LOCAL,
    );
    for origin in ["http://evil.example", "null", "http://127.0.0.1:9999"] {
        let case = local().ws().with("origin", origin);
        check(&case, ORIGIN_REFUSED, ORIGIN_REFUSED);
        check(&case.bearer(KEY), ORIGIN_REFUSED, ORIGIN_REFUSED);
    }
    let listed = local()
        .ws()
        .with("origin", "http://localhost:3000")
        .bearer(KEY);
    check(&listed, KEYED, ORIGIN_REFUSED);
    // Behind a proxy the page and the socket have the host in common.
    let behind = bare("127.0.0.1")
        .with("host", "agents.example.com")
        .with("x-forwarded-for", "203.0.113.9")
        .ws()
        .bearer(KEY);
    check(
        &behind.clone().with("origin", "https://agents.example.com"),
        KEYED,
        LOCAL_ONLY,
    );
    check(
        &behind.with("origin", "https://evil.example"),
        ORIGIN_REFUSED,
        LOCAL_ONLY,
    );
    // A rebound name has them in common as well, and is refused for its host.
    let rebound = bare("127.0.0.1")
        .with("host", "evil.example:4200")
        .with("origin", "http://evil.example:4200")
        .ws();
    check(&rebound, FOREIGN_HOST, FOREIGN_HOST);
}

#[test]
fn port_80_may_be_left_out_when_it_is_the_port() {
    let config = AuthConfig {
        key: None,
        require_local: false,
        listen: "127.0.0.1:80".parse().expect("an address"),
    };
    for (host, expected) in [
        ("localhost", LOCAL),
        ("localhost:80", LOCAL),
        ("localhost:4200", FOREIGN_HOST),
    ] {
        let case = bare("127.0.0.1").with("host", host);
        let facts = RequestFacts {
            peer: Some("127.0.0.1".parse().expect("an address")),
            reach: Reach::Protected,
            version: Version::HTTP_11,
            authority: None,
            query: None,
            headers: &case.headers,
        };
        assert_eq!(decide(&facts, &config), expected, "{host}");
    }
}

#[test]
fn percent_encoding_is_undone_and_damage_is_kept() {
    for (text, expected) in [
        ("a%2Bb", "a+b"),
        ("a+b", "a+b"),
        ("%", "%"),
        ("%4", "%4"),
        ("%zz", "%zz"),
        ("%+1", "%+1"),
        ("%%41", "%A"),
    ] {
        assert_eq!(percent_decoded(text), expected.as_bytes(), "{text}");
    }
}
