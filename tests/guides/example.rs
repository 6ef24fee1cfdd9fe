//! Runs what a guide shows: the program of its example, with the command that stands on its page.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;

use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router};
use course::services::is_setting;
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::{grpc, otlp, receiver};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::recording::{check_named, figures};
use crate::support::{self, serve, within_reason};
pub use crate::support::{in_order, shapes};

/// The folder of the binaries of all examples, compiled once.
pub async fn binaries() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let built = BUILT.get_or_init(async || {
        let folder = support::binaries().await;
        let mut build = Command::from(support::cargo());
        // All, and no package by name: so the features are those of `cargo test`, and nothing is compiled twice.
        build.args(["build", "--quiet", "--bins"]);
        let status = build.current_dir(crate::support::root()).status().await;
        assert!(status.expect("cargo runs").success());
        folder
    });
    built.await.clone()
}

/// The source of a guide's page.
pub fn page(guide: &str) -> String {
    let path = crate::support::root().join(format!("src/how-to/{guide}.md"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A command on the page of a guide, such as `cargo run --bin NAME -- ARGUMENT`.
pub struct Example {
    program: String,
    arguments: Vec<String>,
}

/// The result of a run.
pub struct Ran {
    pub output: Output,
    pub store: Store,
}

impl Example {
    /// The command must stand on the page as it is given here.
    pub fn on(guide: &str, command: &str) -> Example {
        assert!(
            page(guide).lines().any(|line| line == command),
            "{guide}.md does not say: {command}"
        );
        Example::new(command)
    }

    /// A command that no page shows.
    pub fn new(command: &str) -> Example {
        let words = command.strip_prefix("cargo run --bin ");
        let mut words = words
            .expect("cargo run --bin NAME")
            .split(' ')
            .filter(|word| *word != "--")
            .map(str::to_owned);
        Example { program: words.next().expect("a name"), arguments: words.collect() }
    }

    /// Runs it to its end. It exports to a receiver of its own, over HTTP or gRPC.
    pub async fn run(self) -> Ran {
        let store = Store::new(Limits::default());
        let routes = receiver::routes(store.clone()).merge(grpc::routes(store.clone()));
        let backend = serve(routes.fallback(async || StatusCode::NOT_FOUND)).await;
        let mut command = Command::new(binaries().await.join(&self.program));
        for (key, _) in std::env::vars_os().filter(|(key, _)| is_setting(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        command
            .args(self.arguments)
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

/// Waits for this number of spans, because the processes don't say when they have sent the last. Returns the traces, the
/// earliest first.
pub async fn arrived(store: &Store, spans: usize) -> Vec<Tree> {
    support::arrived(store, spans).await;
    assert_eq!(store.usage().spans, spans);
    in_order(store.trees())
}

/// All that was sent of a tree, as JSON.
pub fn sent(tree: &Tree) -> String {
    let spans = tree.rows.iter().map(|row| &*row.span);
    serde_json::to_string(&otlp::to_request(spans)).expect("JSON")
}
