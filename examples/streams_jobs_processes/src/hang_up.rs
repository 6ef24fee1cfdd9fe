//! Marks the SERVER span of a request whose client didn't wait for the answer.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};

use crate::{CLIENT_LEFT, END};

/// A request that has no answer yet. Dropped in this state, it marks its span.
struct Unanswered(Option<Context>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(cx) = self.0.take() {
            cx.span().set_attribute(KeyValue::new(END, CLIENT_LEFT));
        }
    }
}

/// Goes inside `continue_trace`, whose span is the current one here.
pub async fn mark_hang_up(request: Request, next: Next) -> Response {
    let mut unanswered = Unanswered(Some(Context::current()));
    let response = next.run(request).await;
    unanswered.0 = None;
    response
}
