//! `spawn_blocking`: the closure runs on a thread that has no context.

use distributed_tracing::telemetry::tracer;
use opentelemetry::Context;
use opentelemetry::trace::Tracer as _;
use tokio::task::{JoinError, spawn_blocking};

/// A guard is right here: the closure has no await, and ends on the thread that it
/// began on.
pub async fn kept() -> Result<(), JoinError> {
    let cx = Context::current();
    spawn_blocking(move || {
        let _guard = cx.attach();
        unpack();
    })
    .await
}

/// Not async, so its span comes from the tracer: it ends with the closure.
fn unpack() {
    tracer().in_span("unpack", |_cx| {
        // The work of the CPU stands here.
    });
}

/// Wrong: the thread of the closure knows nothing of the request.
pub async fn lost() -> Result<(), JoinError> {
    spawn_blocking(unpack).await
}
