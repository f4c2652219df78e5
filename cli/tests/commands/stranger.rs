//! A node as the witness of a log that is not of its mesh, over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use openfang_audit::Hash;
use openfang_audit::cosign::{CosignerKey, LogName};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::tree::leaf_hash;
use openfang_audit::tree::node_hash;
use openfang_audit::witness::AddCheckpoint;
use openfang_id::SigningKey;

use crate::harness::{Daemon, Home, eventually};
use crate::mesh::node;

const NAME: &str = "log.example/one";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn vkey(name: &str, key: &SigningKey) -> String {
    let key = Verifier::new(name, key.verifying_key());
    key.expect("a key").to_string()
}

fn head(name: &str, size: u64, root: &Hash, key: &SigningKey) -> Note {
    let root = data_encoding::BASE64.encode(root.as_bytes());
    let text = format!("{name}\n{size}\n{root}\n");
    Note::sign(&text, name, key).expect("a note")
}

fn request(old: u64, proof: Vec<Hash>, note: Note) -> Vec<u8> {
    let request = AddCheckpoint::new(old, proof, note).expect("a request");
    request.to_string().into_bytes()
}

/// Sends what anyone can send, without a key, and returns status, head and body.
fn send(daemon: &Daemon, verb: &str, path: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(daemon.listen).expect("connected");
    let length = body.len();
    write!(
        stream,
        "{verb} {path} HTTP/1.1\r\nhost: witness.example\r\nx-forwarded-for: 203.0.113.9\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n"
    )
    .expect("sent");
    // An answer may come before all of a body that is too long was taken.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), head.to_owned(), body.to_owned())
}

fn add(daemon: &Daemon, body: &[u8]) -> (u16, String) {
    let (status, _, body) = send(daemon, "POST", "/witness/add-checkpoint", body);
    (status, body)
}

fn witness_the_log(home: &Home) {
    let config = home.read("config.toml");
    let named = format!("[audit]\nwitness_logs = [\"{}\"]\n", vkey(NAME, &key()));
    let changed = config.replacen("[audit]\n", &named, 1);
    assert_ne!(changed, config);
    home.write("config.toml", &changed);
}

/// The key that the node says it cosigns with.
fn own_key(home: &Home) -> CosignerKey {
    let policy = home.ok(&["audit", "policy"]);
    let line = policy.lines().last().expect("a comment");
    line.trim_start_matches("# ").parse().expect("a key")
}

fn id_of(name: &str) -> Hash {
    name.parse::<LogName>().expect("a name").id()
}

#[test]
fn a_log_that_the_operator_has_named_is_cosigned_and_no_other() {
    let home = node("w", true);
    witness_the_log(&home);
    let daemon = home.start();
    let (one, two) = (leaf_hash(b"one"), leaf_hash(b"two"));
    let first = head(NAME, 1, &one, &key());
    let mut answer = (503, String::new());
    // It cosigns nothing before it has asked about its own log.
    eventually("it answers as a witness", || {
        answer = add(&daemon, &request(0, Vec::new(), first.clone()));
        answer.0 != 503
    });
    let (status, body) = answer;
    assert_eq!(status, 200, "{body}");
    let cosigner = own_key(&home);
    let mut cosigned = first.clone();
    cosigner
        .collect(&mut cosigned, &body)
        .expect("it has cosigned");
    // It grows, and shows what was cosigned last.
    let second = head(NAME, 2, &node_hash(&one, &two), &key());
    let (status, body) = add(&daemon, &request(1, vec![two], second));
    assert_eq!(status, 200, "{body}");
    let shown = format!("/witness/{}/checkpoint", id_of(NAME));
    let (status, head_lines, body) = send(&daemon, "GET", &shown, b"");
    assert_eq!(status, 200, "{body}");
    assert!(
        head_lines
            .to_lowercase()
            .contains("content-type: text/plain")
    );
    let note: Note = body.parse().expect("a note");
    cosigner.verify(&note).expect("its own cosignature");
    assert!(note.text().starts_with(&format!("{NAME}\n2\n")));
    // What is refused, and how.
    let stranger = "log.example/two";
    let other = SigningKey::from_bytes(&[6; 32]);
    let forked = head(NAME, 2, &two, &key());
    let cases: [(u16, Vec<u8>); 6] = [
        (404, request(0, Vec::new(), head(stranger, 1, &one, &key()))),
        (403, request(2, Vec::new(), head(NAME, 3, &one, &other))),
        (409, request(0, Vec::new(), first)),
        (422, request(2, Vec::new(), forked)),
        (400, b"old x\n\n".to_vec()),
        (400, vec![b'x'; 70_000]),
    ];
    for (expected, body) in cases {
        let (status, said) = add(&daemon, &body);
        assert_eq!(status, expected, "{said}");
    }
    // The second root for a size is kept as evidence, and nothing of that log is cosigned any more.
    let three = node_hash(&node_hash(&one, &two), &leaf_hash(b"three"));
    let third = request(2, vec![leaf_hash(b"three")], head(NAME, 3, &three, &key()));
    let (status, body) = add(&daemon, &third);
    assert_eq!(status, 403, "{body}");
    eventually("it is written down", || {
        let told = home.run(&["audit", "evidence"]);
        told.code == Some(4) || told.stdout.contains(NAME)
    });
    daemon.stop();
    // It remembers, across a restart. It cosigns nothing before it has asked about its own log.
    let daemon = home.start();
    eventually("it answers as a witness", || add(&daemon, &third).0 != 503);
    assert_eq!(add(&daemon, &third).0, 403);
    let log = home.ok(&["audit", "show", "--filter", "peer_evidence"]);
    assert!(log.contains(NAME), "{log}");
    daemon.stop();
}

#[test]
fn what_is_cosigned_for_the_mesh_is_not_shown_to_everybody() {
    let (a, b) = (node("a", true), node("b", false));
    witness_the_log(&b);
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("b has cosigned a head of a", || {
        a.file("audit.d/cosigned").exists()
    });
    let cosigned = a.read("audit.d/cosigned");
    let origin = cosigned.lines().next().expect("a name");
    let path = format!("/witness/{}/checkpoint", id_of(origin));
    let (status, _, _) = send(&daemon_b, "GET", &path, b"");
    assert_eq!(status, 404);
    // Nor is it cosigned for anybody but the member itself.
    let note: Note = cosigned.parse().expect("a note");
    let (status, _) = add(&daemon_b, &request(0, Vec::new(), note));
    assert_eq!(status, 404);
    daemon_b.stop();
    daemon_a.stop();
}

#[test]
fn a_key_that_is_none_is_told_with_its_place() {
    let home = Home::with_config("[audit]\nwitness_logs = [\"log.example/one\"]\n");
    home.fails(
        &["config", "check"],
        64,
        &[
            "config.toml:2:17",
            "audit.witness_logs",
            "mend: witness_logs",
        ],
    );
}
