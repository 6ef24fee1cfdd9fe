//! A task that goes on after its request was answered.

use opentelemetry::trace::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::{Instrument as _, info_span, instrument};

/// The task takes OpenTelemetry's context along. Its span joins the request's trace,
/// and the request's own spans end with the request.
pub fn kept(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(send_receipt(work).with_current_context())
}

/// Its span is made when the task first runs, and so with the context as its parent.
#[instrument(skip_all)]
async fn send_receipt(work: impl Future<Output = ()>) {
    work.await;
}

/// Wrong: the task holds the request's span, which stays open until the task ends.
pub fn held_open(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(send_receipt(work).in_current_span())
}

/// Wrong: this span is made inside the request's span, and a child in `tracing`
/// keeps its parent open too.
pub fn held_open_by_a_child(
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(work.instrument(info_span!("send_receipt")))
}
