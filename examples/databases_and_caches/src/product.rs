//! Looks at a product: in the cache, then in the database.

use axum::extract::{Path, State};
use redis::RedisResult;
use serde_json::json;

use crate::commands;
use crate::error::ShopError;
use crate::pool::acquire;
use crate::query::query;
use crate::shop::Shop;
use crate::statements::FIND_PRODUCT;

/// Answers with a product.
pub async fn product(
    State(shop): State<Shop>,
    Path(id): Path<i64>,
) -> Result<String, ShopError> {
    if let Some(cache) = &shop.cache
        && let Some(cached) = usable(commands::get(cache, id).await).flatten()
    {
        return Ok(cached);
    }
    let mut connection = acquire(&shop.database).await?;
    let found: Option<(String, i64)> = query(&shop.database, FIND_PRODUCT, |text| {
        sqlx::query_as(text)
            .bind(id)
            .fetch_optional(&mut *connection)
    })
    .await?;
    // The pool gets the connection back before the cache is called.
    drop(connection);
    let (name, cents) = found.ok_or(ShopError::SoldOut)?;
    let product = json!({ "name": name, "cents": cents }).to_string();
    if let Some(cache) = &shop.cache {
        usable(commands::set(cache, id, &product).await);
    }
    Ok(product)
}

/// Returns what the cache answered. If it failed, logs that and returns `None`.
pub fn usable<T>(answer: RedisResult<T>) -> Option<T> {
    answer
        .inspect_err(|error| {
            tracing::warn!(error = error.category(), "the cache failed");
        })
        .ok()
}
