//! Personal values of the log: shown, and erased, whether the node runs or not.

use std::path::Path;
use std::sync::Arc;

use openfang_audit::guard::{Guard, Known};
use openfang_audit::vault::{FOLDER, Vault};
use openfang_audit::{Event, Log, Options, Text};
use openfang_node::clock::MachineClock;

use crate::harness::Home;

/// A home whose stopped node has met machines elsewhere; returns the number of the first such entry.
fn with_strangers(addresses: &[&str]) -> (Home, u64) {
    let home = Home::init();
    home.start().stop();
    let seed = openfang_node::keys::load(&home.file("node.key")).expect("a key");
    let keys = seed.keys();
    let options = Options {
        log_path: home.file("audit.jsonl"),
        dir: home.file("audit.d"),
        node: keys.node_id(),
        key: keys.log,
        boot: 7,
        epoch: 1,
        held: false,
    };
    let guard = |dir: &Path| {
        let vault = Vault::open(&dir.join(FOLDER), &seed.vault_key(), [5; 32].into())?;
        Ok(Guard::new(Known::default(), Some(vault)))
    };
    let log = Log::open_guarded(options, Arc::new(MachineClock), guard)
        .expect("a log")
        .0;
    let first = log.size();
    for address in addresses {
        let event = Event::auth_failed("api", Text::place(address), "key_required");
        log.append(event, Box::new(|done| assert!(done.is_ok(), "{done:?}")))
            .expect("queued");
    }
    log.close().expect("closed");
    (home, first)
}

fn shown(home: &Home, reveal: bool) -> String {
    let args = ["audit", "show", "--filter", "auth_failed", "--reveal"];
    home.ok(&args[..if reveal { 5 } else { 4 }])
}

#[test]
fn what_cannot_be_read_is_not_called_erased() {
    let (home, first) = with_strangers(&["192.0.2.7:1", "192.0.2.8:2"]);
    home.ok(&["audit", "redact", &first.to_string(), "--reason", "asked"]);
    let open = shown(&home, true);
    assert!(open.contains("target=(erased)"), "{open}");
    assert!(open.contains("target=192.0.2.8:2"), "{open}");
    let folder = home.file("audit.d/vault");
    let mut files = std::fs::read_dir(folder).expect("listed").flatten();
    let holds = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.len() > 100);
    let path = files.find_map(|entry| Some(entry.path()).filter(|path| holds(path)));
    let path = path.expect("a file of the vault");
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[0] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let out = home.run(&["audit", "show", "--filter", "auth_failed", "--reveal"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert_eq!(
        out.stdout.matches("target=(unreadable)").count(),
        2,
        "{out:?}"
    );
    assert!(
        out.stderr.contains(path.to_str().expect("text")) && out.stderr.contains("mend: "),
        "{out:?}"
    );
}

#[test]
fn without_a_running_node_values_are_shown_and_erased() {
    let (home, first) = with_strangers(&["192.0.2.7:1", "192.0.2.8:2", "192.0.2.7:3"]);
    let plain = shown(&home, false);
    assert!(
        !plain.contains("192.0.2") && plain.contains("target=(personal "),
        "{plain}"
    );
    let open = shown(&home, true);
    for address in ["192.0.2.7:1", "192.0.2.8:2", "192.0.2.7:3"] {
        assert!(open.contains(&format!("target={address}")), "{open}");
    }
    let text = home.ok(&[
        "audit",
        "show",
        "--filter",
        "auth_failed",
        "--reveal",
        "--json",
    ]);
    let one: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!(one["line"]["seq"], first);
    assert_eq!(one["personal"]["target"]["value"], "192.0.2.7:1");
    let proof = home.ok(&["audit", "prove", &first.to_string()]);
    let second = (first + 1).to_string();
    let out = home.ok(&["audit", "redact", &second, "--reason", "asked"]);
    assert!(
        out.contains(&format!("erased 1 values of entries {second}")),
        "{out}"
    );
    let done = home.json(&[
        "audit",
        "redact",
        "--subject",
        "192.0.2.7",
        "--reason",
        "old",
        "--json",
    ]);
    assert_eq!(done["entries"], serde_json::json!([first, first + 2]));
    let open = shown(&home, true);
    assert_eq!(open.matches("target=(erased)").count(), 3, "{open}");
    home.write("proof", &proof);
    home.ok(&["audit", "check", home.file("proof").to_str().expect("text")]);
    home.ok(&["audit", "verify"]);
    let told = home.ok(&["audit", "show", "--filter", "redact"]);
    assert!(
        told.contains("act=asked") && told.contains("user=cli"),
        "{told}"
    );
    for args in [
        ["audit", "redact", &second, "--reason", "again"],
        ["audit", "redact", "0", "--reason", "nothing personal"],
        ["audit", "redact", "999", "--reason", "no such entry"],
    ] {
        home.fails(&args, 3, &[]);
    }
    home.fails(&["audit", "redact", "1"], 2, &["--reason"]);
    home.fails(&["audit", "redact", "1", "--reason", " "], 2, &["reason"]);
    home.fails(&["audit", "redact", "--reason", "x"], 2, &[]);
    // A log without its floor may be longer elsewhere: only a start may go on with it.
    let floor = home.read("audit.d/floor");
    std::fs::remove_file(home.file("audit.d/floor")).expect("removed");
    home.fails(
        &["audit", "redact", "--subject", "x", "--reason", "x"],
        1,
        &["floor is missing", "mend: openfang start"],
    );
    home.write("audit.d/floor", &floor);
    // The node starts with it as with any log.
    home.start().stop();
    home.ok(&["audit", "verify"]);
}

#[test]
fn a_running_node_erases_by_itself() {
    let (home, first) = with_strangers(&["192.0.2.7:1", "192.0.2.8:2"]);
    let daemon = home.start();
    let done = home.json(&[
        "audit",
        "redact",
        &first.to_string(),
        "--reason",
        "asked",
        "--json",
    ]);
    assert_eq!(done["entries"], serde_json::json!([first]));
    let open = shown(&home, true);
    assert!(
        open.contains("target=(erased)") && open.contains("target=192.0.2.8:2"),
        "{open}"
    );
    let told = home.ok(&["audit", "show", "--filter", "redact"]);
    assert!(told.contains("user=api:key"), "{told}");
    // What is refused is refused alike with and without the node.
    let refused = [
        (&["--subject", "nobody"][..], 3, "nothing_kept"),
        (&["99999"], 3, "no_such_entry"),
        (&["0"], 3, "nothing_personal"),
    ];
    let check = || {
        let tried = refused.iter().map(|(args, code, reason)| {
            let args = [&["audit", "redact", "--reason", "x", "--json"], *args].concat();
            let out = home.run(&args);
            assert_eq!(out.code, Some(*code), "{out:?}");
            let told: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
            assert_eq!(told["reason"], *reason, "{told}");
            let fields = told.as_object().expect("an object").keys().cloned();
            (told["code"].clone(), fields.collect::<Vec<String>>())
        });
        tried.collect::<Vec<_>>()
    };
    let running = check();
    daemon.stop();
    assert_eq!(check(), running);
    home.ok(&["audit", "verify"]);
}

#[test]
fn the_secrets_of_the_node_are_in_no_file_it_writes() {
    let home = Home::init();
    let config = home.read("config.toml");
    let key = config
        .lines()
        .find_map(|line| line.strip_prefix("api_key = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a key")
        .to_owned();
    let daemon = home.start();
    // A request that has the key where its path should be, and one that asks for an agent of that name.
    for path in [format!("/api/{key}"), format!("/api/agents/{key}/message")] {
        let _answer = home.run(&["message", &path, "hi"]);
    }
    home.ok(&["message", "assistant", &format!("my key is {key}")]);
    daemon.stop();
    let mut dirs = vec![home.file("audit.d")];
    let mut files = vec![home.file("audit.jsonl")];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path)
            } else {
                files.push(path)
            }
        }
    }
    assert!(files.len() > 5);
    for file in files {
        let bytes = std::fs::read(&file).expect("readable");
        let found = bytes
            .windows(24)
            .any(|part| key.as_bytes()[5..].windows(24).any(|of| of == part));
        assert!(!found, "{}", file.display());
    }
}
