//! Listening at an address, with a limit on the number of connections.

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
const FULL: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    the lab has as many connections as it takes: close some, or raise --max-connections\n";

/// How long a client past the limit may take to read that answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the lab can't listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mostly because another program listens there.
    #[error("cannot listen on {address} (choose another with {flag})")]
    Taken {
        flag: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("a listener failed")]
    Failed(#[from] io::Error),
}

/// Listens on `address`; `flag` is the command-line flag that it came from.
///
/// # Errors
/// [`Error::Taken`].
pub async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error::Taken {
        flag,
        address,
        source,
    })
}

/// The address of a listener, with the port that port 0 became.
///
/// # Errors
/// [`Error::Failed`].
pub fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    Ok(listener.local_addr()?)
}

/// Which host names a server answers to at an address that other machines can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// IP addresses and `localhost` only: another site's page could point its own name here and read the traces.
    Addresses,
    /// Any name: the server only receives, it shows nothing.
    Any,
}

/// Serves `routes` until `stop`, then finishes the requests that are under way. At a loopback address, requests must also
/// name this machine; elsewhere `names` decides.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    connections: usize,
    names: Names,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        eprintln!("Warning: anyone who can reach {address} can read your traces or send spans");
    }
    let routes = match (address.ip().is_loopback(), names) {
        (true, _) => guard::only_here(routes),
        (false, Names::Addresses) => guard::only_addresses(routes),
        (false, Names::Any) => routes,
    };
    let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let server = axum::serve(Limited { listener, places }, routes);
    server.with_graceful_shutdown(stop).await?;
    Ok(())
}

struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // This retries after an error of a single connection.
            let (mut stream, address) = Listener::accept(&mut self.listener).await;
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    // An error means that the connection is gone: the first read fails too.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection {
                        stream,
                        _place: place,
                    };
                    return (connection, address);
                }
                Err(_) => {
                    tokio::spawn(tokio::time::timeout(PATIENCE, async move {
                        // A client reads an answer only after it has sent a request.
                        if stream.read(&mut [0; 1024]).await? > 0 {
                            stream.write_all(FULL).await?;
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
    _place: OwnedSemaphorePermit,
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
