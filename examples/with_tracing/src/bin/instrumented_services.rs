//! One of the three services, with spans of `tracing` made by hand.

use production::error::Failure;
use with_tracing::services::{Spans, serve};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    Ok(serve(Spans::ByHand).await?)
}
