//! Homes and daemons that clean up after themselves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes nearly as long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A home, gone with its value.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running daemon, killed with its value.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) ready: String,
    _stdout: BufReader<ChildStdout>,
}

impl Home {
    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            variables: vec![("OPENFANG_LISTEN", "127.0.0.1:0".to_owned())],
        }
    }

    /// What `init --quick` makes.
    pub(crate) fn init() -> Self {
        let home = Self::empty();
        home.ok(&["init", "--quick"]);
        home
    }

    /// The same, with more at the end of the configuration.
    pub(crate) fn with_config(config: &str) -> Self {
        let home = Self::init();
        home.write("config.toml", config);
        home
    }

    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// Replaces a file and keeps its mode.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap_or_else(|why| panic!("{name}: {why}"));
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openfang"));
        command
            .args(args)
            .env_clear()
            .env("OPENFANG_HOME", self.path())
            .env("HOME", self.path())
            .env("RUST_BACKTRACE", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let out = self.command(args).output().expect("the program runs");
        Output {
            code: out.status.code(),
            stdout: String::from_utf8(out.stdout).expect("text"),
            stderr: String::from_utf8(out.stderr).expect("text"),
        }
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.code, Some(0), "{args:?}: {out:?}");
        out.stdout
    }

    /// The same, as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    /// Runs a command that must fail with a code and say these words.
    pub(crate) fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> Output {
        let out = self.run(args);
        assert_eq!(out.code, Some(code), "{args:?}: {out:?}");
        for word in words {
            assert!(out.stderr.contains(word), "{args:?}, {word:?}: {out:?}");
        }
        out
    }

    /// Sets the mode of a file; of the home itself with an empty name.
    pub(crate) fn mode(&self, name: &str, mode: u32) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(self.file(name), mode).expect("set");
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn start(&self) -> Daemon {
        let log = std::fs::File::create(self.file("stderr")).expect("a file");
        self.start_as(self.command(&["start"]).stderr(log))
    }

    /// Starts the daemon in a way of one's own and waits until it serves.
    pub(crate) fn start_as(&self, command: &mut Command) -> Daemon {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (done, line) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.read_line(&mut line);
            drop(done.send((read, line, stdout)));
        });
        let Ok((Ok(1..), ready, stdout)) = line.recv_timeout(DEADLINE) else {
            drop(child.kill());
            let said = std::fs::read_to_string(self.file("stderr")).unwrap_or_default();
            panic!("the daemon did not become ready: {said}");
        };
        let listen = ready
            .split_once("http://")
            .and_then(|(_before, rest)| rest.split(',').next())
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{ready}"));
        Daemon {
            child,
            listen,
            ready,
            _stdout: stdout,
        }
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("signalled");
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the daemon ends", || {
            status = self.child.try_wait().expect("asked");
            status.is_some()
        });
        status.expect("ended")
    }

    /// Ends the daemon the usual way.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().code(), Some(0));
    }

    /// Sends a request over a connection of its own and returns status and body.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.listen).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n",
            self.listen
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_head, body)| body);
        (
            status.unwrap_or_else(|| panic!("{answer}")),
            body.unwrap_or_default().to_owned(),
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while !is_so() {
        assert!(waited < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}
