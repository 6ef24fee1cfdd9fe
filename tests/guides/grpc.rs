//! A trace goes through gRPC calls as through HTTP requests. Its spans have the status of each call, which comes last: after a
//! stream, a deadline or a hang-up.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::{Json, Router};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use grpc::generated::llm_client::LlmClient;
use grpc::generated::llm_server::{Llm, LlmServer};
use grpc::generated::{Answer, Prompt, Word};
use grpc::llm_service::METHODS;
use lab::span::{Span, SpanKind};
use lab::tree::Tree;
use opentelemetry::trace::{Status as SpanStatus, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tower_otel::trace::GrpcLayer;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::collector::source;
use super::example::{binaries, header};
use support::recording::recorded;
use support::{
    FREE, Setup, System, client, has_attributes, hung, in_order, query, refused, serve, span,
    within_reason,
};

const UNARY: &str = "one_trace.Llm/Generate";
const STREAM: &str = "one_trace.Llm/GenerateStream";

async fn setup() -> Setup {
    binaries().await;
    let setup = Setup::default().run_by("user-service", "grpc_user_service");
    setup.run_by("llm-service", "grpc_llm_service")
}

/// Asks user-service for an answer word by word.
async fn words(system: &System) -> reqwest::Result<reqwest::Response> {
    let body = json!({ "query": "What is a trace?" });
    let url = format!("http://{}/process/stream", system.user.address);
    within_reason(client().post(url).json(&body).send()).await
}

/// The attributes of the gRPC spans of a tree, of the caller and of the called.
fn sides<'a>(tree: &'a Tree, method: &str) -> [&'a Span; 2] {
    [SpanKind::Client, SpanKind::Server].map(|kind| span(tree, method, kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_http_and_grpc_is_one_trace() {
    let stopped = setup().await.answers("user_1", 200).await;
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /process SERVER user-service http 200
      one_trace.Llm/Generate CLIENT user-service
        one_trace.Llm/Generate SERVER llm-service
          chat offline INTERNAL llm-service
";
    let trees = stopped.compare(recorded!("grpc/one-trace.html"), expected);
    let [caller, called] = sides(&trees[0], UNARY);
    let common = "rpc.system.name=grpc rpc.method=one_trace.Llm/Generate \
        rpc.response.status_code=OK error.type=(none) ";
    has_attributes(called, common);
    has_attributes(caller, &format!("{common} server.address=127.0.0.1"));
    assert!(caller.attribute("server.port").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_thing_is_an_error_of_the_caller_alone() {
    let setup = setup().await.with("user-service", "LLM_MODEL", "unknown");
    let stopped = setup.answers("user_1", 502).await;
    let expected = "\
POST /api/query SERVER api-gateway http 502 error 502
  POST /process CLIENT api-gateway http 502 error 502
    POST /process SERVER user-service http 502 error 502
      one_trace.Llm/Generate CLIENT user-service error NOT_FOUND
        one_trace.Llm/Generate SERVER llm-service
";
    let trees = stopped.compare(recorded!("grpc/not-found.html"), expected);
    for side in sides(&trees[0], UNARY) {
        has_attributes(side, "rpc.response.status_code=NOT_FOUND");
    }
}

/// The model's server answers with something else than an answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_in_the_service_is_an_error_of_both() {
    let odd = Router::new().fallback(async || Json(json!({ "odd": true })));
    let setup = setup().await.with_model(serve(odd).await, "odd");
    let tree = setup.answers("user_1", 502).await.only_tree();
    for side in sides(&tree, UNARY) {
        has_attributes(side, "rpc.response.status_code=INTERNAL error.type=INTERNAL");
        assert!(side.is_error());
    }
}

/// tonic answers CANCELLED in this case.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_in_both_spans() {
    let setup = setup().await.with_model(hung().await.0, "hung");
    let setup = setup.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 1_000);
    let stopped = setup.answers("user_1", 504).await;
    let expected = "\
POST /api/query SERVER api-gateway http 504 error 504
  POST /process CLIENT api-gateway http 504 error 504
    POST /process SERVER user-service http 504 error 504
      one_trace.Llm/Generate CLIENT user-service error DEADLINE_EXCEEDED
        one_trace.Llm/Generate SERVER llm-service error DEADLINE_EXCEEDED
          chat hung CLIENT llm-service
";
    stopped.compare(recorded!("grpc/deadline.html"), expected);
}

/// The answer's span lasts as long as its stream, and the work in the stream is below it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_its_spans_with_its_last_word() {
    let setup = setup().await.with("llm-service", "LLM_WORD_PAUSE_MS", 20);
    let system = setup.start().await;
    let answer = words(&system).await.expect("an answer");
    let answer = within_reason(answer.text()).await.expect("text");
    assert_eq!(answer, "This is the offline model. You asked: What is a trace?");
    let expected = "\
POST /process/stream SERVER user-service http 200
  one_trace.Llm/GenerateStream CLIENT user-service
    one_trace.Llm/GenerateStream SERVER llm-service
      chat offline INTERNAL llm-service
";
    let trees = system.stop().await.compare(recorded!("grpc/stream.html"), expected);
    for side in sides(&trees[0], STREAM) {
        has_attributes(side, "rpc.response.status_code=OK");
        let pauses = Duration::from_millis(20) * 10;
        let duration = Duration::from_nanos(side.duration());
        assert!(duration >= pauses, "{duration:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_reader_leaves_is_cancelled() {
    let setup = setup().await.with("llm-service", "LLM_WORD_PAUSE_MS", 3_600_000);
    let system = setup.start().await;
    let mut answer = words(&system).await.expect("an answer");
    let word = within_reason(answer.chunk()).await.expect("a piece of the answer");
    assert_eq!(word.as_deref(), Some(&b"This "[..]));
    drop(answer);
    let expected = "\
POST /process/stream SERVER user-service http 200
  one_trace.Llm/GenerateStream CLIENT user-service error CANCELLED
    one_trace.Llm/GenerateStream SERVER llm-service
      chat offline INTERNAL llm-service
";
    let trees = system.stop().await.compare(recorded!("grpc/left.html"), expected);
    has_attributes(sides(&trees[0], STREAM)[1], "rpc.response.status_code=CANCELLED");
}

/// tonic leaves the time of a stream to its reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_deadline_too() {
    let setup = setup().await.with("llm-service", "LLM_WORD_PAUSE_MS", 3_600_000);
    let setup = setup.with("user-service", "LLM_SERVICE_TIMEOUT_MS", 1_000);
    let system = setup.start().await;
    let answer = words(&system).await.expect("an answer");
    within_reason(answer.text()).await.expect_err("it breaks off");
    let tree = system.stop().await.only_tree();
    for side in sides(&tree, STREAM) {
        has_attributes(side, "error.type=DEADLINE_EXCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_unavailable() {
    let (nobody, _kept) = refused();
    let tree = setup().await.with_llm_service_at(nobody).answers("user_1", 502).await.only_tree();
    has_attributes(span(&tree, UNARY, SpanKind::Client), "error.type=UNAVAILABLE");
}

/// Names of methods come from callers, and spans must not be named by callers.
#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_the_service_does_not_have_names_no_span() {
    let system = setup().await.start().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", system.llm.address)).expect("a URL");
    let mut grpc = tonic::client::Grpc::new(endpoint.connect_lazy());
    for path in ["/one_trace.Llm/Odd", "/odd.Service/Generate"] {
        grpc.ready().await.expect("it listens");
        let codec = tonic_prost::ProstCodec::<Prompt, Answer>::default();
        let path = path.parse().expect("a path");
        let call = grpc.unary(Request::new(Prompt::default()), path, codec);
        let status = within_reason(call).await.expect_err("it has no such method");
        assert_eq!(status.code(), Code::Unimplemented);
    }
    drop(grpc);
    let stopped = system.stop().await;
    let expected = "grpc SERVER llm-service error UNIMPLEMENTED\n";
    assert_eq!(stopped.shapes(), format!("{expected}\n{expected}"));
    let trees = in_order(stopped.trees());
    for (tree, original) in trees.iter().zip(["one_trace.Llm/Odd", "odd.Service/Generate"]) {
        let span = &tree.rows[0].span;
        has_attributes(span, &format!("rpc.method=_OTHER rpc.method_original={original}"));
    }
}

/// The list of methods that a server gives to the layer.
#[test]
fn the_methods_are_those_of_the_proto_file() {
    let proto = source("examples/grpc/proto/llm.proto");
    let names = proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('('));
    let methods: Vec<String> = names.map(|(name, _)| format!("one_trace.Llm/{name}")).collect();
    assert_eq!(methods, METHODS);
}

/// Baggage of a request over HTTP goes on as metadata, beside the ids of the CLIENT span.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_a_call_is_its_carrier() {
    let (neighbor, mut calls) = neighbor().await;
    let system = setup().await.with_llm_service_at(neighbor).start().await;
    let asked = query(system.gateway.address, "user_1", &[("baggage", "tenant=a")]).send();
    assert_eq!(within_reason(asked).await.expect("an answer").status(), 200);
    let metadata = calls.try_recv().expect("a call");
    assert_eq!(header(&metadata, "baggage"), "tenant=a");
    let tree = system.stop().await.only_tree();
    let caller = span(&tree, UNARY, SpanKind::Client);
    let expected = format!("00-{}-{}-01", tree.trace_id, caller.id);
    assert_eq!(header(&metadata, "traceparent"), expected);
    assert_eq!(header(&metadata, "grpc-timeout"), "9000000u");
}

/// The head of its answer was fine: the status is in the trailers.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_an_error() {
    let system = setup().await.with_llm_service_at(neighbor().await.0).start().await;
    // It breaks off, perhaps before its head has been sent.
    if let Ok(answer) = words(&system).await {
        within_reason(answer.text()).await.expect_err("it breaks off");
    }
    let tree = system.stop().await.only_tree();
    has_attributes(span(&tree, STREAM, SpanKind::Client), "error.type=DATA_LOSS");
}

/// The page's table of ready-made layers: the span of `tower-otel` ends before the trailers come, and has every header.
#[tokio::test]
async fn a_ready_made_layer_misses_the_trailers_and_records_tokens() {
    let spans = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    let bridge = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // This test has one thread, which runs the server too.
    let _subscriber = tracing_subscriber::registry().with(bridge).set_default();
    let layer = |routes: Router| routes.layer(GrpcLayer::server(Level::INFO));
    let (address, _calls) = neighbor_behind(layer).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URL");
    let mut request = Request::new(Prompt::default());
    request.metadata_mut().insert("authorization", "token-48151".parse().expect("text"));
    let mut client = LlmClient::new(endpoint.connect_lazy());
    let answer = within_reason(client.generate_stream(request)).await.expect("a head");
    let mut words = answer.into_inner();
    assert!(within_reason(words.message()).await.expect("a word").is_some());
    let status = within_reason(words.message()).await.expect_err("it fails");
    assert_eq!(status.code(), Code::DataLoss);
    let spans = spans.get_finished_spans().expect("spans");
    let span = spans.iter().find(|it| it.name == STREAM).expect("the layer's span");
    let value = |key: &str| {
        let found = span.attributes.iter().find(|it| it.key.as_str() == key);
        found.map(|it| it.value.to_string()).unwrap_or_default()
    };
    assert_eq!(value("rpc.grpc.status_code"), "0");
    assert_eq!(value("rpc.grpc.request.metadata.authorization"), "token-48151");
    assert_eq!(span.status, SpanStatus::Unset);
}

/// Stands for llm-service: sends the metadata of each call to the test, and fails after the first word of a stream.
struct Neighbor(UnboundedSender<HeaderMap>);

#[tonic::async_trait]
impl Llm for Neighbor {
    async fn generate(&self, request: Request<Prompt>) -> Result<Response<Answer>, Status> {
        let _ = self.0.send(request.metadata().clone().into_headers());
        Ok(Response::new(Answer::default()))
    }

    type GenerateStreamStream = BoxStream<'static, Result<Word, Status>>;

    async fn generate_stream(
        &self,
        _: Request<Prompt>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let words = [Ok(Word { text: "One".to_owned() }), Err(Status::data_loss(""))];
        Ok(Response::new(stream::iter(words).boxed()))
    }
}

async fn neighbor() -> (SocketAddr, UnboundedReceiver<HeaderMap>) {
    neighbor_behind(|routes| routes).await
}

/// The same, with layers around its routes.
async fn neighbor_behind(
    layers: impl FnOnce(Router) -> Router,
) -> (SocketAddr, UnboundedReceiver<HeaderMap>) {
    let (sender, calls) = unbounded_channel();
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Routes::new(LlmServer::new(Neighbor(sender))).into_axum_router();
    let server = Server::builder().add_routes(layers(routes).into());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, calls)
}
