//! NATS with JetStream: a stream keeps the messages, and a durable consumer counts
//! who got what.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{self, RetentionPolicy};
use async_nats::jetstream::{self, Context as JetStream};
use async_nats::jetstream::{AckKind, Message};
use futures::StreamExt as _;
use opentelemetry::propagation::{Extractor as _, Injector as _};
use production::settings;
use reqwest::Url;

use crate::headers::{NatsHeaders, extract, inject};
use crate::queue::{Delivery, Destination, SendError, Verdict, dead_letters};

/// NATS drops a message of the same id that comes within two minutes.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A worker that is silent for so long is taken for dead, unless `ACK_WAIT_MS` says
/// otherwise. Longer than the longest work.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// A stream of JetStream with one subject.
pub struct Queue {
    jetstream: JetStream,
    destination: Destination,
}

/// Connects to the server. Creates the queue `name` and the queue of its dead
/// letters unless they exist.
///
/// # Errors
/// When the server cannot be reached, or has no JetStream.
pub async fn connect(url: &Url, name: &str) -> anyhow::Result<Queue> {
    let client = async_nats::connect(url.as_str())
        .await
        .context("NATS cannot be reached")?;
    let mut jetstream = jetstream::new(client);
    // The caller's own patience ends first.
    jetstream.set_timeout(Duration::from_secs(60));
    for name in [name.to_owned(), dead_letters(name)] {
        let config = stream::Config {
            subjects: vec![name.clone()],
            name,
            retention: RetentionPolicy::WorkQueue,
            ..stream::Config::default()
        };
        jetstream
            .get_or_create_stream(config)
            .await
            .context("the stream cannot be made")?;
    }
    Ok(Queue {
        jetstream,
        destination: Destination::new("nats", url, name, 4222),
    })
}

impl crate::queue::Queue for Queue {
    type Consumer = Consumer;

    fn destination(&self) -> &Destination {
        &self.destination
    }

    async fn send(&self, id: &str, payload: Vec<u8>) -> Result<(), SendError> {
        let mut headers = NatsHeaders(HeaderMap::new());
        headers.set(MESSAGE_ID, id.to_owned());
        inject(&mut headers);
        let name = self.destination.name.clone();
        publish(&self.jetstream, name, headers.0, payload)
            .await
            .map_err(SendError::Unconfirmed)
    }

    async fn consume(self, at_once: u16) -> anyhow::Result<Consumer> {
        let config = pull::Config {
            durable_name: Some("workers".to_owned()),
            ack_wait: settings::deadline("ACK_WAIT_MS", ACK_WAIT)?,
            ..pull::Config::default()
        };
        let consumer = self
            .jetstream
            .create_consumer_on_stream(config, self.destination.name.clone())
            .await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(usize::from(at_once))
            .messages()
            .await?;
        Ok(Consumer {
            queue: self,
            messages,
        })
    }
}

async fn publish(
    jetstream: &JetStream,
    subject: String,
    headers: HeaderMap,
    payload: Vec<u8>,
) -> anyhow::Result<()> {
    let confirmed = jetstream
        .publish_with_headers(subject, headers, payload.into())
        .await?;
    confirmed.await?;
    Ok(())
}

/// A worker's share of the stream's messages.
pub struct Consumer {
    queue: Queue,
    messages: pull::Stream,
}

impl crate::queue::Consumer for Consumer {
    type Handle = Message;

    async fn next(&mut self) -> anyhow::Result<Delivery<Message>> {
        let message = self.messages.next().await;
        let message = message.context("the stream of messages has ended")??;
        let headers = NatsHeaders(message.headers.clone().unwrap_or_default());
        let count = message.info().map_err(|error| anyhow!(error))?.delivered;
        Ok(Delivery {
            id: headers.get(MESSAGE_ID).unwrap_or_default().to_owned(),
            payload: message.payload.to_vec(),
            sender: extract(&headers),
            count,
            handle: message,
        })
    }

    async fn settle(
        &mut self,
        delivery: Delivery<Message>,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let message = delivery.handle;
        let answer = match verdict {
            Verdict::Done => AckKind::Ack,
            Verdict::Again => AckKind::Nak(None),
            Verdict::Dead => {
                let to = dead_letters(&self.queue.destination.name);
                let headers = message.headers.clone().unwrap_or_default();
                publish(&self.queue.jetstream, to, headers, delivery.payload)
                    .await?;
                AckKind::Term
            }
        };
        let settled = message.double_ack_with(answer).await;
        settled.map_err(|error| anyhow!(error))
    }
}
