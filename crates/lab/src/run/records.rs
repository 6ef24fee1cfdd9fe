//! Sends lines as OTLP log records, without delaying those who add them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::lines::{self, Line};
use super::output::Stream;
use crate::http;
use crate::wire::now;

/// The most lines that wait to be sent. Further ones are dropped and counted.
const QUEUE: usize = 1024;

/// The most lines of one request.
const BATCH: usize = 256;

/// How long the lab may take to answer one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A line, where it came from, and when, in nanoseconds since 1970.
struct Record {
    line: Line,
    stream: Stream,
    time: u64,
}

/// The lines that are to be sent.
pub struct Records {
    queue: mpsc::Sender<Record>,
    lost: Arc<AtomicUsize>,
}

impl Records {
    /// Starts the task that sends the lines of a service to the receiver at `otlp`.
    pub fn start(otlp: &str, service: &str) -> (Self, JoinHandle<()>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicUsize::new(0));
        let sending = send_all(records, otlp.to_owned(), service.to_owned(), Arc::clone(&lost));
        (Records { queue, lost }, tokio::spawn(sending))
    }

    /// Adds a line if it has a trace id. Never waits: when the queue is full, drops and counts the line without reading it.
    pub fn add(&self, stream: Stream, line: &[u8]) {
        let line = match self.queue.capacity() {
            0 if lines::may_have_id(line) => None,
            _ => match Line::read(line) {
                Some(line) => Some(line),
                None => return,
            },
        };
        // Counted from here on, and no longer when it has arrived.
        self.lost.fetch_add(1, Ordering::Relaxed);
        let Some(line) = line else { return };
        let _ = self.queue.try_send(Record { line, stream, time: now() });
    }
}

/// Waits until the lines are sent, for at most `within`. Returns how many did not reach the lab.
pub async fn finish(records: Arc<Records>, sending: JoinHandle<()>, within: Duration) -> usize {
    let lost = Arc::clone(&records.lost);
    drop(records);
    // What isn't sent by then counts as lost.
    let _ = timeout(within, sending).await;
    lost.load(Ordering::Relaxed)
}

async fn send_all(
    mut records: mpsc::Receiver<Record>,
    otlp: String,
    service: String,
    lost: Arc<AtomicUsize>,
) {
    let mut batch = Vec::new();
    while records.recv_many(&mut batch, BATCH).await > 0 {
        let count = batch.len();
        let body = request(&service, &batch).to_string();
        batch.clear();
        let request = Request::post("/v1/logs").header(CONTENT_TYPE, "application/json");
        let answer = http::send(&otlp, request.body(Body::from(body)), TIMEOUT).await;
        if answer.is_ok_and(|it| it.status.is_success()) {
            lost.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

fn request(service: &str, records: &[Record]) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let records = records.iter().map(|Record { line, stream, time }| {
        let mut record = json!({
            "observedTimeUnixNano": time.to_string(),
            "body": { "stringValue": line.text },
            "attributes": [text("log.iostream", stream.name())],
            "traceId": line.trace_id.to_string(),
        });
        if let Some(time) = line.time {
            record["timeUnixNano"] = json!(time.to_string());
        }
        if let Some(level) = line.level {
            record["severityNumber"] = json!(level as u8);
            record["severityText"] = json!(level.name());
        }
        if let Some(span_id) = line.span_id {
            record["spanId"] = json!(span_id.to_string());
        }
        record
    });
    let records: Vec<Value> = records.collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": [text("service.name", service)] },
        "scopeLogs": [{
            "scope": { "name": "lab run", "version": env!("CARGO_PKG_VERSION") },
            "logRecords": records,
        }],
    }] })
}
