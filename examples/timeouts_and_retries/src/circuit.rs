// ANCHOR: code
//! A circuit breaker: stops calling a service for a while after several failures in
//! a row.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The state of the calls to one other service.
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
    /// Creates a closed circuit. It opens after this number of `failures` in a row.
    /// While it's open, it allows one call after each `pause`, to see whether the
    /// other service is back.
    pub fn new(failures: u32, pause: Duration) -> Circuit {
        Circuit {
            failures,
            pause,
            state: Mutex::new(State::Closed { failed: 0 }),
        }
    }

    /// Returns whether you may make a call at `now`. If it returns true, call
    /// [`report`](Circuit::report) with the result.
    pub fn allows_call(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Closed { .. } => true,
            State::Open { until } if now < *until => false,
            State::Open { until } => {
                // This call is the trial. The next one must wait for another pause.
                *until = now + self.pause;
                true
            }
        }
    }

    /// Records the result of a call that ended at `now`.
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
        assert!(circuit.allows_call(now), "a success resets the count");
        circuit.report(false, now);
        assert!(!circuit.allows_call(now));

        let later = now + PAUSE;
        assert!(circuit.allows_call(later), "the trial");
        assert!(!circuit.allows_call(later), "only one");
        circuit.report(false, later);
        assert!(!circuit.allows_call(later + PAUSE / 2));
        assert!(circuit.allows_call(later + PAUSE));
        circuit.report(true, later + PAUSE);
        assert!(circuit.allows_call(later + PAUSE));
    }
}
