//! Turns: who waits, who is cut, and what is remembered.

use std::time::Duration;

use openfang_id::AgentKey;
use openfang_kernel::{Outgoing, Principal, SendError, TurnError, TurnEvent};
use serde_json::json;

use crate::support::{
    Fake, Plan, Reply, answer, calls, chat, echo, failure, from_api, last_message, node, says,
};

#[tokio::test]
async fn an_agent_without_a_model_says_what_it_is_and_where() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    node.spawn(&echo("parrot")).await;
    let events = node.ask("parrot", "Hello there").await;
    let text = answer(&events);
    assert!(
        text.contains("without a language model") && text.contains("on node alpha"),
        "{text}"
    );
    assert!(text.ends_with("You said: Hello there"), "{text}");
    assert_eq!(events.len(), 4);
}

#[tokio::test]
async fn messages_to_one_session_are_answered_one_after_the_other() {
    let mut model = Fake::script(|_, _| Reply::Gated("done")).await;
    let mut plan = Plan::with(&model.base_url());
    plan.limits.waiting_per_agent = 1;
    let node = plan.start().await;
    let agent = node.spawn(&chat("thinker", "")).await;
    let first = node.send("thinker", "one").await.expect("runs");
    model.arrived.recv().await.expect("the first is asked");
    let second = node.send("thinker", "two").await.expect("waits");
    let third = node.send("thinker", "three").await.map(|_| ());
    assert!(
        matches!(third, Err(SendError::Busy { retry_after }) if retry_after > Duration::ZERO),
        "{third:?}"
    );
    assert!(
        node.kernel
            .find(&AgentKey::Id(agent.id))
            .expect("there")
            .busy
    );
    assert_eq!(model.requests().len(), 1);
    model.open_gate(2);
    assert_eq!(first.finish().await.expect("ends").response, "done");
    assert_eq!(second.finish().await.expect("ends").response, "done");
    let second = &model.requests()[1]["messages"];
    assert_eq!(
        (
            &second[1]["content"],
            &second[2]["content"],
            &second[3]["content"]
        ),
        (&json!("one"), &json!("done"), &json!("two"))
    );
    assert!(
        !node
            .kernel
            .find(&AgentKey::Id(agent.id))
            .expect("there")
            .busy
    );
}

#[tokio::test]
async fn sessions_are_apart_and_run_side_by_side() {
    let mut model = Fake::script(|_, _| Reply::Gated("done")).await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let in_session = |session: &str| Outgoing {
        session: Some(session.to_owned()),
        ..from_api("hi")
    };
    let to = || "thinker".parse().expect("a reference");
    let one = node
        .kernel
        .send(to(), in_session("one"))
        .await
        .expect("runs");
    let two = node
        .kernel
        .send(to(), in_session("two"))
        .await
        .expect("runs");
    model.arrived.recv().await.expect("asked");
    model
        .arrived
        .recv()
        .await
        .expect("asked, though the other is not answered");
    model.open_gate(2);
    one.finish().await.expect("ends");
    two.finish().await.expect("ends");
    assert!(
        model
            .requests()
            .iter()
            .all(|request| request["messages"].as_array().map(Vec::len) == Some(2))
    );
    let bad = node.kernel.send(to(), in_session("a\nb")).await.map(|_| ());
    assert!(matches!(bad, Err(SendError::Refused { .. })), "{bad:?}");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_turn() {
    let mut model = Fake::replies([
        Reply::Silent(says("a b")[..1].to_vec()),
        Reply::Stream(says("free")),
    ])
    .await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let mut stream = node.send("thinker", "hi").await.expect("runs");
    assert_eq!(
        stream.next().await,
        Some(TurnEvent::Chunk {
            text: "a ".to_owned()
        })
    );
    drop(stream);
    model
        .ended
        .recv()
        .await
        .expect("the connection to the model is closed");
    assert_eq!(answer(&node.ask("thinker", "again").await), "free");
    let messages = &model.requests()[1]["messages"];
    assert_eq!(
        messages.as_array().map(Vec::len),
        Some(2),
        "a cut turn leaves nothing in the session"
    );
}

#[tokio::test]
async fn a_turn_ends_at_its_deadline() {
    let model = Fake::replies([Reply::Silent(vec![])]).await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let after = Duration::from_millis(30);
    let message = Outgoing {
        deadline: Some(after),
        ..from_api("hi")
    };
    let stream = node
        .kernel
        .send("thinker".parse().expect("a reference"), message)
        .await;
    assert_eq!(
        stream.expect("runs").finish().await,
        Err(TurnError::TimedOut { after })
    );
}

#[tokio::test]
async fn killing_and_restarting_cut_running_turns() {
    let mut model = Fake::replies([Reply::Silent(vec![])]).await;
    let node = node(&model).await;
    let agent = node.spawn(&chat("thinker", "")).await;
    let user = Principal::api_key();
    let idle = node
        .kernel
        .restart(agent.id, &user)
        .await
        .expect("restarts");
    assert!(!idle.task_cancelled);

    let stream = node.send("thinker", "hi").await.expect("runs");
    model.arrived.recv().await.expect("asked");
    assert!(
        node.kernel
            .restart(agent.id, &user)
            .await
            .expect("restarts")
            .task_cancelled
    );
    assert_eq!(stream.finish().await, Err(TurnError::Cancelled));

    let stream = node.send("thinker", "hi").await.expect("runs");
    model.arrived.recv().await.expect("asked");
    node.kernel.kill(agent.id, &user).await.expect("dies");
    assert_eq!(stream.finish().await, Err(TurnError::Killed));
    let gone = node.send("thinker", "hi").await.map(|_| ());
    assert!(
        matches!(gone, Err(SendError::UnknownAgent { .. })),
        "{gone:?}"
    );
}

#[tokio::test]
async fn shutdown_lets_turns_end_and_takes_no_more() {
    let mut model = Fake::script(|_, _| Reply::Gated("in time")).await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let stream = node.send("thinker", "hi").await.expect("runs");
    model.arrived.recv().await.expect("asked");
    let kernel = node.kernel.clone();
    let shutdown = node.owner.shutdown(Duration::from_secs(60));
    tokio::pin!(shutdown);
    assert!(futures::poll!(&mut shutdown).is_pending());
    let late = kernel
        .send("thinker".parse().expect("a reference"), from_api("late"))
        .await
        .map(|_| ());
    assert_eq!(late, Err(SendError::ShuttingDown));
    model.open_gate(1);
    let (ended, ()) = tokio::join!(stream.finish(), shutdown);
    assert_eq!(ended.expect("ends").response, "in time");
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let mut model = Fake::replies([Reply::Silent(vec![])]).await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let stream = node.send("thinker", "hi").await.expect("runs");
    model.arrived.recv().await.expect("asked");
    let (ended, ()) = tokio::join!(stream.finish(), node.owner.shutdown(Duration::ZERO));
    assert_eq!(ended, Err(TurnError::ShuttingDown));
}

#[tokio::test]
async fn dropping_the_owner_ends_everything() {
    let mut model = Fake::replies([Reply::Silent(vec![])]).await;
    let node = node(&model).await;
    node.spawn(&chat("thinker", "")).await;
    let stream = node.send("thinker", "hi").await.expect("runs");
    model.arrived.recv().await.expect("asked");
    drop(node.owner);
    assert_eq!(stream.finish().await, Err(TurnError::Cut));
}

#[tokio::test]
async fn tools_work_and_memory_is_each_agents_own() {
    let model = Fake::script(|_, request| {
        let last = last_message(request);
        let text = last["content"].as_str().unwrap_or_default();
        match (last["role"].as_str(), text) {
            (Some("tool"), told) => Reply::Stream(says(told)),
            (_, "keep") => Reply::Stream(calls(
                "memory_store",
                &json!({ "key": "tea", "value": "green" }),
            )),
            (_, "which") => Reply::Stream(calls("memory_recall", &json!({ "key": "tea" }))),
            (_, "keys") => Reply::Stream(calls("memory_recall", &json!({}))),
            (_, "list") => Reply::Stream(calls("agent_list", &json!({ "query": "ALPHA-OTHER" }))),
            (_, "wrong") => Reply::Stream(calls("memory_store", &json!({ "key": 5 }))),
            _time => Reply::Stream(calls("system_time", &json!({}))),
        }
    })
    .await;
    let node = node(&model).await;
    node.spawn(&chat("keeper", "\"*\"")).await;
    node.spawn(&chat("alpha-other", "\"memory_recall\"")).await;
    assert_eq!(
        answer(&node.ask("keeper", "keep").await),
        "Stored under \"tea\"."
    );
    assert_eq!(answer(&node.ask("keeper", "which").await), "green");
    assert_eq!(answer(&node.ask("keeper", "keys").await), "[\"tea\"]");
    assert_eq!(
        answer(&node.ask("alpha-other", "which").await),
        "Nothing is stored under \"tea\"."
    );
    let listed = node.ask("keeper", "list").await;
    assert!(
        answer(&listed).contains("\"agent\":\"alpha-other@alpha\"")
            && !answer(&listed).contains("keeper"),
        "{listed:?}"
    );
    assert!(answer(&node.ask("keeper", "time").await).starts_with("20"));
    let wrong = node.ask("keeper", "wrong").await;
    assert!(
        wrong
            .iter()
            .any(|event| matches!(event, TurnEvent::ToolEnd { is_error: true, .. })),
        "{wrong:?}"
    );
    let offered = model.requests()[0]["tools"].as_array().map(Vec::len);
    assert_eq!(offered, Some(5));
}

#[tokio::test]
async fn messages_that_cannot_be_are_refused() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    node.spawn(&echo("parrot")).await;
    let large = "x".repeat(openfang_kernel::MESSAGE_BYTES_MAX + 1);
    let refused = node.send("parrot", &large).await.map(|_| ());
    assert!(
        matches!(refused, Err(SendError::TooLarge { .. })),
        "{refused:?}"
    );
    let unknown = node
        .send("nobody", "hi")
        .await
        .map(|_| ())
        .expect_err("nobody is there");
    assert_eq!(
        unknown.to_string(),
        "there is no agent nobody on this node (alpha); no other node has agents"
    );
    let nowhere = node.send("parrot@moon", "hi").await.map(|_| ());
    assert!(
        matches!(nowhere, Err(SendError::UnknownNode { .. })),
        "{nowhere:?}"
    );
    assert!(node.send("parrot@alpha", "hi").await.is_ok());
}

#[tokio::test]
async fn an_agent_without_a_key_or_a_model_fails_with_what_is_missing() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    node.spawn("name = \"keyless\"\n[model]\nprovider = \"groq\"\nmodel = \"m\"\n")
        .await;
    node.spawn("name = \"nameless\"\n[model]\nprovider = \"ollama\"\n")
        .await;
    assert_eq!(failure(&node.ask("keyless", "hi").await), "model_no_key");
    assert_eq!(failure(&node.ask("nameless", "hi").await), "model_not_set");
}
