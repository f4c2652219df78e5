//! Agents of two kernels, joined in memory.

use std::sync::Arc;

use openfang_audit::Kind;
use openfang_id::{AgentKey, AgentName};
use openfang_kernel::{Delivery, Looked, Outgoing, Principal, SendError, TurnEvent};
use serde_json::json;

use crate::support::{
    Fake, Node, Plan, Port, Reply, Wire, answer, calls, chat, echo, from_api, last_message, says,
};

struct Pair {
    a: Node,
    b: Node,
    port_a: Arc<Port>,
    port_b: Arc<Port>,
}

async fn pair(model: &Fake) -> Pair {
    pair_of(model, ["alpha", "beta"]).await
}

async fn pair_of(model: &Fake, [one, other]: [&str; 2]) -> Pair {
    let wire = Wire::new();
    let start = async |name: &str| {
        let port = wire.node(name);
        let node = Plan {
            neighbours: port.clone(),
            ..Plan::with(&model.base_url())
        }
        .start()
        .await;
        port.connect(&node.kernel);
        (node, port)
    };
    let (a, port_a) = start(one).await;
    let (b, port_b) = start(other).await;
    Pair {
        a,
        b,
        port_a,
        port_b,
    }
}

/// A model that passes what it is asked on to an agent, and repeats its answer.
async fn courier(to: &'static str) -> Fake {
    Fake::script(move |_, request| {
        let last = last_message(request);
        let text = last["content"].as_str().unwrap_or_default();
        match last["role"].as_str() {
            Some("tool") => Reply::Stream(says(text)),
            _other => Reply::Stream(calls(
                "agent_send",
                &json!({ "agent": to, "message": text }),
            )),
        }
    })
    .await
}

#[tokio::test]
async fn a_message_finds_its_agent_on_the_other_node() {
    let model = Fake::replies([Reply::Stream(says("no"))]).await;
    let Pair { a, b, port_b, .. } = pair(&model).await;
    b.spawn(&echo("scribe")).await;
    for to in ["scribe", "scribe@beta"] {
        let events = a.ask(to, "hello").await;
        assert!(answer(&events).contains("on node beta"), "{events:?}");
        let Some(TurnEvent::Done(done)) = events.last() else {
            panic!()
        };
        assert_eq!(done.node_id, port_b.id());
    }
    let out = a.log.text(Kind::MessageOut);
    assert_eq!(
        out.len(),
        4,
        "one when it leaves, one when its answer is there: {out:?}"
    );
    assert!(
        out[0].contains("api:key") && out[1].contains("#1\""),
        "{out:?}"
    );
    let arrived = b.log.text(Kind::MessageIn);
    assert!(
        arrived[0].contains("node:12D3") && arrived[0].contains("/audit/1#0\""),
        "{arrived:?}"
    );
    let listed = a.kernel.directory();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].local.is_none() && listed[0].node_name.as_str() == "beta");
}

#[tokio::test]
async fn an_agent_calls_another_on_another_node() {
    let model = courier("scribe@beta").await;
    let Pair { a, b, .. } = pair(&model).await;
    let sender = a.spawn(&chat("courier", "\"agent_send\"")).await;
    b.spawn(&echo("scribe")).await;
    let events = a.ask("courier", "Say hello").await;
    let text = answer(&events);
    assert!(
        text.contains("on node beta") && text.ends_with("You said: [from courier]\nSay hello"),
        "{text}"
    );
    let arrived = b.log.text(Kind::MessageIn);
    assert!(
        arrived[0].contains(&format!("agent:{}@12D3", sender.id)),
        "{arrived:?}"
    );
    let kinds = a.log.kinds();
    let expected = [
        Kind::ToolInvoke,
        Kind::MessageOut,
        Kind::MessageOut,
        Kind::ToolInvoke,
    ];
    let at = kinds
        .iter()
        .position(|kind| *kind == Kind::ToolInvoke)
        .expect("a tool ran");
    assert_eq!(kinds[at..at + 4], expected);
}

#[tokio::test]
async fn a_circle_of_agents_ends() {
    let model = courier("loop@alpha").await;
    let Pair { a, .. } = pair(&model).await;
    a.spawn(&chat("loop", "\"agent_send\"")).await;
    let events = a.ask("loop", "round").await;
    assert!(
        answer(&events).contains("the call came through 9 agents"),
        "{events:?}"
    );
    assert_eq!(a.log.text(Kind::ToolInvoke).len(), 18);

    let model = Fake::script(|_, request| {
        let last = last_message(request);
        let text = last["content"].as_str().unwrap_or_default();
        let to = if request["messages"][0]["content"] == "ping" {
            "pong"
        } else {
            "ping"
        };
        match last["role"].as_str() {
            Some("tool") => Reply::Stream(says(text)),
            _other => Reply::Stream(calls("agent_send", &json!({ "agent": to, "message": "x" }))),
        }
    })
    .await;
    let Pair { a, b, .. } = pair(&model).await;
    let speaker = |name: &str| {
        format!(
            "name = \"{name}\"\n[model]\nsystem_prompt = \"{name}\"\n[capabilities]\ntools = [\"agent_send\"]\n"
        )
    };
    a.spawn(&speaker("ping")).await;
    b.spawn(&speaker("pong")).await;
    let events = a.ask("ping", "begin").await;
    assert!(
        answer(&events).contains("the call came through 9 agents"),
        "{events:?}"
    );
}

#[tokio::test]
async fn grants_bound_whom_an_agent_may_send_to() {
    let model = courier("scribe").await;
    let Pair { a, b, .. } = pair(&model).await;
    b.spawn(&echo("scribe")).await;
    let grants = [
        ("closed", "agent_message = []", "refused: agent_message"),
        (
            "other",
            "agent_message = [\"clerk\"]",
            "refused: agent_message",
        ),
        ("home", "ofp_connect = []", "refused: ofp_connect"),
        (
            "open",
            "agent_message = [\"scribe@*\"]\nofp_connect = [\"beta\"]",
            "I am scribe",
        ),
    ];
    for (name, grant, expected) in grants {
        a.spawn(&format!("{}{grant}\n", chat(name, "\"agent_send\"")))
            .await;
        let events = a.ask(name, "hi").await;
        assert!(answer(&events).starts_with(expected), "{name}: {events:?}");
    }
    assert_eq!(
        b.log.text(Kind::MessageIn).len(),
        2,
        "one message and its end"
    );
}

#[tokio::test]
async fn failures_on_the_way_are_told_apart() {
    let model = Fake::replies([Reply::Stream(says("no"))]).await;
    let Pair {
        a,
        b,
        port_b,
        port_a,
    } = pair(&model).await;
    b.spawn(&echo("scribe")).await;
    let unknown = a
        .send("nobody@beta", "hi")
        .await
        .map(|_| ())
        .expect_err("unknown");
    let SendError::UnknownAgent {
        where_looked: Looked::Here(name),
        ..
    } = unknown
    else {
        panic!("{unknown:?}");
    };
    assert_eq!(name.as_str(), "beta", "the node itself has the last word");
    b.log.refuse(Kind::MessageIn);
    let refused = a.send("scribe", "hi").await.map(|_| ());
    assert!(
        matches!(refused, Err(SendError::NotLogged(_))),
        "{refused:?}"
    );
    assert!(
        a.log
            .text(Kind::MessageOut)
            .last()
            .is_some_and(|last| last.contains("failed: not_logged"))
    );
    port_b.unplug();
    for to in ["scribe", "scribe@beta"] {
        let gone = a.send(to, "hi").await.map(|_| ());
        assert!(
            matches!(gone, Err(SendError::Unreachable { node, .. }) if node == port_b.id()),
            "{gone:?}"
        );
    }
    let before = a.log.kinds().len();
    a.log.refuse(Kind::MessageOut);
    let wire_is_silent = a
        .send(&format!("scribe@{}", port_a.id()), "hi")
        .await
        .map(|_| ());
    assert!(
        matches!(wire_is_silent, Err(SendError::UnknownAgent { .. })),
        "{wire_is_silent:?}"
    );
    assert_eq!(a.log.kinds().len(), before);
}

#[tokio::test]
async fn a_message_that_cannot_be_logged_does_not_leave() {
    let model = Fake::replies([Reply::Stream(says("no"))]).await;
    let Pair { a, b, .. } = pair(&model).await;
    b.spawn(&echo("scribe")).await;
    a.log.refuse(Kind::MessageOut);
    let refused = a.send("scribe", "hi").await.map(|_| ());
    assert!(
        matches!(refused, Err(SendError::NotLogged(_))),
        "{refused:?}"
    );
    assert_eq!(b.log.text(Kind::MessageIn).len(), 0);
}

#[tokio::test]
async fn an_agent_can_be_impersonated_by_no_other_node() {
    let model = Fake::replies([Reply::Stream(says("no"))]).await;
    let Pair {
        a,
        b,
        port_a,
        port_b,
    } = pair(&model).await;
    let scribe = b.spawn(&echo("scribe")).await;
    let delivery = |principal| Delivery {
        call_id: [1; 16],
        from: Some(port_a.id()),
        agent: AgentKey::Name(AgentName::clone(&scribe.name)),
        message: "hi".to_owned(),
        principal,
        path: Vec::new(),
        deadline: std::time::Duration::from_secs(5),
        cause: Some("not a cause".to_owned()),
        sender: None,
        session: None,
    };
    let forged = b
        .kernel
        .deliver(delivery(Principal::agent(scribe.id, port_b.id())))
        .await
        .map(|_| ());
    assert!(
        matches!(forged, Err(SendError::Refused { .. })),
        "{forged:?}"
    );
    let honest = b
        .kernel
        .deliver(delivery(Principal::agent(scribe.id, port_a.id())))
        .await;
    assert!(honest.expect("taken").finish().await.is_ok());
    let deep = Delivery {
        path: vec![(port_a.id(), scribe.id); 9],
        ..delivery(Principal::api_key())
    };
    let deep = b.kernel.deliver(deep).await.map(|_| ());
    assert_eq!(deep, Err(SendError::TooDeep { depth: 9 }));
    let outgoing = Outgoing {
        path: vec![(port_a.id(), scribe.id); 9],
        ..from_api("hi")
    };
    let deep = a
        .kernel
        .send("scribe".parse().expect("a reference"), outgoing)
        .await
        .map(|_| ());
    assert_eq!(deep, Err(SendError::TooDeep { depth: 9 }));
}

#[tokio::test]
async fn callers_of_another_node_have_conversations_of_their_own() {
    let model = Fake::script(|_, _| Reply::Stream(says("noted"))).await;
    let Pair { b, port_a, .. } = pair(&model).await;
    let secretary = b.spawn(&chat("secretary", "")).await;
    b.send("secretary", "my number is 4711")
        .await
        .expect("taken")
        .finish()
        .await
        .expect("answered");
    let from_afar = |session: Option<&str>, principal| Delivery {
        call_id: [7; 16],
        from: Some(port_a.id()),
        agent: AgentKey::Id(secretary.id),
        message: "what was said before?".to_owned(),
        principal,
        path: Vec::new(),
        deadline: std::time::Duration::from_secs(5),
        cause: None,
        sender: None,
        session: session.map(str::to_owned),
    };
    let agent = Principal::agent(secretary.id, port_a.id());
    for (session, principal) in [
        (None, Principal::api_key()),
        (Some("main"), Principal::api_key()),
        (Some("main"), agent),
    ] {
        let turn = b.kernel.deliver(from_afar(session, principal)).await;
        turn.expect("taken").finish().await.expect("answered");
        let asked = model.requests().pop().expect("asked").to_string();
        assert!(!asked.contains("4711"), "{session:?}: {asked}");
    }
    for forged in ["node:x/main", "agent:x", "a/b", ""] {
        let delivery = from_afar(Some(forged), Principal::api_key());
        let refused = b.kernel.deliver(delivery).await.map(|_| ());
        assert!(
            matches!(refused, Err(SendError::Refused { .. })),
            "{forged}"
        );
    }
    let logged = b.log.text(Kind::MessageIn);
    let claimed = format!("api:key@{}", port_a.id());
    assert!(
        logged.iter().any(|line| line.contains(&claimed)),
        "who another node says it speaks for is not taken for known: {logged:?}"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_turn_on_the_other_node() {
    let mut model = Fake::replies([Reply::Silent(vec![])]).await;
    let Pair { a, b, .. } = pair(&model).await;
    b.spawn(&chat("slow", "")).await;
    let stream = a.send("slow", "hi").await.expect("taken");
    model.arrived.recv().await.expect("asked");
    drop(stream);
    model.ended.recv().await.expect("cut");
    assert!(
        a.log
            .text(Kind::MessageOut)
            .last()
            .is_some_and(|last| last.contains("failed: cancelled"))
    );
}

#[tokio::test]
async fn nodes_of_one_name_are_told_apart_by_their_ids() {
    let model = courier("scribe@twin").await;
    let Pair { a, b, port_b, .. } = pair_of(&model, ["twin", "twin"]).await;
    b.spawn(&echo("scribe")).await;
    a.spawn(&chat("courier", "\"agent_send\"")).await;
    let exact = format!("scribe@{}", port_b.id());
    for node in [&a, &b] {
        let refused = node.send("scribe@twin", "hi").await.map(|_| ());
        let refused = refused.expect_err("not guessed");
        assert_eq!(refused.code(), "ambiguous_node");
        assert!(refused.candidates().contains(&exact), "{refused:?}");
    }
    let events = a.ask("courier", "hello").await;
    let told = answer(&events);
    assert!(told.contains(&exact), "the model can write it: {told}");
    let events = a.ask(&exact, "hello").await;
    let answered = answer(&events);
    assert!(answered.contains("hello"), "{answered}");
}

#[tokio::test]
async fn a_model_is_told_agents_as_it_can_send_to_them() {
    let model = Fake::script(|_, request| {
        let last = last_message(request);
        let text = last["content"].as_str().unwrap_or_default();
        match last["role"].as_str() {
            Some("tool") => Reply::Stream(says(text)),
            _other => Reply::Stream(calls("agent_list", &json!({}))),
        }
    })
    .await;
    for (names, by_name) in [(["twin", "twin"], false), (["alpha", "beta"], true)] {
        let Pair { a, b, port_b, .. } = pair_of(&model, names).await;
        b.spawn(&echo("scribe")).await;
        a.spawn(&chat("lister", "\"agent_list\"")).await;
        let events = a.ask("lister", "who is there?").await;
        let told = answer(&events);
        let exact = if by_name {
            "scribe@beta".to_owned()
        } else {
            format!("scribe@{}", port_b.id())
        };
        assert!(told.contains(&format!("\"{exact}\"")), "{told}");
    }
}
