//! Serves the page and its scripts. In production, a web server or a CDN does this.

use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

const PAGE: &str = include_str!("../web/index.html");

/// The page for the gateway at URL `gateway`. `/` uses plain JavaScript, and `/sdk`
/// the script that esbuild has bundled into the file `bundle`.
pub fn routes(gateway: &str, bundle: PathBuf) -> Router {
    let page = PAGE.replace("GATEWAY", gateway);
    let sdk = page.replace("plain.js", "sdk.bundle.js");
    Router::new()
        .route("/", get(Html(page)))
        .route("/sdk", get(Html(sdk)))
        .route("/plain.js", get(script(include_str!("../web/plain.js"))))
        .route("/trace.js", get(script(include_str!("../web/trace.js"))))
        .route("/page.js", get(script(include_str!("../web/page.js"))))
        .route("/sdk.bundle.js", get(bundled))
        .with_state(bundle)
}

fn script(text: &'static str) -> impl IntoResponse + Clone + Send + 'static {
    ([(CONTENT_TYPE, "text/javascript")], text)
}

async fn bundled(State(bundle): State<PathBuf>) -> Response {
    match std::fs::read_to_string(bundle) {
        Ok(text) => ([(CONTENT_TYPE, "text/javascript")], text).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}
