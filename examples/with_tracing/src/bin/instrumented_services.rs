//! One of the three services, with spans of `tracing` made by hand.

use distributed_tracing::error::Failure;
use with_tracing::services::{Spans, serve};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    Ok(serve(Spans::ByHand).await?)
}
