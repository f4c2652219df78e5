//! The audit log over HTTP, as those see it who check it.

use axum::http::Method;
use openfang_audit::evidence::Evidence;
use openfang_audit::note::{Note, Verifier};
use openfang_audit::policy::Policy;
use openfang_audit::proof::verify_consistency;
use openfang_audit::tile::{Bundle, TileNodes, TilePath, TileSource, parse_tile};
use openfang_audit::tlog_proof::{TlogProof, Verdict};
use openfang_audit::witness::AddCheckpoint;
use openfang_audit::{Checkpoint, Event, Hash, Log, Origin, Public, SignedHead};
use openfang_id::NodeSeed;
use serde_json::json;

use crate::node::{ELSEWHERE, KEYED, Node, Setup, start};

async fn logged() -> Node {
    let node = start(KEYED).await;
    for name in ["a", "b", "c"] {
        node.echo(name).await;
    }
    node.signed().await;
    node
}

fn log(node: &Node) -> &Log {
    node.log.as_ref().expect("a log")
}

async fn checkpoint(node: &Node) -> SignedHead {
    let text = node.get("/api/audit/checkpoint").send().await.text();
    let key = NodeSeed::from_bytes([KEYED.seed; 32]).keys().log;
    SignedHead::open(&text, log(node).origin(), &key.verifying_key()).expect("a head of the log")
}

fn lines(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(&node.log_path).expect("the log");
    text.lines().map(str::to_owned).collect()
}

/// What was fetched, for the reader of tiles.
struct Fetched(Vec<(TilePath, Vec<u8>)>);

impl TileSource for Fetched {
    type Error = std::convert::Infallible;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, Self::Error> {
        let found = self.0.iter().find(|(name, _)| name == path);
        Ok(found.map(|(_, bytes)| bytes.clone()))
    }
}

#[tokio::test]
async fn the_tiles_and_entries_lead_to_the_signed_root() {
    let node = logged().await;
    let head = checkpoint(&node).await.checkpoint;
    let mut fetched = Vec::new();
    for path in openfang_audit::tile::tile_paths(head.size) {
        let answer = node.get(&format!("/api/audit/{path}")).send().await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
        let cached = answer.header("cache-control").expect("told");
        assert!(
            cached.contains("immutable") && cached.contains("private"),
            "{cached}"
        );
        fetched.push((path, answer.bytes.to_vec()));
    }
    let nodes = TileNodes::open(Fetched(fetched), head.size, head.root).expect("the root");
    let bundle = nodes.bundle(0).expect("the entries");
    for (entry, line) in bundle.iter().zip(lines(&node)) {
        assert_eq!(entry, line.as_bytes());
    }
}

#[tokio::test]
async fn what_is_no_tile_of_the_log_is_not_there() {
    let node = logged().await;
    for path in [
        "tile/0/000",
        "tile/0/000.p/200",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/0",
        "tile/entries/x000/000",
        "tile/data/000",
        "tile/0/..%2f..%2fnode.key",
        "tile/../floor",
        "tile/0/000.p/1/",
    ] {
        let answer = node.get(&format!("/api/audit/{path}")).send().await;
        answer.is_error(404, "no_route");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    let partial = node.get("/api/audit/tile/0/000.p/2").send().await;
    let hashes = parse_tile(&partial.bytes, 2).expect("two hashes");
    let bundle = node.get("/api/audit/tile/entries/000.p/2").send().await;
    let bundle = Bundle::parse(bundle.bytes.to_vec(), 2).expect("two entries");
    assert_eq!(bundle.leaves(), hashes);
}

#[tokio::test]
async fn an_entry_is_proved_and_checked_without_the_node() {
    let node = logged().await;
    let key = NodeSeed::from_bytes([KEYED.seed; 32]).keys().log;
    let policy = Policy::of_log(log(&node).origin(), key.verifying_key(), &[], 0);
    let policy = policy.expect("a policy");
    for (seq, line) in lines(&node).iter().enumerate() {
        let answer = node.get(&format!("/api/audit/proof/{seq}")).send().await;
        assert_eq!(answer.status.as_u16(), 200);
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let proof = TlogProof::parse(&answer.bytes).expect("a proof");
        assert_eq!(proof.extra(), Some(line.as_bytes()));
        let verdict = proof.check(line.as_bytes(), &policy).expect("it holds");
        assert!(matches!(verdict, Verdict::Proven(_)));
    }
    let beyond = node.get("/api/audit/proof/1000").send().await;
    let body = beyond.is_error(422, "unprocessable");
    assert_eq!(body["reason"], "not_covered");
    for bad in ["-1", "x", "99999999999999999999999"] {
        let answer = node.get(&format!("/api/audit/proof/{bad}")).send().await;
        answer.is_error(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn growth_is_proved() {
    let node = logged().await;
    let small = checkpoint(&node).await.checkpoint;
    node.echo("d").await;
    node.signed().await;
    let large = checkpoint(&node).await.checkpoint;
    assert!(small.size < large.size);
    let (from, to) = (small.size, large.size);
    let path = format!("/api/audit/consistency?from={from}&to={to}");
    let body = node.get(&path).send().await.is_ok();
    assert_eq!(body["origin"], log(&node).origin().to_string());
    let proof: Vec<Hash> = body["proof"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|hash| {
            let hash = data_encoding::BASE64.decode(hash.as_str().expect("text").as_bytes());
            Hash::from_bytes(hash.expect("base64").try_into().expect("32 bytes"))
        })
        .collect();
    verify_consistency(from, &small.root, to, &large.root, &proof).expect("it has only grown");
    for (query, status, code) in [
        ("from=0&to=1", 400, "invalid_parameter"),
        ("from=2&to=1", 400, "invalid_parameter"),
        ("from=1", 400, "invalid_parameter"),
        ("from=1&to=2&x=1", 400, "invalid_parameter"),
        ("from=1&to=1000", 422, "unprocessable"),
    ] {
        let path = format!("/api/audit/consistency?{query}");
        node.get(&path).send().await.is_error(status, code);
    }
}

#[tokio::test]
async fn nothing_is_proved_of_an_altered_log() {
    let node = logged().await;
    let text = std::fs::read_to_string(&node.log_path).expect("the log");
    let altered = text.replacen("agent_create", "agent_crea7e", 1);
    std::fs::write(&node.log_path, altered).expect("written");
    for path in ["proof/0", "consistency?from=1&to=2"] {
        let answer = node.get(&format!("/api/audit/{path}")).send().await;
        let body = answer.is_error(500, "internal");
        assert_eq!(body["reason"], "audit_damaged");
    }
}

#[tokio::test]
async fn only_evidence_that_holds_is_listed() {
    let node = logged().await;
    let empty = node.get("/api/audit/evidence").send().await.is_ok();
    assert_eq!(
        empty,
        json!({"evidence": [], "worthless": 0, "damaged": [], "missing": [], "left_out": 0})
    );
    let keys = NodeSeed::from_bytes([7; 32]).keys();
    let origin = Origin::of(&keys.node_id(), 1);
    let note = |root: u8| -> Note {
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            size: 3,
            root: Hash::from_bytes([root; 32]),
        };
        let head = SignedHead::sign(checkpoint, &keys.log);
        head.note.parse().expect("a note")
    };
    let key = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a key");
    let evidence = Evidence::equivocation(&key, &note(1), &note(2)).expect("evidence");
    let folder = node.log_path.with_file_name("audit.d").join("evidence");
    let bytes = evidence.to_bytes();
    std::fs::write(folder.join(evidence.file_name()), &bytes).expect("written");
    std::fs::write(folder.join("x.json"), &bytes[1..]).expect("written");
    std::fs::write(folder.join("y.json"), vec![b'x'; 1 << 20]).expect("written");
    std::fs::write(folder.join("torn-1"), b"x").expect("written");
    std::fs::create_dir(folder.join("z.json")).expect("made");
    let body = node.get("/api/audit/evidence").send().await.is_ok();
    assert_eq!(body["worthless"], 3, "what cannot be read is told, too");
    let listed = body["evidence"].as_array().expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["kind"], "equivocation");
    assert_eq!(listed[0]["origin"], origin.to_string());
    assert_eq!(listed[0]["heads"][0]["size"], 3);
    let content = listed[0]["content"].as_str().expect("text");
    assert_eq!(Evidence::open(content.as_bytes()), Ok(evidence.clone()));
    assert_eq!(body["damaged"], json!([]), "none has the name of evidence");
    check_what_is_gone_or_damaged_is_named(&node, &evidence).await;
    // A folder that cannot be listed is no empty one.
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, b"x").expect("written");
    let answer = node.get("/api/audit/evidence").send().await;
    answer.is_error(500, "internal");
}

/// The log tells of evidence; its file is damaged, and then gone.
async fn check_what_is_gone_or_damaged_is_named(node: &Node, evidence: &Evidence) {
    let name = evidence.file_name();
    let kind = evidence.kind();
    let origin: Origin = evidence.origin().as_str().parse().expect("a name");
    let event = Event::peer_evidence(&origin, Public::text(&format!("{kind}, evidence {name}")));
    let (done, written) = std::sync::mpsc::sync_channel(1);
    let ack = Box::new(move |durable| done.send(durable).expect("somebody waits"));
    log(node).append(event, ack).expect("queued");
    let durable = tokio::task::spawn_blocking(move || written.recv()).await;
    assert!(matches!(durable, Ok(Ok(Ok(_)))), "{durable:?}");
    let path = node.log_path.with_file_name("audit.d").join("evidence");
    let path = path.join(&name);
    std::fs::write(&path, b"{}").expect("written");
    let body = node.get("/api/audit/evidence").send().await.is_ok();
    assert_eq!(body["damaged"], json!([name]));
    assert_eq!(body["missing"], json!([]));
    std::fs::remove_file(&path).expect("removed");
    let body = node.get("/api/audit/evidence").send().await.is_ok();
    assert_eq!(body["damaged"], json!([]));
    let about = evidence.origin().to_string();
    assert_eq!(body["missing"], json!([{"file": name, "about": about}]));
}

#[tokio::test]
async fn a_node_without_peers_and_one_without_a_log_say_so() {
    let node = logged().await;
    let body = node.get("/api/audit/peers").send().await.is_ok();
    assert_eq!(body["peers"], json!([]));
    assert_eq!(body["size"], log(&node).size());
    let without = start(Setup {
        audit: false,
        ..KEYED
    })
    .await;
    for path in ["tile/0/000", "proof/0", "consistency?from=1&to=1", "peers"] {
        let answer = without.get(&format!("/api/audit/{path}")).send().await;
        let body = answer.is_error(422, "unprocessable");
        assert_eq!(body["reason"], "audit_off");
    }
}

#[tokio::test]
async fn a_witness_of_nothing_is_asked_by_anyone_but_not_too_often() {
    let node = start(KEYED).await;
    let add = |body: String| {
        let ask = node.request(Method::POST, "/witness/add-checkpoint");
        ask.from(ELSEWHERE).body(body)
    };
    let name = "example.com/log";
    let root = data_encoding::BASE64.encode(&[7; 32]);
    let key = NodeSeed::from_bytes([7; 32]).keys().log;
    let note = Note::sign(&format!("{name}\n1\n{root}\n"), name, &key).expect("a note");
    let unknown = AddCheckpoint::new(0, Vec::new(), note).expect("a request");
    let unknown = add(unknown.to_string()).send().await;
    unknown.is_error(404, "no_route");
    // What cannot be read is said first, whoever is witnessed.
    for bad in ["", "x", "old 0\n\nexample.com/log\n", "old -1\n\n", "\u{0}"] {
        let body = add(bad.to_owned()).send().await;
        let body = body.is_error(400, "invalid_body");
        let said = body["error"].as_str().expect("text");
        assert!(
            said.starts_with("The body is no request to cosign a head: "),
            "{said}"
        );
    }
    let long = add("x".repeat(100_000)).send().await;
    long.is_error(400, "invalid_body");
    let id = "0".repeat(64);
    for (path, status) in [
        (format!("/witness/{id}/checkpoint"), 404),
        ("/witness/x/checkpoint".to_owned(), 404),
        (format!("/witness/{id}/other"), 401),
    ] {
        let answer = node.get(&path).from(ELSEWHERE).send().await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
    }
    for verb in [Method::GET, Method::PUT, Method::DELETE] {
        let other = node.request(verb, "/witness/add-checkpoint");
        let answer = other.from(ELSEWHERE).send().await;
        answer.is_error(401, "key_required");
    }
    // One address is slowed down, and another is not.
    let mut slowed = false;
    for _ in 0..200 {
        let answer = add(String::new()).send().await;
        if answer.status.as_u16() == 429 {
            assert!(answer.header("retry-after").is_some());
            slowed = true;
            break;
        }
    }
    assert!(slowed);
    let other = node.request(Method::POST, "/witness/add-checkpoint");
    let other = other.from("203.0.113.77:1").send().await;
    other.is_error(400, "invalid_body");
}
