//! Serves the routes of one service: limits on every request, a health check, and an
//! orderly stop.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::info;

use crate::settings;

/// The largest body that a service reads; a larger one is answered 413.
const BODY_LIMIT: usize = 64 * 1024;

/// The longest pause in the body of a request, unless `BODY_TIMEOUT_MS` says
/// otherwise. The work itself is bounded by the deadlines of the calls it makes.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// How long requests in flight may take to finish once the service was told to stop,
/// unless `SHUTDOWN_TIMEOUT_MS` says otherwise.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);

/// Adds the limits and a health check to `routes`. A body that stops coming for as
/// long as `pause` is answered 400.
pub fn limited(routes: Router, pause: Duration) -> Router {
    routes
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer((
            RequestBodyTimeoutLayer::new(pause),
            MapRequestBodyLayer::new(Body::new),
        ))
        .route("/health", get(async || "ok"))
}

/// Serves `routes` at `address` until Ctrl-C or SIGTERM, then lets the requests in
/// flight finish.
///
/// # Errors
/// When the address cannot be listened on, a deadline cannot be used, or requests
/// were still unanswered at the end.
pub async fn serve(
    name: &str,
    routes: Router,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let pause = settings::deadline("BODY_TIMEOUT_MS", BODY_DEADLINE)?;
    let patience = settings::deadline("SHUTDOWN_TIMEOUT_MS", SHUTDOWN_DEADLINE)?;
    // Before anyone can know that we listen, and stop us.
    let stop = stop_signal().context("signals cannot be awaited")?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{name} cannot listen on {address}"))?;
    println!("{name} listening on http://{}", listener.local_addr()?);

    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, limited(routes, pause))
        .with_graceful_shutdown(async {
            stop.await;
            info!("stopping: no new requests");
            let _ = stopping.send(());
        });
    let overtime = async {
        // An error means that the server ended by itself: then there is nothing to
        // wait for.
        if stopped.await.is_ok() {
            tokio::time::sleep(patience).await;
        }
    };
    tokio::select! {
        result = server => result.context("the server failed"),
        () = overtime => {
            bail!("{name} stopped with requests unanswered after {patience:?}")
        }
    }
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
