//! What the filter finds, and what it leaves alone.

use super::*;
use crate::{Hash, Origin, rfc3339};
use openfang_id::{AgentId, ApiKey, NodeSeed, SharedSecret};
use proptest::prelude::*;

fn cleaned(text: &str) -> String {
    clean(&Known::default(), text).into_owned()
}

#[test]
fn tokens_are_replaced_and_the_text_around_them_stays() {
    let check = |text: &str, expected: &str| assert_eq!(cleaned(text), expected, "{text}");
    check(
        "key sk-proj-Ab3dEf6hIj9kLm2nOp5q was used",
        "key [redacted:token] was used",
    );
    check(
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a.",
        "[redacted:token]",
    );
    check("AKIAIOSFODNN7EXAMPLE", "[redacted:token]");
    check("xoxb-123456789012-abcdefABCDEF", "[redacted:token]");
    check(
        "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",
        "[redacted:token]",
    );
    check(
        "a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U b",
        "a [redacted:jwt] b",
    );
    check(
        "-----BEGIN PRIVATE KEY----- MC4CAQAw -----END PRIVATE KEY----- then",
        "[redacted:pem] then",
    );
    check("x -----BEGIN PRIVATE KEY----- MC4C", "x [redacted:pem]");
    check(
        "Authorization: Bearer abc123def said",
        "Authorization: Bearer [redacted:bearer] said",
    );
    check("basic dXNlcjpwYXNzd29yZA==", "basic [redacted:bearer]");
    check("GET /x?token=abc&n=1", "GET /x?token=[redacted:value]&n=1");
    check("DB_PASSWORD=hunter2", "DB_PASSWORD=[redacted:value]");
    check("password: hunter2 no", "password: [redacted:value] no");
    check("passwd=x", "passwd=[redacted:value]");
    check("pwd=x", "pwd=[redacted:value]");
    check("token: x", "token: [redacted:value]");
    check("passwd = x", "passwd = [redacted:value]");
    check(
        r#"{"user":"ada","password":"two words","n":1}"#,
        r#"{"user":"ada","password":"[redacted:value]","n":1}"#,
    );
    check(
        r#"{"password" : "x"}"#,
        r#"{"password" : "[redacted:value]"}"#,
    );
    check("'secret': 'x", "'secret': '[redacted:value]");
    check("db.password: x", "db.password: [redacted:value]");
    check(
        "password%3Dhunter2%20said",
        "password%3D[redacted:value]%20said",
    );
    check("ｐａｓｓｗｏｒｄ：ｘ", "ｐａｓｓｗｏｒｄ：[redacted:value]");
    check("key sk%2Dproj-Ab3dEf6hIj9kLm2nOp5q", "key [redacted:token]");
    check(
        "https://ada:hunter2@example.org/x",
        "https://[redacted:userinfo]@example.org/x",
    );
    check(
        "random wJalrXUtnFEMI7K7MDENG0bPxRfiCYzEXAMPLEKEY here",
        "random [redacted:random] here",
    );
    check(
        "aws wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXA7MPLE3KEY",
        "aws [redacted:random]",
    );
}

#[test]
fn words_and_names_stay() {
    for text in [
        "",
        "ok",
        "Bearer authentication is required",
        "basic knowledge of the protocol",
        "network.bootstrap_peers network.shared_secret: join by api:key",
        "network.shared_secret: ticket made for api:loopback",
        "the token is missing",
        "the token: ",
        "tokens: 12 and 3",
        "100%, of 7% and %",
        "ＡＢＣ　全角の文字",
        "broke the protocol: RecordTooLargeForThisVersionOfTheProtocol",
        "anthropic/claude-3-5-sonnet-20241022",
        "openai/gpt-4o-mini-2024-07-18",
        "groq/llama-3.3-70b-versatile",
        "mlc/Llama-3.1-70B-Instruct-q4f16_1-MLC",
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
        "mixtral-8x22b-instruct-v0.1",
        "/home/user1/project2/v3/a4/audit.d/evidence/b5",
        "/ip4/192.0.2.7/udp/4200/quic-v1",
        "https://example.org:8080/path/v1/things",
        "worker-v2-gpu4x8-zone1b",
        "0.1.0-dev+20261122.gabcdef12",
        "20261122T205958123456Z",
        "12345678901234567890123456789012345678901234567890",
        "1,3-7,12,99-1204,3000000-3000002",
        "Straße nach Ægypten, 日本語のテキスト, αβγδεζηθικλμνξοπρστ",
    ] {
        assert_eq!(cleaned(text), text);
    }
}

#[test]
fn the_secrets_of_the_house_are_tokens_wherever_they_stand() {
    let api = ApiKey::from_random(&[0x5a; 32]);
    let shared = SharedSecret::from_random(&[0xc3; 32]);
    for secret in [api.expose(), shared.expose()] {
        for text in [
            secret.to_owned(),
            format!("refused: {secret}"),
            format!("a={secret};"),
            format!("\"{secret}\""),
        ] {
            let out = cleaned(&text);
            assert!(out.contains("[redacted:"), "{out}");
            assert!(!out.contains(&secret[5..20]), "{out}");
        }
    }
}

/// Ways to write a secret that nobody who copies it by accident would take for another one.
fn disguises(secret: &str) -> Vec<String> {
    let chars: Vec<char> = secret.chars().collect();
    let grouped = |len: usize, between: &str| {
        let groups: Vec<String> = chars.chunks(len).map(|all| all.iter().collect()).collect();
        groups.join(between)
    };
    let each = |write: &dyn Fn(u8) -> String| secret.bytes().map(write).collect::<String>();
    let wide = |byte: u8| {
        let wide = char::from_u32(0xfee0 + u32::from(byte)).filter(|_| byte > b' ');
        wide.map_or(char::from(byte).to_string(), |wide| wide.to_string())
    };
    let percent = |byte: u8| format!("%{byte:02X}");
    let hex = |byte: u8| format!("{byte:02X}:");
    vec![
        grouped(4, "-"),
        grouped(5, " "),
        grouped(1, " . "),
        grouped(8, "\n"),
        secret.to_uppercase(),
        each(&percent),
        each(&|byte| percent(byte).replace('%', "%25")),
        each(&wide),
        each(&|byte| wide(byte).bytes().map(percent).collect()),
        each(&hex),
        grouped(4, "%2d"),
    ]
}

/// What of a text would give a secret away: its letters and digits.
fn letters(text: &str) -> String {
    let all = text.chars().filter(char::is_ascii_alphanumeric);
    all.collect::<String>().to_lowercase()
}

/// A text without what stands in the place of secrets.
fn without_marks(text: &str) -> String {
    let mut pieces = text.split("[redacted:");
    let first = pieces.next().unwrap_or_default();
    let others = pieces.map(|piece| piece.split_once(']').map_or("", |(_, rest)| rest));
    std::iter::once(first).chain(others).collect()
}

/// What tokens of others look like: letters and digits, drawn evenly.
fn random(alphabet: &'static str, len: usize) -> impl Strategy<Value = String> {
    let one = prop::sample::select(alphabet.as_bytes().to_vec());
    prop::collection::vec(one, len).prop_map(|bytes| String::from_utf8(bytes).expect("ASCII"))
}

const BASE62: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const BASE32: &str = "abcdefghijklmnopqrstuvwxyz234567";

proptest! {
    #[test]
    fn public_forms_are_never_redacted(
        seed: [u8; 32],
        id: [u8; 16],
        hash: [u8; 32],
        seq in 0_u64..1 << 53,
        epoch: u32,
        micros in 0_u64..4_000_000_000_000_000,
        address: [u8; 4],
        port: u16,
    ) {
        let node = NodeSeed::from_bytes(seed).keys().node_id();
        let origin = Origin::of(&node, epoch);
        let hash = Hash::from_bytes(hash);
        let agent = AgentId::from_random(id);
        let at = std::net::Ipv4Addr::from(address);
        for text in [
            node.to_string(),
            agent.to_string(),
            hash.to_string(),
            origin.to_string(),
            rfc3339(micros),
            format!("{origin}#{seq}"),
            format!("sha256:{hash}"),
            format!("agent:{agent}@{node}"),
            format!("node:{node}/main"),
            format!("scribe@{node}"),
            format!("/ip4/{at}/tcp/{port}/p2p/{node}"),
            format!("{at}:{port}"),
            format!("size {seq} root {hash}"),
            format!("fork, evidence {hash}.json"),
            format!("ofp {node}"),
        ] {
            prop_assert_eq!(cleaned(&text), text);
        }
    }

    #[test]
    fn long_random_texts_are_redacted_wherever_they_stand(
        mixed in random(BASE62, 44),
        lower in random(BASE32, 52),
        before in "[a-z ]{0,20}",
        after in "( [a-z ]{0,20})?",
    ) {
        // One in many thousands of these has hardly any digit: what decides is asked for.
        let turns = |text: &str| {
            let bytes = text.as_bytes();
            bytes.windows(2).filter(|two| two[0].is_ascii_digit() != two[1].is_ascii_digit()).count()
        };
        prop_assume!(turns(&mixed) >= 4 && turns(&lower) >= 4);
        for secret in [mixed, lower] {
            let out = cleaned(&format!("{before} {secret}{after}"));
            prop_assert!(!out.contains(&secret), "{}", out);
            prop_assert!(out.contains("[redacted:"), "{}", out);
        }
    }

    #[test]
    fn any_text_is_taken_and_what_is_clean_is_borrowed(text in "\\PC{0,200}") {
        let known = Known::default().with([&b"a secret of this node"[..]]);
        let out = clean(&known, &text);
        if let Cow::Borrowed(same) = out {
            prop_assert_eq!(same, &text);
        } else {
            prop_assert!(out.contains("[redacted:"));
        }
    }

    #[test]
    fn a_known_secret_does_not_get_through_in_disguise(
        secret in "[a-zA-Z0-9]{16,60}",
        before in "[a-z ]{0,20}",
        after in "( [a-z ]{0,20})?",
    ) {
        let known = Known::default().with([secret.as_bytes()]);
        for disguised in disguises(&secret) {
            let out = clean(&known, &format!("{before}{disguised}{after}")).into_owned();
            prop_assert!(out.contains("[redacted:"), "{} {}", disguised, out);
            let left = letters(&without_marks(&out));
            prop_assert!(left.len() <= letters(&before).len() + letters(&after).len(), "{}", out);
        }
    }

    #[test]
    fn no_encoding_makes_the_filter_panic(text in "(%[0-9a-fA-F]{2}|[%=:\"' ]|token|\\PC|[\u{ff00}-\u{ff60}]){0,60}") {
        let known = Known::default().with([&b"correct horse battery"[..]]);
        drop(clean(&known, &text).into_owned());
    }

    #[test]
    fn a_known_secret_does_not_get_through_in_any_company(
        before in "\\PC{0,60}",
        after in "\\PC{0,60}",
    ) {
        let secret = "correct horse battery staple";
        let known = Known::default().with([secret.as_bytes()]);
        let out = clean(&known, &format!("{before}{secret}{after}")).into_owned();
        prop_assert!(!out.contains(secret), "{}", out);
    }
}
