//! What `docs/AGENTS.md` says of agents.

use crate::harness::Home;

const GUIDE: &str = include_str!("../../../docs/AGENTS.md");
const FENCE: &str = "```toml agent\n";

#[test]
fn every_agent_of_the_guide_is_spawned_without_a_warning() {
    let home = Home::init();
    let daemon = home.start();
    let blocks: Vec<&str> = GUIDE
        .split(FENCE)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for block in blocks {
        home.write("guide.toml", block);
        let file = home.file("guide.toml");
        let out = home.run(&["agent", "spawn", file.to_str().expect("text")]);
        assert_eq!(out.code, Some(0), "{out:?}\n{block}");
        assert_eq!(out.stderr, "", "{block}");
    }
    daemon.stop();
}

#[test]
fn a_manifest_without_a_name_spawns_nothing() {
    let home = Home::init();
    let daemon = home.start();
    for text in ["", "module = \"builtin:echo\"\n"] {
        home.write("nameless.toml", text);
        let file = home.file("nameless.toml");
        home.fails(
            &["agent", "spawn", file.to_str().expect("text")],
            2,
            &["`name` is missing", "name = \"helper\""],
        );
    }
    let agents = home.json(&["agent", "list", "--json"]);
    assert_eq!(agents.as_array().map(Vec::len), Some(1), "{agents}");
    daemon.stop();
}

#[test]
fn an_agent_without_a_model_says_where_to_name_one() {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["agent", "new", "thinker", "--module", "builtin:chat"]);
    home.fails(
        &["message", "thinker", "hello"],
        1,
        &["[default_model] in config.toml"],
    );
    daemon.stop();
}
