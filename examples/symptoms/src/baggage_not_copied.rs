//! An entry of the baggage, and a span that should show it.

use std::convert::Infallible;

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use production::spans::{EventType, trace};

/// Wrong: baggage travels with the context, and no span has it.
pub async fn broken() -> anyhow::Result<()> {
    let pay = async { Ok::<(), Infallible>(()) };
    let pay = trace("pay", EventType::Tool, pay);
    pay.with_context(for_tenant("acme")).await?;
    Ok(())
}

/// Copied by hand, where it is wanted. For all spans of a process: see
/// `examples/trust_boundaries/src/tenant.rs`.
pub async fn repaired() -> anyhow::Result<()> {
    let pay = async {
        Context::map_current(|cx| {
            if let Some(tenant) = cx.baggage().get("tenant") {
                let tenant = KeyValue::new("tenant", tenant.clone());
                cx.span().set_attribute(tenant);
            }
        });
        Ok::<(), Infallible>(())
    };
    let pay = trace("pay", EventType::Tool, pay);
    pay.with_context(for_tenant("acme")).await?;
    Ok(())
}

fn for_tenant(name: &'static str) -> Context {
    Context::current_with_baggage([KeyValue::new("tenant", name)])
}
