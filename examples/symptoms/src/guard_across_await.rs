//! A guard of `attach` that lives across an await.

use std::convert::Infallible;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _};
use production::spans::{EventType, trace};
use production::telemetry::tracer;
use tokio::task::yield_now;

use crate::setup::pay;

/// Wrong: while one order waits, the thread works for the other, and the guard holds
/// there too.
pub async fn broken() -> anyhow::Result<()> {
    let order = async |name: &'static str| {
        let span = tracer().start(name);
        let _guard = Context::current_with_span(span).attach();
        yield_now().await;
        pay().await;
    };
    tokio::join!(order("first order"), order("second order"));
    Ok(())
}

/// `trace` sets the context while the future is polled, and at no other time.
pub async fn repaired() -> anyhow::Result<()> {
    let order = async |name: &'static str| {
        let work = async {
            yield_now().await;
            pay().await;
            Ok::<(), Infallible>(())
        };
        trace(name, EventType::Chain, work).await
    };
    let (Ok(()), Ok(())) = tokio::join!(order("first order"), order("second order"));
    Ok(())
}
