//! The command line: the options of `lab view` and the commands that query a running lab. The program of the book's
//! repository offers the same commands.

mod ask;
mod diagnose;
mod diff;
mod document;
mod expect;
mod file;
mod mutate;
mod probe;
mod run;
mod skill;
mod trace;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::sync::oneshot;

use crate::editor::{Editor, Template};
use crate::forward::{self, Forwarder};
use crate::read::{Contents, Form, Piece, Unreadable};
use crate::recorder::Recorder;
use crate::server::{Addresses, Server};
use crate::session;
use crate::store::{Limits, Store};
use crate::waterfall::count;
use crate::{grpc, otlp, output, receiver, span, viewer};

pub use ask::{Ask, LabAddress};
pub use probe::text as probe_report;
pub use wire::Proxies;

/// The addresses where a command receives spans.
#[derive(Args, Debug, Clone, Copy, PartialEq, Eq)]
struct ReceiverAddresses {
    /// The address that receives spans over OTLP/HTTP.
    #[arg(
        long,
        env = "LAB_OTLP",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value_t = ReceiverAddresses::DEFAULT.otlp,
        help_heading = "Addresses"
    )]
    otlp: SocketAddr,
    /// The address that receives spans over OTLP/gRPC.
    #[arg(
        long,
        env = "LAB_GRPC",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value_t = ReceiverAddresses::DEFAULT.grpc,
        help_heading = "Addresses"
    )]
    grpc: SocketAddr,
}

impl ReceiverAddresses {
    /// The ports that OTLP has by default.
    const DEFAULT: Self = ReceiverAddresses {
        otlp: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4318),
        grpc: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4317),
    };
}

/// The options of a lab that receives spans.
#[derive(Args)]
pub struct Options {
    /// The address of the traces' pages. Port 0 takes a free port.
    #[arg(
        long,
        env = "LAB_SITE",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:3000",
        help_heading = "Addresses"
    )]
    site: SocketAddr,
    #[command(flatten)]
    receivers: ReceiverAddresses,
    /// Puts a proxy in front of a service. It listens at LISTEN, forwards to TARGET, shows the headers of each request on
    /// /wire, and breaks requests by `lab break NAME`. Can be given several times.
    #[arg(long, value_name = "NAME=LISTEN,TARGET", help_heading = "Addresses")]
    wire: Vec<wire::Proxy>,
    /// Shows the spans of a file from the start: of OTLP, Jaeger, Zipkin, Tempo, or the console exporters of Go, Python
    /// and PHP, also packed with gzip or zstd. Can be given several times.
    #[arg(long, value_name = "FILE", help_heading = "Session")]
    open: Vec<PathBuf>,
    /// Appends what is received to a file, as OTLP JSON, one request per line.
    #[arg(long, value_name = "FILE", help_heading = "Session")]
    save: Option<PathBuf>,
    /// Also sends what is received to another receiver of OTLP over HTTP, such as a Collector or a vendor. URL is its base, to which the
    /// lab appends /v1/traces. LAB_FORWARD_HEADERS has the headers, such as a key, as NAME=VALUE,NAME=VALUE with URL-encoded values.
    /// Nothing is redacted.
    #[arg(long, value_name = "URL", help_heading = "Session")]
    forward: Option<String>,
    /// Links spans to their source files in an editor. TEMPLATE is the address of a file there, such as
    /// vscode://file/{path}:{line}.
    #[arg(long, value_name = "TEMPLATE", requires = "code_root", help_heading = "Source code")]
    editor: Option<Template>,
    /// A folder whose files may be linked. A relative path that a span has, such as src/main.rs, begins here. No file is read.
    /// Can be given several times.
    #[arg(long, value_name = "FOLDER", requires = "editor", help_heading = "Source code")]
    code_root: Vec<PathBuf>,
    /// The number of spans to keep. Past it, the oldest trace is dropped.
    #[arg(long, value_name = "SPANS", default_value_t = Limits::default().spans, help_heading = "Limits")]
    max_spans: usize,
    /// The number of bytes of spans to keep. Past it, the oldest trace is dropped.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes, help_heading = "Limits")]
    max_bytes: usize,
    /// The number of connections to take at each address. Further ones are answered 429.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 250, help_heading = "Limits")]
    max_connections: usize,
    /// Ends the lab with the last `lab run` that uses it.
    #[arg(long, hide = true)]
    while_held: bool,
}

impl Options {
    /// Adds the proxies of `lab wire`.
    pub fn with(mut self, Proxies { proxies }: Proxies) -> Self {
        self.wire.extend(proxies);
        self
    }

    /// Listens at the addresses, starts the proxies and opens the files. Returns `None` when `stop` ends first.
    ///
    /// # Errors
    /// Fails when an address is taken, a proxy would forward to itself, or a file can't be read or written.
    pub async fn bind(self, stop: impl Future<Output = ()>) -> anyhow::Result<Option<Server>> {
        tokio::select! {
            server = self.bound() => server.map(Some),
            () = stop => Ok(None),
        }
    }

    async fn bound(self) -> anyhow::Result<Server> {
        let ReceiverAddresses { otlp, grpc } = self.receivers;
        let addresses = Addresses { site: self.site, otlp, grpc };
        let store = Store::new(Limits { spans: self.max_spans, bytes: self.max_bytes });
        let editor =
            self.editor.map(|template| Editor::new(template, &self.code_root)).transpose()?;
        // Listen first: a lab that can't start must not touch a file.
        let mut server = Server::bind(addresses, store.clone(), self.max_connections).await?;
        server.editor = editor;
        server.ends_with_users = self.while_held;
        if let Some(url) = self.forward {
            let headers = std::env::var_os(forward::HEADERS);
            let headers = headers.as_ref().map(|it| it.to_string_lossy());
            let (own, headers) = (server.addresses(), headers.as_deref());
            server.forwarder = Some(Forwarder::start(&url, headers, own, &store).await?);
        }
        wire::start(self.wire, &server.wire).await?;
        let (open, save) = (self.open, self.save);
        let files = move || {
            open.iter().try_for_each(|path| open_session(path, &store))?;
            Ok(match save {
                Some(path) => store.recorded_by(Recorder::append(&path)?),
                None => store,
            })
        };
        server.store = on_own_thread(files).await?;
        if let Some(forwarder) = &server.forwarder {
            server.store = server.store.forwarded_by(Arc::clone(forwarder.queue()));
        }
        Ok(server)
    }
}

/// Runs `work` on a thread that doesn't keep the process from ending. A large file takes long to read, and opening a pipe waits
/// for the program at its other end.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, result) = oneshot::channel();
    // Sending fails when nobody waits for the result any longer.
    std::thread::spawn(move || drop(sender.send(work())));
    result.await?
}

/// Adds the spans of a file to the store and prints what was in it.
fn open_session(path: &Path, store: &Store) -> anyhow::Result<()> {
    let opened = session::open(path, |Piece { spans, logs }| {
        store.add(spans);
        store.add_logs(logs);
    });
    let path = path.display();
    let Contents { form, count: spans, log_count, unread, problems, others, .. } = match opened {
        // A session in which nothing arrived, such as the file that --save is about to continue.
        Err(session::Error::Unreadable { reason, .. }) if matches!(*reason, Unreadable::Empty) => {
            return output::print(&format!("Opened   {path}: it is empty\n"));
        }
        opened => opened?,
    };
    if let Some(problem) = problems.first() {
        let count = count(unread, "part");
        eprintln!("Warning: {path}: {count} of it can't be read; the first: {problem}");
    }
    let mut counts = count(spans, "span");
    if log_count > 0 {
        counts = format!("{counts}, {}", count(log_count, "log record"));
    }
    let form = match form {
        Form::OtlpJson => String::new(),
        form => format!(", from {form}"),
    };
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", and not shown: {others}"),
    };
    output::print(&format!("Opened   {path}: {counts}{form}{others}\n"))
}

/// Lists the fixed limits and some examples, for the long help. `program` is the command to start the program with.
pub fn notes(program: &str) -> String {
    let examples = [
        ("view", "look at the traces of your own services"),
        ("", ""),
        ("view --save today.jsonl", "and keep them"),
        ("wire shop=127.0.0.1:8080,shop:80", "with a proxy in front of one"),
        ("traces --status error --min 100ms", "slow requests that failed"),
        ("trace", "the newest trace"),
        ("diagnose", "what is wrong with it"),
        ("diff before.json after.json", "what changed"),
    ];
    let width = program.len() + 36;
    let examples: String = examples
        .iter()
        .map(|(command, purpose)| match command.is_empty() {
            true => "  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 my-service\n".to_owned(),
            false => format!("  {:width$}{purpose}\n", format!("{program} {command}")),
        })
        .collect();
    format!(
        "Fixed limits, past which a request is refused with a reason:\n  \
         a body, unpacked    {} bytes over HTTP (413), {} over gRPC\n  \
         spans in a request  {} (400)\n  \
         a name or a value   {} bytes (its span is rejected, the others are taken)\n  \
         levels of a value   {} (likewise)\n  \
         a dropped file      {} bytes (413)\n\n\
         Examples:\n{}",
        receiver::BODY_LIMIT,
        grpc::MESSAGE_LIMIT,
        otlp::SPANS_LIMIT,
        span::TEXT_LIMIT,
        span::DEPTH_LIMIT,
        viewer::IMPORT_LIMIT,
        examples.trim_end(),
    )
}

/// Prints the completions of a shell for `command`.
///
/// # Errors
/// Fails when standard output can't be written.
pub fn completions(shell: clap_complete::Shell, command: &mut clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, command, name, &mut script);
    output::write(&script)
}

/// The result of a command that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command was done, and it found nothing wrong.
    Fine,
    /// The command found a fault.
    Found,
    /// The command ran another one, which ended with this exit status.
    Ran(u8),
}

/// Returns the exit status of a command: 0 when nothing is wrong, 1 when the command found a fault, and 2 when it couldn't do
/// its work. Prints the error in the last case. Invalid arguments end with 2 as well, in clap.
pub fn exit_code(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(1),
        Ok(Outcome::Ran(status)) => ExitCode::from(status),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns a future that ends at Ctrl-C, SIGTERM or SIGHUP, which a closing terminal sends.
///
/// # Errors
/// Fails when the signals can't be listened to.
#[cfg(unix)]
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Returns a future that ends at Ctrl-C.
///
/// # Errors
/// Never fails on this system.
#[cfg(not(unix))]
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
