//! An agent and its tools in one trace, over HTTP and over the pipes of a child process; whose context is taken, how a call ended, and
//! what isn't recorded. The peers in Python are the official SDK.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use course::services::{Plan, Service};
use lab::span::{Span, SpanKind};
use lab::tree::Tree;
use lab::wire::Wire;
use serde_json::{Value, json};
use support::recording::{check, figures};
use support::{
    Log, Stopped, client, has_attributes, in_order, json_of, lacks, plan, receiver, root, shape,
    shapes, span, within_reason,
};
use tokio::process::Command;
use tokio::sync::OnceCell;
use traces::model_call::ModelCall;
use traces::model_call::messages::{Conversation, Part};

use super::component::{Component, compile, installed};
use super::example::{free_address, sent};

const EXAMPLE: &str = "examples/agents_and_tools";

/// The context of a client that isn't ours, in `_meta` and in a header.
const META: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Lets arguments, results and messages onto spans.
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// An hour in milliseconds: longer than any test.
const HOUR: u32 = 3_600_000;

const WHOLE: &str = "\
POST /ask SERVER agent-service http 200
  invoke_agent weather INTERNAL agent-service
    chat offline INTERNAL agent-service
    tools/call get_weather CLIENT agent-service
      tools/call get_weather SERVER tool-server
        look up INTERNAL tool-server
    chat offline INTERNAL agent-service
";

/// The programs of the example, compiled once.
async fn built() -> &'static Path {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_init(async || compile(&root().join(EXAMPLE), "agents_and_tools")).await
}

/// A running agent, its tool server if that isn't a child of the agent, and what they have exported.
struct Agent {
    agent: Service,
    server: Option<Service>,
    stopped: Stopped,
}

impl Agent {
    /// With a tool server that is a child process, unless `settings` name another command.
    async fn over_pipes(settings: &[(&str, &str)]) -> Agent {
        let (store, backend) = receiver().await;
        let stopped = Stopped { store, wire: Wire::default(), log: Log::default() };
        let plan = with(plan(built().await, "agent-service", backend), settings);
        let agent = Service::start(plan, stopped.log.sink()).await.expect("the agent starts");
        Agent { agent, server: None, stopped }
    }

    /// With a tool server that is a service of its own.
    async fn over_http(settings: &[(&str, &str)]) -> Agent {
        let Server { service, stopped, backend } = Server::start(settings).await;
        let plan = plan(built().await, "agent-service", backend)
            .with("TOOL_SERVER_URL", format!("http://{}/mcp", service.address));
        let plan = with(plan, settings);
        let agent = Service::start(plan, stopped.log.sink()).await.expect("the agent starts");
        Agent { agent, server: Some(service), stopped }
    }

    /// The status of an answer, and its text or why there is none.
    async fn ask(&self, question: &str) -> (u16, String) {
        let url = format!("http://{}/ask", self.agent.address);
        let request = client().post(url).json(&json!({ "question": question }));
        let (status, body) = json_of(within_reason(request.send()).await.expect("an answer")).await;
        let text = body["answer"].as_str().or(body["error"].as_str()).expect("text");
        (status, text.to_owned())
    }

    /// Stops both, which flushes their spans.
    async fn stop(self) -> Stopped {
        self.agent.stop().await;
        if let Some(server) = self.server {
            server.stop().await;
        }
        self.stopped
    }
}

/// A tool server alone, over HTTP.
struct Server {
    service: Service,
    stopped: Stopped,
    backend: SocketAddr,
}

impl Server {
    async fn start(settings: &[(&str, &str)]) -> Server {
        let (store, backend) = receiver().await;
        let stopped = Stopped { store, wire: Wire::default(), log: Log::default() };
        let plan = with(plan(built().await, "tool-server", backend), settings);
        let service = Service::start(plan, stopped.log.sink()).await.expect("the server starts");
        Server { service, stopped, backend }
    }

    async fn call(&self, tool: &str, meta: Value) -> Value {
        request(self.service.address, tool, meta).await
    }

    async fn stop(self) -> Stopped {
        self.service.stop().await;
        self.stopped
    }
}

/// Calls a tool of a server as a client that isn't ours, with these keys in `_meta`. Returns the answer.
async fn request(server: SocketAddr, tool: &str, meta: Value) -> Value {
    let mut body = json!({
        "jsonrpc": "2.0", "id": "id-1", "method": "tools/call",
        "params": { "name": tool, "arguments": { "city": "Paris" }, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    let own = body["params"]["_meta"].as_object_mut().expect("an object");
    own.extend(meta.as_object().cloned().expect("an object"));
    let request = client()
        .post(format!("http://{server}/mcp"))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .header("traceparent", HEADER)
        .json(&body);
    let answer = within_reason(request.send()).await.expect("an answer");
    within_reason(answer.json()).await.expect("JSON")
}

fn with(plan: Plan, settings: &[(&str, &str)]) -> Plan {
    settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value))
}

/// The traces that begin with a span of this name.
fn named(trees: Vec<Tree>, name: &str) -> Vec<Tree> {
    let trees = in_order(trees);
    trees.into_iter().filter(|tree| tree.rows[0].span.name() == name).collect()
}

/// The trace of the only question.
fn question(stopped: &Stopped) -> Tree {
    let mut trees = named(stopped.trees(), "POST /ask");
    assert_eq!(trees.len(), 1, "{}", stopped.shapes());
    trees.remove(0)
}

/// The span of the tool's call on each side.
fn call(tree: &Tree, kind: SpanKind) -> &Span {
    span(tree, "tools/call get_weather", kind)
}

/// The span of the call that the tool server has answered, wherever it is.
fn served(trees: &[Tree]) -> &Span {
    let spans = trees.iter().flat_map(|tree| &tree.rows).map(|row| &*row.span);
    let mut calls =
        spans.filter(|it| it.name().starts_with("tools/call") && it.kind() == SpanKind::Server);
    calls.next().unwrap_or_else(|| panic!("no call in:\n{}", shapes(trees)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_tool_in_a_child_process_are_one_trace() {
    let agent = Agent::over_pipes(&[("OTEL_SERVICE_NAME", "agent-service")]).await;
    let answer = agent.ask("What is the weather in Paris?").await;
    assert_eq!(answer, (200, "The tool says: 18 °C and rain".to_owned()));
    let stopped = agent.stop().await;
    let tree = question(&stopped);
    let list = "tools/list CLIENT agent-service\n  tools/list SERVER tool-server\n";
    assert_eq!(stopped.shapes(), format!("{list}\n{WHOLE}"));
    let both = "mcp.method.name=tools/call gen_ai.operation.name=execute_tool \
                gen_ai.tool.name=get_weather mcp.protocol.version=2026-07-28 \
                network.transport=pipe mcp.session.id=(none)";
    let (client, server) = (call(&tree, SpanKind::Client), call(&tree, SpanKind::Server));
    has_attributes(client, both);
    has_attributes(server, both);
    let id = client.attribute("jsonrpc.request.id");
    assert!(id.is_some() && id == server.attribute("jsonrpc.request.id"), "{id:?}");
    assert!(server.links.is_empty());
    check!("agents-and-tools/whole.html", &figures(&[tree]));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_each_request_has_a_trace_of_its_own_with_a_link_to_it() {
    let agent = Agent::over_http(&[]).await;
    assert_eq!(agent.ask("What is the weather in Oslo?").await.0, 200);
    let stopped = agent.stop().await;
    let tree = question(&stopped);
    assert_eq!(shape(&tree), WHOLE);
    let client = call(&tree, SpanKind::Client);
    has_attributes(
        client,
        "network.transport=tcp network.protocol.name=http server.address=127.0.0.1",
    );
    let server = call(&tree, SpanKind::Server);
    has_attributes(server, "network.transport=tcp network.protocol.name=http");
    // Which server this is, which tools it has, and the call.
    let mut posts = named(stopped.trees(), "POST /mcp");
    assert_eq!(shapes(&posts), ["POST /mcp SERVER tool-server http 200\n"; 3].join("\n"));
    let post = posts.pop().expect("the last");
    assert_eq!(*server.links, [(post.trace_id, post.rows[0].span.id)]);
    check!("agents-and-tools/http.html", &figures(&[tree, post]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_in_meta_is_the_parent_and_the_one_of_http_a_link() {
    let server = Server::start(&[]).await;
    let answer = server.call("get_weather", json!({ "traceparent": META })).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    let stopped = server.stop().await;
    let tree = stopped.tree("0af7651916cd43dd8448eb211c80319c");
    let expected = "\
tools/call get_weather SERVER tool-server
  look up INTERNAL tool-server
";
    assert_eq!(shape(&tree), expected);
    let called = served(std::slice::from_ref(&tree));
    assert_eq!(called.parent.map(|id| id.to_string()).as_deref(), Some("b7ad6b7169203331"));
    has_attributes(called, "jsonrpc.request.id=id-1");
    let http = stopped.tree("4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(shape(&http), "POST /mcp SERVER tool-server http 200\n");
    assert_eq!(*called.links, [(http.trace_id, http.rows[0].span.id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_server_begins_its_own_traces_with_a_link_to_the_sender() {
    let server = Server::start(&[("MCP_PUBLIC", "true")]).await;
    server.call("get_weather", json!({ "traceparent": META, "baggage": "tenant=acme" })).await;
    let trees = server.stop().await.trees();
    let called = served(&trees);
    assert_eq!(called.parent, None);
    let links: Vec<String> = called.links.iter().map(|(trace, _)| trace.to_string()).collect();
    assert_eq!(links[0], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(links.len(), 2, "that of HTTP too");
}

/// Each of them is answered, under a trace of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_is_invalid_or_too_long_is_ignored() {
    let invalid = [
        json!({ "traceparent": "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01" }),
        json!({ "traceparent": 1 }),
        json!({ "traceparent": "x".repeat(1_000_000) }),
    ];
    for meta in invalid {
        let server = Server::start(&[]).await;
        let answer = server.call("get_weather", meta).await;
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        assert_eq!(served(&server.stop().await.trees()).parent, None);
    }
    for (members, kept) in [(20, true), (100_000, false)] {
        let server = Server::start(&[]).await;
        let long: Vec<String> = (0..members).map(|member| format!("k{member}=x")).collect();
        let long = long.join(",");
        let meta = json!({ "traceparent": META, "tracestate": long, "baggage": long });
        server.call("get_weather", meta).await;
        let trees = server.stop().await.trees();
        let called = served(&trees);
        assert_eq!(called.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(!called.proto().trace_state.is_empty(), kept);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tool_is_an_error_of_json_rpc_and_names_no_span() {
    let server = Server::start(&[]).await;
    let answer = server.call("tool-48151", json!({ "traceparent": META })).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let stopped = server.stop().await;
    let tree = stopped.tree("0af7651916cd43dd8448eb211c80319c");
    assert_eq!(shape(&tree), "tools/call SERVER tool-server error -32602\n");
    lacks(&sent(&tree), ["tool-48151"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_fails_is_an_error_of_both_spans_and_no_failure_of_the_agent() {
    let agent = Agent::over_pipes(&[]).await;
    let answer = agent.ask("What is the weather in Atlantis?").await;
    assert_eq!(answer, (200, "The tool says: no weather for this city".to_owned()));
    let tree = question(&agent.stop().await);
    let failed = "error agents_and_tools::weather::NoWeather";
    let expected = WHOLE
        .replace("CLIENT agent-service", "CLIENT agent-service error tool_error")
        .replace("weather SERVER tool-server", "weather SERVER tool-server error tool_error")
        .replace("look up INTERNAL tool-server", &format!("look up INTERNAL tool-server {failed}"));
    assert_eq!(shape(&tree), expected);
    has_attributes(call(&tree, SpanKind::Client), "rpc.response.status_code=(none)");
    check!("agents-and-tools/tool-error.html", &figures(&[tree]));
}

/// The model asks without a city.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_json_rpc_has_its_code_on_both_spans_and_fails_the_agent() {
    let agent = Agent::over_pipes(&[]).await;
    assert_eq!(agent.ask("?").await.0, 502);
    let tree = question(&agent.stop().await);
    let expected = "\
POST /ask SERVER agent-service http 502 error 502
  invoke_agent weather INTERNAL agent-service error invalid_answer
    chat offline INTERNAL agent-service
    tools/call get_weather CLIENT agent-service error -32602
      tools/call get_weather SERVER tool-server error -32602
";
    assert_eq!(shape(&tree), expected);
    for kind in [SpanKind::Client, SpanKind::Server] {
        has_attributes(call(&tree, kind), "rpc.response.status_code=-32602");
        assert_eq!(call(&tree, kind).status_message(), "no city");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_cancelled_on_the_server() {
    let pause = HOUR.to_string();
    let settings = [("TOOL_TIMEOUT_MS", "1000"), ("TOOL_PAUSE_MS", &*pause)];
    let expected = "\
POST /ask SERVER agent-service http 504 error 504
  invoke_agent weather INTERNAL agent-service error timeout
    chat offline INTERNAL agent-service
    tools/call get_weather CLIENT agent-service error timeout
      tools/call get_weather SERVER tool-server
        look up INTERNAL tool-server
";
    let ways = [Agent::over_pipes(&settings).await, Agent::over_http(&settings).await];
    for agent in ways {
        assert_eq!(agent.ask("What is the weather in Paris?").await.0, 504);
        let tree = question(&agent.stop().await);
        assert_eq!(shape(&tree), expected);
        has_attributes(call(&tree, SpanKind::Server), "one_trace.end=cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tool_server_the_call_is_unreachable() {
    let mut agent = Agent::over_http(&[]).await;
    agent.server.take().expect("a service of its own").stop().await;
    assert_eq!(agent.ask("What is the weather in Paris?").await.0, 502);
    let tree = question(&agent.stop().await);
    let call = "    tools/call get_weather CLIENT agent-service error unreachable\n";
    assert!(shape(&tree).ends_with(call), "{}", shape(&tree));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_ours_gets_no_context() {
    let agent = Agent::over_pipes(&[("TOOL_SERVER_IS_OURS", "false")]).await;
    assert_eq!(agent.ask("What is the weather in Paris?").await.0, 200);
    let stopped = agent.stop().await;
    let call = "tools/call get_weather SERVER tool-server\n  look up INTERNAL tool-server\n";
    assert_eq!(shapes(&named(stopped.trees(), "tools/call get_weather")), call);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_results_are_recorded_only_where_we_ask_for_it() {
    for captured in [false, true] {
        let value = captured.to_string();
        let agent = Agent::over_http(&[(CAPTURE, &value)]).await;
        assert_eq!(agent.ask("What is the weather in Paris?").await.0, 200);
        let tree = question(&agent.stop().await);
        let all = sent(&tree);
        let secrets = ["Paris", "and rain"].map(|it| all.contains(it));
        assert_eq!(secrets, [captured; 2]);
        if captured {
            for kind in [SpanKind::Client, SpanKind::Server] {
                let arguments = r#"gen_ai.tool.call.arguments={"city":"Paris"}"#;
                has_attributes(call(&tree, kind), arguments);
                assert!(call(&tree, kind).attribute("gen_ai.tool.call.result").is_some());
            }
            // The lab shows the second call of the model as a conversation.
            let mut chats = tree.rows.iter().filter(|row| row.span.name() == "chat offline");
            let chat = &chats.next_back().expect("two").span;
            let proto = chat.proto();
            let call = ModelCall::read(&proto).expect("a call of a model");
            let said = Conversation::read(&call, &proto, []);
            let parts: Vec<&Part> = said.messages.iter().flat_map(|it| &it.parts).collect();
            let [
                Part::Text { .. },
                Part::ToolCall { name, .. },
                Part::ToolResult { text, .. },
                Part::Text { .. },
            ] = &parts[..]
            else {
                panic!("{parts:?}");
            };
            assert_eq!((&**name, &**text), ("get_weather", "18 °C and rain"));
        }
    }
}

/// A program in Python with the official SDK.
fn python(program: &str) -> Option<Vec<String>> {
    let python = installed("mcp")?.join("bin/python");
    let program = root().join(EXAMPLE).join("python").join(program);
    Some([python, program].map(|it| it.to_str().expect("text").to_owned()).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_continues_our_trace() {
    let Some(command) = python("tool_server.py") else {
        return;
    };
    let agent = Agent::over_pipes(&[("TOOL_SERVER_COMMAND", &command.join(" "))]).await;
    assert_eq!(agent.ask("What is the weather in Paris?").await.0, 200);
    let tree = question(&agent.stop().await);
    let own = "        look up INTERNAL tool-server\n";
    assert_eq!(shape(&tree), WHOLE.replace(own, ""));
    let server = call(&tree, SpanKind::Server);
    has_attributes(server, "gen_ai.tool.name=get_weather network.transport=(none)");
    assert_eq!(server.source.scope.name, "mcp-python-sdk");
}

/// Its CLIENT span has another name than the conventions give it.
#[tokio::test(flavor = "multi_thread")]
async fn we_continue_the_trace_of_the_python_sdk() {
    let Some(mut command) = python("call_tool.py") else {
        return;
    };
    command.push("Paris".to_owned());
    let server = Server::start(&[]).await;
    let url = format!("http://{}/mcp", server.service.address);
    let printed = run(&command, server.backend, &[("TOOL_SERVER_URL", &url)]).await;
    assert_eq!(printed, "18 °C and rain\n");
    let stopped = server.stop().await;
    let expected = "\
invoke_agent weather INTERNAL python-agent
  MCP send tools/call get_weather CLIENT python-agent
    tools/call get_weather SERVER tool-server
      look up INTERNAL tool-server
  MCP send tools/list CLIENT python-agent
    tools/list SERVER tool-server
";
    let trees = named(stopped.trees(), "invoke_agent weather");
    assert_eq!(shapes(&trees), expected);
    check!("agents-and-tools/python.html", &figures(&trees));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_marks_a_tool_that_fails_only_on_the_server() {
    let (Some(client), Some(server)) = (python("call_tool.py"), python("tool_server.py")) else {
        return;
    };
    let (store, backend) = receiver().await;
    let command = [client, vec!["Atlantis".to_owned()], server].concat();
    assert_eq!(run(&command, backend, &[]).await, "Error executing tool get_weather\n");
    let expected = "\
invoke_agent weather INTERNAL python-agent
  MCP send tools/call get_weather CLIENT python-agent
    tools/call get_weather SERVER tool-server error tool_error
";
    assert_eq!(shapes(&named(store.trees(), "invoke_agent weather")), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_names_a_span_after_whatever_tool_is_asked_for() {
    let Some(command) = python("tool_server.py") else {
        return;
    };
    let (store, backend) = receiver().await;
    let address = free_address();
    let mut server = Command::new(&command[0]);
    server.args(&command[1..]).env("TOOL_SERVER_PORT", address.port().to_string());
    server.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"));
    let server = Component::start(server, "Uvicorn running").await;
    let answer = request(address, "tool-48151", json!({ "traceparent": META })).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    server.stop("-TERM").await;
    let expected = "tools/call tool-48151 SERVER tool-server error tool_error\n";
    assert_eq!(shapes(&store.trees()), expected);
}

/// Runs a program to its end. Returns what it printed.
async fn run(command: &[String], backend: SocketAddr, settings: &[(&str, &str)]) -> String {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).envs(settings.iter().copied()).kill_on_drop(true);
    child.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"));
    child.env("NO_PROXY", "127.0.0.1").env("PYTHONUTF8", "1");
    let output = within_reason(child.output()).await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
