//! The worker's loop: takes messages, processes them inside a CONSUMER span, and
//! settles them with the broker.

use std::time::Duration;

use production::outgoing::Upstream;
use tokio::sync::oneshot::Receiver;
use tokio::time::sleep;

use crate::query::{WorkError, ask_all};
use crate::queue::{Consumer, Destination, Verdict, batch};
use crate::spans::process;

/// The number of deliveries after which a failing message goes to the dead letters.
pub const MAX_DELIVERIES: i64 = 3;

/// The settings of a worker.
pub struct Worker {
    pub user_service: Upstream,
    /// The largest number of messages to process together.
    pub batch_size: u16,
    /// The longest wait for a batch to fill up.
    pub batch_wait: Duration,
    /// The pause before a failed message is delivered again.
    pub pause: Duration,
}

impl Worker {
    /// Processes messages until `stop` ends.
    ///
    /// # Errors
    /// Fails when the connection to the broker is lost.
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
            // Settle after the work: if this worker dies first, the broker delivers
            // the messages to another one.
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
