//! Decides which requests the lab accepts: those from programs on this machine and from the lab's own pages.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Restricts `routes` to requests whose host is this machine. Otherwise another site could point its own name here (DNS
/// rebinding) and its pages could read the traces.
pub fn only_here(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async {
        let rule = "the lab answers to localhost and to loopback addresses";
        check_host(request, next, is_this_machine, rule).await
    }))
}

/// Restricts `routes` to requests whose host is an IP address or `localhost`. DNS rebinding needs a name.
pub fn only_addresses(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async {
        let rule = "the lab answers to localhost and to addresses";
        let address = |host: &str| is_this_machine(host) || ip(host).is_some();
        check_host(request, next, address, rule).await
    }))
}

async fn check_host(
    request: Request,
    next: Next,
    is_allowed: impl Fn(&str) -> bool,
    rule: &str,
) -> Response {
    // In HTTP/2 the host is part of the URI.
    let host = match request.headers().get(HOST) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => request.uri().authority().map_or("", Authority::as_str),
    };
    let authority: Option<Authority> = host.parse().ok();
    if authority.is_some_and(|authority| is_allowed(authority.host())) {
        return next.run(request).await;
    }
    let message = format!("{rule}, and not to the host {host:?}\n");
    (StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// Allows pages that are served from any port of this machine to send spans.
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

/// Checks that a request which changes something comes from a program or from one of the lab's own pages. Without this check,
/// pages of other sites could send forms to the lab.
///
/// # Errors
/// Fails when a page of another site sent the request. The error can be returned as the response.
pub fn only_our_pages(headers: &HeaderMap) -> Result<(), ForeignPage> {
    let text = |name| {
        let value = headers.get(name);
        value.map(|it: &HeaderValue| it.to_str().unwrap_or_default())
    };
    let same_host = text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == text(HOST));
    let same_site = headers.get("sec-fetch-site").is_none_or(|it| it == "same-origin");
    match same_host && same_site {
        true => Ok(()),
        false => Err(ForeignPage),
    }
}

/// A page of another site sent a request that changes something. As a response, this has status 403.
#[derive(Debug)]
pub struct ForeignPage;

impl IntoResponse for ForeignPage {
    fn into_response(self) -> Response {
        let problem = "only a page of this lab may do this\n";
        (StatusCode::FORBIDDEN, problem).into_response()
    }
}

/// Returns whether the host is `localhost` or an address of the loopback interface.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip(host).is_some_and(|ip| ip.is_loopback())
}

/// Parses the host as an IP address. IPv6 addresses are in brackets.
fn ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
