//! Sends the trace context only to the hosts on a list.

use axum::http::HeaderMap;
use production::outgoing::inject_context_into_carrier;

/// The hosts that receive context. Any other host receives none, so a host that
/// you forgot can't read your baggage.
pub struct Hosts {
    /// Our own services, which receive the whole context.
    pub own: &'static [&'static str],
    /// Hosts that share traces with us, which receive `traceparent` alone.
    pub partners: &'static [&'static str],
}

impl Hosts {
    /// Writes the part of the current context that `host` may see into `headers`.
    pub fn inject(&self, host: &str, headers: &mut HeaderMap) {
        if self.own.contains(&host) {
            inject_context_into_carrier(headers);
        } else if self.partners.contains(&host) {
            let mut all = HeaderMap::new();
            inject_context_into_carrier(&mut all);
            if let Some(traceparent) = all.remove("traceparent") {
                headers.insert("traceparent", traceparent);
            }
        }
    }
}
