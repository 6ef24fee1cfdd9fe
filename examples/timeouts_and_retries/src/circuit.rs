// ANCHOR: code
//! A circuit breaker: after some failures in a row, nothing is sent for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between this service and one other.
#[derive(Debug)]
pub struct Circuit {
    failures: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed { failed: u32 },
    Open { until: Instant },
}

impl Circuit {
    /// Opens after so many `failures` in a row, and lets one call through after each
    /// `pause`, to see whether the other side is back.
    pub fn new(failures: u32, pause: Duration) -> Circuit {
        Circuit {
            failures,
            pause,
            state: Mutex::new(State::Closed { failed: 0 }),
        }
    }

    /// Whether a call may be made at `now`. Whoever is told yes reports how it went.
    pub fn lets_through(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Closed { .. } => true,
            State::Open { until } if now < *until => false,
            State::Open { until } => {
                // This one call is the trial; the others wait for it.
                *until = now + self.pause;
                true
            }
        }
    }

    /// How a call went that ended at `now`.
    pub fn report(&self, success: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match *state {
            _ if success => State::Closed { failed: 0 },
            State::Closed { failed } if failed + 1 < self.failures => {
                State::Closed { failed: failed + 1 }
            }
            _ => State::Open {
                until: now + self.pause,
            },
        };
    }
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_success() {
        let (circuit, now) = (Circuit::new(3, PAUSE), Instant::now());
        for success in [false, false, true, false, false] {
            circuit.report(success, now);
        }
        assert!(circuit.lets_through(now), "a success began the row anew");
        circuit.report(false, now);
        assert!(!circuit.lets_through(now));

        let later = now + PAUSE;
        assert!(circuit.lets_through(later), "the trial");
        assert!(!circuit.lets_through(later), "only one");
        circuit.report(false, later);
        assert!(!circuit.lets_through(later + PAUSE / 2));
        assert!(circuit.lets_through(later + PAUSE));
        circuit.report(true, later + PAUSE);
        assert!(circuit.lets_through(later + PAUSE));
    }
}
