//! Connects to PostgreSQL or SQLite, and describes the database for its spans.

use std::time::Duration;

use opentelemetry::KeyValue;
use sqlx::AnyPool;
use sqlx::any::{AnyPoolOptions, install_default_drivers};
use url::Url;

/// A pool of connections, and the attributes that all of its spans have.
#[derive(Clone)]
pub struct Database {
    pub pool: AnyPool,
    pub attributes: Vec<KeyValue>,
}

impl Database {
    /// Opens a pool of at most `size` connections. A request waits at most
    /// `patience` for one of them.
    ///
    /// # Errors
    /// Fails if the database can't be reached.
    pub async fn connect(
        url: &Url,
        size: u32,
        patience: Duration,
    ) -> sqlx::Result<Self> {
        install_default_drivers();
        let options = AnyPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(patience);
        Ok(Database {
            pool: options.connect(url.as_str()).await?,
            attributes: attributes(url),
        })
    }
}

/// Leaves out the user, the password and the path of the file.
fn attributes(url: &Url) -> Vec<KeyValue> {
    let (system, port) = match url.scheme() {
        "sqlite" => ("sqlite", None),
        _ => ("postgresql", Some(5432)),
    };
    let name = url.path().rsplit('/').next().unwrap_or_default();
    let mut attributes = vec![
        KeyValue::new("db.system.name", system),
        KeyValue::new("db.namespace", name.to_owned()),
    ];
    if let (Some(host), Some(port)) = (url.host_str(), url.port().or(port)) {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    attributes
}
