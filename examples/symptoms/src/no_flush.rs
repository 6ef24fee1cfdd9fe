//! A process that ends before its last batch is sent.

use production::telemetry;

use crate::setup::pay;

/// Wrong: the spans wait for up to five seconds to be sent, but the process doesn't.
pub async fn broken() -> anyhow::Result<()> {
    let _telemetry = telemetry::init("shop");
    pay().await;
    Ok(())
}

/// `shutdown` sends the spans that are left. Ctrl-C and SIGTERM must end here too.
pub async fn repaired() -> anyhow::Result<()> {
    let telemetry = telemetry::init("shop");
    pay().await;
    telemetry.shutdown();
    Ok(())
}
