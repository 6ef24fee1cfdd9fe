//! One call for each item, known as "N+1 queries".

use production::error::CallError;
use production::outgoing::Upstream;

pub const BASKET: [&str; 6] = ["tea", "cup", "pot", "milk", "honey", "lemon"];

pub async fn slow(prices: &Upstream) -> Result<u32, CallError> {
    let mut sum = 0;
    for item in BASKET {
        sum += prices.post::<u32>("/price", &item).await?;
    }
    Ok(sum)
}

pub async fn repaired(prices: &Upstream) -> Result<u32, CallError> {
    let found: Vec<u32> = prices.post("/prices", &BASKET).await?;
    Ok(found.iter().sum())
}
