//! What the lab serves on one port: the book at `/`, the viewer at `/traces` and `/wire`, Jaeger's query API at `/api`, the
//! tutorial's checkpoints at `/check`.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;
use tower_http::services::{ServeDir, ServeFile};

use crate::store::Store;
use crate::wire::Wire;
use crate::{check, jaeger, viewer};

/// The folder of the book's pages, once it is built: the traces need not wait for it.
pub type Pages = watch::Receiver<Option<PathBuf>>;

/// All routes; `book` where there is one, and `otlp` where the receiver listens.
pub fn routes(store: Store, wire: Wire, book: Option<Pages>, otlp: SocketAddr) -> Router {
    let routes = Router::new()
        .merge(viewer::routes(store.clone(), wire))
        .merge(jaeger::routes(store.clone()))
        .merge(check::routes(store, otlp));
    match book {
        Some(pages) => routes.fallback_service(self::book(pages)),
        // Links lead to its pages all the same.
        None => routes
            .route("/", get(async || viewer::without_book()))
            .fallback(async || (StatusCode::NOT_FOUND, viewer::without_book())),
    }
}

/// The book alone, packed as the web servers of published books send it.
pub fn book(pages: Pages) -> MethodRouter {
    get(page).with_state(pages).layer(CompressionLayer::new())
}

async fn page(State(mut pages): State<Pages>, request: Request) -> Response {
    let folder = match pages.wait_for(Option::is_some).await {
        Ok(pages) => pages.clone().unwrap_or_default(),
        // The book does not build: the lab is about to say so and end.
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let missing = ServeFile::new(folder.join("404.html"));
    let mut files = ServeDir::new(folder).not_found_service(missing);
    match files.try_call(request).await {
        Ok(response) => response.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
