//! A log line of a request.

use std::convert::Infallible;

use production::logs;
use production::spans::{EventType, trace};
use tracing::info;

use crate::setup::{FLUSH, exporter, provider};

/// Wrong: the usual format knows the spans of `tracing`, and not the current
/// context.
pub async fn broken() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    pay().await
}

/// The format of the tutorial writes the ids of the current context.
pub async fn repaired() -> anyhow::Result<()> {
    logs::init();
    pay().await
}

async fn pay() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    let pay = async {
        info!("paid");
        Ok::<(), Infallible>(())
    };
    trace("pay", EventType::Tool, pay).await?;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
