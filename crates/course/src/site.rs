//! The routes of the course: the book at `/`, the lab's pages, the checks at `/check` and the fault lab at `/wire/try`.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use lab::store::Store;
use lab::wire::Wire;
use lab::{server, viewer};
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
        Ok(response) => response.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
