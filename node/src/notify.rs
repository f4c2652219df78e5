//! Tells systemd that the node is ready: `sd_notify(3)`, one datagram to the socket it names.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Names the socket.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// Sends a state such as `READY=1` to the socket that [`VARIABLE`] names: a path, or `@` and an
/// abstract name. Without one nobody asked, and nothing is sent.
///
/// # Errors
/// When the socket is named and cannot be reached.
pub fn notify(socket: Option<&str>, state: &str) -> io::Result<()> {
    let Some(name) = socket.filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(|_sent| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_reaches_the_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        notify(path.to_str(), "READY=1").expect("sent");
        let mut buffer = [0; 32];
        let received = socket.recv(&mut buffer).expect("received");
        assert_eq!(&buffer[..received], b"READY=1");
        notify(None, "READY=1").expect("nobody asked");
    }
}
