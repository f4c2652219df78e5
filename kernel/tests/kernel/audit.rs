//! The audit log: what is in it, in which order, and that nothing happens that cannot be.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openfang_audit::{AppendError, Cause, Clock, Kind, Log, Options};
use openfang_id::{AgentRef, NodeSeed};
use openfang_kernel::{
    AuditError, Auditor, Kernel, KillError, Principal, SendError, SpawnError, TurnEvent,
};
use serde_json::json;

use crate::support::{
    Fake, Plan, Recorder, Reply, Wire, answer, calls, chat, echo, failure, from_api, last_message,
    manifest, node, quick_limits, says,
};

/// A model that calls one tool and then repeats what it was told.
async fn caller(tool: &'static str, arguments: serde_json::Value) -> Fake {
    Fake::script(move |_, request| {
        let last = last_message(request);
        match last["role"].as_str() {
            Some("tool") => Reply::Stream(says(last["content"].as_str().unwrap_or_default())),
            _other => Reply::Stream(calls(tool, &arguments)),
        }
    })
    .await
}

#[tokio::test]
async fn everything_an_agent_does_is_logged_before_it_is_done() {
    let model = caller("system_time", json!({})).await;
    let node = node(&model).await;
    let agent = node.spawn(&chat("clock", "\"system_time\"")).await;
    node.ask("clock", "canary-question").await;
    node.kernel
        .kill(agent.id, &Principal::cli())
        .await
        .expect("dies");
    let expected = [
        Kind::AgentCreate,
        Kind::MessageIn,
        Kind::ModelCall,
        Kind::ModelCall,
        Kind::ToolInvoke,
        Kind::ToolInvoke,
        Kind::ModelCall,
        Kind::ModelCall,
        Kind::MessageIn,
        Kind::AgentDelete,
    ];
    assert_eq!(node.log.kinds(), expected);
    let models = node.log.text(Kind::ModelCall);
    assert!(
        models[0].contains("custom/test-model") && models[0].contains("#1\""),
        "{models:?}"
    );
    assert!(
        models[1].contains("#2\"") && models[1].contains("duration_us: Some("),
        "{models:?}"
    );
    let all: String = Kind::ALL
        .iter()
        .flat_map(|kind| node.log.text(*kind))
        .collect();
    assert!(
        !all.contains("canary"),
        "neither prompts nor keys are logged: {all}"
    );
}

#[tokio::test]
async fn a_tool_that_is_not_granted_is_refused_and_logged() {
    let model = caller("memory_store", json!({ "key": "k", "value": "v" })).await;
    let node = node(&model).await;
    node.spawn(&chat("plain", "")).await;
    let events = node.ask("plain", "hi").await;
    assert!(answer(&events).starts_with("Refused:"), "{events:?}");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, TurnEvent::ToolEnd { is_error: true, .. }))
    );
    let denied = node.log.text(Kind::CapDenied);
    assert!(
        denied.len() == 1 && denied[0].contains("memory_store"),
        "{denied:?}"
    );
    assert_eq!(node.log.text(Kind::ToolInvoke).len(), 0);
}

#[tokio::test]
async fn a_narrower_grant_is_refused_and_logged() {
    let model = caller("memory_store", json!({ "key": "secret", "value": "v" })).await;
    let node = node(&model).await;
    node.spawn(
        "name = \"n\"\n[capabilities]\ntools = [\"memory_store\"]\nmemory_write = [\"public*\"]\n",
    )
    .await;
    let events = node.ask("n", "hi").await;
    assert_eq!(
        answer(&events),
        "refused: memory_write does not grant this key"
    );
    assert!(node.log.text(Kind::ToolInvoke)[1].contains("denied: memory_write"));
}

#[tokio::test]
async fn what_cannot_be_logged_is_not_done() {
    let model = caller("memory_store", json!({ "key": "k", "value": "v" })).await;
    let node = node(&model).await;
    let agent = node.spawn(&chat("keeper", "\"memory_*\"")).await;

    node.log.refuse(Kind::ToolInvoke);
    assert_eq!(failure(&node.ask("keeper", "hi").await), "not_logged");
    assert_eq!(model.requests().len(), 1);

    node.log.refuse(Kind::ModelCall);
    assert_eq!(failure(&node.ask("keeper", "hi").await), "not_logged");
    assert_eq!(model.requests().len(), 1);

    node.log.refuse(Kind::MessageIn);
    let refused = node.send("keeper", "hi").await.map(|_| ());
    assert!(
        matches!(refused, Err(SendError::NotLogged(_))),
        "{refused:?}"
    );

    node.log.refuse(Kind::AgentCreate);
    let refused = node
        .kernel
        .spawn(manifest(&echo("other")), &Principal::cli())
        .await;
    assert!(
        matches!(refused, Err(SpawnError::NotLogged(_))),
        "{refused:?}"
    );

    node.log.refuse(Kind::AgentDelete);
    let refused = node.kernel.kill(agent.id, &Principal::cli()).await;
    assert!(
        matches!(refused, Err(KillError::NotLogged(_))),
        "{refused:?}"
    );

    node.log.refuse(Kind::ConfigChange);
    let refused = node.kernel.restart(agent.id, &Principal::cli()).await;
    assert!(
        matches!(refused, Err(KillError::NotLogged(_))),
        "{refused:?}"
    );

    let (home, _) = node.stop().await;
    let node = Plan::with(&model.base_url())
        .start_in(home, Recorder::new())
        .await;
    let list = node.kernel.list();
    assert_eq!(list.len(), 1, "neither spawned nor killed");
    let database =
        rusqlite::Connection::open(node.home.path().join("data/openfang.db")).expect("opens");
    let keys: i64 = database
        .query_row("SELECT count(*) FROM memory", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(keys, 0, "the tool did not run");
}

#[tokio::test]
async fn a_change_is_made_although_its_caller_went_away() {
    let model = Fake::script(|_, _| Reply::Stream(says("hi"))).await;
    let node = node(&model).await;
    let left = async |change: futures::future::BoxFuture<'_, ()>, settled: &dyn Fn() -> bool| {
        node.log.keep_waiting();
        let mut change = change;
        let written = node.log.kinds().len();
        while node.log.kinds().len() == written {
            assert!(futures::poll!(&mut change).is_pending());
            tokio::task::yield_now().await;
        }
        drop(change);
        node.log.answer();
        let done = async {
            while !settled() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), done)
            .await
            .expect("the change is made");
    };
    let cli = Principal::cli();
    let spawn = node.kernel.spawn(manifest(&echo("parrot")), &cli);
    let is_there = || node.kernel.list().len() == 1;
    left(Box::pin(async { drop(spawn.await) }), &is_there).await;
    let id = node.kernel.list()[0].id;
    let kill = node.kernel.kill(id, &cli);
    let is_gone = || node.kernel.list().is_empty();
    left(Box::pin(async { drop(kill.await) }), &is_gone).await;
    assert_eq!(
        node.log.kinds(),
        [Kind::AgentCreate, Kind::AgentDelete],
        "and the log says that it was"
    );
}

#[tokio::test]
async fn a_change_that_is_cut_with_the_node_is_told_not_to_be_made() {
    let model = Fake::script(|_, _| Reply::Stream(says("hi"))).await;
    let node = node(&model).await;
    let log = node.log.clone();
    log.keep_waiting();
    let kernel = node.kernel.clone();
    let cli = Principal::cli();
    let mut spawn = Box::pin(kernel.spawn(manifest(&echo("parrot")), &cli));
    while log.kinds().is_empty() {
        assert!(futures::poll!(&mut spawn).is_pending());
        tokio::task::yield_now().await;
    }
    node.owner.shutdown(Duration::ZERO).await;
    assert_eq!(spawn.await.map(drop), Err(SpawnError::ShuttingDown));
    log.answer();
    let texts = log.text(Kind::AgentCreate);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[1].contains("failed: interrupted"), "{texts:?}");
    let late = kernel.spawn(manifest(&echo("late")), &cli).await;
    assert_eq!(late.map(drop), Err(SpawnError::ShuttingDown));
    assert_eq!(log.kinds().len(), 2, "nothing is announced any more");
}

#[tokio::test]
async fn a_denial_that_cannot_be_logged_ends_the_turn() {
    let model = caller("memory_store", json!({ "key": "k", "value": "v" })).await;
    let node = node(&model).await;
    node.spawn(&chat("plain", "")).await;
    node.log.refuse(Kind::CapDenied);
    assert_eq!(failure(&node.ask("plain", "hi").await), "not_logged");
}

struct Frozen;

impl Clock for Frozen {
    fn unix_micros(&self) -> u64 {
        1_795_294_798_000_000
    }

    fn monotonic_micros(&self) -> u64 {
        0
    }
}

fn open_log(home: &std::path::Path) -> Log {
    let keys = NodeSeed::from_bytes([1; 32]).keys();
    let options = Options {
        log_path: home.join("audit.jsonl"),
        dir: home.join("audit.d"),
        node: keys.node_id(),
        key: keys.log,
        boot: 1,
        epoch: 1,
        held: false,
    };
    Log::open(options, Arc::new(Frozen))
        .expect("the log opens")
        .0
}

#[tokio::test]
async fn the_real_log_holds_every_message_before_its_answer_is_seen() {
    let home = tempfile::tempdir().expect("a folder");
    let log = open_log(home.path());
    let config = crate::support::config(home.path(), "http://127.0.0.1:9/v1", quick_limits());
    let alone = Wire::new().node("alpha");
    let opened = Kernel::open(config, Auditor::new(log.clone()), alone).await;
    let (kernel, owner) = opened.expect("the kernel opens");
    let spawned = kernel
        .spawn(manifest(&echo("parrot")), &Principal::cli())
        .await;
    let agent = spawned.expect("spawned");
    let ask = async |number: usize| {
        let to = AgentRef::from(agent.id);
        let stream = kernel
            .send(to, from_api(&number.to_string()))
            .await
            .expect("taken");
        let done = stream.finish().await.expect("answered");
        let cause: Cause = done.cause.expect("logged").parse().expect("a cause");
        assert!(cause.seq < log.size(), "durable before the answer");
        cause.seq
    };
    let mut seqs = join_all((0..300).map(ask)).await;
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 300);
    owner.shutdown(Duration::from_secs(30)).await;
    log.close().expect("closed");
    let lines = std::fs::read_to_string(home.path().join("audit.jsonl")).expect("the file");
    assert_eq!(
        lines.matches("\"ev\":\"message_in\"").count(),
        600,
        "each message and its end"
    );
    assert_eq!(lines.matches("\"ev\":\"agent_create\"").count(), 1);
    let late = Auditor::new(log)
        .record(openfang_audit::Event::node_stop("late"))
        .await;
    assert_eq!(late, Err(AuditError::Append(AppendError::Closed)));
}

#[tokio::test]
async fn with_the_log_switched_off_everything_works_and_nothing_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let config = crate::support::config(home.path(), "http://127.0.0.1:9/v1", quick_limits());
    let alone = Wire::new().node("alpha");
    let opened = Kernel::open(config, Auditor::disabled(), alone).await;
    let (kernel, _owner) = opened.expect("the kernel opens");
    let agent = kernel
        .spawn(manifest(&echo("parrot")), &Principal::cli())
        .await
        .expect("spawned");
    let stream = kernel
        .send(agent.id.into(), from_api("hi"))
        .await
        .expect("taken");
    assert_eq!(stream.finish().await.expect("answered").cause, None);
}
