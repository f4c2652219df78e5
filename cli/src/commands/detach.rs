//! The node in the background: `openfang start --detach` and `openfang restart`.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use openfang_node::daemon::Daemon;
use openfang_node::files;
use openfang_schema::{Health, path};

use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// A node with a long audit log checks all of it before it serves.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How often is looked whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of the log is shown when the node does not start.
const TAIL_BYTES: u64 = 4096;

/// Starts the node in the background and waits until it serves.
pub(crate) fn run(context: &Context) -> Result<Exit, Failure> {
    context.check_start()?;
    let log = context.home.log();
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)
        .map_err(|why| {
            Failure::new(Exit::Failure, format!("{}: {why}", log.display()))
                .mend(files::mend(&log, why.kind()))
        })?;
    let begin = file.metadata()?.len();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["start", "--in-background"])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()?;
    let daemon = context.block_on(ready(context, &mut child, begin))?;
    render::message(&format!(
        "started (pid {}) at http://{}, log in {}",
        daemon.pid,
        daemon.listen_addr,
        log.display()
    ));
    Ok(Exit::Ok)
}

async fn ready(context: &Context, child: &mut Child, begin: u64) -> Result<Daemon, Failure> {
    let look = async {
        loop {
            if let Some(status) = child.try_wait()? {
                return Err(ended(context, status, begin));
            }
            if let Some(daemon) = serving(context, child.id()).await {
                return Ok(daemon);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, look)
        .await
        .unwrap_or_else(|_late| {
            let what = "the node was started and does not answer yet";
            Err(Failure::new(Exit::Timeout, what)
                .mend(format!("read {}", context.home.log().display())))
        })
}

async fn serving(context: &Context, pid: u32) -> Option<Daemon> {
    let daemon = Daemon::load(&context.home).filter(|daemon| daemon.pid == pid)?;
    let client = Client::new(daemon.listen_addr, None).ok()?;
    client.get::<Health>(path::HEALTH).await.ok()?;
    Some(daemon)
}

fn ended(context: &Context, status: ExitStatus, begin: u64) -> Failure {
    let exit = match status.code() {
        Some(64) => Exit::Config,
        Some(_) | None => Exit::Failure,
    };
    let tail = tail(context, begin).unwrap_or_default();
    Failure::new(
        exit,
        format!("the node ended at once ({status})\n{}", tail.trim_end()),
    )
    .mend(format!("read {}", context.home.log().display()))
}

/// Returns the end of what this start wrote.
fn tail(context: &Context, begin: u64) -> std::io::Result<String> {
    let mut file = File::open(context.home.log())?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(size.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
