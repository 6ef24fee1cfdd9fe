//! Listening: at an address of our own choice, to so many connections and no more.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::guard;

/// What a connection too many is told.
const FULL: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    the lab has as many connections as it takes: close some, or raise --max-connections\n";

/// How long a connection too many may take to read that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens on `address`, which `flag` has named.
///
/// # Errors
/// When that cannot be: mostly because another program does.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address} (choose another with {flag})"))
}

/// Which names a server answers to at an address that others can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Addresses alone: what it shows is not for the page of a site that points its name here.
    Addresses,
    /// Any: it takes, and shows nothing.
    Any,
}

/// Serves `routes` until a fault. At an address that only this machine can reach, requests must also be to a name of
/// this machine; elsewhere `names` says to which.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    connections: usize,
    names: Names,
    routes: Router,
) -> anyhow::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        eprintln!("Warning: whoever can reach {address} can read your traces or send spans");
    }
    let routes = match (address.ip().is_loopback(), names) {
        (true, _) => guard::only_here(routes),
        (false, Names::Addresses) => guard::only_addresses(routes),
        (false, Names::Any) => routes,
    };
    let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    axum::serve(Limited { listener, places }, routes).await?;
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
            // It goes on after an error of one connection.
            let (mut stream, address) = Listener::accept(&mut self.listener).await;
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    // An error means that the connection is gone: the first read will tell.
                    let _ = stream.set_nodelay(true);
                    let connection = Connection {
                        stream,
                        _place: place,
                    };
                    return (connection, address);
                }
                Err(_) => {
                    tokio::spawn(tokio::time::timeout(PATIENCE, async move {
                        // A client takes an answer for one only when it has asked.
                        if stream.read(&mut [0; 1024]).await? > 0 {
                            stream.write_all(FULL).await?;
                        }
                        stream.shutdown().await?;
                        // Closing while there is something to read would take our answer back.
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

/// A connection, and its place among those that we take.
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
