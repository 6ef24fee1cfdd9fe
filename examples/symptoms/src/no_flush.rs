//! A process that ends before its last batch is sent.

use distributed_tracing::telemetry;

use crate::setup::pay;

/// Wrong: the spans wait for up to five seconds to be sent, and the process does
/// not.
pub async fn broken() -> anyhow::Result<()> {
    let _telemetry = telemetry::init("shop")?;
    pay().await;
    Ok(())
}

/// `shutdown` sends what is still there. Ctrl-C and SIGTERM must lead here too.
pub async fn repaired() -> anyhow::Result<()> {
    let telemetry = telemetry::init("shop")?;
    pay().await;
    telemetry.shutdown();
    Ok(())
}
