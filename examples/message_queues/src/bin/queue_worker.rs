//! queue-worker: takes queries from the queue and sends them to user-service. It
//! listens only for health checks.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use message_queues::queue::{QUERIES, Queue};
use message_queues::work::Worker;
use message_queues::{kafka, nats, rabbitmq};
use production::error::Failure;
use production::outgoing::Upstream;
use production::{server, settings, telemetry};
use reqwest::Url;
use tokio::sync::oneshot;

/// How long to wait for a full batch, unless `BATCH_WAIT_MS` says otherwise.
const BATCH_WAIT: Duration = Duration::from_millis(500);

/// The pause before a failed message is delivered again, unless `RETRY_PAUSE_MS`
/// says otherwise.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let telemetry = telemetry::init("queue-worker");
    let url: Url = settings::read("QUEUE_URL", "nats://127.0.0.1:4222")?;
    let worked = match url.scheme() {
        "nats" => work(nats::connect(&url, QUERIES).await?).await,
        "amqp" => work(rabbitmq::connect(&url, QUERIES).await?).await,
        "kafka" => work(kafka::connect(&url, QUERIES).await?).await,
        _ => Err(anyhow::anyhow!(
            "QUEUE_URL must start with nats://, amqp:// or kafka://"
        )),
    };
    telemetry.shutdown();
    Ok(worked?)
}

/// Works until the service is stopped, and finishes the current message first.
async fn work(queue: impl Queue) -> anyhow::Result<()> {
    let address = settings::read("QUEUE_WORKER_ADDR", "127.0.0.1:5003")?;
    let worker = Worker {
        user_service: Upstream::from_env(
            "USER_SERVICE",
            "http://127.0.0.1:5001",
            Duration::from_secs(10),
        )?,
        batch_size: settings::read("BATCH_SIZE", 1)?,
        batch_wait: settings::deadline("BATCH_WAIT_MS", BATCH_WAIT)?,
        pause: settings::deadline("RETRY_PAUSE_MS", PAUSE)?,
    };
    let destination = queue.destination().clone();
    let consumer = queue.consume(worker.batch_size).await?;
    let (stop, stopped) = oneshot::channel();
    let mut work =
        tokio::spawn(
            async move { worker.work(consumer, &destination, stopped).await },
        );
    tokio::select! {
        served = server::serve("queue-worker", Router::new(), address) => {
            // An error means that the work has ended by itself.
            let _ = stop.send(());
            served?;
            work.await?
        }
        worked = &mut work => worked?.context("the queue cannot be consumed"),
    }
}
