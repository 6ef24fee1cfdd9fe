//! Three spans that take a tenth of a second each, for three reasons.

use std::time::{Duration, Instant};

use tracing::instrument;

const TENTH: Duration = Duration::from_millis(100);

/// Waits, as for an answer: the thread does something else meanwhile.
#[instrument]
pub async fn awaits() {
    tokio::time::sleep(TENTH).await;
}

/// Holds the thread, as a lock or a file does: nobody else can use it.
#[instrument]
pub async fn blocks() {
    std::thread::sleep(TENTH);
}

/// Computes.
#[instrument]
pub async fn computes() {
    let begin = Instant::now();
    while begin.elapsed() < TENTH {
        std::hint::spin_loop();
    }
}
