//! Nodes on loopback that copy each other's logs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openfang_audit::feed::{MIRRORS, MirrorStatus, Mirroring, Pace, Proven, Standing};
use openfang_audit::inquiry::Signing;
use openfang_audit::restore::{RestoreError, restore};
use openfang_audit::tile::{TileError, TileKind, TileNodes, TilePath, TileSource as _};
use openfang_audit::{Checkpoint, Hash, SignedHead};
use openfang_id::{NodeId, PeerAddr, SharedSecret, Transport};
use openfang_mesh::{
    CannotProve, Config, Cosigners, Epoch, HeadView, Host, Limits, Listen, Mesh, MeshEvent, Owner,
    Question, Status, Verb, call,
};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Answer, Peer, QUOTA};
use crate::cosigner::RoleKey;
use crate::evidence;
use crate::home::Home;
use crate::mirror::packing::pack;
use crate::mirror::{Desk, Feeding, Holds, PeerTiles, PeerTilesError, feed};
use crate::own_log::{Doubts, News};
use crate::tasks::Tasks;

/// A busy machine is not a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const FAST: Pace = Pace {
    upload_every: Duration::from_millis(20),
    challenge_every: Duration::from_millis(200),
    replace_after: Duration::from_secs(600),
};

/// A host that answers questions about logs alone.
struct DeskHost {
    desk: Desk,
    log: openfang_audit::Log,
}

impl Host for DeskHost {
    fn call(
        &self,
        _from: NodeId,
        _request: call::Request,
        _cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<BoxStream<'static, call::Frame>, call::Failure>> {
        Box::pin(std::future::ready(Err(call::Failure::ShuttingDown)))
    }

    fn prove(&self, from: u64, to: u64) -> BoxFuture<'static, Result<Vec<Hash>, CannotProve>> {
        let proof = self.log.consistency(from, to);
        Box::pin(async move { proof.map_err(|_why| CannotProve::Later) })
    }

    fn answer(&self, from: NodeId, question: Question) -> BoxFuture<'static, Answer> {
        let desk = self.desk.clone();
        Box::pin(async move {
            let answer = desk.ask(from, question).await;
            answer.unwrap_or_else(|| Answer::status(404))
        })
    }

    fn on_event(&self, _event: MeshEvent) {}
}

/// What a node is made of, whether it runs or not.
struct Plan {
    peer: Peer,
    folder: tempfile::TempDir,
    seed: u8,
    /// Whose logs are copied whatever they did.
    allowed: BTreeSet<NodeId>,
}

struct Member {
    plan: Plan,
    mesh: Mesh,
    owner: Owner,
    tasks: Tasks,
    desk: Desk,
    doubts: Doubts,
    status: watch::Receiver<Mirroring>,
}

impl Plan {
    fn new(seed: u8, entries: u64) -> Self {
        Self {
            peer: Peer::new(seed, entries),
            folder: tempfile::tempdir().expect("a folder"),
            seed,
            allowed: BTreeSet::new(),
        }
    }

    fn home(&self) -> Home {
        Home::at(self.folder.path())
    }

    fn config(&self, to: &[&Member], mirror: [u8; 32]) -> Config {
        Config {
            keys: self.peer.keys.clone(),
            name: format!("node-{}", self.seed).parse().expect("a name"),
            version: "0.1.0".to_owned(),
            listen: vec![Listen {
                transport: Transport::Tcp,
                addr: "127.0.0.1:0".parse().expect("an address"),
            }],
            bootstrap: to.iter().map(|member| member.addr()).collect(),
            secret: Some((Epoch(1), SharedSecret::from_random(&[1; 32]))),
            log_epoch: Some(1),
            cosigners: Cosigners {
                witness: None,
                mirror: Some(mirror),
            },
            evidence: Vec::new(),
            state_dir: self.folder.path().join("mesh"),
            limits: Limits::default(),
        }
    }

    async fn start(self, to: &[&Member], quota_bytes: u64) -> Member {
        let seed = openfang_id::NodeSeed::from_bytes([self.seed; 32]);
        let role = openfang_audit::cosign::Role::Mirror;
        let key = RoleKey::choose(&self.home(), &seed, &self.peer.keys.node_id(), role)
            .expect("readable")
            .expect("a generation");
        let log = self.peer.log.clone();
        let public = key.public();
        let opened = evidence::open(
            &self.home().evidence(),
            self.peer.keys.node_id(),
            self.allowed.clone(),
        );
        let quarantine = opened.desk.quarantine().clone();
        let desk = Desk::new(
            Some(key),
            quota_bytes,
            Some(log.clone()),
            quarantine.clone(),
        );
        let mender = desk.mender().expect("the first");
        let host = DeskHost {
            desk: desk.clone(),
            log: log.clone(),
        };
        let started = Mesh::start(self.config(to, public), Arc::new(host)).await;
        let (mesh, owner) = started.expect("it starts");
        desk.attach(mesh.clone());
        if let Some(head) = log.head() {
            mesh.set_head(head);
        }
        let announced = mesh.clone();
        log.on_head(Box::new(move |head| announced.set_head(head)));
        let (shown, status) = watch::channel(Mirroring::none());
        let mut tasks = Tasks::new();
        let doubts = Doubts::new(self.peer.log.clone(), watch::Sender::new(Signing::Free));
        let feeding = Feeding {
            log,
            key: self.peer.keys.log.verifying_key(),
            mesh: mesh.clone(),
            folder: self.home().mirrored_heads(),
            pace: FAST,
            shown,
            doubts: doubts.clone(),
            quarantine,
        };
        tasks.start("copies", feed(feeding, tasks.token()));
        tasks.start("mender", mender.run(mesh.clone(), tasks.token()));
        Member {
            plan: self,
            mesh,
            owner,
            tasks,
            desk,
            doubts,
            status,
        }
    }
}

impl Member {
    fn id(&self) -> NodeId {
        self.mesh.node_id()
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

    /// Ends as a crash does.
    async fn kill(self) -> Plan {
        drop(self.owner);
        self.tasks.shutdown(PATIENCE).await;
        self.plan
    }

    fn mirror(&self, node: NodeId) -> Option<MirrorStatus> {
        let status = self.status.borrow().clone();
        let mut mirrors = status.mirrors.into_iter();
        mirrors.find(|mirror| mirror.node == node)
    }

    fn holds(&self, node: NodeId, size: u64) -> bool {
        self.mirror(node).is_some_and(|mirror| mirror.size >= size)
    }

    /// A file of the copy that this node keeps of another one's log.
    fn file_of(&self, other: &Member, name: &str) -> PathBuf {
        let id = other.plan.peer.id().to_string();
        self.plan.home().mirror_copies().join(id).join(name)
    }

    /// Asks its own desk, as a member would.
    async fn ask_itself(&self, path: &str) -> Answer {
        let question = Question {
            verb: Verb::Get,
            path: path.to_owned(),
            body: Vec::new(),
        };
        let answer = self.desk.ask(self.id(), question).await;
        answer.expect("a question for it")
    }

    async fn ask(&self, to: &Self, verb: Verb, path: &str, body: Vec<u8>) -> Answer {
        let question = Question {
            verb,
            path: path.to_owned(),
            body,
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let answer = self.mesh.ask(to.id(), question, deadline).await;
        answer.expect("an answer")
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looked = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, looked).await;
    assert!(held.is_ok(), "never: {what}");
}

/// Two nodes: the log of the first is copied by the second.
async fn pair(entries: u64, quota_bytes: u64) -> (Member, Member) {
    let a = Plan::new(1, entries).start(&[], QUOTA).await;
    let b = Plan::new(2, 1).start(&[&a], quota_bytes).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_copied_to_three_and_restored_from_any_of_them() {
    let a = Plan::new(1, 1_000).start(&[], QUOTA).await;
    let mut others = Vec::new();
    for seed in 2..=4 {
        others.push(Plan::new(seed, 1).start(&[&a], QUOTA).await);
    }
    eventually("three copies", || {
        let status = a.status.borrow();
        status.complete == MIRRORS && status.size.is_some_and(|size| size >= 1_000)
    })
    .await;
    let another = Plan::new(5, 1_000).start(&[&a], QUOTA).await;
    eventually("the other log is in the mesh", || {
        a.mesh.view().node(&another.id()).is_some()
    })
    .await;
    let head = others
        .iter()
        .filter_map(|other| a.mirror(other.id()))
        .map(|mirror| mirror.size)
        .min();
    let head = a.plan.peer.checkpoint_at(head.expect("three"));
    // One is not there, another one shows another log.
    let lost = Plan::new(9, 0).peer.keys.node_id();
    let bad = vec![(another.id(), Holds::Own), (lost, Holds::Mirror)];
    let good = others.iter().map(|other| (other.id(), Holds::Mirror));
    let all: Vec<_> = bad.iter().copied().chain(good).collect();
    let mesh = a.mesh.clone();
    let origin = a.plan.peer.log.origin().clone();
    let size = head.size;
    let liars = PeerTiles::new(mesh.clone(), Handle::current(), origin.clone(), bad);
    let tiles = PeerTiles::new(mesh, Handle::current(), origin, all);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.jsonl");
    let restored = tokio::task::spawn_blocking(move || {
        let refused = restore(&liars, &head, (0, &path), &mut |_| ()).map(drop);
        assert!(
            matches!(refused, Err(RestoreError::Source(TileError::Root))),
            "{refused:?}"
        );
        let cosigned = tiles.checkpoints();
        for _source in 0..5 {
            match restore(&tiles, &head, (0, &path), &mut |_| ()) {
                Ok(restored) => return (restored.end, cosigned, std::fs::read(path)),
                Err(_why) => tiles.distrust(),
            }
        }
        panic!("no source led to the head");
    });
    let (entries, cosigned, bytes) = restored.await.expect("ends");
    assert_eq!(entries, size);
    let original = std::fs::read(a.plan.peer._folder.path().join("audit.jsonl"));
    let mut original = original.expect("readable");
    let bytes = bytes.expect("readable");
    original.truncate(bytes.len());
    assert!(bytes == original && !bytes.is_empty(), "bit by bit");
    let of: BTreeSet<NodeId> = cosigned.iter().map(|(node, _)| *node).collect();
    assert!(others.iter().all(|other| of.contains(&other.id())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_from_its_own_node() {
    let (a, b) = pair(700, QUOTA).await;
    eventually("they are linked", || {
        b.mesh
            .view()
            .node(&a.id())
            .is_some_and(|node| node.link.is_some())
    })
    .await;
    let head = a.plan.peer.head().checkpoint;
    let own = PeerTiles::new(
        b.mesh.clone(),
        Handle::current(),
        head.origin.clone(),
        vec![(a.id(), Holds::Own)],
    );
    let id = a.id();
    let read = tokio::task::spawn_blocking(move || {
        let beyond = TilePath::new(TileKind::Entries, 100, 256).expect("a path");
        assert_eq!(own.tile(&beyond), Ok(None));
        let (node, note) = own.checkpoints().pop().expect("a head");
        assert_eq!(node, id);
        assert!(note.text().starts_with(own.origin().as_str()));
        let nodes = TileNodes::open(own, head.size, head.root).expect("its tiles fit");
        nodes.bundles(0..2).map(|bundles| bundles.len())
    });
    assert_eq!(read.await.expect("ends"), Ok(2));
    let nobody = PeerTiles::new(
        b.mesh.clone(),
        Handle::current(),
        a.plan.peer.log.origin().clone(),
        Vec::new(),
    );
    let path = TilePath::new(TileKind::Entries, 0, 1).expect("a path");
    let refused = tokio::task::spawn_blocking(move || nobody.tile(&path)).await;
    let refused = refused.expect("ends");
    assert!(
        matches!(refused, Err(PeerTilesError::Nobody { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_died_goes_on_where_it_was() {
    let (a, b) = pair(300, QUOTA).await;
    eventually("a copy", || a.holds(b.id(), 300)).await;
    let id = b.id();
    let key = a.mirror(id).expect("a mirror").key;
    let plan = b.kill().await;
    a.plan.peer.grow(9_000);
    eventually("it is missed", || {
        a.mirror(id)
            .is_some_and(|mirror| mirror.standing == Standing::Unreachable)
    })
    .await;
    assert!(a.holds(id, 300), "it counts as before");
    let b = plan.start(&[&a], QUOTA).await;
    eventually("it has caught up", || a.holds(id, 9_300)).await;
    assert_eq!(
        a.mirror(id).expect("a mirror").key,
        key,
        "with the same key"
    );
    drop(b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_remembers_its_mirrors_over_a_restart() {
    let (a, b) = pair(300, QUOTA).await;
    eventually("a copy", || a.holds(b.id(), 300)).await;
    let id = b.id();
    let plan = a.kill().await;
    let gone = b.kill().await;
    let a = plan.start(&[], QUOTA).await;
    eventually("it is known", || a.holds(id, 300)).await;
    assert!(a.mirror(id).expect("a mirror").former, "it is not there");
    let b = gone.start(&[&a], QUOTA).await;
    eventually("it is chosen again", || {
        a.mirror(id).is_some_and(|mirror| !mirror.former)
    })
    .await;
    a.plan.peer.grow(1);
    let size = a.plan.peer.head().checkpoint.size;
    eventually("it goes on", || a.holds(b.id(), size)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mirror_stops_and_goes_on_with_more_room() {
    let (a, b) = pair(2_000, 200_000).await;
    let id = b.id();
    eventually("it is full", || {
        a.mirror(id)
            .is_some_and(|mirror| mirror.standing == Standing::Full)
    })
    .await;
    // The log goes on all the same.
    a.plan.peer.grow(10);
    assert!(!a.holds(id, 1));
    let entries = b.file_of(&a, "entries");
    let before = std::fs::read(&entries).expect("a file");
    assert!(!before.is_empty() && before.len() < 200_000);
    let b = b.kill().await.start(&[&a], QUOTA).await;
    eventually("it has room", || a.holds(id, 2_010)).await;
    let after = std::fs::read(b.file_of(&a, "entries")).expect("a file");
    assert_eq!(
        after.get(..before.len()),
        Some(before.as_slice()),
        "it went on from there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_and_strangers_are_refused_over_the_mesh() {
    let (a, b) = pair(400, QUOTA).await;
    let c = Plan::new(3, 5).start(&[&b], QUOTA).await;
    eventually("copies", || a.holds(b.id(), 400) && c.holds(b.id(), 5)).await;
    let peer = &a.plan.peer;
    let size = a.mirror(b.id()).expect("a mirror").size;
    let body = || pack(&peer.log, &peer.header(256, size)).expect("packed");
    // Its own entries again are no news and no fault; changed ones are.
    let again = a.ask(&b, Verb::Post, "mirror/add-entries", body()).await;
    assert!(matches!(again.status, 200 | 409), "{again:?}");
    let mut lie = body();
    let place = lie.len() / 2;
    lie[place] ^= 1;
    let lied = a.ask(&b, Verb::Post, "mirror/add-entries", lie).await;
    assert!(matches!(lied.status, 400 | 409 | 422), "{lied:?}");
    let strange = c.ask(&b, Verb::Post, "mirror/add-entries", body()).await;
    assert_eq!(strange.status, 404);
    let head = peer.head();
    let request = peer.checkpoint(0, &head);
    let strange = c
        .ask(&b, Verb::Post, "mirror/add-checkpoint", request)
        .await;
    assert_eq!(strange.status, 404);
    // Reading is for all members.
    let id = peer.id();
    let tile = c
        .ask(
            &b,
            Verb::Get,
            &format!("mirror/{id}/tile/entries/000"),
            Vec::new(),
        )
        .await;
    assert_eq!(tile.status, 200);
    let head = c
        .ask(
            &b,
            Verb::Get,
            &format!("mirror/{id}/checkpoint"),
            Vec::new(),
        )
        .await;
    assert_eq!(head.status, 200);
    for path in [
        "mirror/00/checkpoint".to_owned(),
        format!("mirror/{id}/tile/0/999"),
        format!("mirror/{id}/../{id}/checkpoint"),
        format!("mirror/{}/checkpoint", Hash::from_bytes([7; 32])),
        "log/tile/entries/999".to_owned(),
        "log/".to_owned(),
    ] {
        assert_eq!(
            c.ask(&b, Verb::Get, &path, Vec::new()).await.status,
            404,
            "{path}"
        );
    }
    let path = format!("mirror/{id}/challenge");
    assert_eq!(c.ask(&b, Verb::Post, &path, vec![0; 8]).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_lost_entries_fails_its_challenge_and_mends_itself() {
    let (a, b) = pair(300, QUOTA).await;
    let proven = |wanted| {
        a.mirror(b.id())
            .is_some_and(|mirror| mirror.proven == wanted)
    };
    eventually("it shows what it holds", || proven(Proven::Shown)).await;
    let entries = b.file_of(&a, "entries");
    let good = std::fs::read(&entries).expect("a file");
    // The text of every entry of the first bundle, but not its length.
    let mut bad = good.clone();
    let mut at = 0;
    for _entry in 0..256 {
        let length = usize::from(u16::from_be_bytes([good[at], good[at + 1]]));
        bad[at + 2 + length / 2] ^= 1;
        at += 2 + length;
    }
    write_over(&entries, &bad);
    eventually("it fails", || proven(Proven::Failed)).await;
    assert_eq!(
        a.mirror(b.id()).expect("a mirror").standing,
        Standing::Holding
    );
    eventually("it fetches them again and is cleared", || {
        proven(Proven::Shown)
    })
    .await;
    let mended = std::fs::read(&entries).expect("a file");
    assert!(mended.starts_with(&good), "bit by bit");
    // One that does not answer is unproven, not failed.
    let id = b.id();
    drop(b.kill().await);
    eventually("it is unproven", || {
        a.mirror(id)
            .is_some_and(|mirror| mirror.proven == Proven::Unproven)
    })
    .await;
}

/// Changes a file in place: the mirror has it open.
fn write_over(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.write_all_at(bytes, 0))
        .expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_of_a_log_that_contradicts_itself_is_frozen_and_served() {
    let (a, b) = pair(300, QUOTA).await;
    eventually("a copy", || a.holds(b.id(), 300)).await;
    let size = convict(&a, &b).await;
    a.plan.peer.grow(5);
    eventually("it is refused", || {
        a.mirror(b.id())
            .is_some_and(|mirror| mirror.standing == Standing::Refused(403))
    })
    .await;
    let path = format!("mirror/{}/checkpoint", a.plan.peer.id());
    let kept = a.ask(&b, Verb::Get, &path, Vec::new()).await;
    assert_eq!(kept.status, 200, "what is there is still shown");
    let text = String::from_utf8(kept.body).expect("text");
    assert_eq!(text.lines().nth(1), Some(size.to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_contradicts_itself_is_copied_on_where_the_operator_allows_it() {
    let a = Plan::new(1, 300).start(&[], QUOTA).await;
    let mut plan = Plan::new(2, 1);
    plan.allowed.insert(a.id());
    let b = plan.start(&[&a], QUOTA).await;
    eventually("a copy", || a.holds(b.id(), 300)).await;
    let size = convict(&a, &b).await;
    a.plan.peer.grow(5);
    eventually("it goes on", || a.holds(b.id(), size + 5)).await;
    let id = a.plan.peer.id();
    let accepted = format!("mirror/{id}/accepted");
    let accepted = b.ask_itself(&accepted).await;
    let text = String::from_utf8(accepted.body).expect("text");
    let head = a.plan.peer.head();
    let key = a.plan.peer.keys.log.verifying_key();
    let known = SignedHead::open(&text, a.plan.peer.log.origin(), &key).expect("its head");
    assert_eq!(known.checkpoint, head.checkpoint);
    let other = format!("mirror/{}/accepted", Hash::from_bytes([7; 32]));
    assert_eq!(b.ask_itself(&other).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_refuses_the_log_is_asked_what_it_knows() {
    // It has more entries than there are now, then another entry in the place of one.
    for now in [20, 400] {
        let (a, b) = pair(300, QUOTA).await;
        eventually("a copy", || a.holds(b.id(), 300)).await;
        assert_eq!(a.doubts.news(0), News::None);
        drop(a.kill().await);
        let again = Plan::new(1, now).start(&[&b], QUOTA).await;
        let mut suspects = BTreeSet::new();
        eventually("it is suspected to know more", || {
            if let News::Suspects(nodes) = again.doubts.news(0) {
                suspects.extend(nodes);
            }
            suspects.contains(&b.id())
        })
        .await;
        let size = again.plan.peer.log.size();
        again.plan.peer.grow(1);
        assert!(
            again.plan.peer.log.size() > size,
            "nothing stops before it is known"
        );
    }
}

/// Shows a second root for the size of the log of `a`, until `b` knows that it contradicts itself. Returns the
/// size.
async fn convict(a: &Member, b: &Member) -> u64 {
    let seen = |view: &openfang_mesh::View| view.node(&a.id()).map(|node| node.head.clone());
    let size = a.plan.peer.head().checkpoint.size;
    eventually("the head is seen", || {
        matches!(seen(&b.mesh.view()), Some(HeadView::Consistent { size: seen, .. }) if seen == size)
    })
    .await;
    let forked = Checkpoint {
        origin: a.plan.peer.log.origin().clone(),
        size,
        root: Hash::from_bytes([7; 32]),
    };
    a.mesh
        .set_head(SignedHead::sign(forked, &a.plan.peer.keys.log));
    eventually("it is convicted", || {
        matches!(seen(&b.mesh.view()), Some(HeadView::Inconsistent { .. }))
    })
    .await;
    size
}
