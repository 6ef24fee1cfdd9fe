//! The brokers of the guide on queues, each with a client that can put anything into a message, as any other sender can.

use std::path::Path;

use chrono::Utc;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;
use tempfile::TempDir;
use tokio::process::Command;

use super::component::{Component, installed};
use super::kafka::{self, Kafka};
use support::{free_port, skipped};

/// Debian's and Ubuntu's. The one on the path wants to be root.
const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A broker that runs on this machine until it is dropped.
pub struct Broker {
    /// The value of `messaging.system`.
    pub system: &'static str,
    pub url: String,
    start: Box<dyn Fn() -> Command + Send + Sync>,
    ready: &'static str,
    process: Option<Component>,
    _beside: Option<Component>,
    _folder: TempDir,
}

impl Broker {
    async fn start(
        system: &'static str,
        url: String,
        ready: &'static str,
        folder: TempDir,
        start: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Broker {
        Broker {
            system,
            url,
            process: Some(Component::start(start(), ready).await),
            start: Box::new(start),
            ready,
            _beside: None,
            _folder: folder,
        }
    }

    pub async fn nats() -> Option<Broker> {
        let server = installed("nats")?.join("bin/nats-server");
        let folder = TempDir::new().expect("a folder");
        let (data, port) = (folder.path().to_owned(), free_port());
        let start = move || {
            let mut command = Command::new(&server);
            command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--jetstream", "--store_dir"]).arg(&data);
            command
        };
        let url = format!("nats://127.0.0.1:{port}");
        Some(Broker::start("nats", url, "Server is ready", folder, start).await)
    }

    pub async fn rabbitmq() -> Option<Broker> {
        if !Path::new(RABBITMQ).exists() {
            skipped("RabbitMQ", "install it (Debian: rabbitmq-server)");
            return None;
        }
        let folder = TempDir::new().expect("a folder");
        let data = folder.path().to_owned();
        let [port, names, cluster] = [(); 3].map(|()| free_port().to_string());
        // Erlang's name server. Without the flag below, a broker that finds none starts one and leaves it behind.
        let mut name_server = Command::new("epmd");
        name_server.args(["-d", "-port", &names, "-address", "127.0.0.1"]);
        let name_server = Component::start(name_server, "epmd running").await;
        let url = format!("amqp://127.0.0.1:{port}");
        let start = move || {
            let mut command = Command::new(RABBITMQ);
            command
                .env("ERL_EPMD_PORT", &names)
                .env("ERL_FLAGS", "-start_epmd false")
                .env("RABBITMQ_NODENAME", format!("guide-{port}@localhost"))
                .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
                .env("RABBITMQ_NODE_PORT", &port)
                .env("RABBITMQ_DIST_PORT", &cluster)
                .envs(["HOME", "RABBITMQ_MNESIA_BASE", "RABBITMQ_LOG_BASE"].map(|it| (it, &data)))
                .env("RABBITMQ_LOGS", "-")
                .env("RABBITMQ_CONF_ENV_FILE", data.join("none"))
                .env("RABBITMQ_CONFIG_FILE", data.join("none"))
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", data.join("plugins"))
                // Then the process that we kill is the broker, and not a shell around it.
                .env("RUNNING_UNDER_SYSTEMD", "true");
            command
        };
        let ready = "Server startup complete";
        let broker = Broker::start("rabbitmq", url, ready, folder, start).await;
        Some(Broker { _beside: Some(name_server), ..broker })
    }

    pub async fn kafka() -> Option<Broker> {
        let folder = TempDir::new().expect("a folder");
        let kafka = Kafka::new(folder.path(), 1)?;
        let url = format!("kafka://{}", kafka.address);
        let start = move || kafka.command();
        Some(Broker::start("kafka", url, kafka::READY, folder, start).await)
    }

    /// Lets it receive bytes from now on without an answer.
    pub async fn freeze(&self) {
        support::freeze(self.process.as_ref().and_then(Component::id).expect("it runs")).await;
    }

    pub async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }

    /// Restarts it on the same port, with what is on its disk.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.process = Some(Component::start((self.start)(), self.ready).await);
    }

    /// Puts a message with one header into the queue, which exists.
    pub async fn publish(&self, id: &str, (name, value): (&str, &[u8]), payload: &str) {
        match self.system {
            "nats" => {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", id);
                headers.insert(name, &*String::from_utf8_lossy(value));
                let payload = payload.to_owned().into();
                let jetstream = self.jetstream().await;
                let sent = jetstream.publish_with_headers("queries", headers, payload);
                sent.await.expect("it is sent").await.expect("it is kept");
            }
            "rabbitmq" => {
                let mut headers = FieldTable::default();
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
                let properties =
                    BasicProperties::default().with_message_id(id.into()).with_headers(headers);
                let (_connection, channel) = self.channel().await;
                let (queue, options) = ("queries".into(), BasicPublishOptions::default());
                let payload = payload.as_bytes();
                let sent = channel.basic_publish("".into(), queue, options, payload, properties);
                sent.await.expect("it is sent").await.expect("it is kept");
            }
            _ => {
                let headers = [("message-id", id.as_bytes()), (name, value)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into();
                let (value, timestamp) = (Some(payload.into()), Utc::now());
                let record = Record { key: None, value, headers, timestamp };
                let topic = self.topic("queries").await;
                let sent = topic.produce(vec![record], Compression::NoCompression);
                sent.await.expect("it is kept");
            }
        }
    }

    /// The `traceparent` of the last dead letter.
    pub async fn dead_letter(&self) -> String {
        match self.system {
            "nats" => {
                let stream = self.jetstream().await.get_stream("queries-dead").await;
                let stream = stream.expect("a stream");
                let letter = stream.get_last_raw_message_by_subject("queries-dead").await;
                let letter = letter.expect("a letter");
                letter.headers.get("traceparent").expect("a header").to_string()
            }
            "rabbitmq" => {
                let (_connection, channel) = self.channel().await;
                let options = BasicGetOptions { no_ack: true };
                // The broker moves it on its own time.
                loop {
                    let letter = channel.basic_get("queries-dead".into(), options).await;
                    if let Some(letter) = letter.expect("an answer") {
                        let headers = letter.properties.headers().clone().unwrap_or_default();
                        match headers.inner().get("traceparent") {
                            Some(AMQPValue::LongString(parent)) => return parent.to_string(),
                            _ => panic!("{headers:?}"),
                        }
                    }
                }
            }
            _ => {
                let topic = self.topic("queries-dead").await;
                let end = topic.get_offset(OffsetAt::Latest).await.expect("an offset");
                let letters = topic.fetch_records(end - 1, 1..100_000, 1_000).await;
                let letter = letters.expect("letters").0.pop().expect("a letter");
                let parent = letter.record.headers["traceparent"].clone();
                String::from_utf8(parent).expect("text")
            }
        }
    }

    /// How many messages are in the queue of NATS.
    pub async fn waiting(&self) -> u64 {
        let stream = self.jetstream().await.get_stream("queries").await;
        stream.expect("a stream").cached_info().state.messages
    }

    async fn jetstream(&self) -> async_nats::jetstream::Context {
        let client = async_nats::connect(&self.url).await;
        async_nats::jetstream::new(client.expect("a connection"))
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await;
        let connection = connection.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        (connection, channel)
    }

    async fn topic(&self, name: &str) -> PartitionClient {
        let broker = self.url.trim_start_matches("kafka://").to_owned();
        let client = ClientBuilder::new(vec![broker]).build().await.expect("a connection");
        client.partition_client(name, 0, UnknownTopicHandling::Retry).await.expect("a topic")
    }
}
