//! The interface to a queue, which each broker implements. A broker delivers every
//! message at least once.

use std::time::Duration;

use opentelemetry::Context;
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

/// The name of the example's queue. Its dead letters are in `queries-dead`.
pub const QUERIES: &str = "queries";

/// The queue that a span names, and its broker.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The value of `messaging.system`. The conventions define `kafka` and
    /// `rabbitmq`; `nats` is our own.
    pub system: &'static str,
    pub name: String,
    pub address: String,
    pub port: u16,
}

impl Destination {
    /// Copies host and port of `url`, but not its password.
    pub fn new(system: &'static str, url: &Url, name: &str, port: u16) -> Self {
        Destination {
            system,
            name: name.to_owned(),
            address: url.host_str().unwrap_or_default().to_owned(),
            port: url.port().unwrap_or(port),
        }
    }
}

/// Returns the name of the queue for messages that can't be processed.
pub fn dead_letters(queue: &str) -> String {
    format!("{queue}-dead")
}

/// The reason why a message may not be in the queue. It contains no address, so you
/// can put it on a span.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the broker did not confirm the message in time")]
    Timeout,
    #[error("the broker did not take the message")]
    Unconfirmed(#[source] anyhow::Error),
}

impl SendError {
    /// Returns the value of `error.type`.
    pub fn error_type(&self) -> &'static str {
        match self {
            SendError::Timeout => "timeout",
            SendError::Unconfirmed(_) => "unconfirmed",
        }
    }
}

/// The result of processing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The work is done. The broker deletes the message.
    Done,
    /// The work failed but may succeed later. The broker delivers the message again.
    Again,
    /// The work will always fail. The message goes to the dead letters.
    Dead,
}

/// A message that a worker received. `Handle` is what the client needs to settle it.
pub struct Delivery<Handle> {
    pub id: String,
    pub payload: Vec<u8>,
    /// The sender's context, from the headers.
    pub sender: Context,
    /// The number of this delivery, starting at 1.
    pub count: i64,
    pub handle: Handle,
}

/// A queue to send messages to and to consume them from.
pub trait Queue: Send + Sync + 'static {
    type Consumer: Consumer;

    fn destination(&self) -> &Destination;

    /// Sends a message with the current context in its headers. Returns when the
    /// broker has confirmed it.
    ///
    /// # Errors
    /// Fails when the broker hasn't confirmed it. It may be in the queue anyway.
    fn send(
        &self,
        id: &str,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<(), SendError>> + Send;

    /// Starts to take messages, at most `at_once` that aren't settled yet.
    ///
    /// # Errors
    /// Fails when the broker refuses.
    fn consume(
        self,
        at_once: u16,
    ) -> impl Future<Output = anyhow::Result<Self::Consumer>> + Send;
}

/// A source of messages from a queue.
pub trait Consumer: Send + 'static {
    type Handle: Send + Sync;

    /// Waits for a message. You may drop the future: no message is lost.
    ///
    /// # Errors
    /// Fails when the connection to the broker is lost.
    fn next(
        &mut self,
    ) -> impl Future<Output = anyhow::Result<Delivery<Self::Handle>>> + Send;

    /// Settles a message with the broker. Call it in the order of delivery.
    ///
    /// # Errors
    /// Fails when the connection to the broker is lost. The broker then delivers the
    /// message again.
    fn settle(
        &mut self,
        delivery: Delivery<Self::Handle>,
        verdict: Verdict,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Returns at most `size` messages: waits for the first one, then up to `wait` for
/// more. If you drop the future, the broker delivers the messages again.
///
/// # Errors
/// Fails when the connection to the broker is lost.
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
