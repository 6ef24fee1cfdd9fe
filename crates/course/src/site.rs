//! The routes of the course: the book at `/`, the lab's pages, the checks at `/check` and the fault lab at `/wire/try`.

use std::path::PathBuf;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lab::store::Store;
use lab::wire::Wire;
use lab::{server, viewer};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;
use tower_http::services::{ServeDir, ServeFile};

use crate::{check, experiment};

/// Receives the folder of the book's pages once the book is built. The traces don't wait for it.
pub type Pages = watch::Receiver<Option<PathBuf>>;

/// Serves the pages of the lab, of the course and of the book, if there is one.
pub fn pages(store: Store, wire: Wire, book: Option<Pages>) -> Router {
    let pages = server::pages(store.clone(), wire.clone())
        .merge(check::routes(store.clone()))
        .merge(experiment::routes(store, wire));
    match book {
        Some(book) => pages.fallback_service(self::book(book)),
        None => viewer::without_book(pages),
    }
}

/// Serves only the book, compressed with gzip as web hosts do it.
pub fn book(pages: Pages) -> MethodRouter {
    get(page).with_state(pages).layer(CompressionLayer::new())
}

async fn page(State(mut pages): State<Pages>, request: Request) -> Response {
    let folder = match pages.wait_for(Option::is_some).await {
        Ok(pages) => pages.clone().unwrap_or_default(),
        // The book doesn't build: the program is about to say so and end.
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let missing = ServeFile::new(folder.join("404.html"));
    let mut files = ServeDir::new(folder).not_found_service(missing);
    match files.try_call(request).await {
        Ok(response) => with_policy(response.into_response()).await,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Adds the Content-Security-Policy of the book. mdBook writes scripts into its pages, so the policy has their hashes. The table
/// of contents is a frame where scripts are off, and "Know why a trace is broken" runs WebAssembly.
async fn with_policy(response: Response) -> Response {
    // The browser keeps the policy of its copy.
    if response.status() == StatusCode::NOT_MODIFIED {
        return response;
    }
    let (mut parts, mut body) = response.into_parts();
    let mut hashes = String::new();
    let media_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if media_type.is_some_and(|it| it.starts_with(b"text/html")) {
        let page = match to_bytes(body, usize::MAX).await {
            Ok(page) => page,
            Err(error) => {
                return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
            }
        };
        for script in inline_scripts(&String::from_utf8_lossy(&page)) {
            hashes += &format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script)));
        }
        body = Body::from(page);
    }
    let policy = format!(
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{hashes}; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'self'; \
         base-uri 'self'; frame-ancestors 'self'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        parts.headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    Response::from_parts(parts, body)
}

/// Returns the scripts that a page contains, without those that it loads.
fn inline_scripts(html: &str) -> impl Iterator<Item = &str> {
    html.split("<script").skip(1).filter_map(|rest| {
        let (attributes, rest) = rest.split_once('>')?;
        let (script, _) = rest.split_once("</script>")?;
        (!attributes.contains("src=")).then_some(script)
    })
}
