//! How the demonstration ends when it is not let finish: nothing of it stays.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Nothing here takes nearly as long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A demonstration whose folder is inside one of ours.
struct Demo {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let child = Command::new(env!("CARGO_BIN_EXE_openfang-testnet"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        Self {
            folder,
            child: Some(child),
        }
    }

    /// The homes that are there now.
    fn homes(&self) -> Vec<PathBuf> {
        let folders = entries(self.folder.path()).into_iter();
        folders.flat_map(|folder| entries(&folder)).collect()
    }

    /// Waits until a node runs, and returns its process.
    fn pid_of(&self, name: &str) -> Pid {
        let mut found = None;
        eventually("the node runs", || {
            let homes = self.homes();
            let home = homes.iter().find(|home| home.ends_with(name));
            found = home.and_then(|home| pid_in(home));
            found.is_some()
        });
        found.expect("a pid")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("signalled");
    }

    fn ended(&mut self) -> Output {
        let child = self.child.take().expect("it runs");
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for home in self.homes() {
            if let Some(pid) = pid_in(&home) {
                // It may have ended already.
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn pid_in(home: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(home.join("daemon.json")).ok()?;
    let daemon: serde_json::Value = serde_json::from_str(&text).ok()?;
    Pid::from_raw(i32::try_from(daemon["pid"].as_i64()?).ok()?)
}

/// A process that ended and that nobody has waited for yet is gone, too.
fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while !is_so() {
        assert!(waited < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}

#[test]
fn a_signal_takes_everything_down() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut demo = Demo::start(&[]);
        let pid = demo.pid_of("node-b");
        demo.signal(signal);
        let output = demo.ended();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(is_gone(pid));
        assert_eq!(entries(demo.folder.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn the_nodes_of_a_killed_demonstration_end() {
    let mut demo = Demo::start(&[]);
    let pids = ["node-a", "node-b", "node-c"].map(|name| demo.pid_of(name));
    demo.signal(Signal::KILL);
    demo.ended();
    eventually("the nodes end", || pids.iter().all(|pid| is_gone(*pid)));
}

#[test]
fn what_shall_be_kept_is_kept_when_a_step_fails() {
    let mut demo = Demo::start(&["--keep"]);
    let kept = demo.pid_of("node-b");
    kill_process(demo.pid_of("node-a"), Signal::KILL).expect("killed");
    let output = demo.ended();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!is_gone(kept), "{said}");
    let home = demo
        .homes()
        .into_iter()
        .find(|home| home.ends_with("node-b"));
    let home = home.expect("it is kept").display().to_string();
    for expected in [
        format!("(pid {})", kept.as_raw_nonzero()),
        format!("export OPENFANG_HOME={home}"),
        "Authorization: Bearer ofk1_".to_owned(),
        "openfang stop".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected:?}: {said}");
    }
}
