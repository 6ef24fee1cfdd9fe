//! Records a CLIENT span for each statement.

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};

use crate::database::Database;
use crate::spans::in_span;

/// A statement and its summary, which becomes the span's name. Neither can contain a
/// value: a `'static` text is known before the program runs.
#[derive(Clone, Copy)]
pub struct Statement {
    pub summary: &'static str,
    pub text: &'static str,
}

/// Runs a statement inside a CLIENT span.
///
/// # Errors
/// Fails as the statement does.
pub async fn query<T, F: Future<Output = sqlx::Result<T>>>(
    database: &Database,
    statement: Statement,
    run: impl FnOnce(&'static str) -> F,
) -> sqlx::Result<T> {
    let mut attributes = database.attributes.clone();
    attributes.extend([
        KeyValue::new("db.query.summary", statement.summary),
        KeyValue::new("db.query.text", statement.text),
    ]);
    let span = SpanBuilder::from_name(statement.summary)
        .with_kind(SpanKind::Client)
        .with_attributes(attributes);
    in_span(span, run(statement.text)).await
}
