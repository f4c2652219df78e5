//! Agents that come, stay over a restart, and go.

use openfang_kernel::{AgentState, Manifest, Principal, SendError, SpawnError};
use serde_json::json;

use crate::support::{
    Fake, Node, Plan, Recorder, Reply, answer, calls, chat, echo, last_message, manifest, says,
};

#[tokio::test]
async fn agents_sessions_and_memory_outlive_the_process() {
    let model = Fake::script(|_, request| {
        let last = last_message(request);
        match (last["role"].as_str(), last["content"].as_str()) {
            (Some("tool"), _) => Reply::Stream(says("ok")),
            (_, Some("keep")) => Reply::Stream(calls(
                "memory_store",
                &json!({ "key": "k", "value": "kept" }),
            )),
            (_, Some("recall")) => Reply::Stream(calls("memory_recall", &json!({ "key": "k" }))),
            _other => Reply::Stream(says("yes")),
        }
    })
    .await;
    let node = Plan::with(&model.base_url()).start().await;
    let agent = node.spawn(&chat("keeper", "\"memory_*\"")).await;
    node.ask("keeper", "keep").await;
    let (home, log) = node.stop().await;

    let node = Plan::with(&model.base_url()).start_in(home, log).await;
    let again = node.kernel.list();
    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].id, again[0].created_ms),
        (agent.id, agent.created_ms)
    );
    assert_eq!(again[0].tools, ["memory_recall", "memory_store"]);
    assert_eq!(answer(&node.ask("keeper", "recall").await), "ok");
    let requests = model.requests();
    let messages = requests.last().expect("a request")["messages"]
        .as_array()
        .expect("messages")
        .clone();
    let roles: Vec<&str> = messages
        .iter()
        .filter_map(|message| message["role"].as_str())
        .collect();
    assert_eq!(
        roles,
        [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
            "assistant",
            "tool"
        ]
    );
    assert_eq!(
        messages[2]["tool_calls"][0]["id"],
        messages[3]["tool_call_id"]
    );
    assert_eq!(messages[7]["content"], "kept");
}

#[tokio::test]
async fn names_are_unique_and_modules_must_exist() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    let first = node.spawn(&echo("one")).await;
    let spawn = async |toml: &str| node.kernel.spawn(manifest(toml), &Principal::cli()).await;
    let twice = spawn(&echo("one")).await.expect_err("taken");
    assert_eq!(
        twice,
        SpawnError::DuplicateName {
            name: first.name.clone(),
            holder: first.id
        }
    );
    let code = |spawned: Result<_, SpawnError>| {
        spawned
            .map(|_: openfang_kernel::AgentInfo| ())
            .expect_err("refused")
            .code()
    };
    assert_eq!(
        code(spawn("name = \"x\"\nmodule = \"wasm:tool.wasm\"").await),
        "tier_missing"
    );
    assert_eq!(
        code(spawn("name = \"x\"\nmodule = \"python:agent.py\"").await),
        "tier_missing"
    );
    assert_eq!(
        code(spawn("name = \"x\"\nmodule = \"builtin:caht\"").await),
        "unknown_module"
    );
    assert_eq!(node.kernel.list().len(), 1);
    node.kernel
        .kill(first.id, &Principal::cli())
        .await
        .expect("dies");
    let second = node.spawn(&echo("one")).await;
    assert_ne!(second.id, first.id);
}

fn write_manifest(home: &tempfile::TempDir, name: &str, text: &str) {
    let folder = home.path().join("agents").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("agent.toml"), text).expect("a file");
}

async fn start_in(home: tempfile::TempDir) -> Node {
    Plan::with("http://127.0.0.1:9/v1")
        .start_in(home, Recorder::new())
        .await
}

async fn kill_only(node: &Node) {
    let list = node.kernel.list();
    assert_eq!(list.len(), 1);
    let killed = node.kernel.kill(list[0].id, &Principal::cli()).await;
    killed.expect("dies");
}

#[tokio::test]
async fn an_agent_whose_manifest_stands_in_the_folder_is_the_agent_of_that_file() {
    for restarted_between in [false, true] {
        let home = tempfile::tempdir().expect("a folder");
        let mut node = start_in(home).await;
        write_manifest(&node.home, "one", &echo("one"));
        let first = node.spawn(&echo("one")).await;
        if restarted_between {
            let (home, _) = node.stop().await;
            let changed = format!("{}description = \"new\"\n", echo("one"));
            write_manifest(&home, "one", &changed);
            node = start_in(home).await;
            let again = &node.kernel.list()[0];
            assert_eq!((again.id, again.description.as_str()), (first.id, "new"));
        }
        kill_only(&node).await;
        let (home, _) = node.stop().await;
        let node = start_in(home).await;
        assert_eq!(node.kernel.list(), [], "{restarted_between}");
        node.spawn(&echo("one")).await;
        let (home, _) = node.stop().await;
        let node = start_in(home).await;
        assert_eq!(node.kernel.list().len(), 1, "it was spawned anew");
    }
}

#[tokio::test]
async fn a_file_that_came_after_its_agent_does_not_bring_it_back() {
    let node = start_in(tempfile::tempdir().expect("a folder")).await;
    node.spawn(&echo("one")).await;
    let (home, _) = node.stop().await;
    write_manifest(&home, "anywhere", &echo("one"));
    let node = start_in(home).await;
    kill_only(&node).await;
    let (home, _) = node.stop().await;
    assert_eq!(start_in(home).await.kernel.list(), []);
}

#[tokio::test]
async fn agents_of_the_folder_are_spawned_once_updated_and_stay_killed() {
    let home = tempfile::tempdir().expect("a folder");
    write_manifest(&home, "one", &echo("one"));
    write_manifest(&home, "two", &echo("two"));
    write_manifest(&home, "bad", "name = 5");
    write_manifest(&home, "foreign", "name = \"foreign\"\nmodule = \"wasm:x\"");
    let node = start_in(home).await;
    let names = |node: &Node| -> Vec<String> {
        node.kernel
            .list()
            .iter()
            .map(|agent| agent.name.to_string())
            .collect()
    };
    assert_eq!(names(&node), ["one", "two"]);
    let (one, two) = (node.kernel.list()[0].id, node.kernel.list()[1].id);
    node.kernel
        .kill(two, &Principal::cli())
        .await
        .expect("dies");
    let (home, _) = node.stop().await;

    write_manifest(
        &home,
        "one",
        &format!("{}description = \"new\"\n", echo("one")),
    );
    let node = start_in(home).await;
    assert_eq!(names(&node), ["one"]);
    let list = node.kernel.list();
    assert_eq!((list[0].id, list[0].description.as_str()), (one, "new"));
    assert_eq!(node.log.text(openfang_audit::Kind::ConfigChange).len(), 1);
    assert_eq!(node.log.text(openfang_audit::Kind::AgentCreate).len(), 0);
}

#[tokio::test]
async fn an_agent_that_cannot_be_brought_back_is_listed_as_crashed() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    node.spawn(&echo("one")).await;
    let (home, log) = node.stop().await;
    let database = rusqlite::Connection::open(home.path().join("data/openfang.db")).expect("opens");
    database
        .execute("UPDATE agents SET manifest = 'module = \"wasm:x\"'", [])
        .expect("changed");
    drop(database);

    let node = Plan::with("http://127.0.0.1:9/v1")
        .start_in(home, log)
        .await;
    let list = node.kernel.list();
    assert_eq!(
        (list[0].name.as_str(), list[0].state),
        ("one", AgentState::Crashed)
    );
    let refused = node.send("one", "hi").await.map(|_| ());
    assert!(
        matches!(refused, Err(SendError::NotRunning { .. })),
        "{refused:?}"
    );
    node.kernel
        .kill(list[0].id, &Principal::cli())
        .await
        .expect("dies");
    assert!(node.kernel.list().is_empty());
}

#[tokio::test]
async fn what_is_listed_is_what_the_manifest_says() {
    let node = Plan::with("http://127.0.0.1:9/v1").start().await;
    let text = "name = \"n\"\nversion = \"2\"\ndescription = \"d\"\ntags = [\"t\"]\n[capabilities]\ntools = [\"system_time\", \"nothing\"]\n";
    let (parsed, warnings) = Manifest::parse(text, "n.toml").expect("a manifest");
    assert_eq!(warnings.len(), 1);
    let info = node
        .kernel
        .spawn(parsed, &Principal::api_key())
        .await
        .expect("spawned");
    assert_eq!(
        (info.version.as_str(), info.description.as_str()),
        ("2", "d")
    );
    assert_eq!(
        (info.tags.clone(), info.tools.clone()),
        (vec!["t".to_owned()], vec!["system_time".to_owned()])
    );
    assert_eq!(
        (info.model_provider.as_str(), info.model_name.as_str()),
        ("custom", "test-model")
    );
    assert_eq!(info.state, AgentState::Running);
    let listed = node.kernel.directory();
    assert_eq!(listed[0].local.as_ref(), Some(&info));
    assert!(listed[0].reachable && listed[0].node_name.as_str() == "alpha");
}
