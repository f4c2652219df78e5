//! What passes into a line, and what is sealed or cut before.

use super::*;
use crate::vault::Revealed;
use crate::{Line, Personal, Public, Secret};
use openfang_id::NodeSeed;
use proptest::prelude::*;

fn vault() -> (tempfile::TempDir, Guard) {
    let root = tempfile::TempDir::new().expect("a folder");
    let key = NodeSeed::from_bytes([1; 32]).vault_key();
    let seed = Zeroizing::new([9; 32]);
    let vault = Vault::open(&root.path().join("vault"), &key, seed).expect("a vault");
    (root, Guard::new(Known::default(), Some(vault)))
}

/// Secrets of every form, and what knows those that have none.
fn canaries() -> (Vec<&'static str>, Known) {
    let secrets = vec![
        "correct horse battery staple of this node",
        "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "wJalrXUtnFEMI7K7MDENG0bPxRfiCYzEXAMPLEKEY",
    ];
    let known = Known::default().with([secrets[0].as_bytes()]);
    (secrets, known)
}

fn texts(event: &Event) -> Vec<String> {
    let slots = [&event.session, &event.target, &event.user]
        .into_iter()
        .flatten();
    let slots = slots.chain(event.value.as_deref());
    let slots = slots.filter_map(Slot::text);
    let others = event.act.iter().chain([&event.outcome]);
    let all = slots.chain(others.map(|text| &**text));
    all.map(str::to_owned).collect()
}

#[test]
fn without_a_vault_nothing_personal_or_secret_is_written() {
    let guard = Guard::default();
    let from = Personal::new("192.0.2.7", "192.0.2.7:4200");
    let admitted = guard.admit(Event::auth_failed("api", from, "no key"));
    assert_eq!(
        texts(&admitted.event),
        [NO_VAULT_PERSONAL, "api", "denied: no key"]
    );
    let secret = Secret::new(b"hunter2".to_vec());
    let admitted = guard.admit(Event::key_rotate("api.key", Some(secret)));
    assert_eq!(texts(&admitted.event), ["api.key", NO_VAULT_SECRET, "ok"]);
    assert!(admitted.openings.is_empty());
}

#[test]
fn with_a_vault_the_line_commits_and_the_value_comes_back() {
    let (_root, guard) = vault();
    let user = Personal::new("Ada ", "ada@example.org");
    let secret = Secret::new(b"hunter2".to_vec());
    let one = guard.admit(Event::auth_ok("api", "many", user));
    let two = guard.admit(Event::key_rotate("api.key", Some(secret)));
    assert_eq!(texts(&one.event), ["many", "api", "ok"]);
    assert_eq!(texts(&two.event), ["api.key", "ok"]);
    let [opening] = &one.openings[..] else {
        panic!("one value");
    };
    assert!(two.openings.is_empty(), "nobody can open a secret");
    let vault = guard.vault().expect("a vault");
    vault.write([(0, opening)].into_iter()).expect("written");
    let line = |commitments: &str| {
        let raw = format!(
            "{{\"boot\":\"0\",\"c\":{{{commitments}}},\"ev\":\"auth_ok\",\"hlc\":\"0\",\"node\":\"n\",\"outcome\":\"ok\",\"seq\":0,\"ts\":\"\",\"v\":1}}"
        );
        Line::parse(raw.as_bytes()).expect("a line")
    };
    let user = opening.commitment();
    let value = two.event.value.as_deref().and_then(Slot::commitment);
    let value = value.expect("a commitment");
    let lines = [
        line(&format!("\"user\":\"{user}\",\"value\":\"{value}\"")),
        line(&format!("\"target\":\"{user}\"")),
        line(&format!("\"user\":\"{}\"", "00".repeat(32))),
    ];
    let revealed = vault.reader().reveal(&lines).expect("readable");
    let shown = Revealed::Value("ada@example.org".to_owned());
    assert_eq!(
        revealed[0],
        [(Field::User, shown), (Field::Value, Revealed::Secret)]
    );
    assert_eq!(revealed[1], [(Field::Target, Revealed::Unreadable)]);
    assert_eq!(revealed[2], [(Field::User, Revealed::Erased)]);
}

#[test]
fn one_value_is_committed_to_differently_each_time() {
    let (_root, guard) = vault();
    let hidden = Hidden {
        subject: Zeroizing::new("ada".to_owned()),
        value: Zeroizing::new("ada".to_owned()),
    };
    let vault = guard.vault().expect("a vault");
    let [one, other] = [(); 2].map(|()| vault.seal(Field::User, &hidden));
    assert_ne!(one.commitment(), other.commitment());
    assert_ne!(
        vault.commit_to(Field::Value, b"x"),
        vault.commit_to(Field::Value, b"x")
    );
}

#[test]
fn a_long_text_is_cut_and_no_half_of_a_secret_is_left() {
    let (secrets, known) = canaries();
    let guard = Guard::new(known, None);
    for secret in &secrets {
        for before in 0..=300 {
            let text = format!("{} {secret}", "x".repeat(before));
            let admitted = guard.admit(Event::node_stop(Public::text(&text)));
            let [kept, _ok] = &texts(&admitted.event)[..] else {
                panic!("a target");
            };
            assert!(kept.len() <= crate::TEXT_BYTES_MAX);
            assert!(!kept.contains(&secret[..16.min(secret.len())]), "{kept}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_an_entry_that_does_not_fit(text in "\\PC{0,600}") {
        let guard = Guard::default();
        let text = Public::text(&text);
        let admitted = guard.admit(Event::auth_failed(text, text, text));
        for kept in texts(&admitted.event) {
            prop_assert!(kept.len() <= crate::TEXT_BYTES_MAX);
        }
    }
}
