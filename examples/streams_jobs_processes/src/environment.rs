// ANCHOR: code
//! The environment as a carrier: from a process to the processes that it starts.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use tokio::process::Command;

/// Sets a variable of `command` for each field that a propagator writes.
struct CommandInjector<'a>(&'a mut Command);

impl Injector for CommandInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.env(variable(key), value);
    }
}

/// The environment that this process was started with, read once.
struct EnvironmentExtractor(HashMap<String, String>);

impl Extractor for EnvironmentExtractor {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&variable(key)).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| variable(name) == *name).collect()
    }
}

/// Writes the current context into the environment of `command`. The child gets
/// nothing of the context that this process itself was started with.
pub fn inject(command: &mut Command) {
    global::get_text_map_propagator(|propagator| {
        for field in propagator.fields() {
            command.env_remove(variable(field));
        }
        let carrier = &mut CommandInjector(command);
        propagator.inject_context(&Context::current(), carrier);
    });
}

/// Returns the context that the parent process wrote. Call it once, in `main`.
pub fn extract() -> Context {
    // A value that isn't text is not a context.
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let variables = env::vars_os().filter_map(text).collect();
    let carrier = EnvironmentExtractor(variables);
    global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &carrier)
    })
}

/// The variable for a field: `traceparent` becomes `TRACEPARENT`, and `x-b3-traceid`
/// becomes `X_B3_TRACEID`.
fn variable(field: &str) -> String {
    let allowed = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
    let name: String = field.chars().map(allowed).collect();
    let allowed = name.starts_with(|first: char| !first.is_ascii_digit());
    let prefix = if allowed { "" } else { "_" };
    format!("{prefix}{}", name.to_ascii_uppercase())
}
// ANCHOR_END: code

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;

    use opentelemetry::KeyValue;
    use opentelemetry::baggage::BaggageExt as _;
    use opentelemetry::trace::{
        FutureExt as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags,
        TraceId, TraceState,
    };

    use super::*;

    #[test]
    fn a_variable_has_the_name_that_the_specification_gives_it() {
        let fields = [
            "traceparent",
            "x-b3-traceid",
            "uber.trace id",
            "1st",
            "",
            "BAGGAGE",
        ];
        let names = [
            "TRACEPARENT",
            "X_B3_TRACEID",
            "UBER_TRACE_ID",
            "_1ST",
            "_",
            "BAGGAGE",
        ];
        assert_eq!(fields.map(variable), names);
    }

    #[test]
    fn only_variables_with_such_a_name_are_fields() {
        let variables = ["TRACEPARENT", "x-b3-traceid", "lower_case", "_1ST"];
        let variables = variables.map(|name| (name.to_owned(), String::new()));
        let carrier = EnvironmentExtractor(HashMap::from(variables));
        let mut keys = carrier.keys();
        keys.sort_unstable();
        assert_eq!(keys, ["TRACEPARENT", "_1ST"]);
        assert_eq!(carrier.get("x-b3-traceid"), None);
    }

    /// The variables of a child that is started in this context. `None` removes what
    /// it would inherit.
    async fn injected(cx: Context) -> BTreeMap<String, Option<String>> {
        production::telemetry::set_propagator();
        let mut command = Command::new("true");
        async { inject(&mut command) }.with_context(cx).await;
        let text = |it: &OsStr| it.to_str().expect("text").to_owned();
        let changes = command.as_std().get_envs();
        changes
            .map(|(name, value)| (text(name), value.map(text)))
            .collect()
    }

    #[tokio::test]
    async fn a_child_gets_the_context_as_variables() {
        let (trace, span) = (TraceId::from(0xa), SpanId::from(0xb));
        let ids = SpanContext::new(
            trace,
            span,
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        let cx = Context::new().with_remote_span_context(ids);
        let cx = cx.with_baggage([KeyValue::new("tenant", "a")]);
        let child = injected(cx).await;
        let expected = "00-0000000000000000000000000000000a-000000000000000b-01";
        assert_eq!(child["TRACEPARENT"].as_deref(), Some(expected));
        assert_eq!(child["BAGGAGE"].as_deref(), Some("tenant=a"));
    }

    /// Otherwise the child would inherit them from this process.
    #[tokio::test]
    async fn a_child_does_not_inherit_an_older_context() {
        let child = injected(Context::new()).await;
        let removed =
            ["BAGGAGE", "TRACEPARENT", "TRACESTATE"].map(|it| (it.to_owned(), None));
        assert_eq!(child, BTreeMap::from(removed));
    }
}
