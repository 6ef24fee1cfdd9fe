//! The worker's loop: take messages, work on them under a CONSUMER span, and tell
//! the broker what has become of them.

use std::time::Duration;

use production::outgoing::Upstream;
use tokio::sync::oneshot::Receiver;
use tokio::time::sleep;

use crate::query::{WorkError, ask_all};
use crate::queue::{Consumer, Destination, Verdict, batch};
use crate::spans::process;

/// A message that was delivered so often is not delivered again.
pub const MAX_DELIVERIES: i64 = 3;

/// Whom a worker asks, and how it takes messages.
pub struct Worker {
    pub user_service: Upstream,
    /// 1 for one message at a time.
    pub batch_size: u16,
    /// How long a batch may wait to be full.
    pub batch_wait: Duration,
    /// Before a message that has failed is delivered again.
    pub pause: Duration,
}

impl Worker {
    /// Works until a signal stops it.
    ///
    /// # Errors
    /// When the broker is gone.
    pub async fn work(
        &self,
        mut consumer: impl Consumer,
        destination: &Destination,
        mut stop: Receiver<()>,
    ) -> anyhow::Result<()> {
        loop {
            let taken = batch(&mut consumer, self.batch_size, self.batch_wait);
            let deliveries = tokio::select! {
                _ = &mut stop => return Ok(()),
                taken = taken => taken?,
            };
            let work = ask_all(&self.user_service, &deliveries);
            let results = process(destination, &deliveries, work).await;
            // After the work, and not before: of a worker that dies in between, the
            // next one gets the messages.
            for (delivery, result) in deliveries.into_iter().zip(results) {
                let verdict = verdict(&result, delivery.count);
                if verdict == Verdict::Again {
                    sleep(self.pause).await;
                }
                let id = delivery.id.clone();
                consumer.settle(delivery, verdict).await?;
                tracing::info!(id, ?verdict, "settled");
            }
        }
    }
}

fn verdict(result: &Result<(), WorkError>, deliveries: i64) -> Verdict {
    match result {
        Ok(()) => Verdict::Done,
        Err(error) if error.may_pass() && deliveries < MAX_DELIVERIES => {
            Verdict::Again
        }
        Err(_) => Verdict::Dead,
    }
}
