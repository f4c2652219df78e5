//! What interrupts the demonstration.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT, SIGTERM and SIGHUP of this process.
#[derive(Debug)]
pub(crate) struct Wishes {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Wishes {
    /// Listens for them. From now on they no longer end the process by themselves.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _some = self.interrupt.recv() => "SIGINT",
            _some = self.terminate.recv() => "SIGTERM",
            _some = self.hangup.recv() => "SIGHUP",
        }
    }
}
