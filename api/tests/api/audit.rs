//! The audit routes.

use openfang_audit::inquiry::Signing;
use openfang_id::NodeSeed;
use serde_json::json;

use crate::node::{KEYED, Setup, start};

#[tokio::test]
async fn the_latest_entries_are_given_with_the_lines_that_were_hashed() {
    let node = start(KEYED).await;
    for name in ["a", "b", "c"] {
        node.echo(name).await;
    }
    let body = node.get("/api/audit/recent?n=2").send().await.is_ok();
    let entries = body["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    let total = body["total"].as_u64().expect("a number");
    assert_eq!(entries[1]["seq"], total - 1, "the newest is the last");
    assert_eq!(entries[1]["action"], "agent_create");
    assert_eq!(entries[1]["detail"], "c");
    assert_eq!(entries[1]["outcome"], "ok");
    let line = entries[1]["line"].as_str().expect("a line");
    let leaf = openfang_audit::tree::leaf_hash(line.as_bytes());
    assert_eq!(entries[1]["hash"], leaf.to_string(), "anyone can check it");
    let same = node.get("/api/audit/recent?limit=2").send().await.is_ok();
    assert_eq!(
        same["entries"], body["entries"],
        "both names of the parameter"
    );
    node.get("/api/audit/recent?n=1000").send().await.is_ok();
}

#[tokio::test]
async fn how_many_entries_are_wanted_is_said_once_and_within_the_range() {
    let node = start(KEYED).await;
    for query in ["n=0", "limit=0", "n=1001", "limit=5000", "n=2&limit=2"] {
        let answer = node.get(&format!("/api/audit/recent?{query}")).send().await;
        answer.is_error(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn an_altered_log_is_told_with_the_entry() {
    let node = start(KEYED).await;
    node.echo("a").await;
    node.echo("b").await;
    node.signed().await;
    let body = node.get("/api/audit/verify").send().await.is_ok();
    assert_eq!(body["valid"], true, "{body}");
    assert_eq!(body["unsigned_entries"], 0, "{body}");
    assert_eq!(body["tip_hash"].as_str().map(str::len), Some(64));
    let text = std::fs::read_to_string(&node.log_path).expect("the log");
    let at = text
        .lines()
        .position(|line| line.contains("agent_create"))
        .expect("an entry");
    let altered = text.replacen("agent_create", "agent_crea7e", 1);
    std::fs::write(&node.log_path, altered).expect("written");
    let body = node.get("/api/audit/verify").send().await.is_ok();
    assert_eq!(body["valid"], false, "{body}");
    assert_eq!(body["first_bad_seq"], at);
    assert_eq!(body["kind"], "altered");
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|it| it.contains("entry")),
        "{body}"
    );
    let health = node
        .get("/api/health")
        .from(crate::node::ELSEWHERE)
        .send()
        .await;
    assert_eq!(
        health.is_ok(),
        json!({"status": "degraded", "version": "0.0.0-test"})
    );
}

#[tokio::test]
async fn every_change_waits_for_its_witnesses() {
    let node = start(Setup {
        unwitnessed: true,
        awake: true,
        listen: true,
        seed: 8,
        ..KEYED
    })
    .await;
    let answer = node
        .get("/api/status")
        .from(crate::node::ELSEWHERE)
        .send()
        .await;
    answer.is_error(401, "key_required");
    while node.logged("auth_failed").is_empty() {
        tokio::task::yield_now().await;
    }
    let seq = node.logged("auth_failed")[0].seq.0;
    let redact = json!({"seqs": [seq], "reason": "asked by the subject"});
    let spawn = json!({"manifest_toml": "name = \"echo\"\nmodule = \"builtin:echo\"\n"});
    let (ticket, erased, spawned) = futures::join!(
        node.get("/api/network/ticket").key().send(),
        node.post("/api/audit/redact", &redact).key().send(),
        node.post("/api/agents", &spawn).key().send(),
    );
    for refused in [&ticket, &erased, &spawned] {
        let body = refused.is_error(503, "not_logged");
        let text = body["error"].as_str().expect("a text");
        // The clock of this test does not wait for the log.
        let is_said = text.contains("3 of 0 witnesses have to cosign")
            || text.contains("is under no signed head");
        assert!(is_said, "{text}");
    }
    let revealed = node
        .get("/api/audit/recent?n=1000&reveal=true")
        .key()
        .send()
        .await;
    assert!(revealed.text().contains("203.0.113.9"), "it is not erased");
    for kind in ["config_change", "redact", "agent_create"] {
        let told = node.logged(kind);
        let outcomes: Vec<&str> = told.iter().map(|line| line.outcome.as_str()).collect();
        assert_eq!((outcomes.len(), outcomes[0]), (2, "ok"), "{kind}");
        assert!(outcomes[1].starts_with("denied: not "), "{outcomes:?}");
    }
}

#[tokio::test]
async fn nothing_is_changed_by_a_node_whose_log_is_not_signed_any_more() {
    let node = start(Setup {
        signing: || Signing::Contradicted { size: 9 },
        awake: true,
        listen: true,
        seed: 9,
        ..KEYED
    })
    .await;
    let spawn = json!({"manifest_toml": "name = \"echo\"\nmodule = \"builtin:echo\"\n"});
    for answer in [
        node.get("/api/network/ticket").key().send().await,
        node.post("/api/agents", &spawn).key().send().await,
    ] {
        let body = answer.is_error(503, "not_logged");
        assert_eq!(body["reason"], "contradicted");
        assert!(
            body["hint"]
                .as_str()
                .is_some_and(|it| it.contains("AUDIT.md"))
        );
    }
    assert!(node.logged("config_change").is_empty());
    assert!(node.logged("agent_create").is_empty());
}

#[tokio::test]
async fn what_is_not_signed_yet_is_to_be_asked_for_again_and_not_given_up() {
    let node = start(Setup {
        signing: || Signing::Waiting {
            answered: 0,
            needed: 1,
            silent: vec![NodeSeed::from_bytes([9; 32]).keys().node_id()],
        },
        awake: true,
        listen: true,
        seed: 11,
        ..KEYED
    })
    .await;
    let silent = NodeSeed::from_bytes([9; 32]).keys().node_id().to_string();
    let stranger = node.get("/api/status").from(crate::node::ELSEWHERE);
    stranger.send().await.is_error(401, "key_required");
    while node.logged("auth_failed").is_empty() {
        tokio::task::yield_now().await;
    }
    for path in ["/api/audit/checkpoint", "/api/audit/proof/0"] {
        let answer = node.get(path).send().await;
        assert!(answer.header("retry-after").is_some(), "{path}");
        let body = answer.is_error(503, "not_signed");
        assert_eq!(body["reason"], "asking");
        let text = body["error"].as_str().expect("a text");
        assert!(text.contains(&silent), "{text}");
    }
    let beyond = node.get("/api/audit/proof/99").send().await;
    let body = beyond.is_error(422, "unprocessable");
    assert_eq!(body["reason"], "not_covered", "waiting brings none");
    let told = node.get("/api/audit/witnesses").send().await.is_ok();
    assert_eq!(told["signing"]["state"], "asking");
    assert_eq!(told["signing"]["silent"][0], silent);
}

#[tokio::test]
async fn a_log_that_is_deleted_under_the_node_is_not_valid() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let whole = node.get("/api/audit/verify").send().await.is_ok();
    assert_eq!(whole["valid"], true);
    std::fs::remove_file(&node.log_path).expect("removed");
    for _again in 0..2 {
        let verdict = node.get("/api/audit/verify").send().await.is_ok();
        assert_eq!(verdict["valid"], false, "{verdict}");
        assert_eq!(verdict["kind"], "missing");
        assert_eq!(verdict["first_bad_seq"], 0);
    }
}

#[tokio::test]
async fn a_proof_of_nothing_says_how_many_entries_there_are() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    node.signed().await;
    let answer = node.get("/api/audit/proof/99999").send().await;
    let body = answer.is_error(422, "unprocessable");
    assert_eq!(body["reason"], "not_covered");
    let size = node.log.as_ref().expect("a log").size();
    let text = body["error"].as_str().expect("a text");
    assert!(
        text.contains("no entry 99999") && text.contains(&format!("has {size}")),
        "{text}"
    );
    let hint = body["hint"].as_str().expect("a hint");
    assert!(hint.contains(&format!("0 to {}", size - 1)), "{hint}");
}
