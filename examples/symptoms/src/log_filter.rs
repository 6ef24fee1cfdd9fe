//! `RUST_LOG=warn`, set to make a service quieter.

use tracing::instrument;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, pay, provider};

/// Wrong: a filter of the whole subscriber takes the spans away too, which are of
/// level INFO.
pub async fn broken() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    tracing_subscriber::registry()
        .with(EnvFilter::new("warn"))
        .with(tracing_subscriber::fmt::layer())
        .with(layer(&provider))
        .init();
    order().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

/// The filter is that of the log lines alone.
pub async fn repaired() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    let lines = tracing_subscriber::fmt::layer().with_filter(EnvFilter::new("warn"));
    tracing_subscriber::registry()
        .with(lines)
        .with(layer(&provider))
        .init();
    order().await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

#[instrument]
async fn order() {
    pay().await;
}
