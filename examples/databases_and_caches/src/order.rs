//! Places an order: one transaction, and then the cache.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use opentelemetry::trace::SpanBuilder;
use serde::Deserialize;
use sqlx::{Any, Connection as _, Transaction};

use crate::commands;
use crate::database::Database;
use crate::error::ShopError;
use crate::pool::acquire;
use crate::product::usable;
use crate::query::query;
use crate::shop::Shop;
use crate::spans::in_span;
use crate::statements::{ADD_ORDER, BEGIN, COMMIT, ROLLBACK, TAKE_PRODUCT};

#[derive(Deserialize)]
pub struct Order {
    id: String,
    product: i64,
    email: String,
}

/// Places an order.
pub async fn order(
    State(Shop { database, cache }): State<Shop>,
    Json(order): Json<Order>,
) -> Result<StatusCode, ShopError> {
    let mut connection = acquire(&database).await?;
    let placed = in_span(SpanBuilder::from_name("place order"), async {
        let begun = query(&database, BEGIN, |_| connection.begin());
        let mut transaction = begun.await?;
        let placed = place(&database, &mut transaction, &order).await;
        match &placed {
            Ok(()) => query(&database, COMMIT, |_| transaction.commit()).await?,
            Err(_) => query(&database, ROLLBACK, |_| transaction.rollback()).await?,
        }
        placed
    });
    placed.await?;
    // The pool gets the connection back before the cache is called.
    drop(connection);
    if let Some(cache) = &cache {
        usable(commands::sold(cache, order.product).await);
    }
    Ok(StatusCode::CREATED)
}

/// Runs the statements of the transaction.
async fn place(
    database: &Database,
    transaction: &mut Transaction<'_, Any>,
    order: &Order,
) -> Result<(), ShopError> {
    let taken = query(database, TAKE_PRODUCT, |text| {
        sqlx::query(text)
            .bind(order.product)
            .execute(&mut **transaction)
    });
    if taken.await?.rows_affected() == 0 {
        return Err(ShopError::SoldOut);
    }
    let added = query(database, ADD_ORDER, |text| {
        sqlx::query(text)
            .bind(&order.id)
            .bind(order.product)
            .bind(&order.email)
            .execute(&mut **transaction)
    });
    added.await?;
    Ok(())
}
