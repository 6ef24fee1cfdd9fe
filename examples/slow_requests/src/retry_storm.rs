//! Retries on two levels multiply.

use production::error::CallError;
use production::outgoing::Upstream;

const ATTEMPTS: u32 = 3;

pub async fn slow(prices: &Upstream) -> Result<u32, CallError> {
    let mut attempt = 1;
    loop {
        // `prices` makes up to three attempts of its own to reach its supplier.
        match prices.post("/supplied", &"tea").await {
            Err(CallError::Status(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

pub async fn repaired(prices: &Upstream) -> Result<u32, CallError> {
    prices.post("/supplied", &"tea").await
}
