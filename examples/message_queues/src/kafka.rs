//! The Kafka protocol, with rskafka: one partition, and one worker, whose place is
//! kept in a topic of its own.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context as _;
use chrono::Utc;
use opentelemetry::propagation::{Extractor as _, Injector as _};
use reqwest::Url;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{
    Compression, OffsetAt, PartitionClient, UnknownTopicHandling,
};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};

use crate::headers::{KafkaHeaders, extract, inject};
use crate::queue::{Delivery, Destination, SendError, Verdict, dead_letters};

const MESSAGE_ID: &str = "message-id";

/// Kafka does not count deliveries. This header of ours does.
const DELIVERY_COUNT: &str = "delivery-count";

const ONE_REPLICA: i16 = 1;
const TIMEOUT_MS: i32 = 5_000;
const FETCH_BYTES: std::ops::Range<i32> = 1..1_000_000;
const FETCH_WAIT_MS: i32 = 1_000;

/// A topic of one partition, that of its dead letters, and that of the worker's
/// place.
pub struct Queue {
    topic: PartitionClient,
    dead: PartitionClient,
    place: PartitionClient,
    destination: Destination,
}

/// Connects, and makes the topics where they do not exist.
///
/// # Errors
/// When the broker cannot be reached, or refuses.
pub async fn connect(url: &Url, name: &str) -> anyhow::Result<Queue> {
    let destination = Destination::new("kafka", url, name, 9092);
    let broker = format!("{}:{}", destination.address, destination.port);
    let client = ClientBuilder::new(vec![broker])
        .build()
        .await
        .context("Kafka cannot be reached")?;
    Ok(Queue {
        topic: topic(&client, name).await?,
        dead: topic(&client, &dead_letters(name)).await?,
        place: topic(&client, &format!("{name}-place")).await?,
        destination,
    })
}

async fn topic(client: &Client, name: &str) -> anyhow::Result<PartitionClient> {
    let controller = client.controller_client()?;
    let made = controller
        .create_topic(name, 1, ONE_REPLICA, TIMEOUT_MS)
        .await;
    let exists = ProtocolError::TopicAlreadyExists;
    match made {
        Ok(()) => {}
        Err(Error::ServerError { protocol_error, .. })
            if protocol_error == exists => {}
        Err(error) => return Err(error).context("the topic cannot be made"),
    }
    let topic = client.partition_client(name, 0, UnknownTopicHandling::Retry);
    Ok(topic.await?)
}

async fn produce(
    topic: &PartitionClient,
    headers: BTreeMap<String, Vec<u8>>,
    payload: Vec<u8>,
) -> anyhow::Result<()> {
    let record = Record {
        key: None,
        value: Some(payload),
        headers,
        timestamp: Utc::now(),
    };
    topic
        .produce(vec![record], Compression::NoCompression)
        .await?;
    Ok(())
}

impl crate::queue::Queue for Queue {
    type Consumer = Consumer;

    fn destination(&self) -> &Destination {
        &self.destination
    }

    async fn send(&self, id: &str, payload: Vec<u8>) -> Result<(), SendError> {
        let mut headers = KafkaHeaders(BTreeMap::new());
        headers.set(MESSAGE_ID, id.to_owned());
        inject(&mut headers);
        produce(&self.topic, headers.0, payload)
            .await
            .map_err(SendError::Unconfirmed)
    }

    /// Begins at the place where the last worker has left.
    async fn consume(self, _at_once: u16) -> anyhow::Result<Consumer> {
        let end = self.place.get_offset(OffsetAt::Latest).await?;
        let next = if end == 0 {
            self.topic.get_offset(OffsetAt::Earliest).await?
        } else {
            let last = self
                .place
                .fetch_records(end - 1, FETCH_BYTES, FETCH_WAIT_MS)
                .await?;
            let place = last.0.into_iter().next_back();
            let value = place.and_then(|place| place.record.value);
            let place: [u8; 8] = value
                .and_then(|value| value.try_into().ok())
                .context("the worker's place cannot be read")?;
            i64::from_be_bytes(place)
        };
        Ok(Consumer {
            queue: self,
            fetched: VecDeque::new(),
            next,
        })
    }
}

/// The only worker of its partition.
pub struct Consumer {
    queue: Queue,
    fetched: VecDeque<RecordAndOffset>,
    next: i64,
}

impl crate::queue::Consumer for Consumer {
    type Handle = RecordAndOffset;

    async fn next(&mut self) -> anyhow::Result<Delivery<RecordAndOffset>> {
        loop {
            if let Some(record) = self.fetched.pop_front() {
                return Ok(delivery(record));
            }
            let (records, _) = self
                .queue
                .topic
                .fetch_records(self.next, FETCH_BYTES, FETCH_WAIT_MS)
                .await?;
            if let Some(last) = records.last() {
                self.next = last.offset + 1;
            }
            self.fetched.extend(records);
        }
    }

    async fn settle(
        &mut self,
        delivery: Delivery<RecordAndOffset>,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let RecordAndOffset { record, offset } = delivery.handle;
        let mut headers = KafkaHeaders(record.headers);
        match verdict {
            Verdict::Done => {}
            // A log has no way back: what is to come again is appended again.
            Verdict::Again => {
                headers.set(DELIVERY_COUNT, (delivery.count + 1).to_string());
                produce(&self.queue.topic, headers.0, delivery.payload).await?;
            }
            Verdict::Dead => {
                produce(&self.queue.dead, headers.0, delivery.payload).await?;
            }
        }
        let next = (offset + 1).to_be_bytes().to_vec();
        produce(&self.queue.place, BTreeMap::new(), next).await
    }
}

fn delivery(mut record: RecordAndOffset) -> Delivery<RecordAndOffset> {
    let payload = record.record.value.take().unwrap_or_default();
    let headers = KafkaHeaders(std::mem::take(&mut record.record.headers));
    let count = headers.get(DELIVERY_COUNT);
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(1);
    let id = headers.get(MESSAGE_ID).unwrap_or_default().to_owned();
    let sender = extract(&headers);
    record.record.headers = headers.0;
    Delivery {
        id,
        payload,
        sender,
        count,
        handle: record,
    }
}
