//! What to tell those who are called: it depends on who they are.

use axum::http::HeaderMap;
use production::outgoing::inject_context_into_carrier;

/// The hosts that are told something. Everybody else is a stranger, and told
/// nothing: a host that nobody thought of must not learn our baggage.
pub struct Hosts {
    /// Our own services: the whole context.
    pub own: &'static [&'static str],
    /// Those who share traces with us: the trace, and none of our texts.
    pub partners: &'static [&'static str],
}

impl Hosts {
    /// Writes what `host` may know of the current context into `headers`.
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
