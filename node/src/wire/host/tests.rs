//! The host over a real kernel and a real audit log.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use openfang_audit::{Event, Health, Options};
use openfang_id::{AgentKey, Keys, NodeSeed, Transport};
use openfang_kernel::ports::Alone;
use openfang_kernel::{Auditor, Limits, Manifest, ModelConfig, ModelKeys, Owner, Principal};
use openfang_ofp::call::{CallId, Chunk, Request};
use openfang_ofp::gate::Refusal;
use openfang_ofp::roster;

use super::*;
use crate::clock::MachineClock;
use crate::evidence;

struct Node {
    folder: tempfile::TempDir,
    host: NodeHost,
    owner: Owner,
    log: Log,
}

fn keys(byte: u8) -> Keys {
    NodeSeed::from_bytes([byte; 32]).keys()
}

/// A node with one agent, `echo`.
async fn node() -> Node {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys(1);
    let options = Options {
        log_path: folder.path().join("audit.jsonl"),
        dir: folder.path().join("audit.d"),
        node: keys.node_id(),
        key: keys.log.clone(),
        boot: 1,
        epoch: crate::audit_epoch::FIRST,
        held: false,
    };
    let (log, _opened) = Log::open(options, Arc::new(MachineClock)).expect("opened");
    let config = openfang_kernel::Config {
        data_dir: folder.path().join("data"),
        agents_dir: folder.path().join("agents"),
        default_model: ModelConfig {
            provider: String::new(),
            model: String::new(),
            api_key: None,
            base_url: None,
        },
        model_keys: ModelKeys::default(),
        limits: Limits::default(),
    };
    let alone = Alone::new(keys.node_id(), "a".parse().expect("a name"));
    let (kernel, owner) = Kernel::open(config, Auditor::new(log.clone()), Arc::new(alone))
        .await
        .expect("opened");
    let text = "name = \"echo\"\nmodule = \"builtin:echo\"\n";
    let (manifest, _warnings) = Manifest::parse(text, "test").expect("a manifest");
    kernel
        .spawn(manifest, &Principal::node())
        .await
        .expect("spawned");
    let recorder = recorder(folder.path(), Some(log.clone()));
    let signing = tokio::sync::watch::Sender::new(openfang_audit::inquiry::Signing::Free);
    let doubts = Doubts::new(log.clone(), signing);
    Node {
        folder,
        host: NodeHost::new(
            kernel,
            Some((log.clone(), doubts)),
            nothing_asked(&recorder),
            recorder,
        ),
        owner,
        log,
    }
}

/// Peers may ask it nothing.
fn nothing_asked(recorder: &Recorder) -> (Option<Window>, Desk) {
    (
        None,
        Desk::new(None, 0, None, recorder.quarantine().clone()),
    )
}

/// A recorder that lets node 4 in, whatever it did.
fn recorder(folder: &Path, log: Option<Log>) -> Arc<Recorder> {
    let allowed = BTreeSet::from([keys(4).node_id()]);
    let evidence = evidence::open(&folder.join("evidence"), keys(1).node_id(), allowed);
    Arc::new(Recorder::new(log, evidence.desk))
}

fn request(agent: &str) -> Request {
    Request {
        id: CallId([3; 16]),
        agent: agent.parse::<AgentKey>().expect("an agent"),
        message: "hello".to_owned(),
        principal: "api:key".to_owned(),
        path: Vec::new(),
        deadline_ms: 10_000,
        resume_from: 0,
        hlc: 0,
        cause: None,
        labels: Vec::new(),
        trace: None,
        session: None,
        sender: None,
    }
}

#[tokio::test]
async fn a_call_of_another_node_runs_and_is_logged() {
    let node = node().await;
    let from = keys(2).node_id();
    let call = node
        .host
        .call(from, request("echo"), CancellationToken::new());
    let frames: Vec<Frame> = call.await.expect("taken").collect().await;
    let text: String = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Chunk(Chunk::Text(text)) => Some(text.as_str()),
            Frame::Chunk(_)
            | Frame::End(_)
            | Frame::Failure(_)
            | Frame::Request(_)
            | Frame::Cancel
            | Frame::Received => None,
        })
        .collect();
    assert!(text.ends_with("You said: hello"), "{text}");
    let Some(Frame::End(end)) = frames.last() else {
        panic!("{frames:?}");
    };
    assert_eq!(end.response, None, "the chunks are the answer");
    let cause = end.cause.clone().expect("an entry");
    assert!(cause.starts_with(node.log.origin().as_str()), "{cause}");
    let lines = node.log.recent(10).expect("read");
    let entry = lines.iter().find(|line| line.ev == "message_in");
    let peer = entry
        .and_then(|line| line.target.clone())
        .unwrap_or_default();
    assert!(peer.contains(&from.to_string()), "{lines:?}");
}

/// The caller's clock is ahead of that of this node.
#[tokio::test]
async fn what_a_call_causes_is_logged_after_its_cause() {
    let node = node().await;
    let call = async |hlc: u64| {
        let mut request = request("echo");
        request.id = CallId(hlc.to_be_bytes().repeat(2).try_into().expect("16 bytes"));
        request.hlc = hlc;
        let from = keys(2).node_id();
        let call = node.host.call(from, request, CancellationToken::new());
        let frames: Vec<Frame> = call.await.expect("taken").collect().await;
        match frames.into_iter().next_back() {
            Some(Frame::End(end)) => end.hlc,
            other => panic!("{other:?}"),
        }
    };
    let newest = || {
        let lines = node.log.recent(1).expect("read");
        lines[0].hlc.to_u64()
    };
    let here = call(0).await;
    let ahead = here + (30_000 << 16);
    let answered = call(ahead).await;
    assert!(newest() > ahead, "it follows the caller's clock");
    assert!(answered > ahead, "and hands it on");
    // The same of a neighbour's heartbeat.
    let ahead = ahead + (10_000 << 16);
    node.host.observe(&keys(2).node_id(), ahead);
    assert!(node.host.hybrid() >= ahead);
    assert!(call(0).await > ahead);
    // More than a minute ahead: whoever sends it is wrong, or means to harm.
    for lie in [here + (90_000 << 16), u64::MAX] {
        assert!(call(lie).await < lie);
        assert!(newest() < lie);
    }
}

#[tokio::test]
async fn what_is_not_here_or_not_allowed_is_refused() {
    let node = node().await;
    let from = keys(2).node_id();
    let check = async |request: Request, expected: Failure| {
        let refused = node
            .host
            .call(from, request, CancellationToken::new())
            .await;
        assert_eq!(refused.err(), Some(expected));
    };
    let looked_for = "nobody".to_owned();
    check(request("nobody"), Failure::UnknownAgent { looked_for }).await;
    let mut forged = request("echo");
    forged.principal = "api:key\n{}".to_owned();
    let reason = "the principal of the call: a principal holds printable ASCII without spaces only";
    check(
        forged,
        Failure::Refused {
            reason: reason.to_owned(),
        },
    )
    .await;
    let mut loops = request("echo");
    let hop = openfang_ofp::call::Hop {
        node: from,
        agent: openfang_id::AgentId::from_random([1; 16]),
    };
    loops.path = vec![hop; openfang_kernel::DEPTH_MAX + 1];
    check(loops, Failure::TooDeep { limit: 8 }).await;
    node.owner.shutdown(std::time::Duration::ZERO).await;
    check(request("echo"), Failure::ShuttingDown).await;
}

#[tokio::test]
async fn a_call_that_is_taken_back_ends() {
    let (_sender, turn) = TurnStream::channel(4);
    let cancel = CancellationToken::new();
    let folder = tempfile::tempdir().expect("a folder");
    let frames = frames(turn, cancel.clone(), recorder(folder.path(), None));
    cancel.cancel();
    let frames: Vec<Frame> = frames.collect().await;
    assert_eq!(frames, [Frame::Failure(Failure::Cancelled)]);
    let node = node().await;
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let from = keys(2).node_id();
    match node.host.call(from, request("echo"), cancelled).await {
        Err(why) => assert_eq!(why, Failure::Cancelled),
        Ok(frames) => {
            let last = frames.collect::<Vec<_>>().await.pop();
            assert!(last.is_some_and(|frame| frame.is_last()));
        }
    }
}

#[tokio::test]
async fn proofs_come_from_the_log() {
    let node = node().await;
    let size = node.log.size();
    assert!(size >= 1, "the spawn is logged");
    node.host.on_event(MeshEvent::AuthFailed {
        from: "192.0.2.7:4200".to_owned(),
        node: keys(3).node_id(),
        reason: Refusal::WrongSecret,
    });
    node.host.on_event(MeshEvent::PeerConnected {
        node: keys(4).node_id(),
        transport: Transport::Quic,
    });
    node.host
        .on_event(MeshEvent::Roster(roster::Event::LogReplaced {
            node: keys(5).node_id(),
            epoch: 2,
        }));
    // Entries are written in order: when this one is there, those before it are.
    let auditor = Auditor::new(node.log.clone());
    auditor
        .record(Event::node_stop("test"))
        .await
        .expect("logged");
    let kinds: Vec<String> = node
        .log
        .recent(4)
        .expect("read")
        .into_iter()
        .map(|line| line.ev)
        .collect();
    let expected = ["auth_failed", "peer_connect", "peer_evidence", "node_stop"];
    assert_eq!(kinds, expected);
    let proof = node.host.prove(size, size + 4).await.expect("a proof");
    assert!(!proof.is_empty());
    let behind = node.host.prove(size, size + 5).await;
    assert_eq!(behind, Err(CannotProve::Behind { have: size + 4 }));
    assert_eq!(node.host.prove(2, 1).await, Err(CannotProve::Range));
    assert_eq!(node.log.health(), Health::Ok);
    let recorder = recorder(node.folder.path(), None);
    let silent = NodeHost::new(
        node.host.kernel.clone(),
        None,
        nothing_asked(&recorder),
        recorder,
    );
    assert_eq!(silent.prove(1, 2).await, Err(CannotProve::Range));
}

#[tokio::test]
async fn a_node_that_evidence_convicts_is_not_served_until_the_operator_allows_it() {
    let node = node().await;
    let convict = |byte: u8| {
        node.host
            .on_event(MeshEvent::Roster(roster::Event::Convicted {
                node: keys(byte).node_id(),
                conviction: openfang_mesh::Conviction {
                    kind: openfang_audit::evidence::EvidenceKind::Fork,
                    evidence: Hash::from_bytes([0xcd; 32]),
                },
                evidence: Arc::from(&b"{}"[..]),
            }));
    };
    let call = async |byte: u8| {
        let from = keys(byte).node_id();
        let call = node
            .host
            .call(from, request("echo"), CancellationToken::new());
        call.await.map(|_frames| ())
    };
    assert_eq!(call(2).await, Ok(()));
    for byte in [1, 2, 4] {
        convict(byte);
    }
    let Err(Failure::Refused { reason }) = call(2).await else {
        panic!("taken");
    };
    let file = format!("{}.json", "cd".repeat(32));
    assert!(
        reason.contains(&format!("fork, evidence {file}")),
        "{reason}"
    );
    assert_eq!(call(4).await, Ok(()), "the operator allows it");
    assert_eq!(call(3).await, Ok(()), "it has done nothing");
    assert_eq!(call(1).await, Ok(()), "itself");
    Auditor::new(node.log.clone())
        .record(Event::node_stop("test"))
        .await
        .expect("logged");
    let lines = node.log.recent(50).expect("read");
    let told = |line: &openfang_audit::Line| {
        line.ev == "peer_refused" && format!("{line:?}").contains(&file)
    };
    assert_eq!(
        lines.iter().filter(|line| told(line)).count(),
        1,
        "{lines:?}"
    );
}
