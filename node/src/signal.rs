//! What tells a node to stop: signals of the system, or whoever holds the other end of a channel.

use std::io;
use std::os::fd::AsFd as _;

use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// A source of wishes to stop. The first begins an orderly stop, the second ends at once.
#[derive(Debug)]
pub enum Signals {
    /// SIGTERM, SIGINT and SIGHUP of this process, and the end of its standard input.
    Process {
        /// From a supervisor.
        terminate: Signal,
        /// From a terminal.
        interrupt: Signal,
        /// What is a first wish, and never a second: a terminal that closes hangs up several times,
        /// and ends the input as well.
        first: First,
    },
    /// One wish for each message.
    Channel(mpsc::Receiver<()>),
}

/// Sources of a first wish.
#[derive(Debug, Default)]
pub struct First {
    hangup: Option<Signal>,
    input: Option<Receiver>,
    /// One of them was heard, and nobody has asked in so many words.
    heard: bool,
}

/// What a node takes for a wish to stop besides SIGTERM and SIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Also {
    /// Whether a hangup is none: the node was started in the background.
    pub survives_hangup: bool,
    /// Whether the end of the standard input, a pipe, is one: whoever holds its other end is gone.
    pub ends_with_input: bool,
}

impl Signals {
    /// Listens for the signals of this process. From now on they no longer end it by themselves.
    ///
    /// A hangup that is ignored already, as `nohup` does, stays ignored.
    ///
    /// # Errors
    /// When the system does not allow it, or the standard input shall be heeded and is no pipe.
    pub fn of_process(also: Also) -> io::Result<Self> {
        let mut first = First::default();
        if !hangup_is_ignored() {
            let hangup = signal(SignalKind::hangup())?;
            // One that was listened for once does not end the process any more.
            first.hangup = (!also.survives_hangup).then_some(hangup);
        }
        if also.ends_with_input {
            let input = io::stdin().as_fd().try_clone_to_owned()?;
            first.input = Some(Receiver::from_owned_fd(input)?);
        }
        Ok(Self::Process {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            first,
        })
    }

    /// Waits for the next wish. Cancel-safe. A source that ended never wishes again.
    pub async fn next(&mut self) -> &'static str {
        let wish = match self {
            Self::Process {
                terminate,
                interrupt,
                first,
            } => loop {
                let wish = tokio::select! {
                    wish = terminate.recv() => wish.map(|()| "SIGTERM"),
                    wish = interrupt.recv() => wish.map(|()| "SIGINT"),
                    name = first.heard() => {
                        *first = First { heard: true, ..First::default() };
                        return name;
                    }
                };
                // Whoever hung up has not asked yet: asking once begins what has begun already.
                if !std::mem::take(first).heard {
                    break wish;
                }
            },
            Self::Channel(wishes) => wishes.recv().await.map(|()| "a request"),
        };
        match wish {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

impl First {
    async fn heard(&mut self) -> &'static str {
        let Self { hangup, input, .. } = self;
        tokio::select! {
            () = hung_up(hangup) => "SIGHUP",
            () = ended(input) => "the end of its input",
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    if let Some(hangup) = hangup
        && hangup.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

/// Waits until the other end of the pipe is closed. What is written to it means nothing.
async fn ended(input: &mut Option<Receiver>) {
    let Some(input) = input else {
        return std::future::pending().await;
    };
    let mut ignored = [0; 64];
    while input.readable().await.is_ok() {
        match input.try_read(&mut ignored) {
            Ok(0) => return,
            Ok(_some) => {}
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(_broken) => return,
        }
    }
}

/// Whether whoever started this process has it ignore SIGHUP: the first bit of `SigIgn`, `proc(5)`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores_hangup(&status)
}

fn ignores_hangup(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_recognised() {
        assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
