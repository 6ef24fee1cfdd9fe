//! The tables of order-service, and its products.

use sqlx::AnyPool;

const SCHEMA: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS products
        (id BIGINT PRIMARY KEY, name TEXT NOT NULL, cents BIGINT NOT NULL,
        stock BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS orders
        (id TEXT PRIMARY KEY, product BIGINT NOT NULL, email TEXT NOT NULL)",
    "INSERT INTO products VALUES (1, 'lamp', 4900, 100), (2, 'chair', 9900, 0)
        ON CONFLICT DO NOTHING",
];

/// Creates the tables and the products, unless they exist.
///
/// # Errors
/// Fails if the database refuses a statement.
pub async fn create(pool: &AnyPool) -> sqlx::Result<()> {
    for statement in SCHEMA {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}
