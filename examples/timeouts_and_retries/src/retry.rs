// ANCHOR: code
//! Retries a call. Each attempt is a CLIENT span below one INTERNAL span for the
//! whole call.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use opentelemetry::trace::{
    FutureExt as _, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use production::error::{ApiError, CallError, ErrorType as _, description};
use production::outgoing::{inject_context_into_carrier, read_json};
use production::telemetry::{record_error, tracer};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::budget::Budget;
use crate::circuit::Circuit;

/// The reason why a call failed after all attempts. It contains no address, so you
/// can put it on a span.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("not called: too many calls have failed")]
    CircuitOpen,
}

impl RetryError {
    /// Returns the value of `error.type`.
    pub fn error_type(&self) -> Cow<'static, str> {
        match self {
            RetryError::Call(error) => error.error_type(),
            RetryError::CircuitOpen => "circuit_open".into(),
        }
    }
}

impl From<RetryError> for ApiError {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::Call(error) => error.into(),
            RetryError::CircuitOpen => ApiError::CallFailed,
        }
    }
}

/// Returns the two pauses between the attempts: about 50 and about 100 milliseconds.
/// They have jitter, so that callers that failed together don't retry together.
pub fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_times(2)
        .with_jitter()
}

/// Returns whether the same request may succeed later. That's so if no answer came,
/// or if the status says that the problem is temporary.
pub fn is_worth_a_retry(error: &CallError) -> bool {
    match error {
        CallError::Timeout | CallError::Unreachable => true,
        CallError::Status(status) => matches!(
            *status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        CallError::InvalidAnswer | CallError::AnswerTooLong => false,
    }
}

/// Returns whether the other service seems to be down. A service that refuses a
/// request isn't.
pub fn is_down(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => {
            status.is_server_error() || is_worth_a_retry(error)
        }
        _ => true,
    }
}

/// A client of one service that retries its calls. Use it only for calls that may be
/// made twice: if an answer was lost on its way back, the work has been done.
pub struct Retrying {
    client: Client,
    base: Url,
    circuit: Circuit,
}

impl Retrying {
    /// Creates a client for the service at `base`.
    ///
    /// # Errors
    /// Fails when TLS can't be set up.
    pub fn new(base: Url, circuit: Circuit) -> reqwest::Result<Self> {
        let client = Client::builder().redirect(Policy::none()).build()?;
        Ok(Retrying {
            client,
            base,
            circuit,
        })
    }

    /// Sends `body` as JSON to `path` and retries where that may help.
    ///
    /// # Errors
    /// Returns the error of the last attempt, or that the circuit is open.
    pub async fn post<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, RetryError> {
        let span = tracer().start(format!("POST {path} with retries"));
        let cx = Context::current_with_span(span);
        let result = self.tries(path, body).with_context(cx.clone()).await;
        if let Err(error) = &result {
            record_error(&cx.span(), error.error_type(), error.to_string());
        }
        cx.span().end();
        result
    }

    async fn tries<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, RetryError> {
        let budget = Budget::current();
        let mut pauses = pauses().build();
        let mut resends = 0;
        loop {
            if !self.circuit.allows_call(Instant::now()) {
                return Err(RetryError::CircuitOpen);
            }
            let error = match self.attempt(path, body, resends, budget).await {
                Ok(answer) => {
                    self.circuit.report(true, Instant::now());
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.circuit.report(!is_down(&error), Instant::now());
            let pause = pauses.next().filter(|_| is_worth_a_retry(&error));
            match pause {
                Some(pause) if pause < budget.left_for_a_call() => {
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error.into()),
            }
            resends += 1;
        }
    }

    /// Sends one request inside a CLIENT span and stops when the budget runs out.
    async fn attempt<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        resends: i64,
        budget: Budget,
    ) -> Result<Answer, CallError> {
        let url = self.url(path);
        let host = url.host_str().unwrap_or_default().to_owned();
        let port = url.port_or_known_default().unwrap_or_default();
        let mut attributes = vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("url.full", url.to_string()),
            KeyValue::new("server.address", host),
            KeyValue::new("server.port", i64::from(port)),
        ];
        if resends > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", resends));
        }
        let tracer = tracer();
        let span = tracer
            .span_builder(format!("POST {path}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .start(&tracer);
        let cx = Context::current_with_span(span);
        let send = self.send(url, body, budget).with_context(cx.clone());
        let result = send.await;
        if let Err(error) = &result {
            record_error(&cx.span(), error.error_type(), description(error));
        }
        cx.span().end();
        result
    }

    async fn send<Answer: DeserializeOwned>(
        &self,
        url: Url,
        body: &impl Serialize,
        budget: Budget,
    ) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        inject_context_into_carrier(&mut headers);
        budget.inject(&mut headers);
        let request = self.client.post(url).headers(headers).json(body);
        let response = request.timeout(budget.left_for_a_call()).send().await?;

        let status = response.status();
        let code =
            KeyValue::new("http.response.status_code", i64::from(status.as_u16()));
        Context::map_current(|cx| cx.span().set_attribute(code));
        if !status.is_success() {
            return Err(CallError::Status(status));
        }
        read_json(response).await
    }

    /// Returns `path` on the host of the base URL. Leaves out that URL's own path
    /// and query, which may contain a key.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(None);
        url
    }
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ_from_caller_to_caller() {
        let of = |seed| -> Vec<u128> {
            let pauses = pauses().with_jitter_seed(seed).build();
            pauses.map(|pause| pause.as_millis()).collect()
        };
        for seed in 0..100 {
            let pauses = of(seed);
            assert_eq!(pauses.len(), 2);
            assert!((50..=100).contains(&pauses[0]), "{pauses:?}");
            assert!((100..=200).contains(&pauses[1]), "{pauses:?}");
        }
        assert!((1..100).any(|seed| of(seed) != of(0)), "they have jitter");
    }

    #[test]
    fn a_refused_request_is_not_retried() {
        let status = |code| {
            CallError::Status(StatusCode::from_u16(code).expect("100 to 999"))
        };
        for code in [429, 502, 503, 504] {
            assert!(is_worth_a_retry(&status(code)), "{code}");
        }
        for code in [400, 403, 404, 409, 500, 501] {
            assert!(!is_worth_a_retry(&status(code)), "{code}");
        }
        assert!(!is_worth_a_retry(&CallError::InvalidAnswer));
        for (code, down) in [(403, false), (429, true), (500, true), (503, true)] {
            assert_eq!(is_down(&status(code)), down, "{code}");
        }
    }
}
