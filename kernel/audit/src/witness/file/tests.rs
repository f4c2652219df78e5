//! A disk that fails or ends at each operation, damage at every bit, and the real files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::note::Note;
use crate::testing::{TestLog, cosigner};
use crate::witness::tests::{
    Wish, ask, ask_at_once, check_no_contradiction, forked_logs, request, trust, wishes,
};
use crate::witness::{Reason, Witness};
use proptest::prelude::*;

/// What goes wrong at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails, half done; everything after it works.
    Fails,
    /// It is half done, and the process does not do anything any more.
    Ends,
}

/// A change of a file that is not durable yet.
#[derive(Debug, Clone)]
enum Pending {
    Append(Vec<u8>),
    Cut(usize),
}

/// The content of a file: what would survive a power cut, and what was done since.
#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

/// A disk that remembers what is durable and what is not.
#[derive(Debug, Clone, Default)]
struct Sim {
    inodes: Vec<Inode>,
    names: BTreeMap<Name, usize>,
    durable_names: BTreeMap<Name, usize>,
    /// Changes of names that are not durable, in their order: where to, and where from.
    pending_names: Vec<(Name, Option<Name>, usize)>,
    ops: usize,
    fault: Option<(usize, Fault)>,
    ended: bool,
}

/// The disk, which outlives the process that writes to it.
#[derive(Debug, Clone, Default)]
struct SimDisk(Arc<Mutex<Sim>>);

impl Inode {
    fn apply(bytes: &mut Vec<u8>, pending: &Pending) {
        match pending {
            Pending::Append(more) => bytes.extend_from_slice(more),
            Pending::Cut(len) => bytes.truncate(*len),
        }
    }

    fn visible(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for pending in &self.pending {
            Self::apply(&mut bytes, pending);
        }
        bytes
    }

    /// What a power cut may leave: some of the changes, the last one of them in part.
    fn survivor(&self, choice: usize) -> Self {
        let kept = choice % (self.pending.len() + 1);
        let mut bytes = self.durable.clone();
        for pending in &self.pending[..kept] {
            Self::apply(&mut bytes, pending);
        }
        if let Some(Pending::Append(next)) = self.pending.get(kept) {
            let part = (choice / (self.pending.len() + 1)) % (next.len() + 1);
            bytes.extend_from_slice(&next[..part]);
        }
        Self {
            durable: bytes,
            pending: Vec::new(),
        }
    }
}

impl Sim {
    fn rename(names: &mut BTreeMap<Name, usize>, change: (Name, Option<Name>, usize)) {
        let (to, from, inode) = change;
        if let Some(from) = from {
            names.remove(&from);
        }
        names.insert(to, inode);
    }

    fn is_binding(name: Name) -> bool {
        matches!(name, Name::Binding | Name::NewBinding)
    }

    /// Counts an operation. Tells whether it is done in full.
    fn begin(&mut self) -> io::Result<bool> {
        if self.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let number = self.ops;
        self.ops += 1;
        match self.fault {
            Some((at, fault)) if at == number => {
                self.ended = fault == Fault::Ends;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }

    fn inode(&mut self, name: Name) -> io::Result<&mut Inode> {
        let at = self.names.get(&name).copied();
        let at = at.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        Ok(&mut self.inodes[at])
    }
}

impl SimDisk {
    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_fault(fault: Option<(usize, Fault)>) -> Self {
        let sim = Sim {
            fault,
            ..Sim::default()
        };
        Self(Arc::new(Mutex::new(sim)))
    }

    /// The process is gone; what it has written is still there.
    fn after_kill(&self) -> Self {
        let mut sim = self.sim().clone();
        (sim.ended, sim.fault, sim.ops) = (false, None, 0);
        Self(Arc::new(Mutex::new(sim)))
    }

    /// The power is gone; what was not durable is there in part, as the choice says.
    fn after_power_cut(&self, choice: usize) -> Self {
        let sim = self.sim();
        let mut names = sim.durable_names.clone();
        let kept = choice % (sim.pending_names.len() + 1);
        for change in &sim.pending_names[..kept] {
            Sim::rename(&mut names, *change);
        }
        let inodes = sim.inodes.iter().map(|inode| inode.survivor(choice / 3));
        let sim = Sim {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            ..Sim::default()
        };
        Self(Arc::new(Mutex::new(sim)))
    }
}

/// Tells what a half-done operation answers.
fn done(whole: bool) -> io::Result<()> {
    if whole {
        Ok(())
    } else {
        Err(io::ErrorKind::Other.into())
    }
}

impl Disk for SimDisk {
    fn read(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        let sim = self.sim();
        let at = sim.names.get(&name);
        Ok(at.map(|at| sim.inodes[*at].visible()))
    }

    fn write(&mut self, name: Name, bytes: &[u8]) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        let bytes = if whole {
            bytes
        } else {
            &bytes[..bytes.len() / 2]
        };
        let inode = sim.inodes.len();
        sim.inodes.push(Inode {
            durable: Vec::new(),
            pending: vec![Pending::Append(bytes.to_vec())],
        });
        sim.names.insert(name, inode);
        sim.pending_names.push((name, None, inode));
        done(whole)
    }

    fn append_heads(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        let bytes = if whole {
            bytes
        } else {
            &bytes[..bytes.len() / 2]
        };
        let pending = Pending::Append(bytes.to_vec());
        sim.inode(Name::Heads)?.pending.push(pending);
        done(whole)
    }

    fn cut_heads(&mut self, len: u64) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        let len = usize::try_from(len).expect("small");
        if whole {
            sim.inode(Name::Heads)?.pending.push(Pending::Cut(len));
        }
        done(whole)
    }

    fn sync(&mut self, name: Name) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        let inode = sim.inode(name)?;
        if whole {
            *inode = Inode {
                durable: inode.visible(),
                pending: Vec::new(),
            };
        }
        done(whole)
    }

    fn rename(&mut self, from: Name, to: Name) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        // A rename happens or it does not; that it failed is then not the whole truth.
        if whole || sim.ops.is_multiple_of(2) {
            let inode = sim.names.get(&from).copied();
            let inode = inode.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let change = (to, Some(from), inode);
            Sim::rename(&mut sim.names, change);
            sim.pending_names.push(change);
        }
        done(whole)
    }

    fn sync_dir(&mut self, name: Name) -> io::Result<()> {
        let mut sim = self.sim();
        let whole = sim.begin()?;
        if whole {
            let own = |change: &(Name, Option<Name>, usize)| {
                Sim::is_binding(change.0) == Sim::is_binding(name)
            };
            let (durable, rest) = sim.pending_names.iter().partition(|change| own(change));
            let durable: Vec<_> = durable;
            for change in durable {
                Sim::rename(&mut sim.durable_names, change);
            }
            sim.pending_names = rest;
        }
        done(whole)
    }
}

fn open(disk: &SimDisk) -> Result<Store<SimDisk>, StoreOpenError> {
    Store::open(disk.clone(), cosigner(2).public())
}

fn state(log: &TestLog, size: u64, time: u64) -> State {
    State::new(log.note(size), time).expect("a head")
}

fn change(from: Option<&State>, to: State) -> Change {
    Change {
        expected: from.map(State::version),
        new: to,
    }
}

/// Everything that a client would try to make a witness forget.
fn tempt<S: WitnessStore>(store: &S) -> Vec<Note> {
    let logs = forked_logs();
    let mut signed: Vec<_> = shown(store).into_iter().collect();
    for size in [3, 6, 4, 12, 6] {
        for forked in [true, false] {
            let wish = Wish {
                forked,
                size,
                now: 200,
            };
            let witness = Witness::new(cosigner(2), Borrowed(store));
            signed.extend(ask(&witness, &logs, &wish));
        }
    }
    signed
}

#[derive(Debug)]
struct Borrowed<'a, S>(&'a S);

impl<S: WitnessStore> WitnessStore for Borrowed<'_, S> {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        self.0.load(origin)
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        self.0.find(id)
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        self.0.advance(changes)
    }
}

/// Runs some requests on a disk with a fault, then whatever can follow, and looks at all signatures.
fn check_with_fault(
    clients: &[Vec<Wish>],
    schedule: &[usize],
    fault: (usize, Fault),
    choice: usize,
) {
    let disk = SimDisk::with_fault(Some(fault));
    let mut signed = Vec::new();
    if let Ok(store) = open(&disk) {
        signed.extend(ask_at_once(&store, clients, schedule));
        if fault.1 == Fault::Fails {
            signed.extend(tempt(&store));
        }
    }
    for after in [disk.after_power_cut(choice), disk.after_kill()] {
        let mut signed = signed.clone();
        let store = open(&after).expect("no end of a process or of power damages the state");
        signed.extend(tempt(&store));
        check_no_contradiction(&signed);
    }
    // Killed, started, and only then without power: what was read, and shown, must have been durable.
    let killed = disk.after_kill();
    let store = open(&killed).expect("no end of a process damages the state");
    signed.extend(shown(&store));
    drop(store);
    let after = killed.after_power_cut(choice);
    let store = open(&after).expect("no end of power damages the state");
    signed.extend(tempt(&store));
    check_no_contradiction(&signed);
}

/// What the witness shows of the log.
fn shown<S: WitnessStore>(store: &S) -> Option<Note> {
    let witness = Witness::new(cosigner(2), Borrowed(store));
    let id = forked_logs()[0].name().id();
    witness.checkpoint(&id).ok().flatten()
}

#[test]
fn every_operation_may_fail_or_be_the_last() {
    let wish = |forked, size, now| Wish { forked, size, now };
    let clients = [
        vec![
            wish(false, 3, 100),
            wish(false, 9, 101),
            wish(false, 9, 102),
        ],
        vec![wish(true, 4, 100), wish(true, 8, 103)],
    ];
    let schedule = [1, 0, 0, 1, 1, 0, 1, 0];
    let disk = SimDisk::with_fault(None);
    let store = open(&disk).expect("a new store");
    check_no_contradiction(&ask_at_once(&store, &clients, &schedule));
    let ops = disk.sim().ops;
    assert!(ops > 12, "{ops}");
    for at in 0..ops {
        for choice in 0..20 {
            check_with_fault(&clients, &schedule, (at, Fault::Ends), choice * 7);
        }
        check_with_fault(&clients, &schedule, (at, Fault::Fails), at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_order_of_steps_and_no_crash_makes_a_witness_contradict_itself(
        clients in prop::collection::vec(wishes(), 1..4),
        schedule in prop::collection::vec(0_usize..4, 0..40),
        at in 0_usize..24,
        ends: bool,
        choice in 0_usize..10_000,
    ) {
        let fault = if ends { Fault::Ends } else { Fault::Fails };
        check_with_fault(&clients, &schedule, (at, fault), choice);
    }
}

const TIMES: usize = 12;

/// The heads of three logs, at some times each.
fn many_states() -> Vec<Vec<State>> {
    let logs = (20..23).map(|seed| TestLog::new(seed, 1));
    let times = |log: TestLog| (0..TIMES as u64).map(move |time| state(&log, 1, time));
    logs.map(|log| times(log).collect()).collect()
}

/// Writes all of them, on a file that is shortened whenever it can be; returns the times that were
/// confirmed before anything failed.
fn write_many(disk: &SimDisk, states: &[Vec<State>]) -> Vec<Option<u64>> {
    let mut held: Vec<Option<u64>> = vec![None; states.len()];
    let Ok(store) = open(disk) else {
        return held;
    };
    store.inner().len_min = 0;
    for time in 0..TIMES {
        for (log, held) in states.iter().zip(&mut held) {
            let old = time.checked_sub(1).map(|before| &log[before]);
            let outcome = store.advance(&[change(old, log[time].clone())]);
            if let Ok([Advanced::Yes]) = outcome.as_deref() {
                *held = Some(time as u64);
            }
        }
    }
    held
}

/// While the file is written anew, every operation is the last one once.
#[test]
fn the_file_is_shortened_and_loses_nothing_even_when_that_is_interrupted() {
    let states = many_states();
    let disk = SimDisk::with_fault(None);
    assert_eq!(write_many(&disk, &states), [Some(TIMES as u64 - 1); 3]);
    let ops = disk.sim().ops;
    let inodes = disk.sim().inodes.len();
    assert!(inodes >= 2 + 2, "it was written anew: {inodes}");
    let bytes = disk.read(Name::Heads).expect("readable");
    let len = bytes.map_or(0, |bytes| bytes.len() as u64);
    let live: u64 = states.iter().map(|log| record::len(&log[0])).sum();
    assert!(len <= 6 * live, "{len} bytes");
    for at in 0..ops {
        for fault in [Fault::Ends, Fault::Fails] {
            let disk = SimDisk::with_fault(Some((at, fault)));
            let held = write_many(&disk, &states);
            let cut = (0..24).map(|choice| disk.after_power_cut(choice));
            for after in cut.chain([disk.after_kill()]) {
                let store = open(&after).expect("nothing is damaged");
                for (log, time) in states.iter().zip(&held) {
                    let found = store.load(&log[0].head().origin).expect("readable");
                    let found = found.map(|state| state.version().time);
                    assert!(found >= *time, "{at} {fault:?}");
                }
            }
        }
    }
}

/// A file with the states of three logs, one of them twice.
fn some_states() -> (SimDisk, Vec<State>) {
    let disk = SimDisk::with_fault(None);
    let store = open(&disk).expect("a new store");
    let logs: Vec<_> = (20..23).map(|seed| TestLog::new(seed, 4)).collect();
    let first = state(&logs[0], 2, 5);
    let mut states = vec![first.clone()];
    store
        .advance(&[change(None, first.clone())])
        .expect("writable");
    for log in &logs[1..] {
        states.push(state(log, 4, 6));
        store
            .advance(&[change(None, state(log, 4, 6))])
            .expect("writable");
    }
    states.push(state(&logs[0], 4, 7));
    let last = change(Some(&first), state(&logs[0], 4, 7));
    store.advance(&[last]).expect("writable");
    (disk, states)
}

fn with_heads(disk: &SimDisk, bytes: &[u8]) -> SimDisk {
    let changed = disk.after_kill();
    {
        let mut sim = changed.sim();
        let inode = sim.inode(Name::Heads).expect("there");
        *inode = Inode {
            durable: bytes.to_vec(),
            pending: Vec::new(),
        };
    }
    changed
}

#[test]
fn a_torn_end_is_cut_off_at_every_byte() {
    let (disk, states) = some_states();
    let bytes = disk.read(Name::Heads).expect("readable").expect("there");
    let header = record::header(&cosigner(2).public().to_string()).len();
    let mut ends = vec![header];
    for state in &states {
        ends.push(ends[ends.len() - 1] + record::write(state).len());
    }
    assert_eq!(ends.last(), Some(&bytes.len()));
    for len in header..=bytes.len() {
        for zeros in [0, 7] {
            let mut left = bytes[..len].to_vec();
            left.resize(len + zeros, 0);
            let torn = with_heads(&disk, &left);
            let whole = ends.iter().filter(|end| **end <= len).count() - 1;
            if zeros > 0 && !ends.contains(&len) {
                // Zeros inside of a record are not told from damage, and need not be.
                continue;
            }
            let store = open(&torn).expect("only the end is torn");
            let held = store.load(&states[0].head().origin).expect("readable");
            let expected = match whole {
                0 => None,
                1..=3 => Some(&states[0]),
                _ => Some(&states[3]),
            };
            assert_eq!(held.as_ref(), expected, "{len}");
            drop(store);
            let after = torn.read(Name::Heads).expect("readable").expect("there");
            assert_eq!(after, bytes[..ends[whole]], "{len}");
        }
    }
    for len in 0..header {
        let refused = open(&with_heads(&disk, &bytes[..len]));
        assert!(
            matches!(
                refused,
                Err(StoreOpenError::Damaged { at: 0 } | StoreOpenError::OtherKey { .. })
            ),
            "{len}"
        );
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (disk, _) = some_states();
    let bytes = disk.read(Name::Heads).expect("readable").expect("there");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let refused = open(&with_heads(&disk, &changed));
            assert!(
                matches!(
                    refused,
                    Err(StoreOpenError::Damaged { .. } | StoreOpenError::OtherKey { .. })
                ),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn records_that_go_back_are_damage() {
    let (disk, states) = some_states();
    let mut bytes = disk.read(Name::Heads).expect("readable").expect("there");
    let at = bytes.len() as u64;
    bytes.extend_from_slice(&record::write(&states[0]));
    let refused = open(&with_heads(&disk, &bytes));
    assert!(matches!(refused, Err(StoreOpenError::Damaged { at: found }) if found == at));
}

#[test]
fn a_key_whose_state_is_gone_is_retired() {
    let (disk, _) = some_states();
    let lost = disk.after_kill();
    lost.sim().names.remove(&Name::Heads);
    assert!(matches!(open(&lost), Err(StoreOpenError::StateLost)));
    // The other way round nothing is forgotten.
    let unbound = disk.after_kill();
    unbound.sim().names.remove(&Name::Binding);
    assert!(open(&unbound).is_ok());
    assert!(unbound.sim().names.contains_key(&Name::Binding));
    let other = cosigner(3);
    for with_heads in [true, false] {
        let changed = disk.after_kill();
        let gone = if with_heads {
            Name::Binding
        } else {
            Name::Heads
        };
        changed.sim().names.remove(&gone);
        let refused = Store::open(changed, other.public());
        let Err(StoreOpenError::OtherKey { bound }) = refused else {
            panic!("the state of another key: {refused:?}");
        };
        assert_eq!(bound, cosigner(2).public().to_string());
    }
}

#[test]
fn what_is_not_confirmed_ends_the_store() {
    let logs = [TestLog::new(20, 4)];
    let disk = SimDisk::with_fault(None);
    let store = open(&disk).expect("a new store");
    let witness = Witness::new(cosigner(2), store);
    let next_sync = disk.sim().ops + 1;
    disk.sim().fault = Some((next_sync, Fault::Fails));
    let answer = |old, size, now| {
        let answer = witness.add_checkpoint(&request(&logs[0], old, size), &trust(&logs), now);
        answer.map_err(|refusal| refusal.reason)
    };
    for now in 5..8 {
        assert_eq!(answer(0, 3, now), Err(Reason::Store));
    }
    assert!(matches!(
        witness.checkpoint(&logs[0].name().id()),
        Err(StoreError::Poisoned)
    ));
    // Opened anew it goes on, with or without what was not confirmed.
    let store = open(&disk.after_power_cut(0)).expect("not damaged");
    let witness = Witness::new(cosigner(2), store);
    let body = request(&logs[0], 0, 3);
    assert!(witness.add_checkpoint(&body, &trust(&logs), 9).is_ok());
}

#[test]
fn a_full_disk_is_survived() {
    let logs = [TestLog::new(20, 4)];
    let disk = SimDisk::with_fault(None);
    let witness = Witness::new(cosigner(2), open(&disk).expect("a new store"));
    let next = disk.sim().ops;
    disk.sim().fault = Some((next, Fault::Fails));
    let body = request(&logs[0], 0, 3);
    let refused = witness.add_checkpoint(&body, &trust(&logs), 5);
    assert_eq!(
        refused.map_err(|refusal| refusal.reason),
        Err(Reason::Store)
    );
    // The half that was written has been cut off again.
    assert!(witness.add_checkpoint(&body, &trust(&logs), 5).is_ok());
    let store = open(&disk.after_power_cut(0)).expect("not damaged");
    let held = store.load(&logs[0].name()).expect("readable");
    assert_eq!(held, Some(state(&logs[0], 3, 5)));
}

#[test]
fn the_real_files_keep_what_was_cosigned() {
    let home = tempfile::tempdir().expect("a directory");
    let (dir, binding) = (home.path().join("witness"), home.path().join("keys/bound"));
    let key = cosigner(2);
    let open = || FileStore::open(&dir, &binding, key.public(), "test");
    let logs: Vec<_> = (20..23).map(|seed| TestLog::new(seed, 9)).collect();
    let bodies: Vec<_> = logs.iter().map(|log| request(log, 0, 9)).collect();
    let bodies: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
    let witness = Witness::new(key.clone(), open().expect("a new store"));
    let held = open();
    assert!(matches!(held, Err(StoreOpenError::Lock { .. })), "{held:?}");
    let answers = witness.add_checkpoints(&bodies, &trust(&logs), 5);
    assert!(answers.iter().all(Result::is_ok));
    drop(witness);
    let store = open().expect("the same store");
    let mut names: Vec<_> = logs.iter().map(TestLog::name).collect();
    names.sort();
    assert_eq!(store.logs(), names);
    let witness = Witness::new(key.clone(), store);
    let refused = witness.add_checkpoint(bodies[0], &trust(&logs), 6);
    assert_eq!(
        refused.map_err(|refusal| refusal.reason),
        Err(Reason::Conflict { latest: 9 })
    );
    drop(witness);
    // Written anew, and appended to after that.
    let store = open().expect("the same store");
    store.store.inner().len_min = 0;
    let mut last = state(&logs[0], 9, 5);
    for time in 6..20 {
        let next = state(&logs[0], 9, time);
        let step = change(Some(&last), next.clone());
        assert_eq!(store.advance(&[step]).expect("writable"), [Advanced::Yes]);
        last = next;
    }
    drop(store);
    let heads = std::fs::read(dir.join("heads")).expect("readable");
    let all: u64 = logs.iter().map(|log| record::len(&state(log, 9, 5))).sum();
    assert!((heads.len() as u64) < 5 * all, "{} bytes", heads.len());
    let store = open().expect("the same store");
    assert_eq!(store.load(&logs[0].name()).expect("readable"), Some(last));
    drop(store);
    std::fs::remove_dir_all(&dir).expect("removable");
    let lost = open();
    assert!(matches!(lost, Err(StoreOpenError::StateLost)), "{lost:?}");
}

proptest! {
    #[test]
    fn no_content_of_the_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(head [0-9]{1,3} [0-9]{1,5} [0-9a-f]{8}\n)?(.|\n){0,60}") {
        let (disk, _) = some_states();
        let vkey = cosigner(2).public().to_string();
        for tail in [bytes.as_slice(), text.as_bytes()] {
            let content = [record::header(&vkey).as_slice(), tail].concat();
            for content in [content.as_slice(), tail] {
                if let Ok(store) = open(&with_heads(&disk, content)) {
                    prop_assert!(store.inner().table.states().next().is_none());
                }
            }
        }
    }
}
