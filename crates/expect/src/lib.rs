//! Asserts the distributed trace of a request in `cargo test`.
//!
//! ```no_run
//! # async fn order(_: String) -> Result<(), std::io::Error> { Ok(()) }
//! #[tokio::test]
//! async fn a_checkout_is_one_trace() {
//!     // Start the services with OTEL_EXPORTER_OTLP_ENDPOINT=trace_expect::endpoint().
//!     trace_expect::expect("tests/checkout.trace", async |traceparent| {
//!         // Send the request with the header `traceparent`.
//!         order(traceparent).await
//!     })
//!     .await;
//! }
//! ```
//!
//! The file says what the trace has to look like; with `TRACE_EXPECT=update` in the environment, the test writes it. The command
//! `lab expect` reads and writes the same files, and the book One Trace describes their format.
//!
//! When a trace differs, the panic's message names a page in Cargo's target folder, such as
//! `target/trace-expect/shop-tests-checkout.html`. It shows the report and the spans in a browser, and the lab opens it.
//!
//! All tests of a process share one receiver, which listens on a free port, for OTLP over HTTP and over gRPC. They can run in
//! parallel, since each request has a trace id of its own. This crate depends on no crate of OpenTelemetry, so a service keeps
//! whatever version it has.

mod own;
pub mod page;
mod run;
pub mod text;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use traces::expect::{self, Body, File, Mistake, NoRequest, Request, Waiting, compare};
use traces_receiver::store::{Limits, Store};

pub use own::{Own, arrived};
pub use run::{Cause, Report, Source, new_traceparent, run};

/// The environment variable that makes tests write their files: `update`.
pub const UPDATE: &str = "TRACE_EXPECT";

/// The most connections that the receiver takes at each address.
const CONNECTIONS: usize = 10_000;

/// The receiver of this process.
struct Shared {
    store: Store,
    http: SocketAddr,
    grpc: SocketAddr,
}

/// Starts the receiver on a thread of its own, because each test has its own runtime. Panics when it can't start: a test that gets
/// no receiver has to fail, and the message says why.
fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let store = Store::new(Limits::default());
        let (sender, addresses) = std::sync::mpsc::channel();
        let of_thread = store.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("the receiver of the tests needs a runtime");
            runtime.block_on(async move {
                let free = SocketAddr::from(([127, 0, 0, 1], 0));
                let receivers = traces_receiver::Receivers::bind(free, free).await;
                let receivers = receivers.expect("the receiver of the tests needs two free ports");
                // The test waits for this below.
                let _ = sender.send(receivers.addresses());
                let ended = receivers.serve(of_thread, CONNECTIONS, std::future::pending()).await;
                ended.expect("the receiver of the tests ended");
            });
        });
        let (http, grpc) = addresses.recv().expect("the receiver of the tests listens");
        Shared { store, http, grpc }
    })
}

/// Returns the endpoint for exporters that use OTLP over HTTP, such as `http://127.0.0.1:43117`: the value for
/// `OTEL_EXPORTER_OTLP_ENDPOINT`.
///
/// # Panics
/// The receiver can't start: the machine has no free port or no thread left.
pub fn endpoint() -> String {
    format!("http://{}", shared().http)
}

/// Returns the endpoint for exporters that use OTLP over gRPC.
///
/// # Panics
/// The receiver can't start, as for [`endpoint`].
pub fn grpc_endpoint() -> String {
    format!("http://{}", shared().grpc)
}

/// Sends a request with the `traceparent` that `send` gets. Compares its trace with the only request of `file`. Relative
/// paths start at the folder in which the test runs, which is that of the package in `cargo test`.
///
/// # Panics
/// The trace isn't as the file says, the request fails, or the file can't be read.
pub async fn expect<F, E>(file: impl AsRef<Path>, send: impl FnOnce(String) -> F)
where
    F: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    Expect::new(file).run(send).await;
}

/// A request to send and its file, with more settings than [`expect`] has.
#[derive(Debug, Clone)]
#[must_use = "call run"]
pub struct Expect {
    file: PathBuf,
    name: Option<String>,
    waiting: Waiting,
    attributes: Vec<String>,
    edges: bool,
    alone: bool,
}

/// Why a request couldn't be compared with its file, or how it differs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text}\n{}", page_line(page))]
    Differs {
        /// The report.
        text: String,
        /// The path of a page that shows the request.
        page: Result<PathBuf, page::Error>,
    },
    #[error("{}: nothing arrived: do the services export to {}, and did the request carry the traceparent?", file.display(), endpoint())]
    NothingArrived { file: PathBuf },
    #[error("the request failed: {0}")]
    Request(String),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}, {mistake}", path.display())]
    Mistake { path: PathBuf, mistake: Mistake },
    #[error("{}: {problem}", path.display())]
    NoRequest { path: PathBuf, problem: NoRequest },
    #[error("{}: its request has no name: write one in brackets above it, such as `[checkout]`", path.display())]
    Unnamed { path: PathBuf },
    #[error("{}: nothing was written: other traces arrived, but none with the trace id that was sent", path.display())]
    NothingCounts { path: PathBuf },
    #[error("{}: it says which spans are expected: delete the request from the file to write only services and calls", path.display())]
    IsTree { path: PathBuf },
}

impl Error {
    /// Whether the file doesn't exist yet, or doesn't have the request yet.
    pub fn is_missing(&self) -> bool {
        match self {
            Error::Read { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Error::NoRequest { problem, .. } => !matches!(problem, NoRequest::Several { .. }),
            _ => false,
        }
    }
}

/// Names the page of a request, or says why there is none.
fn page_line(page: &Result<PathBuf, page::Error>) -> String {
    match page {
        Ok(path) => format!("Open this page in a browser: {}", path.display()),
        Err(error) => {
            let reason = error.source().map_or(String::new(), |reason| format!(": {reason}"));
            format!("No page shows the request: {error}{reason}")
        }
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Expect {
    /// The only request of a file.
    pub fn new(file: impl AsRef<Path>) -> Self {
        let waiting = Waiting { settle: Duration::from_secs(1), timeout: Duration::from_secs(10) };
        Expect {
            file: file.as_ref().to_owned(),
            name: None,
            waiting,
            attributes: Vec::new(),
            edges: false,
            alone: false,
        }
    }

    /// The request with this name, in a file with several.
    pub fn named(self, name: &str) -> Self {
        Expect { name: Some(name.to_owned()), ..self }
    }

    /// For how long nothing may arrive before the trace counts as complete: one second by default. It has to be longer than the
    /// time between two exports of the services (`OTEL_BSP_SCHEDULE_DELAY`, five seconds unless it is set).
    pub fn settle(mut self, settle: Duration) -> Self {
        self.waiting.settle = settle;
        self
    }

    /// How long to wait for a trace that isn't as the file says: ten seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.waiting.timeout = timeout;
        self
    }

    /// Writes this attribute when the file is written, for each span that has it.
    pub fn attribute(mut self, key: &str) -> Self {
        self.attributes.push(key.to_owned());
        self
    }

    /// Writes which services call which, instead of the tree, when the file is written for the first time.
    pub fn edges(self) -> Self {
        Expect { edges: true, ..self }
    }

    /// Fails when other traces arrive, too. Not for tests that run in parallel.
    pub fn alone(self) -> Self {
        Expect { alone: true, ..self }
    }

    /// Sends the request and compares its trace.
    ///
    /// # Panics
    /// The trace isn't as the file says, the request fails, or the file can't be read.
    pub async fn run<F, E>(self, send: impl FnOnce(String) -> F)
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        if let Err(error) = self.check(send).await {
            let mut text = error.to_string();
            if let Some(source) = error.source() {
                text.push_str(&format!(": {source}"));
            }
            if error.is_missing() {
                text.push_str(&format!(": {UPDATE}=update writes the file"));
            }
            panic!("{text}");
        }
    }

    /// Sends the request and compares its trace. Returns what has arrived.
    ///
    /// # Errors
    /// The trace isn't as the file says, the request fails, or the file can't be read.
    pub async fn check<F, E>(self, send: impl FnOnce(String) -> F) -> Result<Report, Error>
    where
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let update = std::env::var(UPDATE).is_ok_and(|value| value == "update");
        let mut files = match update {
            true => Files::open_or_new(&self.file)?,
            false => Files::open(&self.file)?,
        };
        let name = self.name.as_deref();
        let request = match update {
            true => files.request_to_write(name, self.edges)?,
            false => files.request(name)?.clone(),
        };
        let mut source = Own::new(shared().store.clone());
        let sent = new_traceparent();
        let sending = async {
            let sending = send(sent.to_string()).await;
            sending.map_err(|error| Error::Request(error.to_string()))
        };
        let report: Report =
            run(&mut source, &request, &self.attributes, sent, self.waiting, sending).await?;
        if report.is_empty() && report.others.is_empty() {
            return Err(Error::NothingArrived { file: self.file });
        }
        let title = files.title(name);
        let page = page::path(&self.file, name);
        if update {
            files.update(&request, &report, self.edges)?;
            // Not with `eprintln!`, whose output `cargo test` shows only for tests that fail.
            let mut stderr = std::io::stderr().lock();
            for warning in text::warnings(&report) {
                // A closed output is no reason to fail.
                let _ = writeln!(stderr, "Warning: {title}: {warning}");
            }
            return Ok(report);
        }
        let not_alone = self.alone && !report.others.is_empty();
        let problems: Vec<String> =
            not_alone.then(|| text::NOT_ALONE.to_owned()).into_iter().collect();
        if report.matches() && problems.is_empty() {
            // Of an earlier run. If it can't be removed, this run is still fine.
            let _ = std::fs::remove_file(page);
            return Ok(report);
        }
        let text = text::Text { report: &report, name: &title, problems: &problems }.to_string();
        let written = page::write(&page, &title, &text, report.case);
        Err(Error::Differs { text, page: written.map(|()| page) })
    }
}

/// A request whose spans may be anything, for a file that is about to be written.
fn anything(name: Option<String>) -> Request {
    let tree = expect::parse("*  *  x1..\n  ...\n...\n");
    let mut request = tree.ok().and_then(|file| file.requests.into_iter().next());
    let body = request.take().map_or(Body::Edges(Vec::new()), |request| request.body);
    Request { name, comments: Vec::new(), body }
}

/// A file of expected traces and its path.
pub struct Files {
    path: PathBuf,
    file: File,
}

impl Files {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or a line of it is wrong.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let file = expect::parse(&text);
        let file = file.map_err(|mistake| Error::Mistake { path: path.to_owned(), mistake })?;
        Ok(Files { path: path.to_owned(), file })
    }

    /// Reads a file that needn't exist.
    ///
    /// # Errors
    /// It exists and can't be read.
    pub fn open_or_new(path: &Path) -> Result<Self, Error> {
        match Files::open(path) {
            Err(error) if error.is_missing() => {
                Ok(Files { path: path.to_owned(), file: File::default() })
            }
            opened => opened,
        }
    }

    /// The request with this name, or the only one.
    ///
    /// # Errors
    /// There is none.
    pub fn request(&self, name: Option<&str>) -> Result<&Request, Error> {
        let request = self.file.request(name);
        request.map_err(|problem| Error::NoRequest { path: self.path.clone(), problem })
    }

    /// The request that is about to be written: the one with this name, or one whose spans may be anything where the file doesn't
    /// have it yet. `edges` says that only services and calls are to be written.
    ///
    /// # Errors
    /// The file has several requests and no name is given, or the request is a tree and can't become edges.
    pub fn request_to_write(&self, name: Option<&str>, edges: bool) -> Result<Request, Error> {
        match self.request(name) {
            Ok(Request { body: Body::Tree(_), .. }) if edges => {
                Err(Error::IsTree { path: self.path.clone() })
            }
            Ok(request) => Ok(request.clone()),
            Err(error) if error.is_missing() => Ok(anything(name.map(str::to_owned))),
            Err(error) => Err(error),
        }
    }

    /// The path, and the name of the request.
    pub fn title(&self, name: Option<&str>) -> String {
        let path = self.path.display();
        name.map_or_else(|| path.to_string(), |name| format!("{path}, {name}"))
    }

    /// Writes what has arrived into the file, unless the request matches. Returns what was replaced by patterns, or `None` where
    /// nothing had to be written.
    ///
    /// # Errors
    /// No span counts, or the file can't be written.
    pub fn update(
        &mut self,
        request: &Request,
        report: &Report,
        edges: bool,
    ) -> Result<Option<expect::Generalised>, Error> {
        let requests = &mut self.file.requests;
        let known = requests.iter().position(|it| it.name == request.name);
        let names_new = report.keys.len() > request.attributes().len();
        if known.is_some() && report.matches() && !names_new {
            return Ok(None);
        }
        if known.is_none() && requests.iter().any(|it| it.name.is_none()) {
            return Err(Error::Unnamed { path: self.path.clone() });
        }
        let Report { counted: actual, keys, .. } = report;
        if actual.is_empty() {
            return Err(Error::NothingCounts { path: self.path.clone() });
        }
        let generalised = match known {
            Some(known) => {
                let (body, generalised) = compare::updated(&requests[known], actual, keys);
                requests[known].body = body;
                generalised
            }
            None => {
                let (body, generalised) = compare::written(actual, keys, edges);
                requests.push(Request { body, ..request.clone() });
                generalised
            }
        };
        let written = std::fs::write(&self.path, self.file.to_string());
        written.map_err(|source| Error::Write { path: self.path.clone(), source })?;
        Ok(Some(generalised))
    }
}
