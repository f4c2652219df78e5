//! Personal values of the audit log: shown with the key, and erased.

use serde_json::{Value, json};

use crate::node::{ELSEWHERE, KEYED, KEYLESS, Node, start};

/// A node whose log has refused requests of one machine elsewhere; returns the number of the entry.
async fn with_a_stranger() -> (Node, u64) {
    let node = start(KEYED).await;
    let answer = node.get("/api/status").from(ELSEWHERE).send().await;
    answer.is_error(401, "key_required");
    node.settle_log().await;
    let seq = node.logged("auth_failed")[0].seq.0;
    (node, seq)
}

async fn shown(node: &Node, seq: u64) -> Value {
    let answer = node
        .get("/api/audit/recent?n=1000&reveal=true")
        .key()
        .send()
        .await;
    let body = answer.is_ok();
    let entries = body["entries"].as_array().expect("entries");
    let entry = entries.iter().find(|entry| entry["seq"] == seq);
    entry.expect("the entry")["personal"].clone()
}

#[tokio::test]
async fn personal_values_are_for_the_holder_of_the_key_alone() {
    let (node, seq) = with_a_stranger().await;
    let body = node.get("/api/audit/recent?n=1000").send().await.is_ok();
    assert!(!body.to_string().contains("203.0.113.9"), "{body}");
    assert!(body["entries"][0].get("personal").is_none());
    let from_here = node.get("/api/audit/recent?reveal=true").send().await;
    from_here.is_error(401, "key_required");
    let value = json!({"target": {"state": "value", "value": "203.0.113.9"}});
    assert_eq!(shown(&node, seq).await, value);
    let keyless = start(KEYLESS).await;
    let answer = keyless.get("/api/audit/recent?reveal=true").send().await;
    answer.is_error(403, "refused");
    keyless
        .get("/api/audit/recent?reveal=false")
        .send()
        .await
        .is_ok();
}

#[tokio::test]
async fn what_is_erased_is_told_in_the_log_and_not_shown_any_more() {
    let (node, seq) = with_a_stranger().await;
    let request = json!({"seqs": [seq], "reason": "asked by the subject"});
    let refused = node.post("/api/audit/redact", &request).send().await;
    refused.is_error(401, "key_required");
    let done = node
        .post("/api/audit/redact", &request)
        .key()
        .send()
        .await
        .is_ok();
    let told = node.logged("redact");
    assert_eq!(
        done,
        json!({"entries": [seq], "values": 1, "elsewhere": 0, "told_in": [told[0].seq.0]})
    );
    assert_eq!(told[0].act.as_deref(), Some("asked by the subject"));
    assert_eq!(told[0].target, Some(seq.to_string()));
    assert_eq!(told[0].user.as_deref(), Some("api:key"));
    assert_eq!(
        shown(&node, seq).await,
        json!({"target": {"state": "erased"}})
    );
    let verdict = node.get("/api/audit/verify").send().await.is_ok();
    assert_eq!(verdict["valid"], true);
    let again = node.post("/api/audit/redact", &request).key().send().await;
    assert_eq!(
        again.is_error(422, "unprocessable")["reason"],
        "nothing_kept"
    );
}

#[tokio::test]
async fn a_subject_is_erased_by_name_and_what_comes_later_is_kept_anew() {
    let (node, seq) = with_a_stranger().await;
    let request = json!({"subject": "203.0.113.9", "reason": "no longer needed"});
    let done = node
        .post("/api/audit/redact", &request)
        .key()
        .send()
        .await
        .is_ok();
    assert_eq!(done["entries"], json!([seq]));
    assert_eq!(
        shown(&node, seq).await,
        json!({"target": {"state": "erased"}})
    );
    node.get("/api/status")
        .from(ELSEWHERE)
        .key()
        .send()
        .await
        .is_ok();
    node.settle_log().await;
    let later = node.logged("api_key");
    assert_eq!(node.revealed(&later[later.len() - 1..]), ["203.0.113.9"]);
}

#[tokio::test]
async fn a_redaction_that_makes_no_sense_is_refused_and_not_logged() {
    let (node, seq) = with_a_stranger().await;
    for (body, status, code) in [
        (json!({"reason": "x"}), 400, "invalid_body"),
        (
            json!({"seqs": [seq], "subject": "a", "reason": "x"}),
            400,
            "invalid_body",
        ),
        (json!({"seqs": [seq], "reason": " "}), 400, "invalid_body"),
        (
            json!({"seqs": [seq], "reason": "x".repeat(201)}),
            400,
            "invalid_body",
        ),
        (json!({"seqs": [], "reason": "x"}), 400, "invalid_body"),
        (
            json!({"seqs": [seq], "reason": "x", "more": 1}),
            400,
            "invalid_body",
        ),
        (json!({"subject": "", "reason": "x"}), 400, "invalid_body"),
        (
            json!({"seqs": [1_000_000], "reason": "x"}),
            422,
            "unprocessable",
        ),
        (
            json!({"subject": "203.0.113.77", "reason": "x"}),
            422,
            "unprocessable",
        ),
    ] {
        let answer = node.post("/api/audit/redact", &body).key().send().await;
        answer.is_error(status, code);
    }
    assert!(node.logged("redact").is_empty());
    let value = json!({"target": {"state": "value", "value": "203.0.113.9"}});
    assert_eq!(shown(&node, seq).await, value);
}

#[tokio::test]
async fn the_element_that_is_no_number_is_named() {
    let node = start(KEYED).await;
    let check = async |seqs: Value, part: &str| {
        let request = json!({"seqs": seqs, "reason": "asked"});
        let answer = node.post("/api/audit/redact", &request).key().send().await;
        let body = answer.is_error(400, "invalid_body");
        let text = body["error"].as_str().expect("a text");
        assert!(text.contains(part), "{text}");
    };
    let wanted = "must be an array of whole numbers, ";
    check(json!(["8"]), &format!("{wanted}and element 0 is a text")).await;
    check(json!([1, 2, null]), "and element 2 is null").await;
    check(json!([1, -2]), "and element 1 is ").await;
    check(json!("8"), &format!("{wanted}not a text")).await;
}
