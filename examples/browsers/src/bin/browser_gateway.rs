//! api-gateway for the page at `WEB_PAGE_ORIGIN`. With the argument `link`, each
//! request begins a trace of its own.

use std::time::Duration;

use axum::http::HeaderValue;
use browsers::gateway::{Incoming, routes};
use production::error::Failure;
use production::service::Service;
use production::{server, settings, telemetry};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("api-gateway");
    let incoming = match std::env::args().nth(1).as_deref() {
        Some("link") => Incoming::Link,
        _ => Incoming::Continue,
    };
    let page: HeaderValue =
        settings::read("WEB_PAGE_ORIGIN", "http://127.0.0.1:8080")?;
    let receiver: String =
        settings::read("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")?;
    let service = Service::named("api-gateway")?;
    let routes = routes(service.routes, incoming, page, &receiver, DEADLINE);
    let served = server::listen(service.name, routes, service.address).await;
    telemetry.shutdown();
    Ok(served?)
}
