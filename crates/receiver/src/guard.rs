//! Decides which requests the lab accepts: those from programs on this machine and from the lab's own pages.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Uri};
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
    let is_named = |host: &str| {
        let authority: Option<Authority> = host.parse().ok();
        authority.is_some_and(|authority| is_allowed(authority.host()))
    };
    let refused = match hosts(&request).count() {
        0 => Some(""),
        _ => hosts(&request).find(|host| !is_named(host)),
    };
    let Some(host) = refused else { return next.run(request).await };
    let message = format!("{rule}, and not to the host {host:?}\n");
    (StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// Returns the hosts that the request names. In HTTP/2 the host is part of the URI.
fn hosts(request: &Request) -> impl Iterator<Item = &str> {
    let headers = request.headers().get_all(HOST).iter();
    let of_uri = request.uri().authority().map(Authority::as_str);
    headers.map(|it| it.to_str().unwrap_or_default()).chain(of_uri)
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

/// Refuses the requests of other sites' pages: forms that would change something, and images, frames and scripts that would
/// make the lab work. Browsers say in `Sec-Fetch-Site` and `Origin` which page sent a request. Programs send neither. A link to
/// a page of the lab may be followed from anywhere, because the other site can't read the page.
pub fn only_our_pages(routes: Router) -> Router {
    routes.layer(from_fn(|request: Request, next: Next| async {
        match is_from_our_page(&request) {
            true => next.run(request).await,
            false => {
                let problem = "only a page of this lab may do this\n";
                (StatusCode::FORBIDDEN, problem).into_response()
            }
        }
    }))
}

fn is_from_our_page(request: &Request) -> bool {
    let text = |name: &str| {
        let value = request.headers().get(name);
        value.map(|it| it.to_str().unwrap_or_default())
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_same_site = match text("sec-fetch-site") {
        None | Some("same-origin") => true,
        // The reader typed the address.
        Some("none") => is_read,
        Some(_) => {
            let is_page = text("sec-fetch-dest") == Some("document");
            is_read && is_page && text("sec-fetch-mode") == Some("navigate")
        }
    };
    let is_same_host = text(ORIGIN.as_str()).is_none_or(|origin| {
        let host = origin.strip_prefix("http://");
        host.is_some() && hosts(request).all(|it| Some(it) == host)
    });
    is_same_site && is_same_host
}

/// Returns whether the host is `localhost` or an address of the loopback interface.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip(host).is_some_and(|ip| ip.is_loopback())
}

/// Parses the host as an IP address. IPv6 addresses are in brackets.
fn ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
