//! Listens on an address, with a limit on the number of connections and on the time that one may be idle.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt as _;

use crate::guard;

/// The answer to a connection past the limit.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    the lab has as many connections as it takes: close some, or raise --max-connections\n";

/// How long a client past the limit may take to read that answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest number of clients past the limit that are answered at the same time. Further ones are closed.
const REFUSALS: usize = 100;

/// The limits of a listener. A number stands for the default limits with that many connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of open connections.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub head: Duration,
    /// How long a connection may have no request, or read nothing of an answer that waits for it.
    pub idle: Duration,
}

impl From<usize> for Limits {
    fn from(connections: usize) -> Self {
        Limits { connections, head: Duration::from_secs(10), idle: Duration::from_secs(60) }
    }
}

/// The number of bytes that a connection of HTTP/2 may send before a handler reads them.
const HTTP2_WINDOW: u32 = 256 * 1024;

/// The number of requests that a connection of HTTP/2 may have at the same time.
const HTTP2_REQUESTS: u32 = 64;

/// How long a connection without a request may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for a connection whose place another one waits for.
const ROOM_TIMEOUT: Duration = Duration::from_millis(250);

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
/// machine. At other addresses, `hosts` decides.
///
/// At the largest number of connections, the one that has had no request for the longest time is closed for a new one; if each has
/// one, the new one is answered 429. A connection is also closed when it has no request, or only the beginning of one, or doesn't read
/// its answer, for longer than `limits` allow.
///
/// # Errors
/// Fails when the listener fails.
pub async fn serve(
    listener: TcpListener,
    limits: impl Into<Limits>,
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
    let limits = limits.into();
    let connections = Arc::new(Connections {
        limits,
        permits: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
        refusals: Semaphore::new(REFUSALS),
        open: Mutex::default(),
    });
    // Each connection has a receiver, so the channel is closed when the last has ended.
    let (stopping, stopped) = watch::channel(false);
    let mut listener = listener;
    let mut stop = pin!(stop);
    loop {
        // axum's `accept` retries after an error of a single connection.
        let accept = axum::serve::Listener::accept(&mut listener);
        let (stream, _) = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        // Not when it is admitted: those that came before it may wait for that too.
        let accepted = Instant::now();
        let (connections, routes, stopped) = (connections.clone(), routes.clone(), stopped.clone());
        tokio::spawn(async move {
            match connections.admit(accepted).await {
                Some(place) => place.serve(stream, routes, stopped).await,
                None => {
                    if let Ok(_permit) = connections.refusals.try_acquire() {
                        refuse(stream).await;
                    }
                }
            }
        });
    }
    drop((listener, stopped));
    stopping.send_replace(true);
    stopping.closed().await;
    Ok(())
}

/// Answers a connection past the limit. An error means that it is closed.
async fn refuse(mut stream: TcpStream) {
    let answer = async {
        // Read first, because a client expects an answer only after it has sent a request.
        if stream.read(&mut [0; 1024]).await? > 0 {
            stream.write_all(TOO_MANY_CONNECTIONS).await?;
        }
        stream.shutdown().await?;
        // Closing with unread data would reset the connection and discard our answer.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = timeout(REFUSAL_TIMEOUT, answer).await;
}

/// The open connections of a listener.
struct Connections {
    limits: Limits,
    permits: Arc<Semaphore>,
    refusals: Semaphore,
    open: Mutex<HashMap<usize, Arc<Activity>>>,
}

/// The state of a connection, and when it changed.
struct Activity {
    state: Mutex<State>,
    /// Says that the connection must make room for another.
    make_room: Notify,
}

struct State {
    /// The number of requests that were read and whose answers aren't written.
    requests: usize,
    /// When the last request ended.
    idle_since: Instant,
    /// When the first byte of the next request came, except over HTTP/2, where other frames come too.
    head_since: Option<Instant>,
    /// Since when no byte of an answer could be sent.
    blocked_since: Option<Instant>,
    is_http2: Option<bool>,
}

impl Connections {
    /// Waits for room for one more connection, which was accepted then. Returns `None` if each of the others has a request.
    async fn admit(self: &Arc<Self>, accepted: Instant) -> Option<Place> {
        let permits = Arc::clone(&self.permits);
        let permit = match permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.close_idle()?;
                timeout(CLOSE_TIMEOUT, permits.acquire_owned()).await.ok()?.ok()?
            }
        };
        let state = State {
            requests: 0,
            idle_since: accepted,
            head_since: None,
            blocked_since: None,
            is_http2: None,
        };
        let activity = Arc::new(Activity { state: Mutex::new(state), make_room: Notify::new() });
        let key = Arc::as_ptr(&activity) as usize;
        self.lock().insert(key, Arc::clone(&activity));
        Some(Place { connections: Arc::clone(self), activity, key, permit: Some(permit) })
    }

    /// Closes the connection that has had no request for the longest time, if there is one.
    fn close_idle(&self) -> Option<()> {
        let mut open = self.lock();
        let idle = open.iter().filter_map(|(key, activity)| {
            let state = activity.lock();
            (state.requests == 0).then_some((state.idle_since, *key))
        });
        let (_, key) = idle.min()?;
        open.remove(&key)?.make_room.notify_one();
        Some(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bytes arrived.
    fn arrived(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let is_http2 = *state.is_http2.get_or_insert(bytes.starts_with(b"PRI"));
        if state.requests == 0 && !is_http2 {
            state.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes whether bytes could be sent.
    fn sent(&self, written: &Poll<io::Result<usize>>) {
        let mut state = self.lock();
        match written {
            Poll::Pending => _ = state.blocked_since.get_or_insert_with(Instant::now),
            Poll::Ready(_) => state.blocked_since = None,
        }
    }

    /// Notes that a request was read. Its answer is written when the result is dropped.
    fn begin(self: &Arc<Self>) -> Busy {
        let mut state = self.lock();
        state.requests += 1;
        state.head_since = None;
        Busy(Arc::clone(self))
    }

    /// When the connection has been without a request for too long, or hasn't read for too long; `None` while it has one and reads.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        let state = self.lock();
        let idle = state.idle_since + limits.idle;
        let head = state.head_since.map_or(idle, |since| since + limits.head);
        let blocked = state.blocked_since.map(|since| since + limits.idle);
        if state.requests == 0 { Some(idle.min(head)) } else { blocked }
    }
}

/// A request that is being answered.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        state.idle_since = Instant::now();
    }
}

/// The place of a connection among those that are open.
struct Place {
    connections: Arc<Connections>,
    activity: Arc<Activity>,
    key: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.key);
        drop(self.permit.take());
    }
}

impl Place {
    /// Serves a connection until it is closed, or until the requests in flight are answered after `stopped` says so.
    async fn serve(self, stream: TcpStream, routes: Router, mut stopped: watch::Receiver<bool>) {
        // An error means that the connection is closed. The first read then fails too.
        let _ = stream.set_nodelay(true);
        let activity = &self.activity;
        let io = TokioIo::new(Connection { stream, activity: Arc::clone(activity) });
        let service = service_fn(|request: Request<Incoming>| {
            let busy = activity.begin();
            let answer = routes.clone().oneshot(request.map(Body::new));
            async move {
                let answer: Response = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
            }
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http2()
            .initial_stream_window_size(HTTP2_WINDOW)
            .initial_connection_window_size(HTTP2_WINDOW)
            .max_concurrent_streams(HTTP2_REQUESTS);
        let mut connection = pin!(builder.serve_connection(io, service));
        let (mut is_stopping, mut to_close) = (false, CLOSE_TIMEOUT);
        loop {
            let now = Instant::now();
            let deadline = activity.deadline(self.connections.limits);
            let is_idle = activity.lock().requests == 0;
            if deadline.is_some_and(|it| (is_stopping && is_idle) || it <= now) {
                break;
            }
            if is_stopping {
                connection.as_mut().graceful_shutdown();
            }
            // A deadline can come closer, so look now and then.
            let look = now + if is_stopping { CLOSE_TIMEOUT / 10 } else { CLOSE_TIMEOUT };
            tokio::select! {
                // An error concerns this connection alone.
                _ = connection.as_mut() => return,
                () = activity.make_room.notified(), if !is_stopping => {
                    (is_stopping, to_close) = (true, ROOM_TIMEOUT);
                }
                _ = stopped.wait_for(|it| *it), if !is_stopping => is_stopping = true,
                () = sleep_until(look.min(deadline.unwrap_or(look))) => {}
            }
        }
        // What has been answered is still written.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(to_close, connection).await;
    }
}

/// The body of an answer, whose request is in flight until it is written.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes when bytes arrive.
struct Connection {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.activity.arrived(bytes);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.sent(&written);
        written
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.activity.sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
