//! What tells a node to stop: signals of the system, or whoever holds the other end of a channel.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// A source of wishes to stop. The first begins an orderly stop, the second ends at once.
#[derive(Debug)]
pub enum Signals {
    /// SIGTERM and SIGINT of this process.
    Process {
        /// From a supervisor.
        terminate: Signal,
        /// From a terminal.
        interrupt: Signal,
    },
    /// One wish for each message.
    Channel(mpsc::Receiver<()>),
}

impl Signals {
    /// Listens for the signals of this process. From now on they no longer end it by themselves.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub fn of_process() -> io::Result<Self> {
        Ok(Self::Process {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next wish. Cancel-safe. A source that ended never wishes again.
    pub async fn next(&mut self) -> &'static str {
        let (wish, name) = match self {
            Self::Process {
                terminate,
                interrupt,
            } => tokio::select! {
                wish = terminate.recv() => (wish, "SIGTERM"),
                wish = interrupt.recv() => (wish, "SIGINT"),
            },
            Self::Channel(wishes) => (wishes.recv().await, "a request"),
        };
        match wish {
            Some(()) => name,
            None => std::future::pending().await,
        }
    }
}
