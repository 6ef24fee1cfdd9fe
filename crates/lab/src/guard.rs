//! Which requests the lab accepts: those of programs on this machine and of the pages that it serves.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Restricts `routes` to requests that name this machine. Otherwise a page of another site whose name is made to point
/// here (DNS rebinding) could read the traces.
pub fn only_here(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async {
        let what = "the lab answers to localhost and to loopback addresses";
        check_host(request, next, is_this_machine, what).await
    }))
}

/// Restricts `routes` to requests that name an IP address or `localhost`: only a name can be made to point elsewhere.
pub fn only_addresses(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async {
        let what = "the lab answers to localhost and to addresses";
        let address = |host: &str| is_this_machine(host) || ip(host).is_some();
        check_host(request, next, address, what).await
    }))
}

async fn check_host(
    request: Request,
    next: Next,
    wanted: impl Fn(&str) -> bool,
    what: &str,
) -> Response {
    // In HTTP/2 the host is part of the URI.
    let host = match request.headers().get(HOST) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => request.uri().authority().map_or("", Authority::as_str),
    };
    let authority: Option<Authority> = host.parse().ok();
    if authority.is_some_and(|authority| wanted(authority.host())) {
        return next.run(request).await;
    }
    let message = format!("{what}, and not to the host {host:?}\n");
    (StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// Lets pages served from any port of this machine send spans.
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

/// Accepts a request that changes something only when it comes from a program or from one of the lab's own pages: a page
/// of another site can send a form too.
///
/// # Errors
/// When a page of another site sent it. The error can be the answer.
pub fn only_our_pages(headers: &HeaderMap) -> Result<(), ForeignPage> {
    let text = |name| {
        let value = headers.get(name);
        value.map(|it: &HeaderValue| it.to_str().unwrap_or_default())
    };
    let same_host = text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == text(HOST));
    let same_site = headers
        .get("sec-fetch-site")
        .is_none_or(|it| it == "same-origin");
    match same_host && same_site {
        true => Ok(()),
        false => Err(ForeignPage),
    }
}

/// A page of another site has sent a request that changes something. The answer is 403.
#[derive(Debug)]
pub struct ForeignPage;

impl IntoResponse for ForeignPage {
    fn into_response(self) -> Response {
        let problem = "only a page of this lab may do this\n";
        (StatusCode::FORBIDDEN, problem).into_response()
    }
}

/// Whether the host is `localhost` or an address of the loopback interface.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip(host).is_some_and(|ip| ip.is_loopback())
}

/// The address; one of version 6 stands in brackets.
fn ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}
