//! Records a CLIENT span for each command or pipeline that Redis gets, without keys
//! and values.

use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use redis::RedisResult;

use crate::cache::Cache;
use crate::spans::in_span;

/// How long a product stays in the cache, in seconds.
const LIFETIME: u64 = 60;

/// Gets a product.
///
/// # Errors
/// Fails if Redis doesn't answer in time or answers with an error.
pub async fn get(cache: &Cache, id: i64) -> RedisResult<Option<String>> {
    let mut command = redis::cmd("GET");
    command.arg(key(id));
    in_span(span(cache, "GET", "GET product:?"), async {
        let mut connection = cache.connection.clone();
        let found: Option<String> = command.query_async(&mut connection).await?;
        let hit = KeyValue::new("one_trace.cache.hit", found.is_some());
        Context::map_current(|cx| cx.span().set_attribute(hit));
        Ok(found)
    })
    .await
}

/// Stores a product for a minute.
///
/// # Errors
/// Fails as [`get`] does.
pub async fn set(cache: &Cache, id: i64, product: &str) -> RedisResult<()> {
    let mut command = redis::cmd("SET");
    command.arg(key(id)).arg(product).arg("EX").arg(LIFETIME);
    let span = span(cache, "SET", "SET product:? ? EX ?");
    in_span(span, command.query_async(&mut cache.connection.clone())).await
}

/// Removes a product and counts an order, in one round trip.
///
/// # Errors
/// Fails as [`get`] does.
pub async fn sold(cache: &Cache, id: i64) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    pipeline.del(key(id)).ignore().incr("orders", 1).ignore();
    let mut span = span(cache, "PIPELINE", "DEL product:?; INCR orders ?");
    let size = KeyValue::new("db.operation.batch.size", pipeline.len() as i64);
    span.attributes.get_or_insert_default().push(size);
    in_span(span, pipeline.query_async(&mut cache.connection.clone())).await
}

fn span(cache: &Cache, operation: &'static str, text: &'static str) -> SpanBuilder {
    let mut attributes = cache.attributes.clone();
    attributes.extend([
        KeyValue::new("db.operation.name", operation),
        KeyValue::new("db.query.text", text),
    ]);
    SpanBuilder::from_name(operation)
        .with_kind(SpanKind::Client)
        .with_attributes(attributes)
}

fn key(id: i64) -> String {
    format!("product:{id}")
}
