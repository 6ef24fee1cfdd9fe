//! Tracing for an MCP client: a CLIENT span for each request, and its context in
//! `_meta`.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{FutureExt as _, SpanKind};
use production::error::CallError;
use production::settings;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest,
    JsonObject, ListToolsRequest, ProtocolVersion, RequestMetaObject, ServerResult,
    Tool,
};
use rmcp::service::{PeerRequestOptions, RunningService};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, Peer, RoleClient, ServiceError,
};
use tokio::process::Command;

use crate::meta;
use crate::span::McpSpan;

/// How long a tool may take, unless `TOOL_TIMEOUT_MS` says otherwise.
const DEADLINE: Duration = Duration::from_secs(8);

/// A connection to a tool server. Cancel it before the process ends: then a child
/// process can flush its last spans.
pub type Connection = RunningService<RoleClient, ()>;

/// The tools of a server.
pub struct Tools {
    peer: Peer<RoleClient>,
    /// Host and port of a server that we reach over HTTP.
    server: Option<(String, u16)>,
    deadline: Duration,
    /// Whether the server is ours and gets the context of our traces.
    is_ours: bool,
    record_content: bool,
}

impl Tools {
    /// Connects to `TOOL_SERVER_URL`, or starts `TOOL_SERVER_COMMAND` as a child
    /// process. `TOOL_SERVER_IS_OURS=false` keeps our context from the server.
    ///
    /// # Errors
    /// When a variable can't be used, or there is no such server.
    pub async fn connect() -> anyhow::Result<(Self, Connection)> {
        let lifecycle = ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::LATEST],
            legacy_version: None,
        };
        let (connection, server) = match settings::optional("TOOL_SERVER_URL") {
            Some(_) => {
                let url = settings::server_url("TOOL_SERVER_URL", "")?;
                let host = url.host_str().unwrap_or_default().to_owned();
                let port = url.port_or_known_default().unwrap_or_default();
                let transport =
                    StreamableHttpClientTransport::from_uri(url.as_str());
                let connection =
                    ().serve_with_lifecycle(transport, lifecycle).await?;
                (connection, Some((host, port)))
            }
            None => {
                let transport = TokioChildProcess::new(child()?)?;
                (().serve_with_lifecycle(transport, lifecycle).await?, None)
            }
        };
        let tools = Tools {
            peer: connection.peer().clone(),
            server,
            deadline: settings::deadline("TOOL_TIMEOUT_MS", DEADLINE)?,
            is_ours: settings::read("TOOL_SERVER_IS_OURS", true)?,
            record_content: settings::flag(
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            ),
        };
        Ok((tools, connection))
    }

    /// Asks which tools there are.
    ///
    /// # Errors
    /// When the server doesn't answer, or with an error.
    pub async fn list(&self) -> Result<Vec<Tool>, CallError> {
        let span = self.start("tools/list", None);
        let request = ListToolsRequest::default();
        let request = ClientRequest::ListToolsRequest(request);
        match self.send(&span, request).await? {
            ServerResult::ListToolsResult(result) => Ok(result.tools),
            _ => Err(CallError::InvalidAnswer),
        }
    }

    /// Calls a tool, which may report that it has failed.
    ///
    /// # Errors
    /// When the server doesn't answer, or with an error.
    pub async fn call(
        &self,
        tool: &Tool,
        arguments: JsonObject,
    ) -> Result<CallToolResult, CallError> {
        let span = self.start("tools/call", Some(&tool.name));
        if self.record_content {
            span.set_content("gen_ai.tool.call.arguments", &arguments);
        }
        let params = CallToolRequestParams::new(tool.name.clone());
        let params = params.with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let result = match self.send(&span, request).await? {
            ServerResult::CallToolResult(result) => result,
            _ => return Err(CallError::InvalidAnswer),
        };
        span.finish(&result);
        if self.record_content {
            span.set_content("gen_ai.tool.call.result", &result);
        }
        Ok(result)
    }

    fn start(&self, method: &'static str, tool: Option<&str>) -> McpSpan {
        let span =
            McpSpan::start(SpanKind::Client, method, tool, &Context::current());
        if let Some(info) = self.peer.peer_info() {
            span.set("mcp.protocol.version", info.protocol_version.to_string());
        }
        match &self.server {
            Some((host, port)) => {
                span.set("network.transport", "tcp");
                span.set("network.protocol.name", "http");
                span.set("server.address", host.clone());
                span.set("server.port", i64::from(*port));
            }
            None => span.set("network.transport", "pipe"),
        }
        span
    }

    // ANCHOR: send
    async fn send(
        &self,
        span: &McpSpan,
        request: ClientRequest,
    ) -> Result<ServerResult, CallError> {
        let answer = async {
            let mut meta = RequestMetaObject::new();
            if self.is_ours {
                meta::inject(&mut meta);
            }
            let options = PeerRequestOptions::with_timeout(self.deadline);
            let options = options.with_meta(meta);
            let sent = self.peer.send_request_with_option(request, options).await?;
            span.set("jsonrpc.request.id", sent.id.to_string());
            sent.await_response().await
        };
        let answer = answer.with_context(span.context()).await;
        answer.map_err(|error| match error {
            ServiceError::McpError(error) => {
                span.refuse(&error);
                CallError::InvalidAnswer
            }
            ServiceError::Timeout { .. } => {
                span.fail("timeout", String::new());
                CallError::Timeout
            }
            _ => {
                span.fail("unreachable", String::new());
                CallError::Unreachable
            }
        })
    }
    // ANCHOR_END: send
}

/// The command of a server that runs as our child: `tool_server` beside this program
/// unless `TOOL_SERVER_COMMAND` names another.
fn child() -> anyhow::Result<Command> {
    let own = std::env::current_exe()?.with_file_name("tool_server");
    let command: String = settings::read("TOOL_SERVER_COMMAND", "")?;
    let mut words = command.split_whitespace();
    let mut child = match words.next() {
        Some(program) => Command::new(program),
        None => Command::new(own),
    };
    // It inherits the settings of telemetry, but it has a name of its own.
    child.args(words).env_remove("OTEL_SERVICE_NAME");
    Ok(child)
}
