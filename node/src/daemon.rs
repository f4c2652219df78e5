//! `daemon.json`: how the command line finds the running daemon.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::home::Home;

/// What a running daemon says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its process.
    pub pid: u32,
    /// Where its API listens.
    pub listen_addr: SocketAddr,
    /// When it began to serve, RFC 3339.
    pub started_at: String,
    /// Its version.
    pub version: String,
    /// The system it was built for, such as `linux-x86_64`.
    pub platform: String,
}

impl Daemon {
    /// Describes this process.
    #[must_use]
    pub fn this(listen_addr: SocketAddr, started_at: String) -> Self {
        Self {
            pid: std::process::id(),
            listen_addr,
            started_at,
            version: crate::VERSION.to_owned(),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }

    /// Reads what the daemon of a home wrote; `None` when there is nothing, or nothing of use.
    #[must_use]
    pub fn load(home: &Home) -> Option<Self> {
        let text = std::fs::read_to_string(home.daemon()).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, home: &Home) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        files::replace_volatile(&home.daemon(), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_wrote_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(folder.path());
        assert_eq!(Daemon::load(&home), None);
        let listen = "127.0.0.1:4200".parse().expect("an address");
        let daemon = Daemon::this(listen, "2026-01-01T00:00:00Z".to_owned());
        daemon.save(&home).expect("saved");
        assert_eq!(Daemon::load(&home), Some(daemon));
    }
}
