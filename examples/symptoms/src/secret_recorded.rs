//! `#[instrument]` on a function that is given a password.

use tracing::instrument;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::setup::{FLUSH, exporter, layer, pay, provider};

/// Wrong: every argument becomes an attribute.
#[instrument(name = "log in")]
async fn log_in_and_tell(user: &str, password: &str) {
    pay().await;
}

/// None does, but for those that are named.
#[instrument(name = "log in", skip_all, fields(user = user))]
async fn log_in(user: &str, _password: &str) {
    pay().await;
}

pub async fn broken() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    tracing_subscriber::registry().with(layer(&provider)).init();
    log_in_and_tell("user_1", "correct horse").await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}

pub async fn repaired() -> anyhow::Result<()> {
    let provider = provider("shop", exporter()?);
    tracing_subscriber::registry().with(layer(&provider)).init();
    log_in("user_1", "correct horse").await;
    Ok(provider.shutdown_with_timeout(FLUSH)?)
}
