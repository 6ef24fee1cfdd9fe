//! Who may speak to the lab: programs on this machine, and pages that it serves.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// `routes`, for requests to a name of this machine alone. A page of another site, whose name was made to point here
/// (DNS rebinding), would otherwise read the traces.
pub fn only_here(routes: Router) -> Router {
    routes.layer(from_fn(check_host))
}

async fn check_host(request: Request, next: Next) -> Response {
    // In HTTP/2 it is part of the URI.
    let host = match request.headers().get(HOST) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => request.uri().authority().map_or("", Authority::as_str),
    };
    let authority: Option<Authority> = host.parse().ok();
    if authority.is_some_and(|authority| is_this_machine(authority.host())) {
        return next.run(request).await;
    }
    let message = format!(
        "the lab answers to localhost and to loopback addresses, and not to the host {host:?}\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// Lets pages that were served from this machine send spans, whatever their port.
pub fn cors() -> CorsLayer {
    let from_here = |origin: &HeaderValue, _: &_| {
        let origin: Option<Uri> = origin.to_str().ok().and_then(|origin| origin.parse().ok());
        origin.is_some_and(|origin| origin.host().is_some_and(is_this_machine))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(from_here))
        .allow_methods([Method::POST])
        .allow_headers([CONTENT_TYPE, CONTENT_ENCODING])
}

/// `localhost`, or an address of the loopback interface, which for version 6 stands in brackets.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
