//! A copy of a log on a disk that fails and loses power, fed in any order, with lies in between: what it holds
//! is always right, and what it acknowledged is always there.

mod tlog;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openfang_audit::mirror::{
    CommitError, Committed, Mirror, MirrorPart, MirrorStore, PENDING_HEADS_KEPT, StageError,
    package_ranges,
};
use openfang_audit::tile::Bundle;
use openfang_audit::tree::EMPTY_ROOT;
use proptest::prelude::*;
use tlog::copy::{Log, ORIGIN, QUOTA, assert_right, header, upload};

/// A disk that fails and loses power. What was not synced may be there in part, in any combination.
#[derive(Debug, Default)]
struct Disk {
    now: BTreeMap<MirrorPart, Vec<u8>>,
    durable: BTreeMap<MirrorPart, Vec<u8>>,
    /// Since the last sync.
    pending: BTreeMap<MirrorPart, Vec<Change>>,
    head: Option<Vec<u8>>,
    ahead: BTreeMap<u64, Vec<u8>>,
    removed: BTreeMap<u64, Vec<u8>>,
    ops: u64,
    at: Option<(u64, Fault)>,
    dead: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    /// Half of it happens, and it fails.
    Half,
    PowerCut,
}

#[derive(Debug, Clone, Default)]
struct FaultStore(Arc<Mutex<Disk>>);

fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(start, bytes) => {
            if file.len() < start + bytes.len() {
                file.resize(start + bytes.len(), 0);
            }
            file[*start..start + bytes.len()].copy_from_slice(bytes);
        }
        Change::Cut(len) => file.resize(*len, 0),
    }
}

/// Good enough to choose what a power cut leaves.
fn next_random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

impl FaultStore {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail_in(&self, ops: u64, fault: Fault) {
        let mut disk = self.disk();
        disk.at = Some((disk.ops + ops, fault));
    }

    /// Counts an operation that changes something; tells whether it is done in full.
    fn begin(disk: &mut Disk) -> io::Result<bool> {
        let dead = || io::Error::from(io::ErrorKind::BrokenPipe);
        if disk.dead {
            return Err(dead());
        }
        let number = disk.ops;
        disk.ops += 1;
        match disk.at {
            Some((at, Fault::Fails)) if at == number => Err(io::ErrorKind::StorageFull.into()),
            Some((at, Fault::Half)) if at == number => Ok(false),
            Some((at, Fault::PowerCut)) if at == number => {
                disk.dead = true;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }

    /// The disk after the power is back.
    fn after_power_cut(&self, seed: u64) -> Self {
        let disk = self.disk();
        let mut random = seed;
        let mut left = Disk {
            head: disk.head.clone(),
            ahead: disk.ahead.clone(),
            ..Disk::default()
        };
        for (bundle, bytes) in &disk.removed {
            if next_random(&mut random).is_multiple_of(2) {
                left.ahead.entry(*bundle).or_insert_with(|| bytes.clone());
            }
        }
        for part in [MirrorPart::Entries, MirrorPart::Hashes, MirrorPart::Blocks] {
            let mut file = disk.durable.get(&part).cloned().unwrap_or_default();
            for change in disk.pending.get(&part).into_iter().flatten() {
                match (change, next_random(&mut random) % 4) {
                    (_, 0) => {}
                    (Change::Write(start, bytes), 1) => {
                        let kept = usize::try_from(next_random(&mut random)).expect("31 bits");
                        let kept = bytes[..kept % (bytes.len() + 1)].to_vec();
                        apply(&mut file, &Change::Write(*start, kept));
                    }
                    // The length was written, and the bytes were not.
                    (Change::Write(start, bytes), 2) => {
                        let zeros = vec![0; bytes.len()];
                        apply(&mut file, &Change::Write(*start, zeros));
                    }
                    (change, _) => apply(&mut file, change),
                }
            }
            left.durable.insert(part, file.clone());
            left.now.insert(part, file);
        }
        Self(Arc::new(Mutex::new(left)))
    }

    fn change(&self, part: MirrorPart, change: Change) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk)?;
        let change = match (change, whole) {
            (Change::Write(start, bytes), false) => {
                Change::Write(start, bytes[..bytes.len() / 2].to_vec())
            }
            (Change::Cut(_), false) => return Err(io::ErrorKind::Other.into()),
            (change, true) => change,
        };
        apply(disk.now.entry(part).or_default(), &change);
        disk.pending.entry(part).or_default().push(change);
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }
}

impl MirrorStore for FaultStore {
    fn read_at(&self, part: MirrorPart, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk();
        let start = usize::try_from(offset).expect("small");
        let file = disk.now.get(&part).map_or(&[][..], Vec::as_slice);
        let rest = file.get(start..).unwrap_or_default();
        // Reads are short at times.
        let read = rest.len().min(buffer.len()).min(70_000);
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn len(&self, part: MirrorPart) -> io::Result<u64> {
        Ok(self.disk().now.get(&part).map_or(0, Vec::len) as u64)
    }

    fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).expect("small");
        self.change(part, Change::Write(start, bytes.to_vec()))
    }

    fn sync(&self, part: MirrorPart) -> io::Result<()> {
        let mut disk = self.disk();
        if !Self::begin(&mut disk)? {
            return Err(io::ErrorKind::Other.into());
        }
        let now = disk.now.get(&part).cloned().unwrap_or_default();
        disk.durable.insert(part, now);
        disk.pending.remove(&part);
        Ok(())
    }

    fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()> {
        self.change(part, Change::Cut(usize::try_from(len).expect("small")))
    }

    fn load_head(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk().head.clone())
    }

    fn replace_head(&self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let number = disk.ops;
        let whole = Self::begin(&mut disk)?;
        // A power cut in the middle leaves the old one or the new one.
        if whole || number.is_multiple_of(2) {
            disk.head = Some(bytes.to_vec());
        }
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }

    fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let number = disk.ops;
        let whole = Self::begin(&mut disk)?;
        if whole || number.is_multiple_of(2) {
            disk.ahead.insert(bundle, bytes.to_vec());
        }
        if whole {
            Ok(())
        } else {
            Err(io::ErrorKind::Other.into())
        }
    }

    fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk().ahead.get(&bundle).cloned())
    }

    fn drop_ahead(&self, bundle: u64) -> io::Result<()> {
        let mut disk = self.disk();
        if !Self::begin(&mut disk)? {
            return Err(io::ErrorKind::Other.into());
        }
        if let Some(bytes) = disk.ahead.remove(&bundle) {
            disk.removed.insert(bundle, bytes);
        }
        Ok(())
    }

    fn list_ahead(&self) -> io::Result<Vec<u64>> {
        Ok(self.disk().ahead.keys().copied().collect())
    }
}

/// What happens to a copy, one thing after the other.
#[derive(Debug, Clone)]
enum Step {
    Offer(u64),
    /// A package of an upload to one of the heads, perhaps spoilt.
    Package {
        head: usize,
        number: usize,
        from: u16,
        spoil: u8,
        at: u16,
    },
    Commit {
        head: usize,
    },
    Fail {
        ops: u64,
        fault: Fault,
    },
    PowerCut(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![Just(Fault::Fails), Just(Fault::Half), Just(Fault::PowerCut)];
    let step = prop_oneof![
        3 => (1_u64..400).prop_map(Step::Offer),
        20 => (any::<usize>(), any::<usize>(), any::<u16>(), 0_u8..9, any::<u16>()).prop_map(
            |(head, number, from, spoil, at)| Step::Package { head, number, from, spoil, at }
        ),
        6 => any::<usize>().prop_map(|head| Step::Commit { head }),
        2 => (0_u64..8, fault).prop_map(|(ops, fault)| Step::Fail { ops, fault }),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

/// The log under test and the copy, with what the copy promised.
struct World {
    log: Log,
    store: FaultStore,
    mirror: Mirror<FaultStore>,
    heads: Vec<u64>,
    acknowledged: u64,
    complete: u64,
}

impl World {
    fn new(log: Log) -> Self {
        let store = FaultStore::default();
        let (mirror, _) = Mirror::open(store.clone(), ORIGIN, QUOTA).expect("new");
        Self {
            log,
            store,
            mirror,
            heads: Vec::new(),
            acknowledged: 0,
            complete: 0,
        }
    }

    fn offer(&mut self, more: u64) {
        let last = self.heads.last().copied().unwrap_or_default();
        let size = (last + more).min(self.log.leaves.len() as u64);
        if size > last {
            self.mirror
                .offer(self.log.head(size))
                .expect("a larger head");
            self.heads.push(size);
        }
    }

    /// One of the heads that an upload may end at.
    fn pick(&self, head: usize) -> Option<u64> {
        let kept = self.heads.len().min(PENDING_HEADS_KEPT);
        let recent = &self.heads[self.heads.len() - kept..];
        let complete = self.mirror.complete().map_or(0, |head| head.size);
        let size = *recent.get(head % kept.max(1))?;
        (size >= complete).then_some(size)
    }

    fn package(&mut self, size: u64, (number, from): (usize, u16), (spoil, at): (u8, u16)) {
        let start = self.mirror.next_entry().min(size);
        let upload = self
            .mirror
            .begin(&header(start, size))
            .expect("it may begin");
        let ranges: Vec<_> = package_ranges(0, size).collect();
        let (first, end) = ranges[number % ranges.len()];
        let skip = if spoil == 3 {
            u64::from(from) % (end - first)
        } else {
            0
        };
        let mut package = self.log.package(first + skip, end, size);
        let mut bytes = package.entries.clone().into_bytes();
        let mut spoilt = true;
        let at = usize::from(at);
        match spoil {
            0 => {
                let place = at % bytes.len();
                bytes[place] ^= 1 << (at % 8);
                match Bundle::parse(bytes, package.entries.len()) {
                    Ok(entries) => package.entries = entries,
                    Err(_length) => return,
                }
            }
            1 if !package.proof.is_empty() => {
                let place = at % package.proof.len();
                package.proof[place] = EMPTY_ROOT;
            }
            2 if ranges.len() > 1 => {
                let (other, until) = ranges[(number + 1) % ranges.len()];
                package.entries = self.log.bundle(other, until);
            }
            _ => spoilt = false,
        }
        let staged = self.mirror.stage(&upload, &package);
        if spoilt {
            assert!(staged.is_err(), "a spoilt package was taken");
        }
        if let Err(StageError::Proof(_) | StageError::Range) = staged {
            assert!(spoilt, "a good package was refused: {staged:?}");
        }
    }

    fn commit(&mut self, size: u64) {
        let start = self.mirror.next_entry().min(size);
        let upload = self
            .mirror
            .begin(&header(start, size))
            .expect("it may begin");
        match self.mirror.commit(&upload) {
            Ok(Committed::Complete(head)) => {
                assert_eq!(head, self.log.head(size));
                assert!(self.mirror.next_entry() >= size);
                self.complete = self.complete.max(size);
            }
            Ok(Committed::Partial(info)) => {
                assert!(info.next_entry < size);
                assert_eq!(info.next_entry, self.mirror.next_entry());
            }
            Ok(Committed::Overtaken(_)) => panic!("it may begin, and is overtaken"),
            Err(CommitError::Corrupt) => panic!("the disk keeps what it was given"),
            Err(CommitError::Store(_) | CommitError::Failed) => return,
        }
        self.acknowledged = self.acknowledged.max(self.mirror.next_entry());
    }

    fn reopen(&mut self, store: FaultStore) {
        let (mirror, opened) = Mirror::open(store.clone(), ORIGIN, QUOTA).expect("opened again");
        assert!(!opened.damaged);
        assert!(
            opened.next_entry >= self.acknowledged,
            "acknowledged entries are lost"
        );
        assert!(mirror.complete().map_or(0, |head| head.size) >= self.complete);
        (self.store, self.mirror) = (store, mirror);
        if let Some(last) = self.heads.last() {
            let known = self.mirror.complete().map(|head| head.size);
            if known.is_none_or(|known| known < *last) {
                self.mirror
                    .offer(self.log.head(*last))
                    .expect("the last head");
            }
            self.heads = known.into_iter().chain([*last]).collect();
            self.heads.dedup();
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Offer(more) => self.offer(more),
            Step::Package {
                head,
                number,
                from,
                spoil,
                at,
            } => {
                if let Some(size) = self.pick(head) {
                    self.package(size, (number, from), (spoil, at));
                }
            }
            Step::Commit { head } => {
                if let Some(size) = self.pick(head) {
                    self.commit(size);
                }
            }
            Step::Fail { ops, fault } => self.store.fail_in(ops, fault),
            Step::PowerCut(seed) => self.reopen(self.store.after_power_cut(seed)),
            Step::Reopen => {
                let dead = self.store.disk().dead;
                if !dead {
                    self.store.disk().at = None;
                    self.reopen(self.store.clone());
                }
            }
        }
        let dead = self.store.disk().dead;
        if dead {
            self.reopen(self.store.after_power_cut(step_seed(step)));
        }
    }

    /// In the end, without faults, the copy becomes complete.
    fn finish(&mut self) {
        self.reopen(self.store.after_power_cut(1));
        let size = self.log.leaves.len() as u64;
        if self.heads.last() != Some(&size) {
            self.mirror
                .offer(self.log.head(size))
                .expect("a larger head");
            self.heads.push(size);
        }
        let done = upload(&mut self.mirror, &self.log, size);
        assert_eq!(done, Committed::Complete(self.log.head(size)));
        assert_right(&self.mirror, &self.log);
        assert!(self.mirror.scrub(&mut |_| ()).expect("readable").is_empty());
    }
}

fn step_seed(step: &Step) -> u64 {
    match step {
        Step::Offer(more) => *more,
        Step::Package { at, .. } => u64::from(*at),
        Step::Commit { head } => *head as u64,
        Step::Fail { ops, .. } => *ops,
        Step::PowerCut(seed) => *seed,
        Step::Reopen => 3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_order_no_lie_no_fault_and_no_power_cut_stores_a_wrong_byte(steps in steps(), size in 1_u64..1500) {
        let mut world = World::new(Log::new(size));
        for step in &steps {
            world.step(step);
            assert_right(&world.mirror, &world.log);
        }
        world.finish();
    }
}

/// Every operation of a whole upload fails in each way, one after the other.
#[test]
fn every_operation_of_an_upload_may_fail() {
    let log = Log::new(800);
    let run = |fault: Option<(u64, Fault)>| -> (u64, World) {
        let mut world = World::new(Log {
            lines: log.lines.clone(),
            leaves: log.leaves.clone(),
        });
        if let Some((ops, fault)) = fault {
            world.store.fail_in(ops, fault);
        }
        for (more, order) in [(300, [1, 0, 0]), (300, [2, 1, 0]), (200, [3, 2, 1])] {
            world.step(&Step::Offer(more));
            let head = world.heads.len() - 1;
            for number in order {
                world.step(&Step::Package {
                    head,
                    number,
                    from: 0,
                    spoil: 9,
                    at: 0,
                });
            }
            for _again in 0..2 {
                let head = world.heads.len() - 1;
                world.step(&Step::Commit { head });
            }
            assert_right(&world.mirror, &world.log);
        }
        let ops = world.store.disk().ops;
        (ops, world)
    };
    let (ops, world) = run(None);
    assert_eq!(world.complete, 800);
    assert!(ops > 25, "{ops} operations");
    for at in 0..ops {
        for fault in [Fault::Fails, Fault::Half, Fault::PowerCut] {
            let (_, mut world) = run(Some((at, fault)));
            world.finish();
        }
    }
}
