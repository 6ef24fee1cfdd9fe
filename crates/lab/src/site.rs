//! What the lab serves on one port: the book at `/`, the viewer at `/traces`, Jaeger's query API at `/api`, the
//! tutorial's checkpoints at `/check`.

use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use tower_http::services::{ServeDir, ServeFile};

use crate::store::Store;
use crate::{check, jaeger, viewer};

/// All routes; `book` is the folder of the built book, and `otlp` where the receiver listens.
pub fn routes(store: Store, book: &Path, otlp: SocketAddr) -> Router {
    let files = ServeDir::new(book).not_found_service(ServeFile::new(book.join("404.html")));
    Router::new()
        .merge(viewer::routes(store.clone()))
        .merge(jaeger::routes(store.clone()))
        .merge(check::routes(store, otlp))
        .fallback_service(files)
}
