//! user-service of the tutorial, with log records, log lines in JSON, and metrics.

use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::routing::get;
use logs_and_metrics::metrics::{Metrics, measure, metrics};
use logs_and_metrics::telemetry;
use production::error::Failure;
use production::outgoing::Upstream;
use production::{server, settings, user_service};
use tokio::net::TcpListener;
use tracing::info;

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("user-service");
    let address: String = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    let llm_service =
        Upstream::from_env("LLM_SERVICE", "http://127.0.0.1:5002", DEADLINE)?;
    let all = Metrics::default();
    let routes = user_service::routes(llm_service)
        .layer(from_fn_with_state(all.clone(), measure));
    // Outside of `traced`, as the health check is: Prometheus asks all day.
    let routes = server::traced(routes, DEADLINE)
        .route("/metrics", get(metrics).with_state(all));
    let listener = TcpListener::bind(&address).await?;
    let address = listener.local_addr()?;
    let stop = server::stop_signal()?;
    println!("user-service listening on http://{address}");
    info!(%address, "listening");
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await;
    telemetry.shutdown();
    Ok(served?)
}
