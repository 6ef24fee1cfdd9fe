//! Server-sent events, with a span that lasts as long as the stream.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use futures_util::stream::{Stream, unfold};
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use production::telemetry::tracer;

use crate::{CLIENT_LEFT, END};

const STEPS: i64 = 3;

/// The stream of one client, and its span. The server drops it after the last event,
/// or when the client has left.
struct Progress {
    cx: Context,
    sent: i64,
    complete: bool,
}

impl Progress {
    /// Starts the span in the handler, where the SERVER span is the current one.
    fn start() -> Progress {
        let cx = Context::current_with_span(tracer().start("report progress"));
        Progress {
            cx,
            sent: 0,
            complete: false,
        }
    }

    fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let span = self.cx.span();
        let end = if self.complete {
            "complete"
        } else {
            CLIENT_LEFT
        };
        span.set_attribute(KeyValue::new(END, end));
        span.set_attribute(KeyValue::new("one_trace.events", self.sent));
        span.end();
    }
}

/// Sends an event for each step of the report.
pub async fn progress(
    State(pause): State<Duration>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = unfold(Progress::start(), move |mut progress| async move {
        if progress.sent == STEPS {
            progress.complete();
            return None;
        }
        if progress.sent > 0 {
            tokio::time::sleep(pause).await;
        }
        progress.sent += 1;
        let event = Event::default().data(progress.sent.to_string());
        Some((Ok(event), progress))
    });
    Sse::new(events)
}
