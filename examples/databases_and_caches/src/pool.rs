//! Records an INTERNAL span for each wait for a connection.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanBuilder;
use sqlx::Any;
use sqlx::pool::PoolConnection;

use crate::database::Database;
use crate::spans::in_span;

/// Takes a connection from the pool. The span shows how long that took, and what was
/// in the pool before.
///
/// # Errors
/// Fails if no connection becomes free in time, or a new one can't be opened.
pub async fn acquire(database: &Database) -> sqlx::Result<PoolConnection<Any>> {
    let (size, idle) = (database.pool.size(), database.pool.num_idle());
    if idle == 0 && size >= database.pool.options().get_max_connections() {
        tracing::debug!(size, "all connections are in use");
    }
    let span = SpanBuilder::from_name("acquire connection").with_attributes([
        KeyValue::new("one_trace.pool.size", i64::from(size)),
        KeyValue::new("one_trace.pool.idle", idle as i64),
    ]);
    in_span(span, database.pool.acquire()).await
}
