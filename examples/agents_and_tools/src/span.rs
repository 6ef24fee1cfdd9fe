//! The spans of one request, after OpenTelemetry's conventions for MCP.

use opentelemetry::trace::{
    SpanContext, SpanKind, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use production::telemetry::{MESSAGE_LIMIT, VALUE_LIMIT, cut, record_error, tracer};
use rmcp::ErrorData;
use rmcp::model::CallToolResult;
use serde::Serialize;

/// A span that ends when it is dropped.
pub struct McpSpan(Context);

impl McpSpan {
    /// Starts the span of a request that we send or receive, as a child of `parent`.
    /// `tool` becomes a part of its name, so there must be few of them.
    pub fn start(
        kind: SpanKind,
        method: &'static str,
        tool: Option<&str>,
        parent: &Context,
    ) -> Self {
        let mut name = method.to_owned();
        let mut attributes = vec![KeyValue::new("mcp.method.name", method)];
        if method == "tools/call" {
            attributes.push(KeyValue::new("gen_ai.operation.name", "execute_tool"));
        }
        if let Some(tool) = tool {
            name = format!("{method} {tool}");
            attributes.push(KeyValue::new("gen_ai.tool.name", tool.to_owned()));
        }
        let tracer = tracer();
        let span = tracer
            .span_builder(name)
            .with_kind(kind)
            .with_attributes(attributes)
            .start_with_context(&tracer, parent);
        McpSpan(parent.with_span(span))
    }

    /// With this span as the current one.
    pub fn context(&self) -> Context {
        self.0.clone()
    }

    /// Sets an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// Sets an attribute to arguments or a result, as JSON.
    pub fn set_content(&self, key: &'static str, content: &impl Serialize) {
        if let Ok(json) = serde_json::to_string(content) {
            self.set(key, cut(&json, MESSAGE_LIMIT));
        }
    }

    /// Links the span to another one, if there is any.
    pub fn link(&self, other: &SpanContext) {
        if other.is_valid() {
            self.0.span().add_link(other.clone(), Vec::new());
        }
    }

    /// Marks the request as failed if the tool says that it has. For JSON-RPC, this
    /// is a result like any other.
    pub fn finish(&self, result: &CallToolResult) {
        if result.is_error == Some(true) {
            self.fail("tool_error", String::new());
        }
    }

    /// Marks the request as answered with an error of JSON-RPC.
    pub fn refuse(&self, error: &ErrorData) {
        let code = error.code.0.to_string();
        self.set("rpc.response.status_code", code.clone());
        self.fail(code, cut(&error.message, VALUE_LIMIT));
    }

    /// Marks the request as failed.
    pub fn fail(&self, error_type: impl Into<Value>, message: String) {
        record_error(&self.0.span(), error_type, message);
    }
}

impl Drop for McpSpan {
    fn drop(&mut self) {
        self.0.span().end();
    }
}
