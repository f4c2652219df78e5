//! `openfang stop`: asks the daemon to end and waits until it is gone.

use std::time::Duration;

use openfang_schema::{ShutdownReply, path};
use rustix::process::{Pid, Signal, kill_process};

use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::render;

/// A daemon lets turns finish for a while, then cuts them; it is given more than that.
const GONE_WITHIN: Duration = Duration::from_secs(40);
/// How often is looked whether it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Stops the daemon.
pub(crate) fn run(context: &Context) -> Result<Exit, Failure> {
    if holder(context)?.is_none() {
        return Err(context.not_running());
    }
    if_running(context)?;
    Ok(Exit::Ok)
}

/// Stops the daemon when there is one.
pub(crate) fn if_running(context: &Context) -> Result<(), Failure> {
    let Some(pid) = holder(context)? else {
        return Ok(());
    };
    context.block_on(async {
        if let Err(why) = ask(context).await {
            render::message(&format!(
                "note: asking by HTTP did not work, sending SIGTERM: {why}"
            ));
            terminate(pid)?;
        }
        gone(context, pid).await
    })?;
    render::message(&format!("stopped (pid {pid})"));
    Ok(())
}

async fn ask(context: &Context) -> Result<ShutdownReply, Failure> {
    context.client()?.post_empty(path::SHUTDOWN).await
}

/// Whoever holds the lock of the home is our daemon: its pid cannot be that of another process.
fn holder(context: &Context) -> Result<Option<u32>, Failure> {
    Ok(context.home.held_by()?)
}

fn terminate(pid: u32) -> Result<(), Failure> {
    let no_pid = || Failure::new(Exit::Failure, format!("{pid} is not the id of a process"));
    let raw = i32::try_from(pid).map_err(|_too_large| no_pid())?;
    let pid = Pid::from_raw(raw).ok_or_else(no_pid)?;
    kill_process(pid, Signal::TERM).map_err(|why| {
        Failure::new(
            Exit::Denied,
            format!("the daemon (pid {raw}) cannot be signalled: {why}"),
        )
        .mend(format!("sudo kill {raw}"))
    })
}

async fn gone(context: &Context, pid: u32) -> Result<(), Failure> {
    let look = async {
        while holder(context)? == Some(pid) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    tokio::time::timeout(GONE_WITHIN, look)
        .await
        .unwrap_or_else(|_late| {
            let what = format!("the daemon (pid {pid}) does not end");
            Err(Failure::new(Exit::Timeout, what).mend(format!("kill -9 {pid}")))
        })
}
