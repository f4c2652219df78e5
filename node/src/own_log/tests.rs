//! The own log among peers that are made up: they know what a test says, lie, or keep silent. The log, the
//! disk and the mesh between them are real.

mod lost;
mod refusals;

use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::cosign::LogName;
use openfang_audit::policy::{Policy, quorum_for};
use openfang_audit::tile::{Bundle, TileSource as _};
use openfang_audit::{Event, Hash, Options, Origin, Public, SignedHead};
use openfang_id::{Keys, NodeSeed, PeerAddr, SharedSecret, Transport};
use openfang_kernel::Auditor;
use openfang_mesh::{
    Answer, CannotProve, Config, Cosigners, Epoch, Host, Joining, Limits, Listen, MeshEvent, Owner,
    call,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::MachineClock;
use crate::files;

/// A busy machine is not a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long nothing must happen where nothing may.
const LONG: Duration = Duration::from_secs(3);
const FAST: Pace = Pace {
    meet: Duration::from_millis(500),
    quiet: Duration::from_millis(300),
    lonely: Duration::from_millis(700),
    try_every: Duration::from_millis(100),
    patience: Duration::from_millis(700),
    introduction: Duration::from_millis(100),
    answer: Duration::from_millis(500),
};
/// The node whose log it is.
const ME: u8 = 1;

fn keys(seed: u8) -> Keys {
    NodeSeed::from_bytes([seed; 32]).keys()
}

fn open(folder: &Path, held: bool) -> (Log, openfang_audit::Opened) {
    let (home, keys) = (Home::at(folder), keys(ME));
    let options = Options {
        log_path: home.audit_log(),
        dir: home.audit_dir(),
        node: keys.node_id(),
        key: keys.log,
        boot: 1,
        epoch: 1,
        held,
    };
    Log::open(options, Arc::new(MachineClock)).expect("opened")
}

async fn grow(log: &Log, by: usize, text: &str) {
    let auditor = Auditor::new(log.clone());
    for number in 0..by {
        let event = Event::config_change(Public::text(&format!("{text} {number}")));
        auditor.record(event).await.expect("logged");
    }
}

/// A log as it was, and as it is for those who have a copy.
struct History {
    /// A backup.
    old: TempDir,
    _whole: TempDir,
    log: Log,
    head: SignedHead,
}

impl History {
    /// Of so many entries, of which the backup has the first.
    async fn new(first: usize, more: usize) -> Self {
        let (old, whole) = (folder(), folder());
        let (log, _) = open(whole.path(), false);
        grow(&log, first, "old").await;
        log.close().expect("closed");
        copy(whole.path(), old.path());
        let (log, _) = open(whole.path(), false);
        grow(&log, more, "new").await;
        log.close().expect("closed");
        let (log, opened) = open(whole.path(), true);
        let head = opened.head.expect("a head");
        assert_eq!(head.checkpoint.size, opened.size);
        Self {
            old,
            _whole: whole,
            log,
            head,
        }
    }

    fn knowledge(&self, copied: bool) -> Knowledge {
        Knowledge {
            cosigned: vec![self.head.note.clone()],
            copy: copied.then(|| (self.log.clone(), self.head.note.clone())),
            ..Knowledge::default()
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Copies what belongs to a log.
fn copy(from: &Path, to: &Path) {
    let (from, to) = (Home::at(from), Home::at(to));
    std::fs::copy(from.audit_log(), to.audit_log()).expect("copied");
    std::fs::create_dir_all(to.audit_dir()).expect("made");
    for entry in std::fs::read_dir(from.audit_dir()).expect("listed") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a kind").is_file() {
            let to = to.audit_dir().join(entry.file_name());
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// What a peer knows of the log, or says it does.
#[derive(Default)]
struct Knowledge {
    cosigned: Vec<String>,
    copy: Option<(Log, String)>,
    /// Whether it answers nothing at all.
    silent: bool,
    /// How it refuses to cosign a head.
    refusal: Option<(u16, &'static str)>,
}

/// A peer, or the node itself.
#[derive(Default)]
struct Fake {
    knows: Mutex<Knowledge>,
    /// How often it was asked which heads it knows.
    asked: AtomicUsize,
    doubts: OnceLock<Doubts>,
}

impl Fake {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer_to(&self, path: &str) -> Option<Answer> {
        let knows = self.knows.lock().unwrap_or_else(PoisonError::into_inner);
        if knows.silent {
            return None;
        }
        let ok = |body: Vec<u8>| Answer {
            status: 200,
            content_type: String::new(),
            body,
        };
        if let (Some((status, text)), "witness/add-checkpoint") = (knows.refusal, path) {
            let refused = Answer::status(status);
            let body = text.as_bytes().to_vec();
            return Some(Answer { body, ..refused });
        }
        if path == HEADS_OF_ASKER {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        if path == HEADS_OF_ASKER && !knows.cosigned.is_empty() {
            let mut bundle = Bundle::default();
            for note in &knows.cosigned {
                bundle.push(note.as_bytes()).expect("short");
            }
            return Some(ok(bundle.into_bytes()));
        }
        let copied = knows.copy.as_ref().and_then(|(log, note)| {
            let id = LogName::from(log.origin()).id();
            match path.strip_prefix(&format!("mirror/{id}/"))? {
                "checkpoint" => Some(note.clone().into_bytes()),
                tile => log.tiles().tile(&tile.parse().ok()?).ok()?,
            }
        });
        Some(copied.map_or(Answer::status(404), ok))
    }
}

/// The host of one of them.
struct FakeHost(Arc<Fake>);

impl Host for FakeHost {
    fn call(
        &self,
        _from: NodeId,
        _request: call::Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, call::Frame>, call::Failure>> {
        std::future::ready(Err(call::Failure::Internal)).boxed()
    }

    fn prove(&self, _from: u64, _to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        std::future::ready(Err(CannotProve::Later)).boxed()
    }

    fn answer(&self, _from: NodeId, question: Question) -> BoxFuture<'static, Answer> {
        let fake = Arc::clone(&self.0);
        async move {
            loop {
                if let Some(answer) = fake.answer_to(&question.path) {
                    return answer;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        .boxed()
    }

    fn joining(&self) -> BoxFuture<'static, Joining> {
        let doubts = self.0.doubts.get().cloned();
        async move {
            match doubts {
                Some(doubts) => Joining::new(doubts.joining().await),
                None => Joining::new(()),
            }
        }
        .boxed()
    }

    fn on_event(&self, _event: MeshEvent) {}
}

async fn mesh(
    seed: u8,
    (state, fake): (&Path, &Arc<Fake>),
    (bootstrap, awake): (Vec<PeerAddr>, bool),
) -> (Mesh, Owner) {
    let config = Config {
        keys: keys(seed),
        name: format!("node-{seed}").parse().expect("a name"),
        version: "0.1.0".to_owned(),
        listen: vec![Listen {
            transport: Transport::Tcp,
            addr: "127.0.0.1:0".parse().expect("an address"),
        }],
        bootstrap,
        secret: awake.then(secret),
        log_epoch: Some(1),
        cosigners: Cosigners {
            witness: Some(keys(seed).witness.verifying_key().to_bytes()),
            mirror: None,
        },
        evidence: Vec::new(),
        state_dir: state.join("mesh"),
        limits: Limits::default(),
    };
    let started = Mesh::start(config, Arc::new(FakeHost(Arc::clone(fake)))).await;
    started.expect("it starts")
}

fn secret() -> (Epoch, SharedSecret) {
    (Epoch(1), SharedSecret::from_random(&[1; 32]))
}

struct Peer {
    fake: Arc<Fake>,
    mesh: Mesh,
    _owner: Owner,
    _folder: TempDir,
}

impl Peer {
    async fn start(seed: u8, knows: Knowledge) -> Self {
        let (folder, fake) = (folder(), Arc::new(Fake::default()));
        let (mesh, owner) = mesh(seed, (folder.path(), &fake), (Vec::new(), true)).await;
        let peer = Self {
            fake,
            mesh,
            _owner: owner,
            _folder: folder,
        };
        peer.learn(knows);
        peer
    }

    fn learn(&self, knows: Knowledge) {
        let mut known = self
            .fake
            .knows
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = knows;
    }

    fn addr(&self) -> PeerAddr {
        match self.mesh.status() {
            Status::Awake { listen, .. } => PeerAddr {
                addr: listen.first().expect("it listens").clone(),
                node: None,
            },
            Status::Asleep => panic!("it sleeps"),
        }
    }
}

/// The node under test.
struct Node {
    home: Home,
    log: Log,
    doubts: Doubts,
    standing: watch::Receiver<Signing>,
    mesh: Mesh,
    kept: JoinHandle<Option<Anew>>,
    _owner: Owner,
    _folder: TempDir,
}

impl Node {
    /// Starts with what is in a folder, and waits until it sees all its peers.
    async fn start(folder: TempDir, found: Found, peers: &[&Peer]) -> Self {
        Self::start_as(folder, (found, false), (peers, true)).await
    }

    async fn start_as(
        folder: TempDir,
        (found, strict): (Found, bool),
        (peers, awake): (&[&Peer], bool),
    ) -> Self {
        let (log, _) = open(folder.path(), true);
        let fake = Arc::new(Fake::default());
        let asking = Signing::Asking {
            answered: 0,
            needed: 0,
        };
        let doubts = Doubts::new(log.clone(), watch::Sender::new(asking));
        fake.doubts.get_or_init(|| doubts.clone());
        let bootstrap = peers.iter().map(|peer| peer.addr()).collect();
        let (mesh, owner) = mesh(ME, (folder.path(), &fake), (bootstrap, awake)).await;
        doubts.attach(mesh.clone());
        eventually("it sees its peers", || {
            let view = mesh.view();
            let sees = |peer: &&Peer| {
                let node = view.node(&peer.mesh.node_id());
                node.is_some_and(|node| node.liveness.is_reachable())
            };
            !awake || peers.iter().all(sees)
        })
        .await;
        let home = Home::at(folder.path());
        let own = OwnLog {
            doubts: doubts.clone(),
            mesh: mesh.clone(),
            me: (keys(ME).node_id(), keys(ME).log.verifying_key()),
            home: home.clone(),
            log_path: home.audit_log(),
            found,
            strict,
            released: false,
            expects_peers: !peers.is_empty(),
            witness: None,
            pace: FAST,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a test waits for what the task returns, or drops it"
        )]
        let kept = tokio::spawn(own.keep(CancellationToken::new()));
        Self {
            home,
            log,
            standing: doubts.standing(),
            doubts,
            mesh,
            kept,
            _owner: owner,
            _folder: folder,
        }
    }

    fn standing(&self) -> Signing {
        self.standing.borrow().clone()
    }

    async fn is_free(&self) {
        eventually("it is signed", || {
            self.standing() == Signing::Free && !self.log.is_held()
        })
        .await;
    }

    /// Nothing is signed and nothing given up, however long it takes.
    async fn waits(&mut self) {
        let ended = tokio::time::timeout(LONG, &mut self.kept).await;
        assert!(ended.is_err(), "{ended:?}");
        assert!(self.log.is_held() && self.standing() != Signing::Free);
    }

    async fn anew(&mut self) -> Anew {
        let ended = tokio::time::timeout(PATIENCE, &mut self.kept).await;
        let anew = ended.expect("in time").expect("no panic");
        assert!(self.log.is_held(), "nothing was signed");
        anew.expect("it begins anew")
    }

    async fn join(&self, peer: &Peer) {
        let joined = self.mesh.join(vec![peer.addr()], Some(secret())).await;
        joined.expect("joined");
    }

    /// Whether the log holds all of a history, bit by bit.
    fn has_all_of(&self, history: &History) -> bool {
        let whole = std::fs::read(Home::at(history._whole.path()).audit_log());
        let now = std::fs::read(self.home.audit_log()).expect("readable");
        now.starts_with(&whole.expect("readable"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kept.abort();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, looked).await;
    assert!(held.is_ok(), "never: {what}");
}

/// Writes down who has witnessed the log.
fn swear(folder: &TempDir, witnesses: &[u8]) {
    let home = Home::at(folder.path());
    std::fs::create_dir_all(home.audit_dir()).expect("made");
    let named: Vec<_> = witnesses
        .iter()
        .map(|seed| (keys(*seed).node_id(), keys(*seed).witness.verifying_key()))
        .collect();
    let origin = Origin::of(&keys(ME).node_id(), 1);
    let key = keys(ME).log.verifying_key();
    let policy = Policy::of_log(&origin, key, &named, quorum_for(named.len()));
    let policy = policy.expect("a policy");
    files::replace(&home.audit_policy(), policy.as_bytes()).expect("written");
}

/// A head that looks like one of the log and is signed by somebody else, and one of another log.
fn lies() -> Vec<String> {
    let root = Hash::from_bytes([7; 32]);
    let head = |owner: u8| Checkpoint {
        origin: Origin::of(&keys(owner).node_id(), 1),
        size: 1_000,
        root,
    };
    vec![
        SignedHead::sign(head(ME), &keys(9).log).note,
        SignedHead::sign(head(9), &keys(9).log).note,
        "rubbish".to_owned(),
    ]
}

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn a_wiped_log_comes_back_before_it_is_signed() {
    run(async {
        let history = History::new(5, 300).await;
        let peer = Peer::start(2, history.knowledge(true)).await;
        let node = Node::start(folder(), Found::Gone, &[&peer]).await;
        Mark::Gone.store(&node.home).expect("written");
        grow(&node.log, 3, "meanwhile").await;
        node.is_free().await;
        assert!(node.has_all_of(&history));
        assert!(node.log.size() > history.head.checkpoint.size);
        assert_eq!(Mark::load(&node.home).expect("read"), None, "it is settled");
    });
}

#[test]
fn a_log_that_was_put_back_comes_back_and_the_keys_are_to_be_retired() {
    run(async {
        let history = History::new(5, 20).await;
        let peer = Peer::start(2, history.knowledge(true)).await;
        let (old, home) = (folder(), history.old.path());
        copy(home, old.path());
        let mut node = Node::start(old, Found::Whole, &[&peer]).await;
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
        assert!(node.has_all_of(&history));
        // A process that is killed here finds this at its next start.
        let mark = Mark::load(&node.home).expect("read");
        assert_eq!(mark, Some(Mark::RolledBack));
        assert_eq!(Mark::found(mark, Found::Whole), Found::Back);
    });
}

#[test]
fn heads_that_the_log_did_not_sign_are_nothing() {
    run(async {
        let liar = || Knowledge {
            cosigned: lies(),
            ..Knowledge::default()
        };
        let history = History::new(5, 0).await;
        let peer = Peer::start(2, liar()).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let node = Node::start(old, Found::Whole, &[&peer]).await;
        node.is_free().await;
        // While it is signed a liar stops nothing either.
        let size = node.log.signed_size();
        node.doubts.suspect(peer.mesh.node_id());
        grow(&node.log, 3, "on").await;
        eventually("it is signed on", || node.log.signed_size() > size).await;
        assert_eq!(node.standing(), Signing::Free);
        drop(node);
        // For a log that is gone it is no word that there was one.
        let mut node = Node::start(folder(), Found::Gone, &[&peer]).await;
        assert_eq!(node.anew().await, Anew::Next { last: None });
    });
}

#[test]
fn silence_is_no_answer_for_a_log_that_is_gone() {
    run(async {
        let history = History::new(5, 20).await;
        let silent = Knowledge {
            silent: true,
            ..Knowledge::default()
        };
        let newcomer = Peer::start(2, Knowledge::default()).await;
        let peer = Peer::start(3, silent).await;
        let both = [&newcomer, &peer];
        let mut node = Node::start(folder(), Found::Gone, &both).await;
        node.waits().await;
        peer.learn(history.knowledge(true));
        node.is_free().await;
        assert!(node.has_all_of(&history));
    });
}

#[test]
fn silence_does_not_stop_a_log_that_is_whole_unless_it_is_told_to() {
    run(async {
        let history = History::new(5, 0).await;
        let silent = Knowledge {
            silent: true,
            ..Knowledge::default()
        };
        let peer = Peer::start(2, silent).await;
        for strict in [false, true] {
            let old = folder();
            copy(history.old.path(), old.path());
            let found = (Found::Whole, strict);
            let mut node = Node::start_as(old, found, (&[&peer], true)).await;
            if strict {
                let silent = [peer.mesh.node_id()];
                eventually("who is silent is named", || {
                    matches!(node.standing(), Signing::Waiting { silent: who, .. } if who == silent)
                })
                .await;
                node.waits().await;
            } else {
                node.is_free().await;
            }
        }
    });
}

#[test]
fn where_all_peers_are_gone_a_log_that_had_witnesses_is_not_given_up() {
    run(async {
        let with_witness = folder();
        swear(&with_witness, &[2]);
        let mut node = Node::start(with_witness, Found::Gone, &[]).await;
        node.waits().await;
        drop(node);
        let mut node = Node::start(folder(), Found::Gone, &[]).await;
        assert_eq!(node.anew().await, Anew::Next { last: None });
        drop(node);
        // A log that is whole does not wait for ever.
        let history = History::new(5, 0).await;
        let old = folder();
        copy(history.old.path(), old.path());
        swear(&old, &[2]);
        Node::start(old, Found::Whole, &[]).await.is_free().await;
    });
}

#[test]
fn who_came_later_is_no_witness_of_a_log_that_wrote_down_who_is() {
    run(async {
        let history = History::new(5, 20).await;
        let newcomer = Peer::start(2, Knowledge::default()).await;
        let old = folder();
        copy(history.old.path(), old.path());
        std::fs::remove_file(Home::at(old.path()).audit_dir().join("floor")).expect("removed");
        swear(&old, &[3]);
        let mut node = Node::start(old, Found::NoFloor, &[&newcomer]).await;
        node.waits().await;
        let witness = Peer::start(3, history.knowledge(true)).await;
        node.join(&witness).await;
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
        assert!(node.has_all_of(&history));
    });
}

#[test]
fn a_node_that_slept_asks_before_its_first_signature_in_the_mesh() {
    run(async {
        let history = History::new(5, 20).await;
        let peer = Peer::start(2, history.knowledge(true)).await;
        // It knows of nothing that is missing, and signs as long as it is alone.
        let old = folder();
        copy(history.old.path(), old.path());
        let asleep = ([].as_slice(), false);
        let mut node = Node::start_as(old, (Found::Whole, false), asleep).await;
        node.is_free().await;
        node.join(&peer).await;
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
        assert!(node.has_all_of(&history));
        drop(node);
        // What it has signed meanwhile is another history: nobody sees it.
        let old = folder();
        copy(history.old.path(), old.path());
        let mut node = Node::start_as(old, (Found::Whole, false), asleep).await;
        node.is_free().await;
        grow(&node.log, 3, "alone").await;
        eventually("it is signed", || node.log.signed_size() >= 8).await;
        node.join(&peer).await;
        eventually("it is found out", || {
            matches!(node.standing(), Signing::Contradicted { .. })
        })
        .await;
        node.waits().await;
        let seen = peer.mesh.view();
        let seen = seen.node(&node.mesh.node_id()).expect("it is there");
        assert_eq!(
            seen.head,
            openfang_mesh::HeadView::None,
            "no head was shown"
        );
    });
}

#[test]
fn a_log_that_is_gone_waits_for_the_mesh_to_wake() {
    run(async {
        let history = History::new(5, 20).await;
        let peer = Peer::start(2, history.knowledge(true)).await;
        let asleep = ([].as_slice(), false);
        let mut node = Node::start_as(folder(), (Found::Gone, false), asleep).await;
        grow(&node.log, 3, "meanwhile").await;
        node.waits().await;
        node.join(&peer).await;
        node.is_free().await;
        assert!(node.has_all_of(&history));
    });
}

#[test]
fn a_join_that_fails_or_leads_to_nothing_new_lets_the_log_go_on() {
    run(async {
        let history = History::new(5, 0).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let asleep = ([].as_slice(), false);
        let node = Node::start_as(old, (Found::Whole, false), asleep).await;
        node.is_free().await;
        let wrong = (Epoch(1), SharedSecret::from_random(&[9; 32]));
        let peer = Peer::start(2, Knowledge::default()).await;
        let refused = node.mesh.join(vec![peer.addr()], Some(wrong)).await;
        assert!(refused.is_err());
        node.is_free().await;
        node.join(&peer).await;
        node.is_free().await;
        let size = node.log.signed_size();
        grow(&node.log, 2, "on").await;
        eventually("it is signed on", || node.log.signed_size() >= size + 2).await;
    });
}

#[test]
fn a_peer_that_knows_more_stops_a_log_that_is_signed() {
    run(async {
        let history = History::new(5, 20).await;
        let peer = Peer::start(2, Knowledge::default()).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let mut node = Node::start(old, Found::Whole, &[&peer]).await;
        node.is_free().await;
        peer.learn(history.knowledge(true));
        node.doubts.suspect(peer.mesh.node_id());
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
        assert!(node.has_all_of(&history));
        drop(node);
        // With another history of its own it signs nothing more.
        peer.learn(Knowledge::default());
        let old = folder();
        copy(history.old.path(), old.path());
        let mut node = Node::start(old, Found::Whole, &[&peer]).await;
        node.is_free().await;
        grow(&node.log, 2, "another").await;
        eventually("it is signed", || node.log.signed_size() >= 7).await;
        peer.learn(history.knowledge(true));
        node.doubts.suspect(peer.mesh.node_id());
        eventually("it is found out", || {
            matches!(node.standing(), Signing::Contradicted { .. })
        })
        .await;
        node.waits().await;
    });
}
