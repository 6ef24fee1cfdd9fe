//! What the explanation pages run: spans of `tracing` and of OpenTelemetry, recorded
//! in memory.

pub mod equal_spans;
pub mod parents;

use std::io;
use std::sync::{Mutex, PoisonError};

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData,
};
use tracing_subscriber::layer::SubscriberExt as _;

/// How the bridge between `tracing` and OpenTelemetry is built.
#[derive(Clone, Copy)]
pub struct Bridge {
    /// Whether a span that is entered becomes the current one of OpenTelemetry too.
    pub activates: bool,
    /// Whether a span gets `busy_ns` and `idle_ns`: for how long it was entered, and
    /// for how long it was not.
    pub times: bool,
}

/// As `tracing_opentelemetry::layer()` builds it, but for the times.
impl Default for Bridge {
    fn default() -> Self {
        Bridge {
            activates: true,
            times: false,
        }
    }
}

/// The provider is global: recordings take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Runs `work` on this thread; returns its spans, in the order in which they end.
///
/// # Errors
/// When there can be no runtime.
pub fn recorded(bridge: Bridge, work: impl Future) -> io::Result<Vec<SpanData>> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    // For spans that are made with OpenTelemetry's own API.
    global::set_tracer_provider(provider.clone());
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("explanation"))
        .with_context_activation(bridge.activates)
        .with_tracked_inactivity(bridge.times);
    let subscriber = tracing_subscriber::registry().with(layer);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    tracing::subscriber::with_default(subscriber, || runtime.block_on(work));
    exporter.get_finished_spans().map_err(io::Error::other)
}
