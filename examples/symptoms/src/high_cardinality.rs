//! A span name with an id in it.

use std::convert::Infallible;

use opentelemetry::KeyValue;
use production::spans::{EventType, enrich_span, trace};

const ORDERS: [i64; 4] = [48_151, 48_152, 48_153, 48_154];

/// Wrong: each order has a name of its own, and nothing can be grouped by it.
pub async fn broken() -> anyhow::Result<()> {
    let pack = async {
        for id in ORDERS {
            let packed = async { Ok::<(), Infallible>(()) };
            trace(format!("pack order {id}"), EventType::Tool, packed).await?;
        }
        Ok(())
    };
    trace("pack", EventType::Chain, pack).await
}

/// The name says what is done, an attribute to what.
pub async fn repaired() -> anyhow::Result<()> {
    let pack = async {
        for id in ORDERS {
            let packed = async {
                enrich_span([KeyValue::new("order.id", id)]);
                Ok::<(), Infallible>(())
            };
            trace("pack order", EventType::Tool, packed).await?;
        }
        Ok(())
    };
    trace("pack", EventType::Chain, pack).await
}
