//! The three services as real processes on free ports, exporting to the lab's receiver in this process.

pub mod browser;
pub mod in_process;
pub mod includes;
pub mod process;
pub mod recording;
pub mod schema;
pub mod shop;
pub mod skips;

use std::fmt::Display;
use std::fs::DirEntry;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use course::hops::{self, HOPS};
use course::services::{self, CHAIN, Plan, Service};
use lab::receiver;
use lab::span::{Span, SpanKind, TraceId};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::wire::{Fault, Wire};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, OnceCell, watch};

pub use inventory;
pub use skips::{in_ci, is_missing, skipped};

/// The tree of a valid request, as [`shape`] writes it.
pub const WHOLE: &str = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /process SERVER user-service http 200
      validate_user INTERNAL user-service
      POST /generate CLIENT user-service http 200
        POST /generate SERVER llm-service http 200
          chat offline INTERNAL llm-service
";

/// Any free port of the loopback interface.
pub const FREE: &str = "127.0.0.1:0";

/// A free port below those that the system hands out, for a process that needs to know its port beforehand. No two calls
/// return the same.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let own = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
        AtomicU16::new(20_000 + own)
    });
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no port is free");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The book's repository.
pub fn root() -> PathBuf {
    course::root::find().expect("the tests run in the repository")
}

/// cargo's target folder: the test program is in its `PROFILE/deps`.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("a program");
    program.ancestors().nth(3).expect("the target folder").to_owned()
}

/// A folder below [`target`] for what tests write.
pub fn temporary() -> PathBuf {
    target().join("tmp")
}

/// The cargo that runs the tests.
pub fn cargo() -> std::process::Command {
    std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A folder in [`temporary`] for what several tests use, emptied of what the last run left.
pub fn empty_folder(name: &str) -> PathBuf {
    let folder = temporary().join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("it can be emptied");
    }
    folder
}

/// The folder of a component such as `nats`; `None` where install.sh has not been run since its version changed.
pub fn component(name: &str) -> Option<PathBuf> {
    let root = root();
    let folder = root.join("target/components").join(name);
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let pinned = read(root.join(format!("tests/components/{name}.txt")));
    assert!(!pinned.is_empty(), "tests/components has no {name}.txt");
    (read(folder.join("installed")) == pinned).then_some(folder)
}

/// The same. Without the component, the current test counts as skipped.
pub fn installed(name: &str) -> Option<PathBuf> {
    let folder = component(name);
    if folder.is_none() {
        let get = format!("run `bash tests/components/install.sh {name}`");
        skipped(name, &get);
    }
    folder
}

/// The folder of the services' binaries, compiled once per test program.
pub async fn binaries() -> PathBuf {
    static BINARIES: OnceCell<PathBuf> = OnceCell::const_new();
    let tutorial = ["llm_service", "user_service", "api_gateway", "distributed_tracing"];
    let built = BINARIES.get_or_init(async || {
        services::build(&root(), &tutorial, false).await.expect("the services compile")
    });
    built.await.clone()
}

/// Serves `routes` on a free port until the test ends.
pub async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// A store, and the address of a receiver that fills it.
pub async fn receiver() -> (Store, SocketAddr) {
    let store = Store::new(Limits::default());
    let address = serve(receiver::routes(store.clone())).await;
    (store, address)
}

/// A server that accepts connections and never answers. Says when one has come.
pub async fn hung() -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind(FREE).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let notify = Arc::new(Notify::new());
    let connected = Arc::clone(&notify);
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
            connected.notify_one();
        }
    });
    (address, notify)
}

/// Freezes a process until it gets SIGCONT. The signal reaches its threads one after the other, so on Linux this waits until
/// all of them stand still.
pub async fn freeze(id: u32) {
    let sent = std::process::Command::new("kill").args(["-STOP", &id.to_string()]).status();
    assert!(sent.expect("kill runs").success());
    if cfg!(target_os = "linux") {
        let running = || {
            let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
            let stat = |thread: io::Result<DirEntry>| {
                std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()
            };
            threads.filter_map(stat).filter(|stat| !stat.contains(") T ")).count()
        };
        until(async || match running() {
            0 => Ok(()),
            threads => Err(format!("{threads} threads run")),
        })
        .await;
    }
}

/// An address that refuses connections for as long as the socket is kept: it is taken, and nobody listens on it.
pub fn refused() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(FREE.parse().expect("an address")).expect("a free port");
    (socket.local_addr().expect("an address"), socket)
}

/// A service on a free port, prepared for production. It exports nothing before the flush at its end, unless `OTEL_BSP_SCHEDULE_DELAY` is set.
pub fn plan(binaries: &Path, name: &'static str, backend: SocketAddr) -> Plan {
    let free = FREE.parse().expect("an address");
    Plan::new(binaries, name, free, backend).with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
}

/// How to start the services: environment variables by service.
#[derive(Default)]
pub struct Setup {
    variables: Vec<(&'static str, String, String)>,
    programs: Vec<(&'static str, String)>,
    backend: Option<SocketAddr>,
    wired: bool,
    faults: Vec<(&'static str, Fault)>,
}

/// The running services, their log lines, and what they have exported.
pub struct System {
    pub gateway: Service,
    pub user: Service,
    pub llm: Service,
    pub store: Store,
    pub wire: Wire,
    pub log: Log,
}

/// Log lines as `SERVICE | LINE`.
#[derive(Clone, Default)]
pub struct Log(Arc<watch::Sender<Vec<String>>>);

impl Log {
    pub fn sink(&self) -> impl Fn(&'static str, &str) + Send + 'static {
        let lines = Arc::clone(&self.0);
        move |name, line| {
            let line = format!("{name} | {line}");
            // libtest shows this when the test fails.
            println!("{line}");
            lines.send_modify(|lines| lines.push(line));
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// The lines of `service` that contain `text`.
    pub fn find(&self, service: &str, text: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(is_of(service, text));
        lines
    }

    /// Waits until `service` has logged `text`.
    pub async fn wait_for(&self, service: &str, text: &str) {
        let mut lines = self.0.subscribe();
        // Borrowing the lines again in here would deadlock with a task that is about to add one.
        let logged = lines.wait_for(|lines| lines.iter().any(is_of(service, text)));
        let logged = tokio::time::timeout(DEADLINE, logged).await;
        let come = logged.is_ok_and(|logged| logged.is_ok());
        assert!(come, "{service} did not log {text:?}");
    }
}

/// Whether a line is one of `service` and contains `text`.
fn is_of(service: &str, text: &str) -> impl Fn(&String) -> bool {
    let prefix = format!("{service} | ");
    move |line| line.starts_with(&prefix) && line.contains(text)
}

/// How long a test waits for something that surely comes. It is generous, for a machine that is busy with other work: when
/// it ends, the test fails.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits for something that surely comes. See [`until`] and [`arrived`] for what can tell how far it has come.
#[track_caller]
pub fn within_reason<F: Future>(event: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        let came = tokio::time::timeout(DEADLINE, event).await;
        came.unwrap_or_else(|_| panic!("{caller}: it did not happen within {DEADLINE:?}"))
    }
}

/// Looks again and again, until that returns `Ok`; at a pace that leaves the processor to what is waited for. When time is
/// up, the test fails with the last `Err`: what there was instead.
#[track_caller]
pub fn until<T, S: Display>(look: impl AsyncFnMut() -> Result<T, S>) -> impl Future<Output = T> {
    until_after(DEADLINE, look)
}

#[track_caller]
fn until_after<T, S: Display>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        let mut seen = "nothing".to_owned();
        let came = tokio::time::timeout(deadline, async {
            loop {
                match look().await {
                    Ok(came) => break came,
                    Err(instead) => seen = instead.to_string(),
                }
                pace.tick().await;
            }
        });
        let came = came.await;
        came.unwrap_or_else(|_| panic!("{caller}: after {deadline:?} there was only: {seen}"))
    }
}

/// Fails unless a text has each of these parts.
#[track_caller]
pub fn has<const N: usize>(text: &str, parts: [&str; N]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Fails if a text has one of these parts.
#[track_caller]
pub fn lacks<const N: usize>(text: &str, parts: [&str; N]) {
    for part in parts {
        assert!(!text.contains(part), "{part:?} is in: {text}");
    }
}

/// Waits until a store has `spans` spans.
pub async fn arrived(store: &Store, spans: usize) {
    let mut changes = store.changes();
    let enough = changes.wait_for(|_| store.usage().spans >= spans);
    let came = tokio::time::timeout(DEADLINE, enough).await.is_ok();
    assert!(came, "not {spans} spans, but:\n{}", shapes(&store.trees()));
}

/// A query for a gateway, ready to be sent.
pub fn query(gateway: SocketAddr, user_id: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let query = json!({ "user_id": user_id, "query": "What is a trace?" });
    let request = client().post(format!("http://{gateway}/api/query")).json(&query);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

/// The spans, exchanges and log lines of services that have stopped.
pub struct Stopped {
    pub store: Store,
    pub wire: Wire,
    pub log: Log,
}

impl Setup {
    /// Sets a variable of one service, or of all three where `service` is `all`.
    pub fn with(mut self, service: &'static str, key: &str, value: impl ToString) -> Self {
        self.variables.push((service, key.to_owned(), value.to_string()));
        self
    }

    /// Starts the services of the tutorial as it leaves them, instead of those that are prepared for production.
    pub fn tutorial(self) -> Self {
        let services = CHAIN.map(|name| (name, name.replace('-', "_")));
        services.into_iter().fold(self, |setup, (name, command)| setup.run_by(name, &command))
    }

    /// Lets another command be the service; the test compiles its binary before.
    pub fn run_by(mut self, service: &'static str, command: &str) -> Self {
        self.programs.push((service, command.to_owned()));
        self
    }

    /// Lets user-service call `address` instead of llm-service.
    pub fn with_llm_service_at(self, address: impl Display) -> Self {
        self.with("user-service", "LLM_SERVICE_URL", format!("http://{address}"))
    }

    /// Lets llm-service call the OpenAI-compatible server at `address`.
    pub fn with_model(self, address: impl Display, name: &str) -> Self {
        let base = format!("http://{address}/v1");
        self.with("llm-service", "LLM_BASE_URL", base).with("llm-service", "LLM_MODEL", name)
    }

    /// Exports to `address` instead of the lab's receiver.
    pub fn with_backend(mut self, address: SocketAddr) -> Self {
        self.backend = Some(address);
        self
    }

    /// Puts a proxy before each service, as `cargo run` does.
    pub fn wired(mut self) -> Self {
        self.wired = true;
        self
    }

    /// The same, with the `traceparent` dropped on both hops between the services.
    pub fn without_traceparent(mut self) -> Self {
        let dropped = ["gateway-user", "user-llm"].map(|hop| (hop, Fault::DropTraceparent));
        self.faults.extend(dropped);
        self.wired()
    }

    pub async fn start(self) -> System {
        let (store, own) = receiver().await;
        let backend = self.backend.unwrap_or(own);
        let wire = Wire::new(HOPS);
        for (hop, fault) in &self.faults {
            wire.set(hop, Some(*fault));
        }
        let log = Log::default();
        let binaries = binaries().await;
        let start = async |plan: Plan, name: &'static str| {
            let own = self.variables.iter().filter(|(service, ..)| [name, "all"].contains(service));
            let plan = own.fold(plan, |plan, (_, key, value)| plan.with(key, value));
            let other = self.programs.iter().find(|(service, _)| *service == name);
            let plan = other.iter().fold(plan, |plan, (_, command)| plan.run_by(command));
            Service::start(plan, log.sink()).await.expect("the service starts")
        };
        let llm = start(plan(&binaries, "llm-service", backend), "llm-service").await;
        let calling = plan(&binaries, "user-service", backend)
            .calling("llm-service", self.reach(&wire, &llm).await);
        let user = start(calling, "user-service").await;
        let calling = plan(&binaries, "api-gateway", backend)
            .calling("user-service", self.reach(&wire, &user).await);
        let gateway = start(calling, "api-gateway").await;
        self.reach(&wire, &gateway).await;
        System { gateway, user, llm, store, wire, log }
    }

    /// Starts the services, asks as `user_id` and stops them. Returns the answer as well.
    pub async fn ask(self, user_id: &str) -> ((u16, Value), Stopped) {
        let system = self.start().await;
        let answer = json_of(system.ask(user_id).await).await;
        (answer, system.stop().await)
    }

    /// The same for an answer with this status.
    pub async fn answers(self, user_id: &str, status: u16) -> Stopped {
        let ((answered, body), stopped) = self.ask(user_id).await;
        assert_eq!(answered, status, "{body}");
        stopped
    }

    /// The address that the caller of `service` is given.
    async fn reach(&self, wire: &Wire, service: &Service) -> SocketAddr {
        if !self.wired {
            return service.address;
        }
        let hop = hops::to(service.name).expect("a hop");
        let listener = TcpListener::bind(FREE).await.expect("a free port");
        wire.serve(hop, listener, service.address).expect("an address")
    }
}

impl System {
    pub async fn start() -> System {
        Setup::default().start().await
    }

    /// Asks the gateway as `user_id`.
    pub async fn ask(&self, user_id: &str) -> Response {
        let answer = query(self.gateway.address, user_id, &[]).send();
        within_reason(answer).await.expect("the gateway answers")
    }

    /// Asks the gateway with these headers and expects a 200.
    pub async fn ask_with(&self, headers: &[(&str, &str)]) {
        let answer = query(self.gateway.address, "user_1", headers).send();
        assert_eq!(within_reason(answer).await.expect("the gateway answers").status(), 200);
    }

    /// Stops the services in order; each has then flushed its spans, so there is nothing to wait for.
    pub async fn stop(self) -> Stopped {
        self.gateway.stop().await;
        self.user.stop().await;
        self.llm.stop().await;
        Stopped { store: self.store, wire: self.wire, log: self.log }
    }
}

impl Stopped {
    pub fn trees(&self) -> Vec<Tree> {
        self.store.trees()
    }

    /// The tree of the only trace there is.
    pub fn only_tree(&self) -> Tree {
        let mut trees = self.trees();
        assert_eq!(trees.len(), 1, "there must be one trace; there are:\n{}", shapes(&trees));
        trees.remove(0)
    }

    /// The [`shapes`] of all traces, the earliest first.
    pub fn shapes(&self) -> String {
        shapes(&in_order(self.trees()))
    }

    /// Compares the traces with their [`shapes`] and with a recorded figure. Returns them, the earliest first.
    #[track_caller]
    pub fn compare(&self, figure: &str, expected: &str) -> Vec<Tree> {
        let trees = in_order(self.trees());
        assert_eq!(shapes(&trees), expected);
        recording::check_named(figure, &recording::figures(&trees));
        trees
    }

    /// The tree of one trace among several.
    pub fn tree(&self, id: &str) -> Tree {
        let id = TraceId::parse(id).expect("a trace id");
        Tree::new(&self.store.trace(id).expect("the trace arrived")).expect("a tree")
    }
}

/// A client that keeps its requests on this machine.
pub fn client() -> &'static Client {
    static CLIENT: LazyLock<Client> =
        LazyLock::new(|| Client::builder().no_proxy().build().expect("a client"));
    &CLIENT
}

/// Posts a body that every service accepts and returns the status of the answer.
pub async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> u16 {
    let body = json!({ "user_id": "user_1", "query": "What is a trace?", "prompt": "?" });
    let request = client().post(format!("http://{address}{path}")).json(&body);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    within_reason(request.send()).await.expect("an answer").status().as_u16()
}

/// A status and a body that must be JSON.
pub async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json().await.expect("a JSON body"))
}

/// A tree in words, a line a span: `NAME KIND SERVICE [http STATUS] [error TYPE]`, indented by depth.
pub fn shape(tree: &Tree) -> String {
    let mut shape = String::new();
    for row in &tree.rows {
        let span = &row.span;
        shape.push_str(&"  ".repeat(row.last.len()));
        shape.push_str(&format!("{} {} {}", span.name(), span.kind(), span.service()));
        if let Some(status) = span.attribute("http.response.status_code") {
            shape.push_str(&format!(" http {status}"));
        }
        if span.is_error() {
            shape.push_str(" error");
            let kind = span.attribute("error.type");
            shape.extend(kind.map(|kind| format!(" {kind}")));
        }
        shape.push('\n');
    }
    shape
}

/// The earliest first.
pub fn in_order(mut trees: Vec<Tree>) -> Vec<Tree> {
    trees.sort_by_key(|tree| tree.start);
    trees
}

/// The [`shape`] of each tree, a blank line between two.
pub fn shapes(trees: &[Tree]) -> String {
    let shapes: Vec<String> = trees.iter().map(shape).collect();
    shapes.join("\n")
}

/// Fails unless a span has these attributes, written as `KEY=VALUE` with blanks between. `KEY=(none)` must be absent.
#[track_caller]
pub fn has_attributes(span: &Span, expected: &str) {
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let found = expected.iter().map(|pair| {
        let key = pair.split_once('=').expect("KEY=VALUE").0;
        format!("{key}={}", span.attribute(key).as_deref().unwrap_or("(none)"))
    });
    assert_eq!(found.collect::<Vec<_>>(), expected, "{}", span.name());
}

/// The first span of that name.
pub fn span<'a>(tree: &'a Tree, name: &str, kind: SpanKind) -> &'a Span {
    let found = tree.rows.iter().find(|row| row.span.name() == name && row.span.kind() == kind);
    &found.unwrap_or_else(|| panic!("no span {name} {kind} in:\n{}", shape(tree))).span
}

#[tokio::test]
#[should_panic(expected = "after 1ms there was only: 2 of 3")]
async fn a_wait_that_runs_out_says_what_there_was() {
    until_after(Duration::from_millis(1), async || Err::<(), _>("2 of 3")).await;
}
