//! Serves the routes of one service: limits on every request, a health check, and an
//! orderly stop.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::info;

use crate::settings;

/// The longest body that api-gateway reads, in bytes; a longer one is answered 413.
/// The services behind it read up to axum's 2 MB: what it accepts, they accept.
pub const BODY_LIMIT: usize = 64 * 1024;

/// How long a connection may take to send the head of its first or next request,
/// unless `HEAD_TIMEOUT_MS` says otherwise. Then it is closed. Shorter than
/// [`SHUTDOWN_DEADLINE`], so that no half-sent head holds up the stop.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// The longest pause in the body of a request, unless `BODY_TIMEOUT_MS` says
/// otherwise. The work itself is bounded by the deadlines of the calls it makes.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long requests in flight may take to finish once the service was told to stop,
/// unless `SHUTDOWN_TIMEOUT_MS` says otherwise.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);

/// Adds a health check and a limit to `routes`: a body that stops coming for as long
/// as `pause` is answered 400.
pub fn limited(routes: Router, pause: Duration) -> Router {
    routes
        .layer((
            RequestBodyTimeoutLayer::new(pause),
            MapRequestBodyLayer::new(Body::new),
        ))
        .route("/health", get(async || "ok"))
}

/// Serves [`limited`] routes at `address` as [`listen`] does.
///
/// # Errors
/// Fails as [`listen`] does, and if a deadline can't be used.
pub async fn serve(
    name: &str,
    routes: Router,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let pause = settings::deadline("BODY_TIMEOUT_MS", BODY_DEADLINE)?;
    listen(name, limited(routes, pause), address).await
}

/// Serves `routes` at `address` until Ctrl-C or SIGTERM, then lets the requests in
/// flight finish.
///
/// # Errors
/// Fails if a deadline can't be used, the address can't be listened on, or requests
/// are still unanswered at the end.
pub async fn listen(
    name: &str,
    routes: Router,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let head = settings::deadline("HEAD_TIMEOUT_MS", HEAD_DEADLINE)?;
    let patience = settings::deadline("SHUTDOWN_TIMEOUT_MS", SHUTDOWN_DEADLINE)?;
    // Before anyone can know that we listen, and stop us.
    let mut stop = pin!(stop_signal().context("signals cannot be awaited")?);
    let mut listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{name} cannot listen on {address}"))?;
    println!("{name} listening on http://{}", listener.local_addr()?);

    // axum's own `serve` has no timer, and so no limit for a head.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head);
    let service = TowerToHyperService::new(routes);
    let connections = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        let connection =
            http.serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(connections.watch(connection));
    }
    info!("stopping: no new requests");
    drop(listener);
    timeout(patience, connections.shutdown())
        .await
        .with_context(|| {
            format!("{name} stopped with requests unanswered after {patience:?}")
        })
}

/// Ctrl-C or SIGTERM, which is how Kubernetes and Docker stop a process. From this
/// call on they do not end the process; the future says when one has come.
///
/// # Errors
/// When the process cannot listen to signals.
#[cfg(unix)]
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ctrl-C.
///
/// # Errors
/// None here; where Ctrl-C cannot be listened to, the future never ends.
#[cfg(not(unix))]
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
