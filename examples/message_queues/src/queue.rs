//! What the services ask of a queue, whichever broker keeps it. Every message is
//! delivered at least once.

use std::time::Duration;

use opentelemetry::Context;
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

/// The queue of the example. Its dead letters are in `queries-dead`.
pub const QUERIES: &str = "queries";

/// Where messages go: what a span says of it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// `kafka` and `rabbitmq` are names of the conventions; `nats` is ours, as they
    /// have none.
    pub system: &'static str,
    pub name: String,
    pub address: String,
    pub port: u16,
}

impl Destination {
    /// Takes host and port of `url`, and leaves its password.
    pub fn new(system: &'static str, url: &Url, name: &str, port: u16) -> Self {
        Destination {
            system,
            name: name.to_owned(),
            address: url.host_str().unwrap_or_default().to_owned(),
            port: url.port().unwrap_or(port),
        }
    }
}

/// Where the letters of `queue` go that nobody can work on.
pub fn dead_letters(queue: &str) -> String {
    format!("{queue}-dead")
}

/// Why a message may not be in the queue. Holds no address, so it is safe to put on
/// a span.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the broker did not confirm the message in time")]
    Timeout,
    #[error("the broker did not take the message")]
    Unconfirmed(#[source] anyhow::Error),
}

impl SendError {
    /// The value of `error.type`.
    pub fn error_type(&self) -> &'static str {
        match self {
            SendError::Timeout => "timeout",
            SendError::Unconfirmed(_) => "unconfirmed",
        }
    }
}

/// What becomes of a message that was worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done: the broker forgets the message.
    Done,
    /// It failed, and may do better: the broker delivers the message again.
    Again,
    /// It will always fail: the message is kept where no worker takes it.
    Dead,
}

/// A message as a worker gets it. `Handle` is what the client needs to settle it.
pub struct Delivery<Handle> {
    pub id: String,
    pub payload: Vec<u8>,
    /// What its headers say: the span of the sender.
    pub sender: Context,
    /// 1 for the first.
    pub count: i64,
    pub handle: Handle,
}

/// A queue to send to, and to consume.
pub trait Queue: Send + Sync + 'static {
    type Consumer: Consumer;

    fn destination(&self) -> &Destination;

    /// Sends a message with the current context in its headers. Returns when the
    /// broker has confirmed it.
    ///
    /// # Errors
    /// When it has not. It may be in the queue all the same.
    fn send(
        &self,
        id: &str,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Takes messages from the queue: at most `at_once` that are not settled.
    ///
    /// # Errors
    /// When the broker refuses.
    fn consume(
        self,
        at_once: u16,
    ) -> impl Future<Output = anyhow::Result<Self::Consumer>> + Send;
}

/// One who takes messages from a queue.
pub trait Consumer: Send + 'static {
    type Handle: Send + Sync;

    /// Waits for a message. Loses none when it is dropped while it waits.
    ///
    /// # Errors
    /// When the broker is gone.
    fn next(
        &mut self,
    ) -> impl Future<Output = anyhow::Result<Delivery<Self::Handle>>> + Send;

    /// Tells the broker what has become of a message. In the order of delivery.
    ///
    /// # Errors
    /// When the broker is gone: then it will deliver the message once more.
    fn settle(
        &mut self,
        delivery: Delivery<Self::Handle>,
        verdict: Verdict,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Waits for a message, and up to `wait` longer for others: at most `size` in all.
/// Those that it has when it is dropped will be delivered again.
///
/// # Errors
/// When the broker is gone.
pub async fn batch<C: Consumer>(
    consumer: &mut C,
    size: u16,
    wait: Duration,
) -> anyhow::Result<Vec<Delivery<C::Handle>>> {
    let mut batch = vec![consumer.next().await?];
    let end = Instant::now() + wait;
    while batch.len() < usize::from(size) {
        match timeout_at(end, consumer.next()).await {
            Ok(delivery) => batch.push(delivery?),
            Err(_elapsed) => break,
        }
    }
    Ok(batch)
}
