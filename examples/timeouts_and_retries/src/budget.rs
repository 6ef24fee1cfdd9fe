// ANCHOR: code
//! The time that a caller still waits. Each service reads it from the request and
//! stops its work in time. The next service receives the time that's left.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use opentelemetry::Context;
use opentelemetry::trace::FutureExt as _;
use production::error::ApiError;
use tokio::time::timeout;

/// The header with the time that the sender waits for the answer, in whole
/// milliseconds. Envoy's router filter sets the same header.
pub const HEADER: &str = "x-envoy-expected-rq-timeout-ms";

/// The longest budget, and the budget of a caller that doesn't send one.
pub const LIMIT: Duration = Duration::from_secs(9);

/// The time that we reserve to answer the caller ourselves.
const RESERVE: Duration = Duration::from_millis(20);

/// When the caller stops waiting.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    end: Instant,
}

impl Budget {
    /// Reads the budget of a request that arrived at `now` from its header, up to
    /// [`LIMIT`]. A header that isn't a number is ignored.
    pub fn of(headers: &HeaderMap, now: Instant) -> Budget {
        let sent = headers.get(HEADER).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| value.parse().ok());
        let time = sent.map_or(LIMIT, Duration::from_millis).min(LIMIT);
        Budget { end: now + time }
    }

    /// Returns the budget of the current request. It travels in the context, as the
    /// current span does.
    pub fn current() -> Budget {
        let found = Context::map_current(|cx| cx.get::<Budget>().copied());
        found.unwrap_or_else(|| Budget::of(&HeaderMap::new(), Instant::now()))
    }

    /// Returns the time that is left.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Returns the time that a call may take.
    pub fn left_for_a_call(&self) -> Duration {
        self.left().saturating_sub(RESERVE)
    }

    /// Sends what is left to the next service.
    pub fn inject(&self, headers: &mut HeaderMap) {
        // Below 2^64 milliseconds: a budget is at most `LIMIT`.
        let left = self.left_for_a_call().as_millis() as u64;
        headers.insert(HEADER, HeaderValue::from(left));
    }
}

/// Stops the work when the caller has stopped waiting. Add it inside
/// `continue_trace`.
pub async fn keep_budget(request: Request, next: Next) -> Response {
    let budget = Budget::of(request.headers(), Instant::now());
    let work = next
        .run(request)
        .with_context(Context::current_with_value(budget));
    match timeout(budget.left(), work).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::CallTimedOut.into_response(),
    }
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &'static str) -> Duration {
        let headers = [(HEADER, value)].map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (axum::http::HeaderName::from_static(name), value)
        });
        let now = Instant::now();
        Budget::of(&HeaderMap::from_iter(headers), now).end - now
    }

    #[test]
    fn a_caller_may_wait_less_than_the_limit_and_not_more() {
        assert_eq!(of("250"), Duration::from_millis(250));
        assert_eq!(of("0"), Duration::ZERO);
        for odd in ["60000", "99999999999999999999", "-1", "soon", ""] {
            assert_eq!(of(odd), LIMIT, "{odd}");
        }
    }
}
