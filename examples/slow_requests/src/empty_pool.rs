//! A pool whose only connection is held longer than it is used.

use std::time::Duration;

use production::error::CallError;
use production::outgoing::Upstream;
use production::spans::{EventType, trace};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Stands in for a pool of database connections.
static POOL: Semaphore = Semaphore::const_new(1);

/// The span makes the wait visible.
async fn connection() -> Result<SemaphorePermit<'static>, CallError> {
    let wait = async { POOL.acquire().await.map_err(|_| CallError::Unreachable) };
    trace("wait for a connection", EventType::Tool, wait).await
}

async fn render(price: u32) -> Result<u32, CallError> {
    tokio::time::sleep(Duration::from_millis(60)).await;
    Ok(price)
}

pub async fn slow(prices: &Upstream) -> Result<u32, CallError> {
    let _connection = connection().await?;
    let price = prices.post("/price", &"tea").await?;
    trace("render", EventType::Tool, render(price)).await
}

pub async fn repaired(prices: &Upstream) -> Result<u32, CallError> {
    let connection = connection().await?;
    let price = prices.post("/price", &"tea").await?;
    drop(connection);
    trace("render", EventType::Tool, render(price)).await
}
