//! The tool server: over HTTP where `TOOL_SERVER_ADDR` is set, otherwise over its
//! standard input and output.

use std::net::SocketAddr;
use std::sync::Arc;

use agents_and_tools::server::keep_http_context;
use agents_and_tools::weather::Weather;
use axum::Router;
use axum::middleware::from_fn;
use production::error::Failure;
use production::{server, settings, telemetry};
use rmcp::ServiceExt as _;
use rmcp::transport::stdio;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("tool-server");
    let weather = Weather::from_env()?;
    let served = match settings::optional("TOOL_SERVER_ADDR") {
        Some(_) => {
            let address = settings::read("TOOL_SERVER_ADDR", "")?;
            over_http(weather, address).await
        }
        None => over_stdio(weather).await,
    };
    telemetry.shutdown();
    Ok(served?)
}

// ANCHOR: serve
async fn over_http(weather: Weather, address: SocketAddr) -> anyhow::Result<()> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true);
    let sessions = Arc::new(NeverSessionManager::default());
    let mcp =
        StreamableHttpService::new(move || Ok(weather.clone()), sessions, config);
    let routes = Router::new()
        .route_service("/mcp", mcp)
        .layer(from_fn(keep_http_context));
    server::serve("tool-server", routes, address).await
}

/// Serves until the client closes our standard input. Ctrl-C goes to the client too,
/// and its end is ours.
async fn over_stdio(weather: Weather) -> anyhow::Result<()> {
    let running = weather.serve(stdio()).await?;
    let closed = async { running.waiting().await };
    tokio::pin!(closed);
    loop {
        tokio::select! {
            closed = &mut closed => break closed.map(|_| ()).map_err(Into::into),
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}
// ANCHOR_END: serve
