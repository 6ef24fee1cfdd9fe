//! user-service of the tutorial, with log records, log lines in JSON, and metrics.

use std::time::Duration;

use axum::middleware::from_fn_with_state;
use axum::routing::get;
use logs_and_metrics::metrics::{Metrics, measure, metrics};
use logs_and_metrics::telemetry;
use production::error::Failure;
use production::outgoing::Upstream;
use production::{server, settings, user_service};

const DEADLINE: Duration = Duration::from_secs(9);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("user-service");
    let address = settings::read("USER_SERVICE_ADDR", "127.0.0.1:5001")?;
    let llm_service =
        Upstream::from_env("LLM_SERVICE", "http://127.0.0.1:5002", DEADLINE)?;
    let all = Metrics::default();
    let routes = user_service::routes(llm_service)
        .layer(from_fn_with_state(all.clone(), measure));
    // Outside of `traced`, as the health check is: Prometheus asks all day.
    let routes = server::traced(routes, DEADLINE)
        .route("/metrics", get(metrics).with_state(all));
    let served = server::listen("user-service", routes, address).await;
    telemetry.shutdown();
    Ok(served?)
}
