//! Decides when a request has been watched for long enough.
//!
//! Nobody can know that a trace is complete. So it has to be as the file says, and then nothing that counts may arrive for a while:
//! a message that is handled twice or a second trace would be late. It is wrong once it holds something that can't be right
//! whatever else arrives, and nothing arrives for the same while; or when the time is up.

use std::time::Duration;

use super::actual::{Actual, Arrived};
use super::compare::{matches, may_match};
use super::file::Request;
use crate::traceparent::Traceparent;

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// For how long nothing that counts may arrive.
    pub settle: Duration,
    /// How long after the end of the request to look for the last time.
    pub timeout: Duration,
}

impl Default for Waiting {
    /// SDKs export every five seconds.
    fn default() -> Self {
        Waiting { settle: Duration::from_secs(6), timeout: Duration::from_secs(30) }
    }
}

/// The end of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The spans are as the file says.
    Matches,
    /// They aren't, and nothing that may arrive would change that.
    Differs,
    /// They aren't, and the time is up.
    TimedOut,
    /// They are, and still more of them arrived when the time was up.
    Unsettled,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Look again when spans arrive, or at this time at the latest.
    WaitUntil(Duration),
    Done(Verdict),
}

/// Watches one request. All times count from its start.
pub struct Watch<'a> {
    request: &'a Request,
    keys: Vec<String>,
    sent: Traceparent,
    waiting: Waiting,
    counted: usize,
    last_arrival: Duration,
}

impl<'a> Watch<'a> {
    pub fn new(request: &'a Request, sent: Traceparent, waiting: Waiting) -> Self {
        let (counted, last_arrival) = (0, Duration::ZERO);
        Watch { keys: request.attributes(), request, sent, waiting, counted, last_arrival }
    }

    /// Looks at what has arrived by now. `ended` is the time at which the request ended, if it has.
    pub fn look(&mut self, now: Duration, ended: Option<Duration>, arrived: &Arrived) -> Decision {
        let counted = arrived.counted(&self.sent);
        if counted != self.counted {
            self.counted = counted;
            self.last_arrival = now;
        }
        let Some(ended) = ended else {
            return Decision::WaitUntil(now + self.waiting.settle);
        };
        let quiet = ended.max(self.last_arrival) + self.waiting.settle;
        let end = ended + self.waiting.timeout;
        if now < quiet && now < end {
            return Decision::WaitUntil(quiet.min(end));
        }
        let actual = || Actual::new(arrived, &self.sent, &self.keys, false);
        let verdict = if matches(self.request, &actual(), &self.keys) {
            if now >= quiet { Verdict::Matches } else { Verdict::Unsettled }
        } else if now >= end {
            Verdict::TimedOut
        } else if !may_match(self.request, &actual().attached(), &self.keys) {
            Verdict::Differs
        } else {
            return Decision::WaitUntil(end);
        };
        Decision::Done(verdict)
    }
}
