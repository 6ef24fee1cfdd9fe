//! One of the three services, with spans of `tracing` from ready-made layers.

use production::error::Failure;
use with_tracing::services::{Spans, serve};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    Ok(serve(Spans::ReadyMade).await?)
}
