//! A caller that hangs up: hyper drops the handler where it waits, and no line
//! behind that `.await` runs.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};

/// Middleware inside of `continue_trace`: says so on its SERVER span.
pub async fn notice_hang_up(request: Request, next: Next) -> Response {
    let mut unanswered = Unanswered(Some(Context::current()));
    let response = next.run(request).await;
    unanswered.0 = None;
    response
}

/// What runs when a future is dropped is the `Drop` of what it holds.
struct Unanswered(Option<Context>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(cx) = self.0.take() {
            // No error: as with a 4xx, it was not us.
            cx.span()
                .set_attribute(KeyValue::new("request.abandoned", true));
        }
    }
}
