//! Counts what is in stock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use shop::{Error, incoming, setting, stopped, telemetry};
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;
use tracing::{info, instrument};
use tracing_subscriber::EnvFilter;

/// How many pieces of each item there are.
type Shelf = Arc<Mutex<HashMap<String, u32>>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let provider = telemetry::init(lines, filter);
    let shelf = Shelf::new(Mutex::new(HashMap::from([("tea".to_owned(), 10)])));
    let routes = Router::new()
        .route("/stock/{item}/take", post(take))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(incoming::server_span)
                .on_response(incoming::record_status),
        )
        .with_state(shelf);
    let address = setting("STOCK_ADDR", "127.0.0.1:7002");
    let listener = TcpListener::bind(address).await?;
    println!("stock listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(stopped())
        .await;
    provider.shutdown().ok();
    Ok(served?)
}

#[instrument(skip(shelf), err)]
async fn take(
    State(shelf): State<Shelf>,
    Path(item): Path<String>,
    Json(count): Json<u32>,
) -> Result<Json<u32>, Error> {
    let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let left = shelf.get_mut(&item).ok_or(Error::SoldOut)?;
    *left = left.checked_sub(count).ok_or(Error::SoldOut)?;
    info!("taken");
    Ok(Json(*left))
}
