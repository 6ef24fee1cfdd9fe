//! Runs the program of a guide's example with the command on its page. Also what several guides need to start, ask and compare services.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use course::services::{CHAIN, is_setting};
use lab::proto::trace as proto;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::{grpc, otlp, receiver};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::collector::source;
use super::component::output_of;
use support::recording::{check_named, figures};
use support::{Setup, client, free_port, in_process, serve, within_reason};
pub use support::{ask, in_order, shapes};

/// The folder of the binaries of all examples, compiled once.
pub async fn binaries() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let built = BUILT.get_or_init(async || {
        let folder = support::binaries().await;
        // Naming no package keeps the features the same as in `cargo test`, so nothing is compiled twice.
        output_of(support::cargo().args(["build", "--quiet", "--bins"]));
        folder
    });
    built.await.clone()
}

/// The source of a guide's page.
pub fn page(guide: &str) -> String {
    source(&format!("src/how-to/{guide}.md"))
}

/// A command on the page of a guide, such as `cargo run --bin NAME -- ARGUMENT`.
pub struct Example {
    command: String,
    variables: Vec<(&'static str, String)>,
}

/// The result of a run.
pub struct Ran {
    pub output: Output,
    pub store: Store,
}

impl Example {
    /// The command must stand on the page as it is given here.
    pub fn on(guide: &str, command: &str) -> Example {
        let shown = page(guide).lines().any(|line| line == command);
        assert!(shown, "{guide}.md does not say: {command}");
        Example::new(command)
    }

    /// A command that no page shows.
    pub fn new(command: &str) -> Example {
        Example { command: command.to_owned(), variables: Vec::new() }
    }

    /// Sets a variable of its environment.
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Example {
        self.variables.push((key, value.to_string()));
        self
    }

    /// Runs it to its end. It exports to a receiver of its own, over HTTP or gRPC.
    pub async fn run(self) -> Ran {
        let store = Store::new(Limits::default());
        let routes = receiver::routes(store.clone()).merge(grpc::routes(store.clone()));
        let backend = serve(routes.fallback(async || StatusCode::NOT_FOUND)).await;
        let words = self.command.strip_prefix("cargo run --bin ").expect("cargo run --bin NAME");
        let mut words = words.split(' ').filter(|word| *word != "--");
        let mut command = Command::new(binaries().await.join(words.next().expect("a name")));
        for (key, _) in std::env::vars_os().filter(|(key, _)| is_setting(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        for key in ["TRACEPARENT", "TRACESTATE", "BAGGAGE"] {
            command.env_remove(key);
        }
        command
            .args(words)
            .envs(self.variables)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("RUST_BACKTRACE", "0")
            .kill_on_drop(true);
        let output = within_reason(command.output()).await.expect("it runs");
        Ran { output, store }
    }
}

impl Ran {
    /// Returns the run if it succeeded; panics otherwise.
    pub fn well(self) -> Ran {
        let Output { status, stderr, .. } = &self.output;
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(stderr));
        self
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("text")
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("text")
    }

    /// The traces that arrived, the earliest first.
    pub fn trees(&self) -> Vec<Tree> {
        in_order(self.store.trees())
    }

    /// Their [`shapes`].
    pub fn shapes(&self) -> String {
        shapes(&self.trees())
    }

    /// Compares their waterfalls with the recorded figure.
    pub fn figure(&self, name: &str) {
        check_named(name, &figures(&self.trees()));
    }
}

/// A port of the loopback interface.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An address for a process that needs to know it beforehand.
pub fn free_address() -> SocketAddr {
    local(free_port())
}

/// Lets one program be all three services.
pub fn all_run_by(program: &str, setup: Setup) -> Setup {
    let run_by = |setup: Setup, name| setup.run_by(name, &format!("{program} {name}"));
    CHAIN.into_iter().fold(setup, run_by)
}

/// The value of a header; empty where there is none.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|it| it.to_str().expect("text")).unwrap_or_default()
}

/// The flags of a `traceparent`.
pub fn flags(traceparent: &str) -> &str {
    traceparent.rsplit('-').next().unwrap_or_default()
}

/// A server that stands for the next service: it answers every request with JSON and passes on the headers it receives.
pub async fn neighbor() -> (SocketAddr, UnboundedReceiver<HeaderMap>) {
    let (sender, requests) = unbounded_channel();
    let answer = async move |headers: HeaderMap| {
        // Nobody listens any more once the test has ended.
        let _ = sender.send(headers);
        Json(json!({ "response": "" }))
    };
    (serve(Router::new().fallback(answer)).await, requests)
}

/// Exports spans to a receiver over HTTP.
pub async fn send(to: SocketAddr, spans: Vec<proto::Span>) {
    let request = client().post(format!("http://{to}/v1/traces"));
    let request = request.header(CONTENT_TYPE, in_process::PROTOBUF);
    let sent = request.body(in_process::protobuf(spans)).send().await;
    assert_eq!(sent.expect("an answer").status(), 200);
}

/// Waits for this number of spans, because the processes don't say when they have sent the last. Returns the traces, the
/// earliest first.
pub async fn arrived(store: &Store, spans: usize) -> Vec<Tree> {
    support::arrived(store, spans).await;
    assert_eq!(store.usage().spans, spans);
    in_order(store.trees())
}

/// Waits for as many spans as `expected` has lines. Compares the traces with it and with the recorded figure.
pub async fn compare(store: &Store, figure: &str, expected: &str) -> Vec<Tree> {
    let spans = expected.lines().filter(|line| !line.is_empty()).count();
    let trees = arrived(store, spans).await;
    assert_eq!(shapes(&trees), expected);
    check_named(figure, &figures(&trees));
    trees
}

/// All that was sent of a tree, as JSON.
pub fn sent(tree: &Tree) -> String {
    let spans = tree.rows.iter().map(|row| &*row.span);
    serde_json::to_string(&otlp::to_request(spans)).expect("JSON")
}
