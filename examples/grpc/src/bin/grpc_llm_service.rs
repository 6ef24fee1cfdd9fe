//! llm-service over gRPC.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use distributed_tracing::server::stop_signal;
use grpc::generated::llm_server::LlmServer;
use grpc::llm_service::{LlmService, METHODS};
use grpc::server::traced;
use production::error::Failure;
use production::server::SHUTDOWN_DEADLINE;
use production::{settings, telemetry};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("llm-service");
    let served = serve().await;
    telemetry.shutdown();
    Ok(served?)
}

async fn serve() -> anyhow::Result<()> {
    let routes = Routes::new(LlmServer::new(LlmService::from_env()?));
    let server = Server::builder().add_routes(traced(routes, &METHODS));

    let signal = stop_signal().context("signals cannot be awaited")?;
    let (stopping, stopped) = oneshot::channel();
    let stop = async {
        signal.await;
        drop(stopping);
    };
    let address = settings::read("LLM_SERVICE_ADDR", "127.0.0.1:5002")?;
    let listener = TcpListener::bind::<SocketAddr>(address).await;
    let listener = listener
        .with_context(|| format!("llm-service cannot listen on {address}"))?;
    println!("llm-service listening on http://{}", listener.local_addr()?);
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serve = server.serve_with_incoming_shutdown(connections, stop);
    tokio::select! {
        served = serve => Ok(served?),
        () = async {
            // An error: it's dropped, because the signal has come.
            let _: Result<(), _> = stopped.await;
            sleep(SHUTDOWN_DEADLINE).await;
        } => bail!("llm-service stopped with calls unanswered"),
    }
}
