//! Records a PRODUCER span when a message is sent and a CONSUMER span when it is
//! processed.

use std::time::Duration;

use opentelemetry::trace::{
    FutureExt as _, Link, SpanBuilder, SpanKind, TraceContextExt as _,
};
use opentelemetry::{Context, KeyValue};
use production::telemetry::{record_error, tracer};
use tokio::time::timeout;

use crate::query::WorkError;
use crate::queue::{Delivery, Destination, Queue, SendError};

/// Sends a message inside a PRODUCER span, whose context goes into its headers.
///
/// # Errors
/// Fails when the broker doesn't confirm the message within `patience`.
pub async fn send(
    queue: &impl Queue,
    id: &str,
    payload: Vec<u8>,
    patience: Duration,
) -> Result<(), SendError> {
    let details = vec![KeyValue::new("messaging.message.id", id.to_owned())];
    let span = message_span("send", queue.destination(), details)
        .with_kind(SpanKind::Producer)
        .start(&tracer());
    let cx = Context::current_with_span(span);
    // `queue.send` injects the current context, which is this span's.
    let sending = timeout(patience, queue.send(id, payload));
    let sent = sending.with_context(cx.clone()).await;
    let sent = sent.unwrap_or(Err(SendError::Timeout));
    if let Err(error) = &sent {
        record_error(&cx.span(), error.error_type(), error.to_string());
    }
    cx.span().end();
    sent
}

/// Processes messages inside one CONSUMER span. A single message joins its sender's
/// trace. A batch has several senders, so it starts a new trace with a link to each.
pub async fn process<H>(
    destination: &Destination,
    deliveries: &[Delivery<H>],
    work: impl Future<Output = Vec<Result<(), WorkError>>>,
) -> Vec<Result<(), WorkError>> {
    let (parent, details, links) = match deliveries {
        [only] => (only.sender.clone(), about(only), Vec::new()),
        several => {
            let links = several.iter().filter_map(link_to_sender).collect();
            let count = i64::try_from(several.len()).unwrap_or(i64::MAX);
            let count = KeyValue::new("messaging.batch.message_count", count);
            (Context::new(), vec![count], links)
        }
    };
    let span = message_span("process", destination, details)
        .with_kind(SpanKind::Consumer)
        .with_links(links)
        .start_with_context(&tracer(), &parent);
    let cx = parent.with_span(span);
    let results = work.with_context(cx.clone()).await;
    if let Some(error) = results.iter().find_map(|result| result.as_ref().err()) {
        record_error(&cx.span(), error.error_type(), error.to_string());
    }
    cx.span().end();
    results
}

/// Returns a link to the sender, or `None` if the message has no valid context.
fn link_to_sender<H>(delivery: &Delivery<H>) -> Option<Link> {
    let sender = delivery.sender.span().span_context().clone();
    sender
        .is_valid()
        .then(|| Link::new(sender, about(delivery), 0))
}

fn about<H>(delivery: &Delivery<H>) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.message.id", delivery.id.clone()),
        // The conventions define such an attribute for some systems only.
        KeyValue::new("one_trace.delivery_count", delivery.count),
    ]
}

/// Names a span `{operation} {destination}`. Nothing of the payload is recorded.
fn message_span(
    operation: &'static str,
    destination: &Destination,
    mut details: Vec<KeyValue>,
) -> SpanBuilder {
    details.extend([
        KeyValue::new("messaging.system", destination.system),
        KeyValue::new("messaging.destination.name", destination.name.clone()),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("server.address", destination.address.clone()),
        KeyValue::new("server.port", i64::from(destination.port)),
    ]);
    SpanBuilder::from_name(format!("{operation} {}", destination.name))
        .with_attributes(details)
}
