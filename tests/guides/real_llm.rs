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
use course::services::{Plan, Service};
use futures_util::stream::{self, StreamExt as _};
use lab::diagnose::diagnose;
use lab::receiver;
use lab::span::{Span, SpanKind};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::{jaeger, tree};
use regex::Regex;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;

use super::component::{Component, installed};
use super::example::{binaries, page, sent};
use crate::support::recording::{check, figures};
use crate::support::{
    FREE, Log, Setup, WHOLE, client, free_port, hung, is_missing, refused, serve, shape, span,
    within_reason,
};

const MODEL: &str = "smollm2-135m";
const CHAT: &str = "chat smollm2-135m";

/// The last event of an answer that came to its end.
const WHOLE_ANSWER: &str = "event: end\ndata: {}\n\n";

/// Lets prompts and answers onto the span.
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";

/// What must not leave the service: parts of a key, a prompt and an answer.
const KEY: &str = "key-48151";
const PROMPT: &str = "prompt-62342";
const ANSWER: &str = "answer-10815";

/// llama.cpp's server with a small model, whose answers have so many tokens; and where it listens.
async fn llama(tokens: u32) -> Option<(Component, SocketAddr)> {
    let folder = installed("llm")?;
    let port = free_port();
    let mut command = Command::new(folder.join("bin/python"));
    command
        .arg("tests/components/llm.py")
        .args([port.to_string(), tokens.to_string()])
        .env("LLM_API_KEY", KEY)
        .current_dir(crate::support::root());
    let llama = Component::start(command, "listening at http").await;
    Some((llama, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// A server that gives the same answer to each request.
async fn model<A: IntoResponse>(
    answer: impl Fn() -> A + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let answer = async move || answer();
    serve(Router::new().route("/v1/chat/completions", post(answer))).await
}

/// An answer as server-sent events, in those pieces.
fn events<T: Into<Bytes>>(pieces: impl IntoIterator<Item = T>) -> Response {
    let pieces: Vec<Bytes> = pieces.into_iter().map(T::into).collect();
    stream(stream::iter(pieces))
}

fn stream(pieces: impl stream::Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    ([("content-type", "text/event-stream")], body).into_response()
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
        let store = Store::new(Limits::default());
        let backend = serve(receiver::routes(store.clone())).await;
        let free = FREE.parse().expect("an address");
        let plan = Plan::new(&binaries().await, "llm-service", free, backend)
            .run_by("streaming_llm_service")
            .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
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
        let request = client().post(url).json(&json!({ "prompt": prompt }));
        within_reason(request.send()).await.expect("an answer")
    }

    /// The tree of the only request.
    async fn stop(self) -> (Tree, Log) {
        self.service.stop().await;
        let mut trees = self.store.trees();
        assert_eq!(trees.len(), 1);
        (trees.remove(0), self.log)
    }
}

/// All events of an answer, as they came.
async fn read(answer: reqwest::Response) -> String {
    assert_eq!(answer.status(), 200);
    within_reason(answer.text()).await.expect("a body")
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

/// A span with its attributes and events, what differs from run to run aside.
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
                let seconds: f64 = value.parse().expect("a number");
                format!("{seconds:.2} s")
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

fn number(span: &Span, key: &str) -> i64 {
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
    let system = Setup::default()
        .with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .with("llm-service", "LLM_BASE_URL", format!("http://{address}/v1"))
        .with("llm-service", "LLM_MODEL", MODEL)
        .with("llm-service", "LLM_API_KEY", KEY)
        .start()
        .await;
    let answer = system.ask("user_1").await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert!(!answer["response"].as_str().expect("text").is_empty());
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    let expected = WHOLE.replace("chat offline INTERNAL", &format!("{CHAT} CLIENT"));
    assert_eq!(shape(&tree), expected);
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert!(number(chat, "gen_ai.usage.input_tokens") > 0);
    assert_eq!(number(chat, "gen_ai.usage.output_tokens"), 16);
    check!("real-llm/whole.html", &figures(&[tree]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_models_answer_comes_in_pieces_under_one_span_that_knows_when_the_first_came() {
    let Some((_llama, address)) = llama(16).await else {
        return;
    };
    let streaming = Streaming::start(address, &[]).await;
    let answer = read(streaming.ask("What is a trace?").await).await;
    assert!(answer.ends_with(WHOLE_ANSWER), "{answer}");
    assert!(answer.matches("\"text\"").count() > 1, "{answer}");
    let store = streaming.store.clone();
    let (tree, _) = streaming.stop().await;
    assert_eq!(
        shape(&tree),
        format!("POST /generate SERVER llm-service http 200\n  {CHAT} CLIENT llm-service\n")
    );
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert!(number(chat, "gen_ai.usage.input_tokens") > 0);
    let proto = chat.proto();
    let [first] = &proto.events[..] else {
        panic!("{:?}", proto.events);
    };
    assert_eq!(first.name, "first_token");
    assert!(chat.start() < first.time_unix_nano && first.time_unix_nano < chat.end());
    let first_chunk = chat.attribute("gen_ai.response.time_to_first_chunk");
    let first_chunk: f64 = first_chunk.expect("a time").parse().expect("a number");
    let first_text = (first.time_unix_nano - chat.start()) as f64 / 1e9;
    assert!(0.0 < first_chunk && first_chunk <= first_text + 0.001);
    check!("real-llm/streamed.txt", &described(chat));
    let trees = [tree];
    assert_eq!(diagnose(&trees, &[]), [], "a span may outlive its parent");
    check!("real-llm/streamed.html", &figures(&trees));

    // What the page says of costs.
    if is_missing("jq", "install the package `jq`") {
        return;
    }
    let lab = serve(jaeger::routes(store)).await;
    let page = page("real-llm");
    let command = page.lines().skip_while(|line| !line.starts_with("curl -s "));
    let command: Vec<&str> = command.take_while(|line| *line != "```").collect();
    let command = command.join("\n").replace("localhost:3000", &lab.to_string());
    let mut bash = Command::new("bash");
    bash.args(["-c", &command]).env("NO_PROXY", "127.0.0.1");
    let output = bash.output().await;
    let output = String::from_utf8(output.expect("it runs").stdout).expect("text");
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
    assert_eq!(
        shape(&tree),
        format!(
            "POST /generate SERVER llm-service http 200\n  {CHAT} CLIENT llm-service error cut_off\n"
        )
    );
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert_eq!(chat.attribute("gen_ai.response.finish_reasons").as_deref(), Some("[\"error\"]"));
    assert_eq!(chat.attribute("gen_ai.usage.output_tokens"), None);
    let answer = &messages(chat, "gen_ai.output.messages")[0];
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
            let pieces = answer.as_bytes().chunks(cut).map(Bytes::copy_from_slice);
            let pieces: Vec<Bytes> = pieces.collect();
            let address = model(move || events(pieces.clone())).await;
            let streaming = Streaming::start(address, &[]).await;
            let answer = read(streaming.ask("?").await).await;
            assert_eq!(text(&answer), "one two", "{way}, {cut}");
            assert!(answer.ends_with(WHOLE_ANSWER), "{way}, {cut}: {answer}");
            let (tree, _) = streaming.stop().await;
            let chat = span(&tree, CHAT, SpanKind::Client);
            assert!(!chat.is_error(), "{way}, {cut}");
            let found = ["finish_reasons", "model", "id"];
            let found = found.map(|name| chat.attribute(&format!("gen_ai.response.{name}")));
            let found = found.map(Option::unwrap_or_default);
            let expected = ["[\"stop\"]", "m-2026", "chatcmpl-1"];
            assert_eq!(found, expected, "{way}, {cut}");
            assert_eq!(number(chat, "gen_ai.usage.input_tokens"), 7, "{way}");
            assert_eq!(number(chat, "gen_ai.usage.output_tokens"), 2, "{way}");
            assert_eq!(chat.proto().events.len(), 1, "{way}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_only_the_span_needs_may_have_any_shape() {
    let odd = json!({ "id": 1, "model": [], "choices": [], "usage": { "prompt_tokens": 1.5 } });
    let answer = format!("data: {odd}\n\n{}{}", piece("yes"), FINISH.to_owned() + DONE);
    let address = model(move || events([answer.clone()])).await;
    let streaming = Streaming::start(address, &[]).await;
    let answer = read(streaming.ask("?").await).await;
    assert_eq!(text(&answer), "yes");
    assert!(answer.ends_with(WHOLE_ANSWER), "{answer}");
    let (tree, _) = streaming.stop().await;
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert_eq!(chat.attribute("gen_ai.usage.input_tokens"), None);
}

/// The first chunk of most servers has no text: a reader has seen nothing yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_word_has_a_first_chunk_and_no_first_token() {
    let address = model(|| events([piece(""), END.concat()])).await;
    let streaming = Streaming::start(address, &[]).await;
    assert_eq!(read(streaming.ask("?").await).await, WHOLE_ANSWER);
    let (tree, _) = streaming.stop().await;
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert!(chat.proto().events.is_empty());
    let first_chunk = chat.attribute("gen_ai.response.time_to_first_chunk");
    assert!(first_chunk.is_some());
}

/// The limit is for each silence. The model here says the next word when the client has the last, for longer than that.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_may_take_longer_than_any_silence() {
    let (sender, pieces) = unbounded_channel();
    let pieces = Arc::new(Mutex::new(Some(pieces)));
    let address = model(move || {
        let pieces = pieces.lock().expect("a lock").take().expect("one call");
        stream(stream::unfold(pieces, |mut pieces| async { Some((pieces.recv().await?, pieces)) }))
    })
    .await;
    let limit = Duration::from_secs(1);
    let milliseconds = limit.as_millis().to_string();
    let streaming = Streaming::start(address, &[("LLM_TIMEOUT_MS", &milliseconds)]).await;
    let mut answer = streaming.ask("?").await;
    let say = |text: String| sender.send(Bytes::from(text)).expect("somebody listens");
    let began = Instant::now();
    while began.elapsed() <= limit {
        say(piece("word"));
        let read = within_reason(answer.chunk()).await.expect("it goes on");
        assert!(text(&String::from_utf8_lossy(&read.expect("a word"))).contains("word"));
    }
    say(END.concat());
    assert_eq!(read(answer).await, WHOLE_ANSWER);
}

/// What breaks once a piece was sent cannot be a status any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_ends_with_an_error_event_and_an_error_on_its_span() {
    let error = |error: Value| Bytes::from(format!("data: {}\n\n", json!({ "error": error })));
    let endless = stream::repeat(Bytes::from(vec![b'x'; 1 << 20]));
    let rest = |pieces: Vec<Bytes>| stream::iter(pieces).boxed();
    let ways = [
        (
            "server_error",
            rest(vec![error(json!({ "message": "?", "type": "server_error", "code": 500 }))]),
        ),
        ("rate_limit_exceeded", rest(vec![error(json!({ "code": "rate_limit_exceeded" }))])),
        ("model_error", rest(vec![error(json!({ "code": format!("no {KEY}") }))])),
        ("model_error", rest(vec![error(json!(format!("no {KEY}")))])),
        ("invalid_answer", rest(vec![Bytes::from("data: nonsense\n\n")])),
        ("invalid_answer", rest(vec![Bytes::from(&b"data: \xff\n\n"[..])])),
        ("invalid_answer", endless.boxed()),
        ("cut_off", rest(Vec::new())),
        ("timeout", stream::pending().boxed()),
    ];
    for (error_type, rest) in ways {
        let rest = Arc::new(Mutex::new(Some(rest)));
        let address = model(move || {
            let rest = rest.lock().expect("a lock").take().expect("one request");
            stream(stream::iter([Bytes::from(piece(ANSWER))]).chain(rest))
        })
        .await;
        let streaming = Streaming::start(address, &[("LLM_TIMEOUT_MS", "300")]).await;
        let answer = read(streaming.ask(PROMPT).await).await;
        let expected = format!(
            "data: {{\"text\":\"{ANSWER}\"}}\n\nevent: error\ndata: {{\"error\":\"The answer is not complete\"}}\n\n"
        );
        assert_eq!(answer, expected, "{error_type}");
        let (tree, log) = streaming.stop().await;
        let expected = format!(
            "POST /generate SERVER llm-service http 200\n  {CHAT} CLIENT llm-service error {error_type}\n"
        );
        assert_eq!(shape(&tree), expected);
        keeps_secrets(&[sent(&tree), log.lines().join("\n")]);
    }
}

fn keeps_secrets(texts: &[String]) {
    for text in texts {
        for secret in [KEY, PROMPT, ANSWER] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// A provider says in its message which key is wrong, and may repeat the prompt.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_is_a_status_and_repeats_no_secret() {
    let refusal = json!({ "error": { "message": format!("no {KEY}, no {PROMPT}") } }).to_string();
    let said = |status: u16, headers: &[(&'static str, &'static str)]| {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = value.parse().expect("a value");
                (name.parse::<axum::http::HeaderName>().expect("a name"), value)
            })
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = refusal.clone();
        move || (status, headers.clone(), refusal.clone()).into_response()
    };
    let json = [("content-type", "application/json")];
    let (silent, _) = hung().await;
    let (nobody, _kept) = refused();
    let ways = [
        (model(said(401, &json)).await, "401", 502, None),
        (model(said(429, &[("retry-after", "7")])).await, "429", 503, Some("7")),
        (
            model(said(429, &[("retry-after", "Fri, 01 Jan 2027 00:00:00 GMT")])).await,
            "429",
            503,
            None,
        ),
        (model(said(500, &[])).await, "500", 502, None),
        (model(said(302, &[("location", "/elsewhere")])).await, "302", 502, None),
        (model(said(200, &json)).await, "invalid_answer", 502, None),
        (silent, "timeout", 504, None),
        (nobody, "unreachable", 502, None),
    ];
    for (address, error_type, status, retry_after) in ways {
        let streaming = Streaming::start(address, &[("LLM_TIMEOUT_MS", "300")]).await;
        let answer = streaming.ask(PROMPT).await;
        assert_eq!(answer.status(), status, "{error_type}");
        let header = answer.headers().get("retry-after");
        let header = header.map(|value| value.to_str().expect("text"));
        assert_eq!(header, retry_after, "{error_type}");
        let answer: Value = answer.json().await.expect("JSON");
        assert!(answer["error"].is_string(), "{answer}");
        let (tree, log) = streaming.stop().await;
        let expected = format!(
            "POST /generate SERVER llm-service http {status} error {status}\n  {CHAT} CLIENT llm-service error {error_type}\n"
        );
        assert_eq!(shape(&tree), expected);
        keeps_secrets(&[sent(&tree), log.lines().join("\n"), answer.to_string()]);
    }
}

/// Both sides of what was said are where the conventions want them, and on that span alone.
#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_on_the_span_only_when_that_is_asked_for() {
    for value in ["false", "span_only", "true"] {
        let address = model(|| events([piece(ANSWER), piece(" and more"), END.concat()])).await;
        let streaming = Streaming::start(address, &[(CAPTURE, value)]).await;
        read(streaming.ask(PROMPT).await).await;
        let (tree, log) = streaming.stop().await;
        keeps_secrets(&[log.lines().join("\n")]);
        let chat = span(&tree, CHAT, SpanKind::Client);
        if value != "true" {
            keeps_secrets(&[sent(&tree)]);
            continue;
        }
        let said = |text: &str| json!([{ "type": "text", "content": text }]);
        assert_eq!(
            messages(chat, "gen_ai.input.messages"),
            json!([{ "role": "user", "parts": said(PROMPT) }])
        );
        let answer = said(&format!("{ANSWER} and more"));
        assert_eq!(
            messages(chat, "gen_ai.output.messages"),
            json!([{ "role": "assistant", "parts": answer, "finish_reason": "stop" }])
        );
        assert_eq!(sent(&tree).matches(PROMPT).count(), 1);
        assert!(!sent(&tree).contains(KEY));
    }
}

/// Says when it is dropped: the connection that it was for is gone.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Nobody pays for words that nobody reads: when the client goes, so does the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_the_call_and_its_span_with_what_was_known() {
    let gone = Arc::new(Notify::new());
    let told = Arc::clone(&gone);
    let address = model(move || {
        let gone = Gone(Arc::clone(&told));
        let never = stream::once(async move {
            let _gone = gone;
            pending::<Bytes>().await
        });
        stream(stream::iter([Bytes::from(piece("one"))]).chain(never))
    })
    .await;
    // So that it is not the silence that ends the call.
    let streaming = Streaming::start(address, &[("LLM_TIMEOUT_MS", "600000")]).await;
    let mut answer = streaming.ask("?").await;
    within_reason(answer.chunk()).await.expect("a piece");
    drop(answer);
    within_reason(gone.notified()).await;
    let (tree, _) = streaming.stop().await;
    let chat = span(&tree, CHAT, SpanKind::Client);
    assert!(!chat.is_error(), "the model did nothing wrong");
    assert_eq!(chat.attribute("gen_ai.response.id").as_deref(), Some("chatcmpl-1"));
    assert_eq!(chat.attribute("gen_ai.response.finish_reasons").as_deref(), Some("[\"error\"]"));
    assert_eq!(chat.proto().events.len(), 1);
}

/// A span that has not ended is not exported.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_does_not_wait_for_an_answer_loses_its_span() {
    let address = model(|| {
        let first = stream::iter([Bytes::from(piece("one"))]);
        stream(first.chain(stream::pending()))
    })
    .await;
    let streaming = Streaming::start(address, &[("SHUTDOWN_TIMEOUT_MS", "100")]).await;
    let mut answer = streaming.ask("?").await;
    within_reason(answer.chunk()).await.expect("a piece");
    let (tree, _) = streaming.stop().await;
    assert_eq!(shape(&tree), "POST /generate SERVER llm-service http 200\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_server_is_told_of_the_trace_only_when_it_is_ours() {
    for ours in [false, true] {
        let headers = Arc::new(Mutex::new(HeaderMap::new()));
        let seen = Arc::clone(&headers);
        let answer = async move |headers: HeaderMap| {
            *seen.lock().expect("a lock") = headers;
            events([piece("one"), END.concat()])
        };
        let routes = Router::new().route("/v1/chat/completions", post(answer));
        let address = serve(routes).await;
        let value = ours.to_string();
        let streaming = Streaming::start(address, &[("LLM_IS_OURS", &value)]).await;
        let url = format!("http://{}/generate", streaming.service.address);
        let request =
            client().post(url).header("baggage", "tenant=acme").json(&json!({ "prompt": "?" }));
        read(within_reason(request.send()).await.expect("an answer")).await;
        let (tree, _) = streaming.stop().await;
        let headers = headers.lock().expect("a lock");
        let traceparent = headers.get("traceparent").map(|it| it.to_str().expect("text"));
        let chat = span(&tree, CHAT, SpanKind::Client);
        let expected = format!("00-{}-{}-01", chat.trace_id, chat.id);
        assert_eq!(traceparent, ours.then_some(expected.as_str()));
        assert_eq!(headers.contains_key("baggage"), ours);
    }
}
