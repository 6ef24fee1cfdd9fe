//! The slowest of several parallel calls decides, whatever the others do.

use std::time::Duration;

use production::error::CallError;
use production::outgoing::Upstream;
use tokio::time::timeout;

/// How long the page waits for something that it can do without.
const PATIENCE: Duration = Duration::from_millis(40);

pub async fn slow(prices: &Upstream) -> Result<u32, CallError> {
    let (price, delivery, _advice): (u32, u32, u32) = tokio::try_join!(
        prices.post("/price", &"tea"),
        prices.post("/delivery", &"tea"),
        prices.post("/advice", &"tea"),
    )?;
    Ok(price + delivery)
}

pub async fn repaired(prices: &Upstream) -> Result<u32, CallError> {
    let advice = timeout(PATIENCE, prices.post::<u32>("/advice", &"tea"));
    let (price, delivery, _advice) = tokio::join!(
        prices.post::<u32>("/price", &"tea"),
        prices.post::<u32>("/delivery", &"tea"),
        advice,
    );
    Ok(price? + delivery?)
}
