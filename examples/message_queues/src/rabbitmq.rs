//! RabbitMQ: a quorum queue, publisher confirms, and a dead-letter queue that the
//! broker itself fills.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use futures::StreamExt as _;
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
};
use reqwest::Url;

use crate::headers::{AmqpHeaders, extract, inject};
use crate::queue::{Delivery, Destination, SendError, Verdict, dead_letters};

/// What the broker adds to the headers of a message that it delivers again.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// To be kept on disk.
const PERSISTENT: u8 = 2;

/// A queue, and the channel to it.
pub struct Queue {
    // The channel ends with it.
    _connection: Connection,
    channel: Channel,
    destination: Destination,
}

/// Connects, and makes the queue `name` and that of its dead letters where they do
/// not exist.
///
/// # Errors
/// When the broker cannot be reached, or has another queue of that name.
pub async fn connect(url: &Url, name: &str) -> anyhow::Result<Queue> {
    // A gateway outlives its broker.
    let properties = ConnectionProperties::default()
        .enable_auto_recover()
        .configure_backoff(|backoff| backoff.without_max_times());
    let connection = Connection::connect(url.as_str(), properties)
        .await
        .context("RabbitMQ cannot be reached")?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let dead = dead_letters(name);
    declare(&channel, &dead, &[]).await?;
    let to_the_dead = [
        ("x-dead-letter-exchange", ""),
        ("x-dead-letter-routing-key", dead.as_str()),
    ];
    declare(&channel, name, &to_the_dead).await?;
    Ok(Queue {
        _connection: connection,
        channel,
        destination: Destination::new("rabbitmq", url, name, 5672),
    })
}

/// A quorum queue: only these count deliveries.
async fn declare(
    channel: &Channel,
    name: &str,
    arguments: &[(&str, &str)],
) -> lapin::Result<()> {
    let arguments: BTreeMap<ShortString, AMQPValue> = arguments
        .iter()
        .chain(&[("x-queue-type", "quorum")])
        .map(|(key, value)| ((*key).into(), AMQPValue::LongString((*value).into())))
        .collect();
    let options = QueueDeclareOptions::durable();
    channel
        .queue_declare(name.into(), options, arguments.into())
        .await?;
    Ok(())
}

impl Queue {
    async fn publish(
        &self,
        payload: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<Confirmation> {
        let to = self.destination.name.as_str().into();
        let options = BasicPublishOptions::default();
        self.channel
            .basic_publish("".into(), to, options, payload, properties)
            .await?
            .await
    }
}

impl crate::queue::Queue for Queue {
    type Consumer = Consumer;

    fn destination(&self) -> &Destination {
        &self.destination
    }

    async fn send(&self, id: &str, payload: Vec<u8>) -> Result<(), SendError> {
        let mut headers = AmqpHeaders(FieldTable::default());
        inject(&mut headers);
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers.0);
        loop {
            match self.publish(&payload, properties.clone()).await {
                Ok(confirmation) if confirmation.is_ack() => return Ok(()),
                Ok(_) => return Err(SendError::Unconfirmed(anyhow!("refused"))),
                // The connection is lost. Whether the message is, nobody knows.
                Err(error) => self
                    .channel
                    .wait_for_recovery(error)
                    .await
                    .map_err(|error| SendError::Unconfirmed(error.into()))?,
            }
        }
    }

    async fn consume(self, at_once: u16) -> anyhow::Result<Consumer> {
        self.channel
            .basic_qos(at_once, BasicQosOptions::default())
            .await?;
        let messages = self
            .channel
            .basic_consume(
                self.destination.name.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(Consumer {
            _queue: self,
            messages,
        })
    }
}

/// A worker's share of the queue's messages.
pub struct Consumer {
    // The messages end with it.
    _queue: Queue,
    messages: lapin::Consumer,
}

impl crate::queue::Consumer for Consumer {
    type Handle = Message;

    async fn next(&mut self) -> anyhow::Result<Delivery<Message>> {
        let message = self.messages.next().await;
        let mut message = message.context("the consumer was cancelled")??;
        let properties = &message.properties;
        let headers = AmqpHeaders(properties.headers().clone().unwrap_or_default());
        let id = properties.message_id().clone();
        let before = match headers.0.inner().get(DELIVERY_COUNT) {
            Some(AMQPValue::LongLongInt(count)) => *count,
            _ => 0,
        };
        Ok(Delivery {
            id: id.map(String::from).unwrap_or_default(),
            payload: std::mem::take(&mut message.data),
            sender: extract(&headers),
            count: before + 1,
            handle: message,
        })
    }

    async fn settle(
        &mut self,
        delivery: Delivery<Message>,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let message = delivery.handle;
        match verdict {
            Verdict::Done => message.ack(BasicAckOptions::default()).await?,
            Verdict::Again => {
                let requeue = BasicNackOptions {
                    requeue: true,
                    ..BasicNackOptions::default()
                };
                message.nack(requeue).await?
            }
            // To the dead letters, as the queue was declared so.
            Verdict::Dead => {
                let keep = BasicRejectOptions { requeue: false };
                message.reject(keep).await?
            }
        };
        Ok(())
    }
}
