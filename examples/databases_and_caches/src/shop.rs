//! The routes of order-service, and the database and the cache behind them.

use axum::Router;
use axum::routing::{get, post};

use crate::cache::Cache;
use crate::database::Database;
use crate::order::order;
use crate::product::product;

/// The service's name.
pub const NAME: &str = "order-service";

/// The database, and the cache if there is one.
#[derive(Clone)]
pub struct Shop {
    pub database: Database,
    pub cache: Option<Cache>,
}

/// The routes of order-service.
pub fn routes(shop: Shop) -> Router {
    Router::new()
        .route("/products/{id}", get(product))
        .route("/orders", post(order))
        .with_state(shop)
}
