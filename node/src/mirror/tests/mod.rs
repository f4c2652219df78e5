//! Copies of real logs on a real disk, without a mesh; [`mesh`] has those over one.

mod mesh;

use std::sync::Arc;
use std::time::Duration;

use openfang_audit::cosign::{CosignerKey, LogName, Role};
use openfang_audit::mirror::{MirrorInfo, UploadHeader};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::proof::subtree_root;
use openfang_audit::tile::{TileNodes, TilePath, TileSource as _, tile_paths};
use openfang_audit::witness::{AddCheckpoint, Trust};
use openfang_audit::{Checkpoint, Event, Hash, Log, Options, SignedHead};
use openfang_id::{Keys, NodeSeed};
use openfang_mesh::Answer;
use tempfile::TempDir;

use super::copies::{Copies, Owned};
use super::packing::pack;
use crate::clock::MachineClock;
use crate::cosigner::RoleKey;
use crate::home::Home;

const NOW: u64 = 1_700_000_000;
/// Entries that a test appends at once.
const APPENDS: usize = 10_000;
const QUOTA: u64 = 1 << 30;

/// A log of a peer.
struct Peer {
    _folder: TempDir,
    keys: Keys,
    log: Log,
}

impl Peer {
    fn new(seed: u8, entries: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = NodeSeed::from_bytes([seed; 32]).keys();
        let options = Options {
            log_path: folder.path().join("audit.jsonl"),
            dir: folder.path().join("audit.d"),
            node: keys.node_id(),
            key: keys.log.clone(),
            boot: 1,
            epoch: 1,
            held: false,
        };
        let (log, _opened) = Log::open(options, Arc::new(MachineClock)).expect("opened");
        let peer = Self {
            _folder: folder,
            keys,
            log,
        };
        peer.grow(entries);
        peer
    }

    /// Appends entries and waits for a head over them.
    fn grow(&self, by: u64) {
        let size = self.log.size() + by;
        let (done, acked) = std::sync::mpsc::sync_channel(APPENDS);
        for number in 0..by {
            let done = done.clone();
            let event =
                Event::config_change(openfang_audit::Public::text(&format!("entry {number}")));
            let ack =
                Box::new(move |acked: Result<_, _>| done.send(acked.is_ok()).expect("awaited"));
            while self.log.append(event.clone(), ack.clone()).is_err() {
                std::thread::yield_now();
            }
        }
        assert!((0..by).all(|_one| acked.recv().expect("acked")));
        until(|| self.head().checkpoint.size >= size);
    }

    fn head(&self) -> SignedHead {
        self.log.head().unwrap_or_else(|| SignedHead {
            checkpoint: Checkpoint {
                origin: self.log.origin().clone(),
                size: 0,
                root: openfang_audit::tree::EMPTY_ROOT,
            },
            note: String::new(),
        })
    }

    /// The tree over the first entries, as a head says it.
    fn checkpoint_at(&self, size: u64) -> Checkpoint {
        Checkpoint {
            origin: self.log.origin().clone(),
            size,
            root: subtree_root(&self.log.tiles(), 0, size).expect("so many entries"),
        }
    }

    fn owned(&self) -> Owned {
        let key = self.keys.log.verifying_key();
        let verifier = Verifier::new(self.log.origin().as_str(), key).expect("a name");
        Owned {
            by: self.keys.node_id(),
            origin: self.log.origin().clone(),
            trust: Trust::Keys(vec![verifier]),
        }
    }

    fn checkpoint(&self, old: u64, head: &SignedHead) -> Vec<u8> {
        let size = head.checkpoint.size;
        let proof = match old {
            0 => Vec::new(),
            old if old == size => Vec::new(),
            old => self.log.consistency(old, size).expect("it has grown"),
        };
        let note = head.note.parse().expect("a note");
        let request = AddCheckpoint::new(old, proof, note).expect("a request");
        request.to_string().into_bytes()
    }

    fn entries(&self, start: u64, end: u64) -> Vec<u8> {
        pack(&self.log, &self.header(start, end)).expect("packed")
    }

    fn header(&self, start: u64, end: u64) -> UploadHeader {
        UploadHeader {
            origin: self.log.origin().to_string(),
            start,
            end,
            ticket: Vec::new(),
        }
    }

    fn id(&self) -> Hash {
        LogName::from(self.log.origin()).id()
    }
}

/// A node that mirrors.
struct Node {
    folder: TempDir,
    seed: NodeSeed,
}

impl Node {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            seed: NodeSeed::from_bytes([99; 32]),
        }
    }

    fn key(&self) -> RoleKey {
        let home = Home::at(self.folder.path());
        let node = self.seed.keys().node_id();
        let key = RoleKey::choose(&home, &self.seed, &node, Role::Mirror);
        key.expect("readable").expect("a generation")
    }

    fn copies(&self, quota_bytes: u64) -> Copies {
        Copies::open(&self.key(), quota_bytes).expect("opened")
    }

    fn cosigner(&self) -> CosignerKey {
        let key = openfang_id::VerifyingKey::from_bytes(self.key().public()).expect("a key");
        CosignerKey::of(&self.seed.keys().node_id(), Role::Mirror, key)
    }

    fn file(&self, peer: &Peer, name: &str) -> std::path::PathBuf {
        let home = Home::at(self.folder.path());
        let folder = home.mirror_copies().join(peer.id().to_string());
        folder.join(name)
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    for _look in 0..12_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never held");
}

fn info(answer: &Answer) -> MirrorInfo {
    assert_eq!(answer.content_type, "text/x.tlog.mirror-info");
    let text = std::str::from_utf8(&answer.body).expect("text");
    text.parse().expect("where the mirror stands")
}

/// Uploads everything up to a head; returns the last answer.
fn upload(copies: &Copies, peer: &Peer, from: u64, head: &SignedHead) -> Answer {
    let end = head.checkpoint.size;
    let mut start = from;
    loop {
        let answer = copies.add_entries(&peer.owned(), &peer.entries(start, end));
        if answer.status != 202 {
            return answer;
        }
        let next = info(&answer).next_entry;
        assert!(next > start, "it goes on");
        start = next;
    }
}

fn assert_cosigned(node: &Node, head: &SignedHead, answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut note: Note = head.note.parse().expect("a note");
    let lines = std::str::from_utf8(&answer.body).expect("text");
    let time = node.cosigner().collect(&mut note, lines);
    assert_eq!(time, Ok(NOW));
}

fn tile(copies: &Copies, peer: &Peer, path: &TilePath) -> Option<Vec<u8>> {
    let copy = copies.find(&peer.id()).expect("a copy");
    let tile = copies.read(&copy, |mirror| mirror.tile(path));
    tile.expect("open").expect("readable")
}

#[test]
fn a_log_is_cosigned_once_all_of_it_is_here_and_served_after_a_restart() {
    let node = Node::new();
    let peer = Peer::new(1, 9_000);
    let head = peer.head();
    let copies = node.copies(QUOTA);
    let nothing = copies.add_entries(&peer.owned(), &peer.entries(0, 300));
    assert_eq!(nothing.status, 422, "no head is pending");
    let pending = copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    assert_eq!(
        (pending.status, pending.body),
        (200, Vec::new()),
        "no cosignature yet"
    );
    let size = head.checkpoint.size;
    let first = copies.add_entries(&peer.owned(), &peer.entries(0, size));
    assert_eq!(first.status, 202);
    assert_eq!(info(&first).next_entry, 8_192);
    drop(copies);
    // It goes on after a restart, where the mirror says.
    let copies = node.copies(QUOTA);
    let asked = copies.add_entries(
        &peer.owned(),
        &pack(&peer.log, &peer.header(size, size)).expect("a header"),
    );
    assert_eq!((asked.status, info(&asked).next_entry), (409, 8_192));
    let done = upload(&copies, &peer, 8_192, &head);
    assert_cosigned(&node, &head, &done);
    drop(copies);
    let copies = node.copies(QUOTA);
    for path in tile_paths(size) {
        let expected = peer.log.tiles().tile(&path).expect("readable");
        assert_eq!(tile(&copies, &peer, &path), expected, "{path}");
    }
    let copy = copies.find(&peer.id()).expect("a copy");
    let root = head.checkpoint.root;
    let checked = copies.read(&copy, |mirror| TileNodes::open(mirror, size, root).is_ok());
    assert!(checked.expect("open"));
    let shown = copies.read(&copy, |mirror| {
        mirror.complete().map(|head| head.note.clone())
    });
    let note: Note = shown
        .expect("open")
        .expect("complete")
        .parse()
        .expect("a note");
    assert_eq!(
        node.cosigner().verify(&note),
        Ok(NOW),
        "with the cosignature"
    );
}

#[test]
fn only_the_own_log_is_taken_and_only_what_it_has_signed() {
    let node = Node::new();
    let (peer, other) = (Peer::new(1, 20), Peer::new(2, 20));
    let copies = node.copies(QUOTA);
    let head = peer.head();
    // Somebody else's log, whoever has signed it.
    let foreign = copies.add_checkpoint(&other.owned(), &peer.checkpoint(0, &head), NOW);
    assert_eq!(foreign.status, 404);
    assert!(copies.find(&peer.id()).is_none(), "nothing is kept");
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    let size = head.checkpoint.size;
    let foreign = copies.add_entries(&other.owned(), &peer.entries(0, size));
    assert_eq!(foreign.status, 404);
    // The right name, with the key of another.
    let mut forged = peer.owned();
    forged.trust = other.owned().trust;
    let unsigned = copies.add_checkpoint(&forged, &peer.checkpoint(0, &head), NOW);
    assert_eq!(unsigned.status, 403);
    for body in [b"".as_slice(), b"\0", &[0xff; 400]] {
        assert_eq!(copies.add_entries(&peer.owned(), body).status, 400);
    }
}

#[test]
fn wrong_entries_are_refused_and_the_right_ones_before_them_kept() {
    let node = Node::new();
    let peer = Peer::new(1, 600);
    let copies = node.copies(QUOTA);
    let head = peer.head();
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    let size = head.checkpoint.size;
    let mut lie = peer.entries(0, size);
    // A byte of the last entry, which is in front of the count and the proof of the last package.
    let last = peer.entries(512, size).len();
    let place = lie.len() - last / 2;
    lie[place] ^= 1;
    let refused = copies.add_entries(&peer.owned(), &lie);
    assert!(matches!(refused.status, 400 | 422), "{refused:?}");
    let at = copies.add_entries(
        &peer.owned(),
        &pack(&peer.log, &peer.header(size, size)).expect("a header"),
    );
    assert_eq!((at.status, info(&at).next_entry), (409, 512));
    assert_cosigned(&node, &head, &upload(&copies, &peer, 512, &head));
}

#[test]
fn a_full_copy_says_so_and_takes_no_more() {
    let node = Node::new();
    let peer = Peer::new(1, 2_000);
    let copies = node.copies(300_000);
    let head = peer.head();
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    let full = copies.add_entries(&peer.owned(), &peer.entries(0, head.checkpoint.size));
    assert_eq!(full.status, 507);
    let entries = std::fs::metadata(node.file(&peer, "entries")).expect("a file");
    assert!(
        (100_000..300_000).contains(&entries.len()),
        "{}",
        entries.len()
    );
    drop(copies);
    // With more room the upload goes on.
    let copies = node.copies(QUOTA);
    let size = head.checkpoint.size;
    let at = copies.add_entries(
        &peer.owned(),
        &pack(&peer.log, &peer.header(size, size)).expect("a header"),
    );
    let next = info(&at).next_entry;
    assert!(next > 0);
    assert_cosigned(&node, &head, &upload(&copies, &peer, next, &head));
}

#[test]
fn a_node_has_room_for_few_logs() {
    let node = Node::new();
    let copies = node.copies(QUOTA);
    let peer = Peer::new(1, 1);
    let head = peer.head();
    let at_epoch = |epoch| {
        let origin = openfang_audit::Origin::of(&peer.keys.node_id(), epoch);
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            ..head.checkpoint.clone()
        };
        let signed = SignedHead::sign(checkpoint, &peer.keys.log);
        let key = peer.keys.log.verifying_key();
        let verifier = Verifier::new(origin.as_str(), key).expect("a name");
        let owned = Owned {
            origin,
            trust: Trust::Keys(vec![verifier]),
            ..peer.owned()
        };
        copies
            .add_checkpoint(&owned, &peer.checkpoint(0, &signed), NOW)
            .status
    };
    for epoch in 1..=4 {
        assert_eq!(at_epoch(epoch), 200);
    }
    assert_eq!(at_epoch(5), 507);
    let other = Peer::new(2, 1);
    let taken = copies.add_checkpoint(&other.owned(), &other.checkpoint(0, &other.head()), NOW);
    assert_eq!(taken.status, 200, "others have their own room");
}

#[test]
fn a_log_that_contradicts_itself_is_kept_and_not_continued() {
    let node = Node::new();
    let peer = Peer::new(1, 300);
    let copies = node.copies(QUOTA);
    let head = peer.head();
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    assert_cosigned(&node, &head, &upload(&copies, &peer, 0, &head));
    peer.grow(10);
    let frozen = Owned {
        trust: Trust::Frozen,
        ..peer.owned()
    };
    let later = peer.head();
    let size = head.checkpoint.size;
    let refused = copies.add_checkpoint(&frozen, &peer.checkpoint(size, &later), NOW);
    assert_eq!(refused.status, 403);
    let refused = copies.add_entries(&frozen, &peer.entries(size, later.checkpoint.size));
    assert_eq!(refused.status, 403);
    for path in tile_paths(size) {
        assert!(
            tile(&copies, &peer, &path).is_some(),
            "{path} is still served"
        );
    }
}

#[test]
fn a_mirror_with_a_new_key_cosigns_what_it_holds_anew() {
    let node = Node::new();
    let peer = Peer::new(1, 300);
    let copies = node.copies(QUOTA);
    let head = peer.head();
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    let before = node.cosigner();
    assert_cosigned(&node, &head, &upload(&copies, &peer, 0, &head));
    drop(copies);
    std::fs::write(node.file(&peer, "complete"), b"rotten").expect("written");
    let copies = node.copies(QUOTA);
    assert_ne!(node.cosigner(), before, "the earlier key is retired");
    let size = head.checkpoint.size;
    let header = pack(&peer.log, &peer.header(size, size)).expect("a header");
    let unknown = copies.add_entries(&peer.owned(), &header);
    assert_eq!(unknown.status, 422, "no head is known any more");
    copies.add_checkpoint(&peer.owned(), &peer.checkpoint(0, &head), NOW);
    // Everything is still there.
    let done = copies.add_entries(&peer.owned(), &header);
    assert_cosigned(&node, &head, &done);
    drop(copies);
    let copies = node.copies(QUOTA);
    let copy = copies.find(&peer.id()).expect("a copy");
    let shown = copies.read(&copy, |mirror| {
        mirror.complete().map(|head| head.note.clone())
    });
    let note: Note = shown
        .expect("open")
        .expect("complete")
        .parse()
        .expect("a note");
    assert_eq!(node.cosigner().verify(&note), Ok(NOW));
}
