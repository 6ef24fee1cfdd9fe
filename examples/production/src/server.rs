//! The tutorial's server, with a span for each request.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use distributed_tracing::server;
pub use distributed_tracing::server::{BODY_LIMIT, SHUTDOWN_DEADLINE, listen};

use crate::incoming::continue_trace;

/// Adds the limits to `routes`, and a SERVER span around each request. Health checks
/// get none: one each second would hide the real requests.
pub fn traced(routes: Router, pause: Duration) -> Router {
    server::limited(routes.layer(from_fn(continue_trace)), pause)
}

/// Serves `routes` at `address` with a span for each request.
///
/// # Errors
/// Fails as [`server::serve`] does.
pub async fn serve(
    name: &str,
    routes: Router,
    address: SocketAddr,
) -> anyhow::Result<()> {
    server::serve(name, routes.layer(from_fn(continue_trace)), address).await
}
