//! Real processes on a real disk whose system calls fail, or that are killed at one, each in turn. What they
//! have said to be durable is there afterwards, and nothing that they have signed is contradicted.
//!
//! The process is this program once more, under strace; what it says comes over a socket, because its
//! writes may be the ones that fail.

mod common;
mod tlog;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{TestClock, append, event, keys, log_key, options, origin, root_of_lines};
use openfang_audit::cosign::{Cosigner, LogName, Role};
use openfang_audit::mirror::{Committed, FsMirrorStore, Mirror};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::proof::build_consistency;
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::verify::{Verdict, verify_files};
use openfang_audit::witness::{AddCheckpoint, FileStore, Trust, Witness};
use openfang_audit::{Checkpoint, Event, Hash, Log, Public, SignedHead};
use openfang_id::NodeSeed;
use tempfile::TempDir;
use tlog::copy;

/// Tells a process of this test what to do, and where.
const TASK: &str = "OPENFANG_AUDIT_TASK";
const FOLDER: &str = "OPENFANG_AUDIT_FOLDER";
/// The system calls that touch files.
const CALLS: &str = "openat,mkdir,read,pread64,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,\
                     ftruncate,fallocate,unlink,unlinkat,flock,statx,fstat,newfstatat,getdents64,linkat";
/// What the task says goes through this one; the first marks its beginning.
const MARK: &str = "sendto";
/// When, in POSIX seconds.
const TIME: u64 = 1_795_294_798;
const ENTRIES: u64 = 5;
const HEADS: u64 = 3;
/// Entries of the log that is copied: one whole bundle, and a part of one.
const COPIED: [u64; 2] = [200, 300];

#[derive(Debug, Clone, Copy)]
enum Task {
    Log,
    Witness,
    Mirror,
}

impl Task {
    const ALL: [Self; 3] = [Self::Log, Self::Witness, Self::Mirror];

    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Witness => "witness",
            Self::Mirror => "mirror",
        }
    }

    fn run(self, folder: &Path, say: &dyn Fn(&str)) {
        match self {
            Self::Log => write_log(folder, say),
            Self::Witness => cosign_heads(folder, say),
            Self::Mirror => copy_log(folder, say),
        }
    }

    /// Does it once more, where something may have gone wrong, and compares with what was said.
    fn check(self, folder: &Path, said: &[String], context: &str) {
        match self {
            Self::Log => check_log(folder, said, context),
            Self::Witness => check_witness(folder, said, context),
            Self::Mirror => check_mirror(folder, said, context),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other process is told so what it is"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Does a task: for another process of this test, or for this one alone.
#[test]
fn a_task_that_nothing_happens_to_ends() {
    let told = variable(TASK).zip(variable(FOLDER));
    if let Some((task, folder)) = told {
        let folder = PathBuf::from(folder);
        let socket = UnixDatagram::unbound().expect("a socket");
        let say = |text: &str| {
            socket
                .send_to(text.as_bytes(), folder.join("said"))
                .expect("somebody listens");
        };
        let task = Task::ALL.into_iter().find(|known| known.name() == task);
        // What comes before it is of no interest, and counted.
        say("begin");
        task.expect("a task").run(&folder, &say);
        return;
    }
    for task in Task::ALL {
        let folder = TempDir::new().expect("a folder");
        let said = std::cell::RefCell::new(Vec::new());
        task.run(folder.path(), &|text| {
            said.borrow_mut().push(text.to_owned())
        });
        let said = said.into_inner();
        assert_eq!(
            said.last().map(String::as_str),
            Some("done"),
            "{task:?}: {said:?}"
        );
        task.check(folder.path(), &said, "nothing happened");
    }
}

#[test]
fn every_system_call_of_the_log_may_fail() {
    break_each(Task::Log);
}

#[test]
fn every_system_call_of_a_witness_may_fail() {
    break_each(Task::Witness);
}

#[test]
fn every_system_call_of_a_mirror_may_fail() {
    break_each(Task::Mirror);
}

/// Runs the task with each of its system calls failing in turn, and being the last.
#[expect(clippy::print_stdout, reason = "says that it was left out")]
fn break_each(task: Task) {
    let folder = TempDir::new().expect("a folder");
    let trace = folder.path().join("trace");
    let traced = [
        "-e".to_owned(),
        format!("trace={CALLS},{MARK}"),
        "-o".to_owned(),
        trace.display().to_string(),
    ];
    let Some(said) = run_traced(task, folder.path(), &traced) else {
        println!("left out: strace is not there, or may not trace");
        return;
    };
    assert_eq!(said.last().map(String::as_str), Some("done"), "{said:?}");
    let calls = count(&std::fs::read_to_string(&trace).expect("a trace"));
    assert!(
        calls.contains_key("fdatasync") || calls.contains_key("fsync"),
        "{calls:?}"
    );
    let (mut runs, mut broken) = (0, 0);
    for (call, numbers) in calls {
        for what in ["error=EIO", "error=ENOSPC", "signal=KILL"] {
            // What only reads fails in one way; being killed there is being killed at the next change.
            if what != "error=EIO" && !changes(&call) {
                continue;
            }
            for nth in &numbers {
                let context = format!("{task:?}: {call} number {nth}, {what}");
                let folder = TempDir::new().expect("a folder");
                let inject = ["-e".to_owned(), format!("inject={call}:{what}:when={nth}")];
                let said = run_traced(task, folder.path(), &inject).expect("it could be traced");
                task.check(folder.path(), &said, &context);
                runs += 1;
                broken += usize::from(said.last().map(String::as_str) != Some("done"));
            }
        }
    }
    assert!(
        broken > runs / 4,
        "{task:?}: only {broken} of {runs} runs were broken"
    );
}

fn changes(call: &str) -> bool {
    let reading = [
        "read",
        "pread64",
        "statx",
        "fstat",
        "newfstatat",
        "getdents64",
        "flock",
    ];
    !reading.contains(&call)
}

/// Returns which of each thread's calls come after the beginning: strace counts by thread.
fn count(trace: &str) -> BTreeMap<String, BTreeSet<usize>> {
    let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut wanted: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut begun = false;
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((call, _arguments)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if call == MARK {
            begun = true;
        } else if call.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let nth = by_thread.entry((thread, call)).or_default();
            *nth += 1;
            if begun {
                wanted.entry(call.to_owned()).or_default().insert(*nth);
            }
        }
    }
    wanted
}

/// Runs a task under strace, and returns what it has said; `None` where that is not possible.
fn run_traced(task: Task, folder: &Path, options: &[String]) -> Option<Vec<String>> {
    let socket = UnixDatagram::bind(folder.join("said")).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a timeout");
    let this = std::env::current_exe().expect("this program");
    let mut child = Command::new("strace")
        .args(["-f", "-qq", "--seccomp-bpf"])
        .args(options)
        .arg(this)
        .args(["--exact", "a_task_that_nothing_happens_to_ends"])
        .env(TASK, task.name())
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    let mut ended = false;
    loop {
        match socket.recv(&mut buffer) {
            Ok(read) => said.push(String::from_utf8_lossy(&buffer[..read]).into_owned()),
            Err(_nothing) if ended => break,
            Err(_nothing) => ended = has_ended(&mut child),
        }
    }
    drop(socket);
    std::fs::remove_file(folder.join("said")).expect("removed");
    (!said.is_empty() || options.iter().any(|option| option.starts_with("inject"))).then_some(said)
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().expect("a child").is_some()
}

/// Appends entries, and says which are acknowledged and which heads are shown.
fn write_log(folder: &Path, say: &dyn Fn(&str)) {
    let Ok((log, _opened)) = Log::open(options(folder), TestClock::fast()) else {
        return;
    };
    say("open");
    let (sender, heads) = std::sync::mpsc::sync_channel(1_000);
    log.on_head(Box::new(move |head: SignedHead| {
        sender.send(head).expect("room");
    }));
    for number in 0..ENTRIES {
        if let Ok(seq) = append(&log, event(number)) {
            say(&format!("entry {seq} key.{number}"));
        }
        say_heads(&heads, say);
    }
    if let Ok(seq) = append(&log, Event::config_change(Public::text("key.changed"))) {
        say(&format!("entry {seq} key.changed"));
    }
    let closed = log.close();
    say_heads(&heads, say);
    if closed.is_ok() {
        say("done");
    }
}

fn say_heads(heads: &std::sync::mpsc::Receiver<SignedHead>, say: &dyn Fn(&str)) {
    for head in heads.try_iter() {
        let Checkpoint { size, root, .. } = head.checkpoint;
        say(&format!("head {size} {root}"));
    }
}

fn check_log(folder: &Path, said: &[String], context: &str) {
    let (log, _opened) = Log::open(options(folder), TestClock::fast()).expect(context);
    append(&log, event(100)).expect(context);
    log.close().expect(context);
    let text = std::fs::read(folder.join("audit.jsonl")).expect(context);
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    for words in said.iter().map(|said| said.split(' ').collect::<Vec<_>>()) {
        match words.as_slice() {
            ["entry", seq, key] => {
                let line = lines[seq.parse::<usize>().expect("a number")];
                let line = String::from_utf8_lossy(line);
                let wanted = format!("\"seq\":{seq},\"target\":\"{key}\"");
                assert!(line.contains(&wanted), "{context}: entry {seq} is {line}");
            }
            ["head", size, root] => {
                let found = root_of_lines(&text, size.parse().expect("a size"));
                let found = found.map(|found| found.to_string());
                assert_eq!(found.as_deref(), Some(*root), "{context}: head of {size}");
            }
            _ => {}
        }
    }
    let report = verify_files(
        &folder.join("audit.jsonl"),
        &folder.join("audit.d"),
        &log_key(),
        &origin(),
    );
    let verdict = report.expect(context).verdict;
    let intact = matches!(
        verdict,
        Verdict::Intact {
            unsigned: 0,
            torn_bytes: 0,
            ..
        }
    );
    assert!(intact, "{context}: {verdict:?}");
}

/// The leaves of the log that is witnessed, or of one that goes apart from it.
fn witnessed(forked: bool) -> Vec<Hash> {
    (0..=HEADS)
        .map(|leaf| leaf_hash(&[u8::from(forked), u8::try_from(leaf).expect("small")]))
        .collect()
}

fn request(leaves: &[Hash], old: u64, size: u64) -> Vec<u8> {
    let at = usize::try_from(size).expect("small");
    let checkpoint = Checkpoint {
        origin: origin(),
        size,
        root: root_of(&leaves[..at]),
    };
    let proof = match old {
        0 => Vec::new(),
        _ => build_consistency(&leaves[..at], old, size).expect("a proof"),
    };
    let head = SignedHead::sign(checkpoint, &keys().log);
    let note: Note = head.note.parse().expect("a note");
    let request = AddCheckpoint::new(old, proof, note).expect("a request");
    request.to_string().into_bytes()
}

fn open_witness(folder: &Path) -> Option<Witness<FileStore>> {
    let cosigner = NodeSeed::from_bytes([9; 32]).keys();
    let cosigner = Cosigner::of(&cosigner.node_id(), Role::Witness, cosigner.log);
    let (dir, binding) = (folder.join("witness"), folder.join("witness.bound"));
    let store = FileStore::open(&dir, &binding, cosigner.public(), "test").ok()?;
    Some(Witness::new(cosigner, store))
}

fn trusted(_name: &LogName) -> Trust {
    Trust::Keys(vec![
        Verifier::new(origin().as_str(), log_key()).expect("a name"),
    ])
}

/// Cosigns heads of a log, and says which.
fn cosign_heads(folder: &Path, say: &dyn Fn(&str)) {
    let Some(witness) = open_witness(folder) else {
        return;
    };
    say("open");
    let leaves = witnessed(false);
    let mut old = 0;
    let mut all = true;
    for size in 1..=HEADS {
        let answer = witness.add_checkpoint(&request(&leaves, old, size), &trusted, TIME);
        all &= answer.is_ok();
        if answer.is_ok() {
            say(&format!("cosigned {size}"));
            old = size;
        }
    }
    if all {
        say("done");
    }
}

/// What was cosigned is not forgotten: nothing that goes apart from it is cosigned. A witness that is not
/// sure of that cosigns nothing at all.
fn check_witness(folder: &Path, said: &[String], context: &str) {
    let sizes = said
        .iter()
        .filter_map(|said| said.strip_prefix("cosigned "));
    let cosigned = sizes.filter_map(|size| size.parse::<u64>().ok()).max();
    let Some(witness) = open_witness(folder) else {
        return;
    };
    let forked = witnessed(true);
    if let Some(cosigned) = cosigned {
        for size in 1..=HEADS {
            let answer = witness.add_checkpoint(&request(&forked, 0, size), &trusted, TIME);
            assert!(
                answer.is_err(),
                "{context}: another head of {size} after one of {cosigned}"
            );
        }
    }
    // The log itself goes on, from wherever the witness is.
    let leaves = witnessed(false);
    let gone_on = (0..=HEADS).any(|old| {
        let size = HEADS;
        witness
            .add_checkpoint(&request(&leaves, old, size), &trusted, TIME)
            .is_ok()
    });
    assert!(gone_on, "{context}: the log cannot go on");
}

/// Copies a log, and says what is complete.
fn copy_log(folder: &Path, say: &dyn Fn(&str)) {
    let log = copy::Log::new(COPIED[1]);
    let Ok(store) = FsMirrorStore::open(folder, copy::ORIGIN) else {
        return;
    };
    let Ok((mut mirror, _opened)) = Mirror::open(store, copy::ORIGIN, copy::QUOTA) else {
        return;
    };
    say("open");
    let mut complete = 0;
    for size in COPIED {
        if mirror.offer(log.head(size)).is_err() {
            continue;
        }
        let start = mirror.next_entry().min(size);
        let Ok(upload) = mirror.begin(&copy::header(start, size)) else {
            continue;
        };
        let packages = log.packages(start, size);
        let staged = packages
            .iter()
            .all(|package| mirror.stage(&upload, package).is_ok());
        if let (true, Ok(Committed::Complete(head))) = (staged, mirror.commit(&upload)) {
            complete = head.size;
            say(&format!("complete {}", head.size));
        }
    }
    if complete == COPIED[1] {
        say("done");
    }
}

/// What was said to be complete is there, byte for byte, and the rest can be copied still.
fn check_mirror(folder: &Path, said: &[String], context: &str) {
    let log = copy::Log::new(COPIED[1]);
    let store = FsMirrorStore::open(folder, copy::ORIGIN).expect(context);
    let (mut mirror, opened) = Mirror::open(store, copy::ORIGIN, copy::QUOTA).expect(context);
    assert!(!opened.damaged, "{context}");
    let sizes = said
        .iter()
        .filter_map(|said| said.strip_prefix("complete "));
    let most = sizes.filter_map(|size| size.parse::<u64>().ok()).max();
    let complete = mirror.complete().map_or(0, |head| head.size);
    assert!(
        complete >= most.unwrap_or(0),
        "{context}: {complete} of {most:?}"
    );
    copy::assert_right(&mirror, &log);
    mirror.offer(log.head(COPIED[1])).expect(context);
    copy::upload(&mut mirror, &log, COPIED[1]);
    assert_eq!(
        mirror.complete().map(|head| head.size),
        Some(COPIED[1]),
        "{context}"
    );
    copy::assert_right(&mirror, &log);
}
