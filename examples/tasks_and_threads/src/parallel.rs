//! rayon: each closure may run on any thread of the pool.

use opentelemetry::Context;
use opentelemetry::trace::Tracer as _;
use production::telemetry::tracer;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use tokio::task::{JoinError, spawn_blocking};

/// Each closure attaches the context on the thread it runs on.
pub async fn kept() -> Result<u32, JoinError> {
    let cx = Context::current();
    // rayon blocks its caller's thread, and tokio's threads must not block.
    spawn_blocking(move || {
        (1..=2u32)
            .into_par_iter()
            .map(|page| {
                let _guard = cx.clone().attach();
                checksum(page)
            })
            .sum()
    })
    .await
}

/// Wrong: the guard sets the context of its own thread, not of the pool's threads.
pub async fn lost() -> Result<u32, JoinError> {
    let cx = Context::current();
    spawn_blocking(move || {
        let _guard = cx.attach();
        (1..=2u32).into_par_iter().map(checksum).sum()
    })
    .await
}

fn checksum(page: u32) -> u32 {
    tracer().in_span("checksum", |_cx| page.wrapping_mul(31))
}
