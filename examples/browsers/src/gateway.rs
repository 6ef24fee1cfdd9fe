//! api-gateway for browsers: which of their headers it accepts, and the order of its
//! layers.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use production::server;
use trust_boundaries::edge::edge;

use crate::collect;
use crate::cors::cors;
use crate::server_timing::report_trace;

/// Whether the trace of a browser continues here.
#[derive(Clone, Copy)]
pub enum Incoming {
    /// The browser's trace continues.
    Continue,
    /// A new trace starts, with a link to the browser's span.
    Link,
}

/// Lets the pages of origin `page` call `api`, and export spans to `receiver`.
pub fn routes(
    api: Router,
    incoming: Incoming,
    page: HeaderValue,
    receiver: &str,
    pause: Duration,
) -> Router {
    let api = api.layer(from_fn_with_state(page.clone(), report_trace));
    let api = match incoming {
        Incoming::Continue => {
            server::traced(api, pause).layer(from_fn(remove_baggage))
        }
        Incoming::Link => edge(api, pause),
    };
    api.merge(collect::routes(receiver)).layer(cors(page))
}

/// Removes the text that every service behind this one would pass on.
async fn remove_baggage(mut request: Request, next: Next) -> Response {
    for name in ["tracestate", "baggage"] {
        request.headers_mut().remove(name);
    }
    next.run(request).await
}
