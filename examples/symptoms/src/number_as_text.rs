//! A field of type `u64`.

use tracing::{Instrument as _, info_span};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, pay, provider};

/// Wrong: OpenTelemetry has no unsigned numbers, so the layer records a text.
pub async fn broken() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    tracing_subscriber::registry().with(layer(&provider)).init();
    let items = 3_u64;
    pay().instrument(info_span!("order", items)).await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// A signed number stays one.
pub async fn repaired() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    tracing_subscriber::registry().with(layer(&provider)).init();
    let items = 3_u64;
    let items = i64::try_from(items)?;
    pay().instrument(info_span!("order", items)).await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
