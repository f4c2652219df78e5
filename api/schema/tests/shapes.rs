//! The bodies as they are on the wire. A change here is a change of the protocol.

use std::fmt::Debug;

use openfang_schema::{
    AgentDetail, AgentState, AgentSummary, AuditVerify, Capabilities, Chunk, Done, ErrorBody,
    ErrorCode, Health, HealthStatus, JoinRequest, Liveness, MessageReply, MessageRequest, ModelRef,
    NetworkState, NetworkStatus, NodeRef, Peer, PeerAgent, PeerAudit, PeerAuditState, PeerState,
    PeersReply, SecretText, SpawnRequest, Transport, Usage, path, ws,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &Value) {
    let wire = serde_json::to_value(value).expect("a body is JSON");
    assert_eq!(&wire, expected);
    let back: T = serde_json::from_value(wire).expect("a body reads back");
    assert_eq!(&back, value);
}

fn node() -> NodeRef {
    NodeRef {
        id: "12D3KooWX".to_owned(),
        name: "north".to_owned(),
    }
}

fn reply() -> MessageReply {
    MessageReply {
        response: "hello".to_owned(),
        input_tokens: 3,
        output_tokens: 5,
        iterations: 1,
        cost_usd: None,
        agent_id: "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(),
        agent_name: "echo".to_owned(),
        node: node(),
        audit: Some("n-00.openfang.mesh/audit/0#7".to_owned()),
    }
}

fn summary() -> AgentSummary {
    AgentSummary {
        id: "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned(),
        name: "echo".to_owned(),
        state: AgentState::Running,
        mode: Some("full".to_owned()),
        ready: true,
        is_inferencing: Some(false),
        created_at: Some("2026-01-02T03:04:05Z".to_owned()),
        last_active: None,
        model_provider: None,
        model_name: None,
        module: "builtin:echo".to_owned(),
        description: "answers".to_owned(),
        tags: vec!["demo".to_owned()],
        tools: vec![],
        node: node(),
        local: true,
        reachable: true,
    }
}

fn summary_json() -> Value {
    json!({
        "id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "name": "echo", "state": "Running",
        "mode": "full", "ready": true, "is_inferencing": false, "created_at": "2026-01-02T03:04:05Z",
        "last_active": null, "model_provider": null, "model_name": null,
        "module": "builtin:echo", "description": "answers", "tags": ["demo"], "tools": [],
        "node": {"id": "12D3KooWX", "name": "north"}, "local": true, "reachable": true
    })
}

#[test]
fn health_says_two_things() {
    check(
        &Health {
            status: HealthStatus::Ok,
            version: "0.1.0".to_owned(),
        },
        &json!({"status": "ok", "version": "0.1.0"}),
    );
}

#[test]
fn an_agent_carries_its_node() {
    check(&summary(), &summary_json());
    let mut expected = summary_json();
    let more = json!({
        "session_id": "s", "model": {"provider": "p", "model": "m"},
        "capabilities": {"tools": ["agent_send"], "network": []},
        "system_prompt": null, "version": "0.1.0"
    });
    for (key, value) in more.as_object().expect("an object") {
        expected[key] = value.clone();
    }
    check(
        &AgentDetail {
            summary: summary(),
            session_id: Some("s".to_owned()),
            model: Some(ModelRef {
                provider: "p".to_owned(),
                model: "m".to_owned(),
            }),
            capabilities: Some(Capabilities {
                tools: vec!["agent_send".to_owned()],
                network: vec![],
            }),
            system_prompt: None,
            version: Some("0.1.0".to_owned()),
        },
        &expected,
    );
}

#[test]
fn a_state_of_a_newer_version_is_unknown() {
    let state: AgentState = serde_json::from_value(json!("Dreaming")).expect("any state");
    assert_eq!(state, AgentState::Unknown);
    for state in [
        AgentState::Created,
        AgentState::Running,
        AgentState::Suspended,
        AgentState::Terminated,
        AgentState::Crashed,
    ] {
        check(&state, &json!(state.as_str()));
    }
}

#[test]
fn messages_have_the_documented_fields() {
    check(
        &MessageRequest {
            message: "hi".to_owned(),
            ..MessageRequest::default()
        },
        &json!({"message": "hi"}),
    );
    let expected = json!({
        "response": "hello", "input_tokens": 3, "output_tokens": 5, "iterations": 1,
        "agent_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "agent_name": "echo",
        "node": {"id": "12D3KooWX", "name": "north"},
        "audit": "n-00.openfang.mesh/audit/0#7"
    });
    check(&reply(), &expected);
    let mut done = expected;
    done["done"] = json!(true);
    done["usage"] = json!({"input_tokens": 3, "output_tokens": 5});
    check(
        &Done {
            done: true,
            usage: Usage {
                input_tokens: 3,
                output_tokens: 5,
            },
            reply: reply(),
        },
        &done,
    );
    check(
        &Chunk {
            content: "he".to_owned(),
            done: false,
        },
        &json!({"content": "he", "done": false}),
    );
}

#[test]
fn a_request_with_an_unknown_field_is_not_read() {
    for text in [
        r#"{"message":"hi","attachments":[]}"#,
        r#"{"massage":"hi"}"#,
        r"{}",
    ] {
        assert!(
            serde_json::from_str::<MessageRequest>(text).is_err(),
            "{text}"
        );
    }
    assert!(
        serde_json::from_str::<SpawnRequest>(r#"{"manifest_toml":"","template":"x"}"#).is_err()
    );
}

#[test]
fn every_error_code_round_trips_and_an_unknown_one_is_read() {
    for code in ErrorCode::ALL {
        check(code, &json!(code.as_str()));
    }
    let code: ErrorCode = serde_json::from_value(json!("of_tomorrow")).expect("any code");
    assert_eq!(code, ErrorCode::Unknown);
    let texts: std::collections::BTreeSet<_> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
    assert_eq!(texts.len(), ErrorCode::ALL.len(), "no text stands twice");
}

#[test]
fn an_error_leaves_out_what_it_does_not_know() {
    check(
        &ErrorBody::new(ErrorCode::Internal, "Something failed."),
        &json!({"error": "Something failed.", "code": "internal"}),
    );
    check(
        &ErrorBody {
            looked_for: Some("x@y".to_owned()),
            where_looked: Some("this node and 2 others".to_owned()),
            retry_after_ms: Some(1500),
            node: Some(node()),
            ..ErrorBody::new(ErrorCode::UnknownAgent, "No such agent.")
        },
        &json!({
            "error": "No such agent.", "code": "unknown_agent", "looked_for": "x@y",
            "where_looked": "this node and 2 others", "retry_after_ms": 1500,
            "node": {"id": "12D3KooWX", "name": "north"}
        }),
    );
}

#[test]
fn peers_have_the_documented_fields_and_more() {
    let peer = Peer {
        node_id: "12D3KooWX".to_owned(),
        node_name: "north".to_owned(),
        address: "/ip4/10.0.0.7/tcp/4200".to_owned(),
        addresses: vec!["/ip4/10.0.0.7/tcp/4200".to_owned()],
        state: PeerState::Connected,
        liveness: Liveness::Alive,
        agents: vec![PeerAgent {
            id: "i".to_owned(),
            name: "echo".to_owned(),
        }],
        connected_at: None,
        last_seen: None,
        protocol_version: 1,
        version: "0.1.0".to_owned(),
        transport: Some(Transport::Quic),
        rtt_ms: Some(0.5),
        authenticated: true,
        audit: PeerAudit {
            size: 4,
            root: Some("00".to_owned()),
            state: PeerAuditState::Inconsistent,
            reason: Some("two roots for size 4".to_owned()),
        },
    };
    check(
        &PeersReply {
            peers: vec![peer],
            total: 1,
        },
        &json!({"total": 1, "peers": [{
            "node_id": "12D3KooWX", "node_name": "north",
            "address": "/ip4/10.0.0.7/tcp/4200", "addresses": ["/ip4/10.0.0.7/tcp/4200"],
            "state": "Connected", "liveness": "alive",
            "agents": [{"id": "i", "name": "echo"}], "connected_at": null, "last_seen": null,
            "protocol_version": 1, "version": "0.1.0", "transport": "quic", "rtt_ms": 0.5,
            "authenticated": true,
            "audit": {"size": 4, "root": "00", "state": "inconsistent",
                      "reason": "two roots for size 4"}
        }]}),
    );
    check(
        &NetworkStatus {
            enabled: false,
            state: NetworkState::Asleep,
            node_id: "12D3KooWX".to_owned(),
            node_name: "north".to_owned(),
            listen_address: String::new(),
            listen_addresses: vec![],
            connected_peers: 0,
            total_peers: 0,
            hint: Some("Run openfang keygen --network.".to_owned()),
        },
        &json!({
            "enabled": false, "state": "asleep", "node_id": "12D3KooWX", "node_name": "north",
            "listen_address": "", "listen_addresses": [], "connected_peers": 0,
            "total_peers": 0, "hint": "Run openfang keygen --network."
        }),
    );
}

#[test]
fn secrets_are_sent_and_not_shown() {
    let request = JoinRequest {
        secret: Some(SecretText::new("do-not-show-this".to_owned())),
        ..JoinRequest::default()
    };
    check(&request, &json!({"secret": "do-not-show-this"}));
    assert!(!format!("{request:?}").contains("do-not-show"));
}

#[test]
fn a_failed_verification_names_the_entry() {
    check(
        &AuditVerify {
            valid: false,
            entries: 9,
            unsigned_entries: 0,
            tip_hash: String::new(),
            first_bad_seq: Some(4),
            kind: Some("altered".to_owned()),
            error: Some("Entry 4 is not what was written.".to_owned()),
        },
        &json!({
            "valid": false, "entries": 9, "unsigned_entries": 0, "tip_hash": "", "first_bad_seq": 4,
            "kind": "altered", "error": "Entry 4 is not what was written."
        }),
    );
}

#[test]
fn web_socket_messages_are_tagged_by_type() {
    check(&ws::ClientMessage::Ping {}, &json!({"type": "ping"}));
    check(
        &ws::ClientMessage::Message {
            content: "hi".to_owned(),
        },
        &json!({"type": "message", "content": "hi"}),
    );
    check(&ws::ServerMessage::Pong, &json!({"type": "pong"}));
    check(
        &ws::ServerMessage::Typing {
            state: ws::Typing::Tool,
            tool: Some("agent_send".to_owned()),
        },
        &json!({"type": "typing", "state": "tool", "tool": "agent_send"}),
    );
    check(
        &ws::ServerMessage::TextDelta {
            content: "h".to_owned(),
        },
        &json!({"type": "text_delta", "content": "h"}),
    );
    check(
        &ws::ServerMessage::Error {
            content: "No.".to_owned(),
            code: ErrorCode::RateLimited,
            details: Box::new(ErrorBody::new(ErrorCode::RateLimited, "No.")),
        },
        &json!({"type": "error", "content": "No.", "code": "rate_limited",
                "details": {"error": "No.", "code": "rate_limited"}}),
    );
}

#[test]
fn a_path_is_a_template_with_the_agent_filled_in() {
    assert_eq!(
        path::of_agent(path::MESSAGE, "echo@north"),
        "/api/agents/echo@north/message"
    );
}
