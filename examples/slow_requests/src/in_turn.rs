//! Calls that wait for each other without a reason.

use production::error::CallError;
use production::outgoing::Upstream;

pub async fn slow(prices: &Upstream) -> Result<u32, CallError> {
    let price: u32 = prices.post("/price", &"tea").await?;
    let delivery: u32 = prices.post("/delivery", &"tea").await?;
    let discount: u32 = prices.post("/discount", &"tea").await?;
    Ok(price + delivery - discount)
}

pub async fn repaired(prices: &Upstream) -> Result<u32, CallError> {
    let (price, delivery, discount): (u32, u32, u32) = tokio::try_join!(
        prices.post("/price", &"tea"),
        prices.post("/delivery", &"tea"),
        prices.post("/discount", &"tea"),
    )?;
    Ok(price + delivery - discount)
}
