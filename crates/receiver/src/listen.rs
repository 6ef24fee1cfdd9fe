//! Listens on an address with a limit on the number of connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::guard;

/// The answer to a connection past the limit.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    the lab has as many connections as it takes: close some, or raise --max-connections\n";

/// How long a client past the limit may take to read that answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The reasons why the lab can't listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be used, usually because another program listens there.
    #[error("cannot listen on {address} (choose another with {flag})")]
    Taken { flag: &'static str, address: SocketAddr, source: io::Error },
    #[error("a listener failed")]
    Failed(#[from] io::Error),
}

/// Listens on `address`. `flag` is the command-line flag that sets the address, for the error message.
///
/// # Errors
/// [`Error::Taken`].
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error::Taken { flag, address, source })
}

/// Returns the address of a listener. If it was bound to port 0, this has the port that the system chose.
///
/// # Errors
/// [`Error::Failed`].
pub fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    Ok(listener.local_addr()?)
}

/// The hosts that requests may name at an address which other machines can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedHosts {
    /// IP addresses and `localhost`. With any name, another site could point its own name here and read the traces.
    Addresses,
    /// Any name, for a server that receives spans and shows nothing.
    Any,
}

/// Serves `routes` until `stop` ends, then finishes the requests in flight. At a loopback address, requests must name this
/// machine. At other addresses, `hosts` decides. `connections` is the largest number of open connections.
///
/// # Errors
/// Fails when the listener fails.
pub async fn serve(
    listener: TcpListener,
    connections: usize,
    hosts: AllowedHosts,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        eprintln!("Warning: anyone who can reach {address} can read your traces or send spans");
    }
    let routes = match (address.ip().is_loopback(), hosts) {
        (true, _) => guard::only_here(routes),
        (false, AllowedHosts::Addresses) => guard::only_addresses(routes),
        (false, AllowedHosts::Any) => routes,
    };
    let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let server = axum::serve(LimitedListener { listener, permits }, routes);
    server.with_graceful_shutdown(stop).await?;
    Ok(())
}

struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // axum's `accept` retries after an error of a single connection.
            let (mut stream, address) = Listener::accept(&mut self.listener).await;
            match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => {
                    // An error means that the connection is closed. The first read then fails too.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection { stream, _permit: permit };
                    return (connection, address);
                }
                Err(_) => {
                    tokio::spawn(tokio::time::timeout(REFUSAL_TIMEOUT, async move {
                        // Read first, because a client expects an answer only after it has sent a request.
                        if stream.read(&mut [0; 1024]).await? > 0 {
                            stream.write_all(TOO_MANY_CONNECTIONS).await?;
                        }
                        stream.shutdown().await?;
                        // Closing with unread data would reset the connection and discard our answer.
                        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
                    }));
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection and its permit.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
