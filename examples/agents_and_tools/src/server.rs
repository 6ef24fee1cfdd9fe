//! Tracing for an MCP server: a SERVER span for each request.

use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, SpanKind, TraceContextExt as _};
use production::settings;
use rmcp::model::{CallToolRequestParams, CallToolResponse};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use crate::meta;
use crate::span::McpSpan;

/// How the requests of a server are traced.
pub struct Tracing {
    /// Whether a request may continue the trace of its sender.
    is_trusting: bool,
    /// Whether arguments and results may be recorded on spans.
    record_content: bool,
}

impl Tracing {
    /// Continues the traces of all clients, unless `MCP_PUBLIC=true`.
    pub fn from_env() -> Self {
        Tracing {
            is_trusting: !settings::flag("MCP_PUBLIC"),
            record_content: settings::flag(
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            ),
        }
    }

    /// Runs `work` inside the span of a `tools/call`. `tool` is the name in `params`
    /// if this server has such a tool.
    ///
    /// # Errors
    /// Whatever `work` returns, and if the request is cancelled.
    pub async fn call_tool(
        &self,
        tool: Option<&str>,
        params: &CallToolRequestParams,
        request: &RequestContext<RoleServer>,
        work: impl Future<Output = Result<CallToolResponse, ErrorData>>,
    ) -> Result<CallToolResponse, ErrorData> {
        let span = self.start("tools/call", tool, request);
        if self.record_content {
            span.set_content("gen_ai.tool.call.arguments", &params.arguments);
        }
        let result = run(&span, request, work).await;
        if let Ok(CallToolResponse::Complete(result)) = &result {
            span.finish(result);
            if self.record_content {
                span.set_content("gen_ai.tool.call.result", result);
            }
        }
        result
    }

    /// Runs `work` inside the span of any other request.
    ///
    /// # Errors
    /// Whatever `work` returns, and if the request is cancelled.
    pub async fn request<Answer>(
        &self,
        method: &'static str,
        request: &RequestContext<RoleServer>,
        work: impl Future<Output = Result<Answer, ErrorData>>,
    ) -> Result<Answer, ErrorData> {
        let span = self.start(method, None, request);
        run(&span, request, work).await
    }

    // ANCHOR: start
    fn start(
        &self,
        method: &'static str,
        tool: Option<&str>,
        request: &RequestContext<RoleServer>,
    ) -> McpSpan {
        let sender = meta::extract(&request.meta);
        let parent = match self.is_trusting {
            true => sender.clone(),
            false => Context::new(),
        };
        let span = McpSpan::start(SpanKind::Server, method, tool, &parent);
        if !self.is_trusting {
            span.link(sender.span().span_context());
        }
        span.set("jsonrpc.request.id", request.id.to_string());
        if let Some(version) = request.protocol_version() {
            span.set("mcp.protocol.version", version.to_string());
        }
        match request.extensions.get::<Parts>() {
            Some(http) => {
                span.set("network.transport", "tcp");
                span.set("network.protocol.name", "http");
                if let Some(cx) = http.extensions.get::<Context>() {
                    span.link(cx.span().span_context());
                }
            }
            None => span.set("network.transport", "pipe"),
        }
        span
    }
    // ANCHOR_END: start
}

// ANCHOR: run
/// Runs `work` until it ends or the client cancels the request.
async fn run<Answer>(
    span: &McpSpan,
    request: &RequestContext<RoleServer>,
    work: impl Future<Output = Result<Answer, ErrorData>>,
) -> Result<Answer, ErrorData> {
    let result = tokio::select! {
        result = work.with_context(span.context()) => result,
        () = request.ct.cancelled() => {
            span.set("one_trace.end", "cancelled");
            return Err(ErrorData::internal_error("cancelled", None));
        }
    };
    if let Err(error) = &result {
        span.refuse(error);
    }
    result
}
// ANCHOR_END: run

// ANCHOR: keep
/// Stores the span of the HTTP request where the handlers find it. They run on tasks
/// of their own, where it isn't the current one.
pub async fn keep_http_context(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Context::current());
    next.run(request).await
}
// ANCHOR_END: keep
