//! Spawning, listing, looking at, restarting and deleting agents.

use axum::http::Method;
use openfang_schema::AgentSummary;
use serde_json::{Value, json};

use crate::node::{KEYED, Setup, start};

const MANIFEST: &str = r#"
name = "helper"
version = "1.2.3"
description = "Helps."
module = "builtin:echo"
tags = ["demo", "test"]

[capabilities]
tools = ["system_time"]
"#;

fn manifest(text: &str) -> Value {
    json!({ "manifest_toml": text })
}

#[tokio::test]
async fn the_page_of_an_agent_with_a_model_shows_its_prompt() {
    let node = start(KEYED).await;
    let text = "name = \"poet\"\nmodule = \"builtin:chat\"\n[model]\nprovider = \"openai\"\n\
                model = \"m\"\nsystem_prompt = \"Rhyme.\"\n";
    let answer = node.post("/api/agents", &manifest(text)).key().send().await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    let detail = node.get("/api/agents/poet").send().await.is_ok();
    assert_eq!(detail["system_prompt"], "Rhyme.");
    assert_eq!(detail["model"], json!({"provider": "openai", "model": "m"}));
}

#[tokio::test]
async fn an_agent_is_spawned_listed_shown_restarted_and_deleted() {
    let node = start(KEYED).await;
    let answer = node
        .post("/api/agents", &manifest(MANIFEST))
        .key()
        .send()
        .await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    let spawned = answer.json();
    let id = spawned["agent_id"].as_str().expect("an id").to_owned();
    let here = json!({"id": node.id.to_string(), "name": "node-1"});
    assert_eq!(
        spawned,
        json!({"agent_id": id, "name": "helper", "node": here, "warnings": []})
    );
    let mut list = node.get("/api/agents").send().await.is_ok();
    for field in ["created_at", "last_active"] {
        assert!(
            list[0][field].as_str().is_some_and(|it| it.ends_with('Z')),
            "{list}"
        );
        list[0][field] = json!("T");
    }
    let expected = json!([{
        "id": id, "name": "helper", "state": "Running", "mode": "full", "ready": true,
        "is_inferencing": false, "created_at": "T", "last_active": "T",
        "model_provider": null, "model_name": null, "module": "builtin:echo",
        "description": "Helps.", "tags": ["demo", "test"], "tools": ["system_time"],
        "node": here, "local": true, "reachable": true,
    }]);
    assert_eq!(list, expected);
    let local = node.get("/api/agents?scope=local").send().await;
    let local: Vec<AgentSummary> = serde_json::from_slice(&local.bytes).expect("summaries");
    assert_eq!(local.len(), 1);
    let detail = node.get(&format!("/api/agents/{id}")).send().await.is_ok();
    assert_eq!(detail["version"], "1.2.3");
    assert_eq!(
        detail["capabilities"],
        json!({"tools": ["system_time"], "network": []})
    );
    assert_eq!(detail["session_id"], "main");
    assert_eq!(detail["system_prompt"], Value::Null, "it has no model");
    let restart = format!("/api/agents/{id}/restart");
    let restarted = node
        .request(Method::POST, &restart)
        .key()
        .send()
        .await
        .is_ok();
    assert_eq!(
        restarted,
        json!({"status": "restarted", "agent": "helper", "agent_id": id,
               "previous_state": "Running", "task_cancelled": false})
    );
    let killed = node.delete("/api/agents/helper").key().send().await.is_ok();
    assert_eq!(
        killed,
        json!({"status": "killed", "agent_id": id, "name": "helper"})
    );
    assert_eq!(node.get("/api/agents").send().await.is_ok(), json!([]));
    let gone = node.delete("/api/agents/helper").key().send().await;
    gone.is_error(404, "unknown_agent");
}

#[tokio::test]
async fn an_agent_is_found_by_id_name_and_node() {
    let node = start(KEYED).await;
    let id = node.echo("echo").await;
    let node_id = node.id.to_string();
    for reference in [
        id.clone(),
        "echo".to_owned(),
        "echo@node-1".to_owned(),
        format!("echo@{node_id}"),
        format!("{id}@node-1"),
        "echo%40node-1".to_owned(),
    ] {
        let answer = node.get(&format!("/api/agents/{reference}")).send().await;
        assert_eq!(answer.is_ok()["id"], id, "{reference}");
    }
}

#[tokio::test]
async fn what_is_not_found_is_named_with_the_place() {
    let node = start(KEYED).await;
    for path in ["/api/agents/ghost", "/api/agents/ghost/message"] {
        let ask = if path.ends_with("message") {
            node.post(path, &json!({"message": "hi"}))
        } else {
            node.get(path)
        };
        let body = ask.send().await.is_error(404, "unknown_agent");
        assert_eq!(body["looked_for"], "ghost");
        let place = body["where_looked"].as_str().expect("a place");
        assert!(place.contains("node-1"), "{place}");
    }
    let body = node.get("/api/agents/ghost@node-1").send().await;
    let body = body.is_error(404, "unknown_agent");
    assert_eq!(body["looked_for"], "ghost@node-1");
    let body = node.get("/api/agents/ghost@mars").send().await;
    assert_eq!(body.is_error(404, "unknown_node")["looked_for"], "mars");
    let body = node
        .post("/api/agents/ghost@mars/message", &json!({"message": "hi"}))
        .send()
        .await;
    body.is_error(404, "unknown_node");
    node.delete("/api/agents/ghost")
        .key()
        .send()
        .await
        .is_error(404, "unknown_agent");
    let long = format!("/api/agents/{}", "x".repeat(5000));
    node.get(&long).send().await.is_error(400, "invalid_agent");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_used_is_refused_with_the_reason() {
    let node = start(KEYED).await;
    node.echo("taken").await;
    let spawn = |text: &str| node.post("/api/agents", &manifest(text)).key();
    let body = spawn("name = \"x\"\nversion = 7\n").send().await;
    assert_eq!(body.is_error(400, "invalid_manifest")["line"], 2);
    spawn("name = ")
        .send()
        .await
        .is_error(400, "invalid_manifest");
    spawn("name = \"../x\"")
        .send()
        .await
        .is_error(400, "invalid_manifest");
    let twice = spawn("name = \"taken\"\nmodule = \"builtin:echo\"")
        .send()
        .await;
    twice.is_error(409, "duplicate_name");
    let body = spawn("name = \"x\"\nmodule = \"builtin:nothing\"")
        .send()
        .await;
    let body = body.is_error(422, "unprocessable");
    assert_eq!(body["reason"], "unknown_module");
    let body = spawn("name = \"x\"\nmodule = \"wasm:x.wasm\"").send().await;
    let body = body.is_error(422, "unprocessable");
    assert_eq!(body["reason"], "tier_missing");
}

#[tokio::test]
async fn an_unknown_key_of_a_manifest_is_a_warning_with_its_place() {
    let node = start(KEYED).await;
    let text = "name = \"x\"\nmodule = \"builtin:echo\"\ndescripton = \"typo\"\n";
    let answer = node.post("/api/agents", &manifest(text)).key().send().await;
    assert_eq!(answer.status.as_u16(), 201);
    let warnings = &answer.json()["warnings"];
    assert_eq!(warnings[0]["line"], 3, "{warnings}");
    let message = warnings[0]["message"].as_str().expect("a text");
    assert!(
        message.contains("description"),
        "the nearest key: {message}"
    );
    assert!(
        !message.contains(":3:"),
        "the place is told apart: {message}"
    );
}

#[tokio::test]
async fn spawning_and_deleting_are_logged_with_who_asked() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    node.delete("/api/agents/echo").key().send().await.is_ok();
    let users = |kind: &str| -> Vec<Option<String>> {
        node.logged(kind)
            .into_iter()
            .map(|line| line.user)
            .collect()
    };
    assert_eq!(users("agent_create"), [Some("api:key".to_owned())]);
    assert_eq!(users("agent_delete"), [Some("api:key".to_owned())]);
}

#[tokio::test]
async fn what_cannot_be_logged_is_not_done() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    node.log.as_ref().expect("a log").close().expect("closed");
    let other = "name = \"other\"\nmodule = \"builtin:echo\"\n";
    let answer = node
        .post("/api/agents", &manifest(other))
        .key()
        .send()
        .await;
    answer.is_error(503, "not_logged");
    let answer = node.delete("/api/agents/echo").key().send().await;
    answer.is_error(503, "not_logged");
    let answer = node
        .post("/api/agents/echo/message", &json!({"message": "hi"}))
        .send()
        .await;
    answer.is_error(503, "not_logged");
    let list = node.get("/api/agents").send().await.is_ok();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_node_without_a_log_does_what_it_is_asked() {
    let node = start(Setup {
        audit: false,
        ..KEYED
    })
    .await;
    node.echo("echo").await;
    let body = node.get("/api/audit/recent").send().await;
    assert_eq!(body.is_error(422, "unprocessable")["reason"], "audit_off");
    let status = node.get("/api/status").send().await.is_ok();
    assert_eq!(status["audit"]["state"], "off");
}
