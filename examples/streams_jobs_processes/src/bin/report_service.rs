//! A service with a stream, a socket, and jobs that a timer runs.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use distributed_tracing::server::stop_signal;
use production::error::Failure;
use production::{server, settings, telemetry};
use streams_jobs_processes::hang_up::mark_hang_up;
use streams_jobs_processes::jobs::{self, Job};
use streams_jobs_processes::{progress, socket};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// How many jobs may wait.
const JOBS: usize = 1_000;
const BODY_DEADLINE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("report-service");
    let served = serve().await;
    telemetry.shutdown();
    Ok(served?)
}

async fn serve() -> anyhow::Result<()> {
    let address = settings::read("REPORT_SERVICE_ADDR", "127.0.0.1:5003")?;
    let pause = settings::deadline("STEP_PAUSE_MS", Duration::from_millis(200))?;
    let every = settings::deadline("JOBS_EVERY_MS", Duration::from_secs(1))?;
    let (sender, due) = mpsc::channel(JOBS);
    let timer = tokio::spawn(jobs::run_due(due, every));
    listen(routes(sender, pause), address).await?;
    // The last sender is gone with the routes, so the timer runs what is left.
    Ok(timer.await?)
}

fn routes(jobs: mpsc::Sender<Job>, pause: Duration) -> Router {
    Router::new()
        .route("/reports/{pages}", post(schedule))
        .with_state(jobs)
        .route("/progress", get(progress::progress))
        .with_state(pause)
        .route("/slow", get(slow))
        .route("/chat", get(socket::upgrade))
        .layer(from_fn(mark_hang_up))
}

async fn schedule(
    State(jobs): State<mpsc::Sender<Job>>,
    Path(pages): Path<u32>,
) -> StatusCode {
    if jobs::schedule(&jobs, pages) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Works for longer than any client waits.
async fn slow() -> StatusCode {
    tracing::info!("working");
    pending().await
}

/// axum's own server, because the tutorial's can't upgrade a connection.
async fn listen(routes: Router, address: SocketAddr) -> anyhow::Result<()> {
    let stop = stop_signal().context("signals cannot be awaited")?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("report-service cannot listen on {address}"))?;
    println!(
        "report-service listening on http://{}",
        listener.local_addr()?
    );
    axum::serve(listener, server::traced(routes, BODY_DEADLINE))
        .with_graceful_shutdown(stop)
        .await
        .context("the server failed")
}
