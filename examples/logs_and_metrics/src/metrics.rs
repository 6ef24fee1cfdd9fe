//! Durations of requests, counted whether they are sampled or not, with an example
//! of a trace in each bucket.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

/// In seconds: the advice of the conventions for `http.server.request.duration`,
/// <https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Whoever sends another must not add a value to a label.
const METHODS: [&str; 7] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Each has few values: no user, no id, no path.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Example {
    trace_id: String,
}

type Durations = Family<Labels, HistogramWithExemplars<Example>>;

/// The metrics of a service. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    durations: Durations,
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let new = || HistogramWithExemplars::new(BUCKETS.into_iter());
        let durations = Durations::new_with_constructor(new);
        let mut registry = Registry::default();
        registry.register_with_unit(
            "http_server_request_duration",
            "Duration of HTTP requests",
            Unit::Seconds,
            durations.clone(),
        );
        Metrics {
            durations,
            registry: Arc::new(Mutex::new(registry)),
        }
    }
}

/// Middleware inside of `continue_trace`, whose SERVER span is the current one.
pub async fn measure(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let method = METHODS.into_iter().find(|it| request.method() == *it);
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(String::new, |it| it.as_str().to_owned());
    let response = next.run(request).await;
    let labels = Labels {
        http_request_method: method.unwrap_or("_OTHER"),
        http_route: route,
        http_response_status_code: response.status().as_u16(),
    };
    metrics.durations.get_or_create(&labels).observe(
        begin.elapsed().as_secs_f64(),
        example(),
        None,
    );
    response
}

/// The trace of this request, where there is one to look at.
fn example() -> Option<Example> {
    let span = Context::map_current(|cx| cx.span().span_context().clone());
    span.is_sampled().then(|| Example {
        trace_id: span.trace_id().to_string(),
    })
}

/// `GET /metrics`, as OpenMetrics: Prometheus' older text form has no exemplars.
pub async fn metrics(
    State(metrics): State<Metrics>,
) -> Result<Response, Unreadable> {
    let mut text = String::new();
    let registry = metrics.registry.lock();
    encode(&mut text, &registry.unwrap_or_else(PoisonError::into_inner))?;
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, form)], text).into_response())
}

/// The metrics could not be written down.
pub struct Unreadable(fmt::Error);

impl From<fmt::Error> for Unreadable {
    fn from(error: fmt::Error) -> Self {
        Unreadable(error)
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "the metrics cannot be written");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
