//! Connects to Redis.

use std::time::Duration;

use opentelemetry::KeyValue;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisResult};
use url::Url;

/// How long Redis may take to answer. After that, the database is asked.
const PATIENCE: Duration = Duration::from_millis(200);

/// A connection that is opened again when it breaks, and the attributes that all of
/// its spans have.
#[derive(Clone)]
pub struct Cache {
    pub connection: ConnectionManager,
    pub attributes: Vec<KeyValue>,
}

impl Cache {
    /// # Errors
    /// Fails if the URL can't be used or Redis can't be reached.
    pub async fn connect(url: &Url) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(0);
        let client = Client::open(url.as_str())?;
        let connection = client.get_connection_manager_with_config(config).await?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let attributes = vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("server.address", host),
            KeyValue::new("server.port", i64::from(url.port().unwrap_or(6379))),
        ];
        Ok(Cache {
            connection,
            attributes,
        })
    }
}
