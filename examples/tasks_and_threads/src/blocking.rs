//! `spawn_blocking`: the closure runs on a thread without a context.

use opentelemetry::Context;
use opentelemetry::trace::Tracer as _;
use production::telemetry::tracer;
use tokio::task::{JoinError, spawn_blocking};

/// A guard is fine here: the closure has no `.await` and stays on one thread.
pub async fn kept() -> Result<(), JoinError> {
    let cx = Context::current();
    spawn_blocking(move || {
        let _guard = cx.attach();
        unpack();
    })
    .await
}

/// Isn't async, so the tracer makes its span, which ends with the closure.
fn unpack() {
    tracer().in_span("unpack", |_cx| {
        // Work for the CPU goes here.
    });
}

/// Wrong: the closure's thread has no context.
pub async fn lost() -> Result<(), JoinError> {
    spawn_blocking(unpack).await
}
