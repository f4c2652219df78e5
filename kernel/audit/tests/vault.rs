//! What an open log keeps out of its lines, what it commits to, and what it erases.

mod common;
mod kept;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{TestClock, append, keys, log_key, origin};
use kept::{PLAIN, erase, erased, files, from, is_intact, open, reader, shown, value};
use openfang_audit::export::export_directory;
use openfang_audit::proof::{build_inclusion, verify_inclusion};
use openfang_audit::vault::Revealed;
use openfang_audit::verify::Source;
use openfang_audit::{
    Call, Erase, Event, Field, Hash, Kind, Line, Log, Message, Origin, Outcome, Personal, Public,
    RedactError, Secret, Seqs, Text,
};
use openfang_id::{AgentId, SharedSecret};
use proptest::prelude::*;
use tempfile::TempDir;

/// One event of every kind, with this text wherever one fits.
fn events(text: &str) -> Vec<Event> {
    let public = Public::text(text);
    let personal = Personal::new(text, text);
    let agent = AgentId::from_bytes([0x11; 16]);
    let name = "researcher".parse().expect("a name");
    let node = keys().node_id();
    let origin = Origin::of(&node, 1);
    let message = Message {
        agent,
        peer: public.into(),
        user: personal.into(),
        session: Some(personal.into()),
        cause: None,
        outcome: Outcome::Failed(public),
    };
    let call = Call {
        agent,
        target: public.into(),
        user: public.into(),
        session: Some(public.into()),
        cause: None,
        outcome: Outcome::Denied(public),
        duration: None,
    };
    let seqs = Seqs::split(&BTreeSet::from([1, 2])).remove(0);
    let events = vec![
        Event::node_start(public),
        Event::node_stop(public),
        Event::agent_create(&agent, &name, public),
        Event::agent_delete(&agent, &name, personal),
        Event::message_in(message),
        Event::message_out(message),
        Event::tool_invoke(call),
        Event::model_call(call),
        Event::cap_denied(&agent, public),
        Event::auth_failed(public, personal, public),
        Event::api_key(Text::place(text), public),
        Event::peer_connect(&node, public),
        Event::peer_refused(public, public),
        Event::file_access(call, public),
        Event::net_request(call, public),
        Event::auth_ok(public, public, personal),
        Event::rate_limit(public, personal),
        Event::config_change(public),
        Event::key_rotate(public, Some(Secret::new(text.as_bytes().to_vec()))),
        Event::clock_step(-1),
        Event::redact(&seqs, public, public),
        Event::head_observed(&origin, 9, &Hash::from_bytes([7; 32])),
        Event::peer_evidence(&origin, public),
        Event::log_recovered(13, "00ff"),
        Event::epoch_start(&origin, None),
    ];
    let kinds: BTreeSet<Kind> = events.iter().map(Event::kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "a kind without a canary");
    events
}

/// Secrets of every form, and the part of each that must be nowhere.
fn canaries() -> Vec<(String, String)> {
    let own = SharedSecret::from_random(&[0x5a; 32]);
    let pem = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v";
    [
        (PLAIN.to_owned(), &PLAIN[8..30]),
        (PLAIN[4..28].to_owned(), &PLAIN[6..26]),
        (own.expose().to_owned(), &own.expose()[8..40]),
        (
            "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t".to_owned(),
            "Ab3dEf6hIj9k",
        ),
        (
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a".to_owned(),
            "16C7e42F292c69",
        ),
        ("AKIAIOSFODNN7EXAMPLE".to_owned(), "IOSFODNN7"),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N".to_owned(),
            "eyJzdWIi",
        ),
        (
            format!("-----BEGIN PRIVATE KEY----- {pem} -----END PRIVATE KEY-----"),
            pem,
        ),
        (
            "Authorization: Bearer s3cr3t-w0rd".to_owned(),
            "s3cr3t-w0rd",
        ),
        ("https://ada:hunter2@example.org/".to_owned(), "hunter2"),
        ("password=hunter3".to_owned(), "hunter3"),
        (
            "wJalrXUtnFEMI7K7MDENG0bPxRfiCYzEXAMPLEKEY".to_owned(),
            "wJalrXUtnFEMI",
        ),
    ]
    .map(|(planted, part)| (planted, part.to_owned()))
    .into()
}

#[test]
fn no_secret_of_any_event_is_in_any_file_or_export() {
    let root = TempDir::new().expect("a folder");
    let canaries = canaries();
    let log = open(root.path(), 1);
    let mut written = 0;
    for (planted, _) in &canaries {
        for text in [planted.clone(), format!("before {planted}, and after")] {
            for event in events(&text) {
                append(&log, event).expect("durable");
                written += 1;
            }
        }
    }
    let lines = log.recent(written).expect("readable");
    let revealed = log.reveal(&lines).expect("readable");
    log.close().expect("closed");
    assert!(is_intact(root.path()));
    let key = log_key();
    let (log_path, dir, origin) = (
        root.path().join("audit.jsonl"),
        root.path().join("audit.d"),
        origin(),
    );
    let source = Source {
        log_path: &log_path,
        dir: &dir,
        key: &key,
        origin: &origin,
    };
    export_directory(source, None, &root.path().join("export"), &mut |_| ()).expect("exported");
    let all = files(root.path());
    assert!(
        all.iter()
            .any(|(name, _)| name.contains("export/tile/entries"))
    );
    let values = revealed
        .into_iter()
        .flatten()
        .filter_map(|(_, revealed)| match revealed {
            Revealed::Value(value) => Some(value),
            Revealed::Erased | Revealed::Secret | Revealed::Unreadable => None,
        });
    let values: Vec<String> = values.collect();
    assert!(values.len() > canaries.len());
    for (_, part) in &canaries {
        for (name, bytes) in &all {
            let found = bytes
                .windows(part.len())
                .any(|window| window == part.as_bytes());
            assert!(!found, "{part} in {name}");
        }
        assert!(values.iter().all(|value| !value.contains(part)), "{part}");
    }
}

#[test]
fn a_value_whose_file_is_damaged_is_not_taken_for_an_erased_one() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    log.close().expect("closed");
    assert_eq!(shown(root.path(), 0), value("192.0.2.7:4200"));
    let unread = || reader(root.path()).unread().expect("listed");
    assert!(unread().is_empty());
    let folder = std::fs::read_dir(root.path().join("audit.d/vault")).expect("listed");
    let paths: Vec<_> = folder
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let path = paths.first().expect("a file of the vault");
    let whole = std::fs::read(path).expect("readable");
    let unreadable = vec![(Field::Target, Revealed::Unreadable)];
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("written");
        let found = shown(root.path(), 0);
        let is_good = found == value("192.0.2.7:4200") || found == unreadable;
        assert!(is_good || unread().is_empty(), "byte {at}: {found:?}");
    }
    let mut head = whole.clone();
    head[0] ^= 1;
    std::fs::write(path, head).expect("written");
    assert_eq!(shown(root.path(), 0), unreadable);
    assert_eq!(unread(), std::slice::from_ref(path));
    // What was never written is no damage.
    std::fs::remove_file(path).expect("removed");
    assert_eq!(shown(root.path(), 0), erased());
}

#[test]
fn what_is_erased_is_gone_and_every_proof_still_holds() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    for address in ["192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.9"] {
        append(&log, from(address)).expect("durable");
    }
    let bytes = std::fs::read(root.path().join("audit.jsonl")).expect("readable");
    assert!(!String::from_utf8_lossy(&bytes).contains("192.0.2"));
    let view = log.tiles();
    let proofs: Vec<_> = (0..4)
        .map(|seq| build_inclusion(&view, seq, 4).expect("a proof"))
        .collect();
    let lines = log.recent(4).expect("readable");
    assert_eq!(shown(root.path(), 1), value("192.0.2.8:4200"));

    assert_eq!(
        erase(&log, Erase::Entries(&[1].into())).expect("erased"),
        [4]
    );
    assert_eq!(
        erase(&log, Erase::Subject("192.0.2.7")).expect("erased"),
        [5]
    );
    for seq in [0, 1, 2] {
        assert_eq!(shown(root.path(), seq), erased(), "{seq}");
    }
    assert_eq!(shown(root.path(), 3), value("192.0.2.9:4200"));

    let after = std::fs::read(root.path().join("audit.jsonl")).expect("readable");
    assert!(after.starts_with(&bytes), "no line has changed");
    let told = log.recent(2).expect("readable");
    let told: Vec<_> = told
        .iter()
        .map(|line| (line.target.as_deref(), line.act.as_deref()))
        .collect();
    let reason = Some("asked by the subject");
    assert_eq!(told, [(Some("1"), reason), (Some("0,2"), reason)]);
    let head = lines_root(&lines);
    for (line, proof) in lines.iter().zip(&proofs) {
        assert_eq!(
            verify_inclusion(line.seq.0, 4, &line.leaf, proof, &head),
            Ok(())
        );
    }
    log.close().expect("closed");
    assert!(is_intact(root.path()));
    let again = open(root.path(), 2);
    assert_eq!(again.size(), 6);
    again.close().expect("closed");
}

fn lines_root(lines: &[Line]) -> Hash {
    let leaves: Vec<Hash> = lines.iter().map(|line| line.leaf).collect();
    openfang_audit::tree::root_of(&leaves)
}

#[test]
fn what_cannot_be_erased_is_said_and_nothing_is_written() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, Event::node_start("1")).expect("durable");
    append(&log, from("192.0.2.7")).expect("durable");
    let secret = Secret::new(b"x".to_vec());
    append(&log, Event::key_rotate("api.key", Some(secret))).expect("durable");
    let fails = |what: Erase<'_>| erase(&log, what).expect_err("refused");
    assert!(matches!(
        fails(Erase::Entries(&BTreeSet::new())),
        RedactError::Count(0)
    ));
    assert!(matches!(
        fails(Erase::Entries(&(0..5000).collect())),
        RedactError::Count(5000)
    ));
    assert!(matches!(
        fails(Erase::Entries(&[9].into())),
        RedactError::NoSuchEntry { seq: 9, size: 3 }
    ));
    for seq in [0, 2] {
        let why = fails(Erase::Entries(&[1, seq].into()));
        assert!(matches!(why, RedactError::NothingPersonal { seq: at } if at == seq));
    }
    assert!(matches!(
        fails(Erase::Subject("192.0.2.8")),
        RedactError::NothingKept
    ));
    assert_eq!(log.size(), 3);
    assert_eq!(shown(root.path(), 1), value("192.0.2.7:4200"));
    assert_eq!(
        erase(&log, Erase::Entries(&[1].into())).expect("erased"),
        [3]
    );
    assert!(matches!(
        fails(Erase::Entries(&[1].into())),
        RedactError::NothingKept
    ));
    // Whatever is written while the log is held may have to make room for lost entries.
    log.hold();
    assert!(matches!(
        fails(Erase::Subject("192.0.2.7")),
        RedactError::InDoubt
    ));
    log.release();
    log.close().expect("closed");
    let bare = Log::open(common::options(root.path()), TestClock::fast())
        .expect("a log")
        .0;
    assert!(matches!(
        erase(&bare, Erase::Subject("x")),
        Err(RedactError::NoVault)
    ));
    bare.close().expect("closed");
}

#[test]
fn values_of_entries_that_are_gone_are_erased_and_told() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    for address in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
        append(&log, from(address)).expect("durable");
    }
    log.close().expect("closed");
    let before = root.path().join("earlier.jsonl");
    std::fs::rename(root.path().join("audit.jsonl"), &before).expect("moved");
    let dir = root.path().join("audit.d");
    for entry in std::fs::read_dir(&dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            std::fs::remove_file(path).expect("removed");
        }
    }
    // Another log: its entries have the numbers of those that are gone.
    let log = open(root.path(), 2);
    for address in ["192.0.2.9", "192.0.2.7"] {
        append(&log, from(address)).expect("durable");
    }
    let subject = Erase::Subject("192.0.2.7");
    let done = log.redact(subject, "asked by the subject", "cli".into());
    let done = done.expect("erased");
    assert_eq!(done.entries, BTreeSet::from([1]));
    assert_eq!((done.openings, done.elsewhere), (3, 2));
    let told = log.recent(2).expect("readable");
    let targets: Vec<_> = told.iter().map(|line| line.target.as_deref()).collect();
    assert_eq!(targets, [Some("1"), Some("of no entry: 2")]);
    assert_eq!(done.told_in.len(), 2);
    let earlier = std::fs::read_to_string(&before).expect("readable");
    let lines: Vec<Line> = earlier
        .lines()
        .map(|line| Line::parse(line.as_bytes()).expect("an entry"))
        .collect();
    let left = reader(root.path()).reveal(&lines).expect("readable");
    assert_eq!(left, [erased(), value("192.0.2.8:4200"), erased()]);
    // Where nothing else is left of a subject, that alone is told.
    let alone = erase(&log, Erase::Subject("192.0.2.8"));
    assert_eq!(alone.expect("erased"), [4]);
    log.close().expect("closed");
}

#[test]
fn a_vault_that_cannot_be_read_whole_is_never_called_erased() {
    use openfang_audit::vault::record::Records;
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    for address in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
        append(&log, from(address)).expect("durable");
    }
    log.close().expect("closed");
    let path = root.path().join("audit.d/vault/00000001.vault");
    let mut bytes = std::fs::read(&path).expect("readable");
    let (last, _) = Records::of(&bytes).last().expect("a record");
    bytes[last.start - 3] = 9;
    std::fs::write(&path, &bytes).expect("written");
    let log = open(root.path(), 2);
    let refused = erase(&log, Erase::Subject("192.0.2.7")).expect_err("not all of it");
    let RedactError::Incomplete { values, files } = &refused else {
        panic!("{refused}");
    };
    assert_eq!((*values, files), (1, &vec![path.clone()]));
    assert!(refused.to_string().contains("00000001.vault"), "{refused}");
    assert_eq!(
        shown(root.path(), 0),
        [(Field::Target, Revealed::Unreadable)],
        "what could be found is gone, and whether there was more cannot be told"
    );
    // Nor is it said that there is nothing.
    for what in [
        Erase::Subject("192.0.2.7"),
        Erase::Subject("198.51.100.1"),
        Erase::Entries(&[2].into()),
    ] {
        let refused = erase(&log, what).expect_err("not all of it");
        assert!(
            matches!(refused, RedactError::Incomplete { values: 0, .. }),
            "{refused}"
        );
    }
    let whole = erase(&log, Erase::Entries(&[1].into()));
    assert_eq!(whole.expect("all of it"), [4]);
    log.close().expect("closed");
}

#[test]
fn a_lost_vault_is_erased_values_and_no_damage() {
    let root = TempDir::new().expect("a folder");
    let log = open(root.path(), 1);
    append(&log, from("192.0.2.7")).expect("durable");
    log.close().expect("closed");
    std::fs::remove_dir_all(root.path().join("audit.d/vault")).expect("removed");
    assert!(is_intact(root.path()));
    assert_eq!(shown(root.path(), 0), erased());
    let log = open(root.path(), 2);
    append(&log, from("192.0.2.7")).expect("durable");
    log.close().expect("closed");
    assert_eq!(shown(root.path(), 1), value("192.0.2.7:4200"));
}

#[test]
fn callers_at_once_get_all_their_values_kept() {
    let root = TempDir::new().expect("a folder");
    let log = Arc::new(open(root.path(), 1));
    std::thread::scope(|scope| {
        for caller in 0..8_u32 {
            let log = Arc::clone(&log);
            scope.spawn(move || {
                for number in 0..40 {
                    let address = format!("198.51.{caller}.{}", number % 7);
                    append(&log, from(&address)).expect("durable");
                }
            });
        }
    });
    let lines = log.recent(320).expect("readable");
    let revealed = log.reveal(&lines).expect("readable");
    let is_value = |one: &Vec<(Field, Revealed)>| matches!(&one[..], [(Field::Target, Revealed::Value(value))] if value.starts_with("198.51."));
    assert_eq!(revealed.iter().filter(|one| is_value(one)).count(), 320);
    log.close().expect("closed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_personal_text_is_in_no_file_and_comes_back(text in "[a-zA-Z ,äöé@]{12,60}") {
        let root = TempDir::new().expect("a folder");
        let log = open(root.path(), 1);
        let event = Event::auth_ok("api", "many", Personal::new("ada", &text));
        append(&log, event).expect("durable");
        log.close().expect("closed");
        for (name, bytes) in files(root.path()) {
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            prop_assert!(!found, "{}", name);
        }
        let revealed = shown(root.path(), 0);
        prop_assert_eq!(revealed, vec![(Field::User, Revealed::Value(text))]);
    }
}
