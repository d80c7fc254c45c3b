// SPDX-License-Identifier: Apache-2.0
//! Telling systemd that the service is ready.
//!
//! Owns      one datagram to the socket that `NOTIFY_SOCKET` names.
//! Never     sends anything else: no STOPPING, no watchdog (SD-1).

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// Sends `READY=1` to the socket named so; a name that begins with `@` is abstract.
pub fn ready(socket: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // rule: SD-1
    #[test]
    fn the_socket_gets_the_one_word() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        ready(path.to_str().expect("text")).expect("sent");
        let mut bytes = [0; 16];
        let len = socket.recv(&mut bytes).expect("received");
        assert_eq!(&bytes[..len], b"READY=1");
        assert!(ready("/no/such/socket").is_err());
    }
}
