//! The incoming half of propagation: a SERVER span around each gRPC call.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::trace::{FutureExt as _, SpanKind};
use opentelemetry_semantic_conventions::attribute::RPC_METHOD_ORIGINAL;
use production::incoming::extract_context_from_carrier;
use production::telemetry::{VALUE_LIMIT, cut};
use tonic::body::Body as Grpc;
use tonic::service::Routes;

use crate::body::{status_in, watch};
use crate::call::{Call, OTHER};

/// Adds a SERVER span around each call to `routes`, which have these `methods`.
pub fn traced(routes: Routes, methods: &'static [&'static str]) -> Routes {
    let layer = from_fn_with_state(methods, continue_trace);
    Routes::from(routes.into_axum_router().layer(layer))
}

async fn continue_trace(
    State(methods): State<&'static [&'static str]>,
    request: Request,
    next: Next,
) -> Response {
    let parent = extract_context_from_carrier(request.headers());
    let path = cut(request.uri().path().trim_start_matches('/'), VALUE_LIMIT);
    // A caller can't choose names of spans: there would be too many.
    let (method, attributes) = match methods.contains(&&*path) {
        true => (path, vec![]),
        false => {
            let original = KeyValue::new(RPC_METHOD_ORIGINAL, path);
            (OTHER.to_owned(), vec![original])
        }
    };
    let headers = request.headers();
    let mut call =
        Call::start(SpanKind::Server, method, &parent, headers, attributes);
    let work = next.run(request).with_context(call.context().clone());
    let response = work.await;
    match status_in(response.headers()) {
        // No message was sent, so the status is in the head.
        Some(code) => {
            call.end(code);
            response
        }
        None => {
            let http = response.status();
            response.map(|body| Body::new(watch(call, http, Grpc::new(body))))
        }
    }
}
