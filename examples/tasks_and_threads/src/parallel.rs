//! rayon: each closure may run on any thread of the pool.

use distributed_tracing::telemetry::tracer;
use opentelemetry::Context;
use opentelemetry::trace::Tracer as _;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use tokio::task::{JoinError, spawn_blocking};

/// Every closure attaches the context itself, on whichever thread it runs.
pub async fn kept() -> Result<u32, JoinError> {
    let cx = Context::current();
    // rayon blocks the thread that calls it, and tokio's must not be blocked.
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

/// Wrong: the guard holds for its own thread, and not for those of the pool.
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
