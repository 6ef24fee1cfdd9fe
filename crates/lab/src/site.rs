//! What the lab serves on one port: the book at `/`, the viewer at `/traces`, Jaeger's query API at `/api`.

use std::path::Path;

use axum::Router;
use tower_http::services::{ServeDir, ServeFile};

use crate::store::Store;
use crate::{jaeger, viewer};

/// All routes; `book` is the folder of the built book.
pub fn routes(store: Store, book: &Path) -> Router {
    let files = ServeDir::new(book).not_found_service(ServeFile::new(book.join("404.html")));
    Router::new()
        .merge(viewer::routes(store.clone()))
        .merge(jaeger::routes(store))
        .fallback_service(files)
}
