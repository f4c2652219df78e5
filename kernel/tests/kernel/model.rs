//! Every way a model server can answer.

use openfang_kernel::{ModelLimits, TurnDone, TurnError, TurnEvent};
use std::time::Duration;

use crate::support::{
    Fake, KEY, Plan, Reply, answer, calls, chat, chunks, failure, node, quick_limits, says,
};

async fn thinker(model: &Fake) -> crate::support::Node {
    let node = node(model).await;
    node.spawn(&chat("thinker", "")).await;
    node
}

fn status(status: u16, body: &str) -> Reply {
    Reply::Status(
        status,
        vec![("content-type", "application/json")],
        body.to_owned(),
    )
}

#[tokio::test]
async fn an_answer_is_streamed_and_its_usage_counted() {
    let model = Fake::replies([Reply::Stream(says("Paris is the capital"))]).await;
    let node = thinker(&model).await;
    let events = node.ask("thinker", "What is the capital?").await;
    assert_eq!(chunks(&events), ["Paris ", "is ", "the ", "capital"]);
    let Some(TurnEvent::Done(TurnDone {
        response,
        input_tokens,
        output_tokens,
        iterations,
        cause,
        ..
    })) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!(response, "Paris is the capital");
    assert_eq!((*input_tokens, *output_tokens, *iterations), (5, 2, 1));
    assert!(
        cause
            .as_ref()
            .is_some_and(|cause| cause.ends_with("/audit/1#1")),
        "{cause:?}"
    );

    let request = &model.requests()[0];
    assert_eq!(request["model"], "test-model");
    assert_eq!(request["stream"], true);
    assert_eq!(request["stream_options"]["include_usage"], true);
    assert_eq!(request["max_tokens"], 4096);
    assert_eq!(request["messages"][0]["role"], "system");
    assert_eq!(request["messages"][1]["content"], "What is the capital?");
    assert_eq!(request.get("tools"), None);
    assert_eq!(model.headers(0)["authorization"], format!("Bearer {KEY}"));
}

#[tokio::test]
async fn each_failure_has_its_own_type_and_its_own_number_of_attempts() {
    let event = |data: &str| format!("data: {data}\n\n").into_bytes();
    let table: Vec<(Reply, &str, usize)> = vec![
        (status(401, ""), "model_unauthorized", 1),
        (status(403, ""), "model_unauthorized", 1),
        (
            status(404, r#"{"error":{"message":"no"}}"#),
            "model_not_found",
            1,
        ),
        (
            status(400, r#"{"error":{"code":"context_length_exceeded"}}"#),
            "model_context_too_long",
            1,
        ),
        (status(422, r#"{"error":"what"}"#), "model_rejected", 1),
        (status(302, ""), "model_rejected", 1),
        (status(429, ""), "model_rate_limited", 3),
        (status(500, "<html>"), "model_server_error", 3),
        (status(529, ""), "model_server_error", 3),
        (status(408, ""), "model_rejected", 3),
        (status(200, "{"), "model_bad_reply", 1),
        (status(200, "{}"), "model_bad_reply", 1),
        (
            Reply::Stream(vec![event("{not json")]),
            "model_bad_reply",
            1,
        ),
        (Reply::Stream(vec![]), "model_cut_off", 3),
        (Reply::Broken(vec![]), "model_cut_off", 3),
        (
            Reply::Stream(vec![event(r#"{"error":{"message":"boom"}}"#)]),
            "model_reported_error",
            3,
        ),
        (
            Reply::Stream(vec![event(r#"{"error":{"message":"no","code":400}}"#)]),
            "model_reported_error",
            1,
        ),
        (
            Reply::Stream(vec![b"data: [DONE]\n\n".to_vec()]),
            "model_empty_reply",
            1,
        ),
        (
            Reply::Stream(vec![vec![b'x'; 3 * 1024 * 1024]]),
            "model_reply_too_large",
            1,
        ),
    ];
    for (reply, code, attempts) in table {
        let model = Fake::replies([reply]).await;
        model.open_gate(attempts);
        let node = thinker(&model).await;
        assert_eq!(failure(&node.ask("thinker", "hi").await), code);
        assert_eq!(model.requests().len(), attempts, "{code}");
    }
}

#[tokio::test]
async fn nobody_listening_is_told_from_no_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    let node = Plan::with(&url).start().await;
    node.spawn(&chat("thinker", "")).await;
    assert_eq!(
        failure(&node.ask("thinker", "hi").await),
        "model_unreachable"
    );

    let model = Fake::replies([Reply::Stream(says("no TLS here"))]).await;
    let node = Plan::with(&model.base_url().replace("http:", "https:"))
        .start()
        .await;
    node.spawn(&chat("thinker", "")).await;
    assert_eq!(
        failure(&node.ask("thinker", "hi").await),
        "model_unreachable"
    );
    assert_eq!(model.requests().len(), 0);

    let model = Fake::replies([Reply::Silent(vec![])]).await;
    let mut plan = Plan::with(&model.base_url());
    plan.limits.model = ModelLimits {
        idle_timeout: Duration::from_millis(20),
        attempts: 2,
        ..quick_limits().model
    };
    let node = plan.start().await;
    node.spawn(&chat("thinker", "")).await;
    assert_eq!(failure(&node.ask("thinker", "hi").await), "model_idle");
    assert_eq!(model.requests().len(), 2);
}

#[tokio::test]
async fn a_request_is_repeated_only_before_the_first_piece_was_given_out() {
    let wait = Reply::Status(429, vec![("retry-after-ms", "1")], String::new());
    let model = Fake::replies([status(503, ""), wait, Reply::Stream(says("at last"))]).await;
    let node = thinker(&model).await;
    assert_eq!(answer(&node.ask("thinker", "hi").await), "at last");
    assert_eq!(model.requests().len(), 3);

    let begun = says("never again")[..1].to_vec();
    let model = Fake::replies([Reply::Broken(begun), Reply::Stream(says("again"))]).await;
    let node = thinker(&model).await;
    let mut stream = node.send("thinker", "hi").await.expect("taken");
    let first = TurnEvent::Chunk {
        text: "never ".to_owned(),
    };
    assert_eq!(stream.next().await, Some(first));
    model.open_gate(1);
    let ended = stream.finish().await.expect_err("cut off");
    assert_eq!(ended.code(), "model_cut_off");
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_asks_for_a_long_pause_is_not_waited_for() {
    let model = Fake::replies([Reply::Status(
        429,
        vec![("retry-after", "3600")],
        String::new(),
    )])
    .await;
    let node = thinker(&model).await;
    let events = node.ask("thinker", "hi").await;
    let Some(TurnEvent::Failed(TurnError::Model(error))) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(
        *error,
        openfang_kernel::ModelError::RateLimited {
            retry_after: Some(Duration::from_secs(3600))
        }
    );
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn the_way_a_stream_is_cut_into_pieces_changes_nothing() {
    let stream = says("é \u{1f600} done").concat();
    for size in [1, 2, 3, 7, stream.len()] {
        let pieces = stream.chunks(size).map(<[u8]>::to_vec).collect();
        let model = Fake::replies([Reply::Stream(pieces)]).await;
        let node = thinker(&model).await;
        assert_eq!(
            answer(&node.ask("thinker", "hi").await),
            "é \u{1f600} done",
            "pieces of {size}"
        );
    }
}

#[tokio::test]
async fn servers_that_do_it_otherwise_are_understood() {
    let whole = r#"{"choices":[{"message":{"role":"assistant","content":"whole"},"finish_reason":"stop"}]}"#;
    let unfinished: Vec<Vec<u8>> = says("no mark").into_iter().take(3).collect();
    for (reply, expected) in [
        (status(200, whole), "whole"),
        (Reply::Stream(unfinished.clone()), "no mark"),
    ] {
        let model = Fake::replies([reply]).await;
        let node = thinker(&model).await;
        assert_eq!(answer(&node.ask("thinker", "hi").await), expected);
    }
    let model = Fake::replies([Reply::Broken(unfinished)]).await;
    let node = thinker(&model).await;
    let mut stream = node.send("thinker", "hi").await.expect("taken");
    for _word in ["no", "mark"] {
        assert!(matches!(stream.next().await, Some(TurnEvent::Chunk { .. })));
    }
    model.open_gate(1);
    assert_eq!(stream.finish().await.expect("ends").response, "no mark");
}

#[tokio::test]
async fn the_key_shows_in_no_error() {
    let body = format!(r#"{{"error":{{"message":"bad key {KEY}"}}}}"#);
    for reply in [
        status(422, &body),
        Reply::Stream(vec![format!("data: {body}\n\n").into_bytes()]),
    ] {
        let model = Fake::replies([reply]).await;
        let node = thinker(&model).await;
        let events = node.ask("thinker", "hi").await;
        let Some(TurnEvent::Failed(error)) = events.last() else {
            panic!("{events:?}");
        };
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("bad key [key]") && !shown.contains("canary"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_model_that_fails_is_replaced_by_the_next() {
    let broken = Fake::replies([status(500, "")]).await;
    let sound = Fake::replies([Reply::Stream(says("from the second"))]).await;
    let node = node(&broken).await;
    node.spawn(&format!(
        "name = \"thinker\"\n[[fallback_models]]\nprovider = \"nobody\"\nmodel = \"x\"\n[[fallback_models]]\nprovider = \"local\"\nmodel = \"second\"\nbase_url = \"{}\"\n",
        sound.base_url()
    ))
    .await;
    assert_eq!(answer(&node.ask("thinker", "hi").await), "from the second");
    assert_eq!(broken.requests().len(), 3);
    assert_eq!(sound.requests()[0]["model"], "second");
    assert_eq!(sound.headers(0).get("authorization"), None);
}

#[tokio::test]
async fn limits_of_the_manifest_are_in_force() {
    let model = Fake::script(|_, _| Reply::Stream(says("seven tokens"))).await;
    let node = node(&model).await;
    node.spawn("name = \"frugal\"\n[resources]\nmax_llm_tokens_per_hour = 10\n")
        .await;
    assert_eq!(answer(&node.ask("frugal", "one").await), "seven tokens");
    assert_eq!(answer(&node.ask("frugal", "two").await), "seven tokens");
    assert_eq!(failure(&node.ask("frugal", "three").await), "over_limit");
    assert_eq!(model.requests().len(), 2);

    let model =
        Fake::script(|_, _| Reply::Stream(calls("system_time", &serde_json::json!({})))).await;
    let node = crate::support::node(&model).await;
    node.spawn("name = \"busy\"\n[resources]\nmax_tool_calls_per_minute = 3\n[capabilities]\ntools = [\"system_time\"]\n").await;
    assert_eq!(failure(&node.ask("busy", "go").await), "over_limit");
    assert_eq!(model.requests().len(), 4);
    node.spawn("name = \"endless\"\n[autonomous]\nmax_iterations = 2\n[capabilities]\ntools = [\"system_time\"]\n").await;
    assert_eq!(failure(&node.ask("endless", "go").await), "iteration_limit");
    assert_eq!(model.requests().len(), 6);
}
