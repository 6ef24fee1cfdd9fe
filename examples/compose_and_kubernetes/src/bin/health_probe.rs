//! Asks a service in this container whether it is healthy: its image has no curl to
//! ask with.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Below the `timeout` of the health check, which would kill us without a word.
const DEADLINE: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let address: SocketAddr = address.parse().map_err(|_| {
        io::Error::other(format!(
            "an address such as 127.0.0.1:5000, not {address:?}"
        ))
    })?;
    let mut service = TcpStream::connect_timeout(&address, DEADLINE)?;
    service.set_read_timeout(Some(DEADLINE))?;
    service.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; b"HTTP/1.0 200".len()];
    service.read_exact(&mut answer)?;
    match answer.ends_with(b" 200") {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&answer).into_owned(),
        )),
    }
}
