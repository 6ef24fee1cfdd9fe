//! A real model under one span, from the request to the last piece of its answer; and all that a model's server may do
//! instead of answering.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use course::services::Service;
use futures_util::stream::{self, Stream, StreamExt as _};
use lab::diagnose::diagnose;
use lab::span::{Span, SpanKind};
use lab::store::Store;
use lab::tree::Tree;
use lab::{jaeger, tree};
use regex::Regex;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use traces::model_call::ModelCall;
use traces::model_call::messages::{Conversation, Part, Side};

use super::component::{Component, installed};
use super::example::{binaries, local, page, sent};
use support::recording::{check, figures};
use support::{
    Log, Setup, WHOLE, client, free_port, has_attributes, hung, is_missing, plan, receiver,
    refused, serve, shape, span, within_reason,
};

const MODEL: &str = "smollm2-135m";
const CHAT: &str = "chat smollm2-135m";

/// The last event of an answer that came to its end.
const WHOLE_ANSWER: &str = "event: end\ndata: {}\n\n";

/// Lets prompts and answers onto the span.
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// Parts of a key, a prompt and an answer, which must not leave the service.
const KEY: &str = "key-48151";
const PROMPT: &str = "prompt-62342";
const ANSWER: &str = "answer-10815";

/// llama.cpp's server with a small model, whose answers have this number of tokens, and its address.
async fn llama(tokens: u32) -> Option<(Component, SocketAddr)> {
    let folder = installed("llm")?;
    let port = free_port();
    let mut command = Command::new(folder.join("bin/python"));
    command
        .arg("tests/components/llm.py")
        .args([port.to_string(), tokens.to_string()])
        .env("LLM_API_KEY", KEY)
        .current_dir(support::root());
    Some((Component::start(command, "listening at http").await, local(port)))
}

/// A server that gives this answer to its only request.
async fn model(answer: impl IntoResponse) -> SocketAddr {
    let answer = Arc::new(Mutex::new(Some(answer.into_response())));
    let answer = async move || answer.lock().expect("a lock").take().expect("one request");
    serve(Router::new().route("/v1/chat/completions", post(answer))).await
}

/// An answer as server-sent events, in those pieces.
fn events<T: Into<Bytes>>(pieces: impl IntoIterator<Item = T>) -> Response {
    let pieces: Vec<Bytes> = pieces.into_iter().map(T::into).collect();
    stream(stream::iter(pieces))
}

fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// An answer that begins with this piece of text.
fn begins(text: &str, rest: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    stream(stream::iter([Bytes::from(piece(text))]).chain(rest))
}

/// The event of a piece of text.
fn piece(text: &str) -> String {
    let delta = json!({ "content": text });
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
    let chunk = json!({ "id": "chatcmpl-1", "model": "m-2026", "choices": [choice] });
    format!("data: {chunk}\n\n")
}

/// The events that follow the last piece.
const END: [&str; 3] = [FINISH, TOKENS, DONE];
const FINISH: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const TOKENS: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// The streaming llm-service, and what it has logged and exported.
struct Streaming {
    service: Service,
    store: Store,
    log: Log,
}

impl Streaming {
    async fn start(model: SocketAddr, variables: &[(&str, &str)]) -> Streaming {
        let (store, backend) = receiver().await;
        let plan = plan(&binaries().await, "llm-service", backend)
            .run_by("streaming_llm_service")
            .with("LLM_BASE_URL", format!("http://{model}/v1"))
            .with("LLM_MODEL", MODEL)
            .with("LLM_API_KEY", KEY);
        let plan = variables.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
        let log = Log::default();
        let service = Service::start(plan, log.sink()).await.expect("it starts");
        Streaming { service, store, log }
    }

    async fn ask(&self, prompt: &str) -> reqwest::Response {
        let url = format!("http://{}/generate", self.service.address);
        let request = client().post(url).header("baggage", "tenant=acme");
        within_reason(request.json(&json!({ "prompt": prompt })).send()).await.expect("an answer")
    }

    /// The tree of the only request.
    async fn stop(self) -> (Tree, Log) {
        self.service.stop().await;
        let mut trees = self.store.trees();
        assert_eq!(trees.len(), 1);
        (trees.remove(0), self.log)
    }
}

/// An answer to the only request, and what the service has recorded and logged.
struct Answered {
    status: u16,
    headers: HeaderMap,
    body: String,
    store: Store,
    tree: Tree,
    log: String,
}

/// Sends one request to a new service.
async fn ask(model: SocketAddr, variables: &[(&str, &str)], prompt: &str) -> Answered {
    let streaming = Streaming::start(model, variables).await;
    let answer = streaming.ask(prompt).await;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = within_reason(answer.text()).await.expect("a body");
    let store = streaming.store.clone();
    let (tree, log) = streaming.stop().await;
    Answered { status, headers, body, store, tree, log: log.lines().join("\n") }
}

impl Answered {
    /// The text of a whole answer.
    fn text(&self) -> String {
        assert_eq!(self.status, 200);
        assert!(self.body.ends_with(WHOLE_ANSWER), "{}", self.body);
        text(&self.body)
    }
}

/// The span of the model's call.
fn chat(tree: &Tree) -> &Span {
    span(tree, CHAT, SpanKind::Client)
}

/// The shape of a request with this end of each line.
fn request(server: &str, chat: &str) -> String {
    format!("POST /generate SERVER llm-service http {server}\n  {CHAT} CLIENT llm-service{chat}\n")
}

/// The pieces of text in an answer, put together.
fn text(events: &str) -> String {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| {
        let data: Value = serde_json::from_str(data).expect("JSON");
        data["text"].as_str().map(str::to_owned)
    })
    .collect()
}

/// A span with its attributes and events, without what differs from run to run.
fn described(span: &Span) -> String {
    let mut lines = format!("{}  {}  {}\n", span.name(), span.kind(), span.service());
    let proto = span.proto();
    let mut names: Vec<&str> = proto.attributes.iter().map(|it| it.key.as_str()).collect();
    names.sort();
    for name in names {
        let value = span.attribute(name).expect("it is there");
        let value = match name {
            "server.port" => "<port>".to_owned(),
            "gen_ai.response.id" => "<id>".to_owned(),
            "gen_ai.response.time_to_first_chunk" => {
                format!("{:.2} s", value.parse::<f64>().expect("a number"))
            }
            _ => value,
        };
        lines.push_str(&format!("  {name:36} {value}\n"));
    }
    for event in &proto.events {
        let after = event.time_unix_nano - span.start();
        lines.push_str(&format!("event {} after {}\n", event.name, tree::took(after)));
    }
    lines
}

fn number(span: &Span, key: &str) -> f64 {
    let value = span.attribute(key).unwrap_or_else(|| panic!("no {key}"));
    value.parse().expect("a number")
}

/// The messages of one side of the chat.
fn messages(chat: &Span, key: &str) -> Value {
    let value = chat.attribute(key).expect("it is there");
    serde_json::from_str(&value).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_variables_put_a_real_model_into_the_trace() {
    let Some((_llama, address)) = llama(16).await else {
        return;
    };
    let setup = Setup::default().with_model(address, MODEL).with("llm-service", "LLM_API_KEY", KEY);
    let ((status, answer), stopped) = setup.ask("user_1").await;
    assert_eq!(status, 200);
    assert!(!answer["response"].as_str().expect("text").is_empty());
    let tree = stopped.only_tree();
    let expected = WHOLE.replace("chat offline INTERNAL", &format!("{CHAT} CLIENT"));
    assert_eq!(shape(&tree), expected);
    assert!(number(chat(&tree), "gen_ai.usage.input_tokens") > 0.0);
    has_attributes(chat(&tree), "gen_ai.usage.output_tokens=16");
    check!("real-llm/whole.html", &figures(&[tree]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_models_answer_comes_in_pieces_under_one_span_that_knows_when_the_first_came() {
    let Some((_llama, address)) = llama(16).await else {
        return;
    };
    let answer = ask(address, &[], "What is a trace?").await;
    answer.text();
    assert!(answer.body.matches("\"text\"").count() > 1, "{}", answer.body);
    assert_eq!(shape(&answer.tree), request("200", ""));
    let chat = chat(&answer.tree);
    assert!(number(chat, "gen_ai.usage.input_tokens") > 0.0);
    let proto = chat.proto();
    let [first] = &proto.events[..] else {
        panic!("{:?}", proto.events);
    };
    assert_eq!(first.name, "first_token");
    assert!(chat.start() < first.time_unix_nano && first.time_unix_nano < chat.end());
    let first_chunk = number(chat, "gen_ai.response.time_to_first_chunk");
    let first_text = (first.time_unix_nano - chat.start()) as f64 / 1e9;
    assert!(0.0 < first_chunk && first_chunk <= first_text + 0.001);
    check!("real-llm/streamed.txt", &described(chat));
    let trees = [answer.tree];
    assert_eq!(diagnose(&trees, &[]), [], "a span may outlive its parent");
    check!("real-llm/streamed.html", &figures(&trees));

    // The page's command for the cost of a request.
    if is_missing("jq", "install the package `jq`") {
        return;
    }
    let lab = serve(jaeger::routes(answer.store)).await;
    let page = page("real-llm");
    let command = page.lines().skip_while(|line| !line.starts_with("curl -s "));
    let command: Vec<&str> = command.take_while(|line| *line != "```").collect();
    let command = command.join("\n").replace("localhost:3000", &lab.to_string());
    let output = Command::new("bash").args(["-c", &command]).env("NO_PROXY", "127.0.0.1").output();
    let output = String::from_utf8(output.await.expect("it runs").stdout).expect("text");
    assert_eq!(output, "16\n", "{command}");
}

/// SIGKILL, as the kernel sends when a model needs more memory than there is.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_model_that_is_killed_in_mid_answer_the_client_keeps_what_came_and_is_told() {
    let Some((llama, address)) = llama(1500).await else {
        return;
    };
    let streaming = Streaming::start(address, &[(CAPTURE, "true")]).await;
    let mut answer = streaming.ask("What is a trace?").await;
    let first = within_reason(answer.chunk()).await.expect("a piece");
    llama.kill().await;
    let rest = within_reason(answer.text()).await.expect("a body that ends well");
    let events = String::from_utf8(first.expect("a piece").to_vec()).expect("text") + &rest;
    let received = text(&events);
    assert!(!received.is_empty());
    assert_eq!(events.matches("event: ").count(), 1, "{events}");
    let word = Regex::new("(data: \\{\"text\":\".*\"\\}\n\n)+").expect("a pattern");
    let events = word.replace(&events, "data: {\"text\":\"<a piece>\"}\n\n…\n\n");
    check!("real-llm/killed.txt", &events);

    let (tree, _) = streaming.stop().await;
    assert_eq!(shape(&tree), request("200", " error cut_off"));
    let expected = "gen_ai.response.finish_reasons=[\"error\"] gen_ai.usage.output_tokens=(none)";
    has_attributes(chat(&tree), expected);
    let answer = &messages(chat(&tree), "gen_ai.output.messages")[0];
    assert_eq!(answer["parts"][0]["content"], received);
    check!("real-llm/killed.html", &figures(&[tree]));
}

/// The same answer, however a server writes it and the network cuts it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_however_it_is_cut_and_written() {
    let said = piece("one") + &piece(" two");
    let plain = said.clone() + &END.concat();
    let ways = [
        ("as most do", plain.clone()),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("comments and other fields", plain.replace("data:", ": still here\n\n: \nid: 1\ndata:")),
        ("no space", plain.replace("data: ", "data:")),
        ("a first chunk without text", piece("") + &plain),
        ("tokens before the end", said.clone() + TOKENS + FINISH + DONE),
        ("no [DONE]", said + FINISH + TOKENS),
        ("more after [DONE]", plain + "data: more\n\n"),
    ];
    for (way, answer) in ways {
        for cut in [answer.len(), 1] {
            println!("{way}, cut every {cut} bytes");
            let pieces = answer.as_bytes().chunks(cut).map(Bytes::copy_from_slice);
            let answer = ask(model(events(pieces)).await, &[], "?").await;
            assert_eq!(answer.text(), "one two");
            let chat = chat(&answer.tree);
            let expected = "gen_ai.response.finish_reasons=[\"stop\"] gen_ai.response.model=m-2026 \
                            gen_ai.response.id=chatcmpl-1 gen_ai.usage.input_tokens=7 \
                            gen_ai.usage.output_tokens=2";
            has_attributes(chat, expected);
            assert_eq!((chat.is_error(), chat.proto().events.len()), (false, 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_only_the_span_needs_may_have_any_shape() {
    let odd = json!({ "id": 1, "model": [], "choices": [], "usage": { "prompt_tokens": 1.5 } });
    let pieces = [format!("data: {odd}\n\n"), piece("yes"), FINISH.to_owned(), DONE.to_owned()];
    let answer = ask(model(events([pieces.concat()])).await, &[], "?").await;
    assert_eq!(answer.text(), "yes");
    has_attributes(chat(&answer.tree), "gen_ai.usage.input_tokens=(none)");
}

/// The first chunk of most servers has no text: a reader has seen nothing yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_word_has_a_first_chunk_and_no_first_token() {
    let answer = ask(model(events([piece(""), END.concat()])).await, &[], "?").await;
    assert_eq!((answer.status, &*answer.body), (200, WHOLE_ANSWER));
    let chat = chat(&answer.tree);
    assert!(chat.proto().events.is_empty());
    assert!(chat.attribute("gen_ai.response.time_to_first_chunk").is_some());
}

/// The limit is for each silence. The model here sends the next word when the client has the last, for longer than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_may_take_longer_than_any_silence() {
    let (sender, pieces) = unbounded_channel();
    let pieces =
        stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) });
    let limit = Duration::from_secs(1);
    let variables = [("LLM_TIMEOUT_MS", "1000")];
    let streaming = Streaming::start(model(stream(pieces)).await, &variables).await;
    let mut answer = streaming.ask("?").await;
    let say = |text: String| sender.send(Bytes::from(text)).expect("somebody listens");
    let began = Instant::now();
    while began.elapsed() <= limit {
        say(piece("word"));
        let read = within_reason(answer.chunk()).await.expect("it goes on");
        assert!(text(&String::from_utf8_lossy(&read.expect("a word"))).contains("word"));
    }
    say(END.concat());
    assert_eq!(answer.status(), 200);
    assert_eq!(within_reason(answer.text()).await.expect("a body"), WHOLE_ANSWER);
}

/// After the first piece, a fault can't become a status any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_ends_with_an_error_event_and_an_error_on_its_span() {
    let rest = |rest: &'static [u8]| stream::iter([Bytes::from(rest)]).boxed();
    let error = |error: Value| {
        let event = format!("data: {}\n\n", json!({ "error": error }));
        stream::iter([Bytes::from(event)]).boxed()
    };
    let full = json!({ "message": "?", "type": "server_error", "code": 500 });
    let endless = stream::repeat(Bytes::from(vec![b'x'; 1 << 20])).boxed();
    let ways = [
        ("server_error", error(full)),
        ("rate_limit_exceeded", error(json!({ "code": "rate_limit_exceeded" }))),
        ("model_error", error(json!({ "code": format!("no {KEY}") }))),
        ("model_error", error(json!(format!("no {KEY}")))),
        ("invalid_answer", rest(b"data: nonsense\n\n")),
        ("invalid_answer", rest(b"data: \xff\n\n")),
        ("answer_too_long", endless),
        ("cut_off", stream::empty().boxed()),
        ("timeout", stream::pending().boxed()),
    ];
    let expected = format!(
        "data: {{\"text\":\"{ANSWER}\"}}\n\nevent: error\ndata: {{\"error\":\"The answer is not complete\"}}\n\n"
    );
    for (error_type, rest) in ways {
        let address = model(begins(ANSWER, rest)).await;
        let answer = ask(address, &[("LLM_TIMEOUT_MS", "300")], PROMPT).await;
        assert_eq!((answer.status, &answer.body), (200, &expected), "{error_type}");
        assert_eq!(shape(&answer.tree), request("200", &format!(" error {error_type}")));
        keeps_secrets(&[sent(&answer.tree), answer.log]);
    }
}

fn keeps_secrets(texts: &[String]) {
    for text in texts {
        for secret in [KEY, PROMPT, ANSWER] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// A provider names the wrong key in its message, and may repeat the prompt.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_is_a_status_and_repeats_no_secret() {
    let refusal = json!({ "error": { "message": format!("no {KEY}, no {PROMPT}") } }).to_string();
    let answers = async |status: u16, name: &'static str, value: &'static str| {
        let status = StatusCode::from_u16(status).expect("a status");
        model((status, [(name, value)], refusal.clone())).await
    };
    let date = "Fri, 01 Jan 2027 00:00:00 GMT";
    let (silent, _) = hung().await;
    let (nobody, _kept) = refused();
    let ways = [
        (answers(401, "content-type", "application/json").await, "401", 502, None),
        (answers(429, "retry-after", "7").await, "429", 503, Some("7")),
        (answers(429, "retry-after", date).await, "429", 503, None),
        (answers(500, "content-type", "text/plain").await, "500", 502, None),
        (answers(302, "location", "/elsewhere").await, "302", 502, None),
        (answers(200, "content-type", "application/json").await, "invalid_answer", 502, None),
        (silent, "timeout", 504, None),
        (nobody, "unreachable", 502, None),
    ];
    for (address, error_type, status, retry_after) in ways {
        let answer = ask(address, &[("LLM_TIMEOUT_MS", "300")], PROMPT).await;
        let header = answer.headers.get("retry-after").map(|value| value.to_str().expect("text"));
        assert_eq!((answer.status, header), (status, retry_after), "{error_type}");
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert!(body["error"].is_string(), "{body}");
        let expected =
            request(&format!("{status} error {status}"), &format!(" error {error_type}"));
        assert_eq!(shape(&answer.tree), expected);
        keeps_secrets(&[sent(&answer.tree), answer.log, answer.body]);
    }
}

/// Both sides of the chat are where the conventions want them, and on that span alone.
#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_on_the_span_only_when_that_is_asked_for() {
    for value in ["false", "span_only", "true"] {
        let address = model(events([piece(ANSWER), piece(" and more"), END.concat()])).await;
        let answer = ask(address, &[(CAPTURE, value)], PROMPT).await;
        assert_eq!(answer.text(), format!("{ANSWER} and more"));
        let (sent, chat) = (sent(&answer.tree), chat(&answer.tree));
        if value != "true" {
            keeps_secrets(&[sent, answer.log]);
            continue;
        }
        keeps_secrets(&[answer.log]);
        let said = |text: &str| json!([{ "type": "text", "content": text }]);
        let prompt = json!([{ "role": "user", "parts": said(PROMPT) }]);
        assert_eq!(messages(chat, "gen_ai.input.messages"), prompt);
        let parts = said(&format!("{ANSWER} and more"));
        let answer = json!([{ "role": "assistant", "parts": parts, "finish_reason": "stop" }]);
        assert_eq!(messages(chat, "gen_ai.output.messages"), answer);
        let call = ModelCall::read(&chat.proto()).expect("a model call");
        let said = Conversation::read(&call, &chat.proto(), []).messages.into_iter();
        let said: Vec<_> = said.map(|it| (it.side, it.role, it.parts)).collect();
        let part = |text: String| vec![Part::Text { text }];
        let expected = [
            (Side::Input, "user".to_owned(), part(PROMPT.to_owned())),
            (Side::Output, "assistant".to_owned(), part(format!("{ANSWER} and more"))),
        ];
        assert_eq!(said, expected);
        assert_eq!(
            (call.model(), call.input_tokens, call.output_tokens),
            (Some("m-2026"), Some(7), Some(2))
        );
        assert_eq!((sent.matches(PROMPT).count(), sent.contains(KEY)), (1, false));
    }
}

/// Nobody pays for words that nobody reads: when the client goes, so does the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_call_and_its_span_with_what_was_known() {
    // The connection to the model owns the sender, so the receiver learns when it has gone.
    let (connection, gone) = oneshot::channel::<()>();
    let never = stream::once(async move {
        let _connection = connection;
        pending::<Bytes>().await
    });
    // So long that the silence can't end the call.
    let variables = [("LLM_TIMEOUT_MS", "600000")];
    let streaming = Streaming::start(model(begins("one", never)).await, &variables).await;
    let mut answer = streaming.ask("?").await;
    within_reason(answer.chunk()).await.expect("a piece");
    drop(answer);
    within_reason(gone).await.expect_err("the connection has gone");
    let (tree, _) = streaming.stop().await;
    let chat = chat(&tree);
    has_attributes(
        chat,
        "gen_ai.response.id=chatcmpl-1 gen_ai.response.finish_reasons=[\"error\"]",
    );
    // The model did nothing wrong.
    assert_eq!((chat.is_error(), chat.proto().events.len()), (false, 1));
}

/// A span that has not ended is not exported.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_does_not_wait_for_an_answer_loses_its_span() {
    let address = model(begins("one", stream::pending())).await;
    let streaming = Streaming::start(address, &[("SHUTDOWN_TIMEOUT_MS", "100")]).await;
    let mut answer = streaming.ask("?").await;
    within_reason(answer.chunk()).await.expect("a piece");
    let (tree, _) = streaming.stop().await;
    assert_eq!(shape(&tree), "POST /generate SERVER llm-service http 200\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_server_is_told_of_the_trace_only_when_it_is_ours() {
    for ours in [false, true] {
        let (sender, mut calls) = unbounded_channel();
        let answer = async move |headers: HeaderMap| {
            sender.send(headers).expect("somebody listens");
            events([piece("one"), END.concat()])
        };
        let address = serve(Router::new().route("/v1/chat/completions", post(answer))).await;
        let answer = ask(address, &[("LLM_IS_OURS", &ours.to_string())], "?").await;
        assert_eq!(answer.text(), "one");
        let headers = calls.try_recv().expect("a call");
        let traceparent = headers.get("traceparent").map(|it| it.to_str().expect("text"));
        let chat = chat(&answer.tree);
        let expected = format!("00-{}-{}-01", chat.trace_id, chat.id);
        assert_eq!(traceparent, ours.then_some(expected.as_str()));
        assert_eq!(headers.contains_key("baggage"), ours);
    }
}
