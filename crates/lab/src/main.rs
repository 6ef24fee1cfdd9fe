//! `cargo run`: the book, the trace viewer and the three services, with one request traced.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use clap::{Args, Parser, Subcommand};
use lab::check::Step;
use lab::services::{self, Running, System};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::{book, check, grpc, guard, receiver, site};
use serde_json::json;
use tokio::net::TcpListener;

/// How long the first request and its trace may take. Far more than they need: only a fault takes longer.
const FIRST_TRACE_DEADLINE: Duration = Duration::from_secs(20);

/// The book, a trace viewer and three services to look at, on this machine only.
#[derive(Parser)]
#[command(name = "lab")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// The book and the viewer without the services: for those who bring their own, as the tutorial does.
    View,
    /// Asks whether a step of the tutorial has left the trace that it should, and what is missing.
    Check {
        step: Step,
        /// The folder of the reader's own project, which step 5 tests.
        #[arg(long, env = "LAB_PROJECT", default_value = "../distributed_tracing")]
        project: PathBuf,
    },
}

#[derive(Args, Clone)]
struct Options {
    /// Where to serve the book and the traces. Port 0 takes a free one.
    #[arg(
        long,
        global = true,
        env = "LAB_SITE",
        default_value = "127.0.0.1:3000"
    )]
    site: SocketAddr,
    /// Where to receive spans over OTLP/HTTP.
    #[arg(
        long,
        global = true,
        env = "LAB_OTLP",
        default_value = "127.0.0.1:4318"
    )]
    otlp: SocketAddr,
    /// Where to receive spans over OTLP/gRPC.
    #[arg(
        long,
        global = true,
        env = "LAB_GRPC",
        default_value = "127.0.0.1:4317"
    )]
    grpc: SocketAddr,
    /// Where api-gateway listens.
    #[arg(
        long,
        global = true,
        env = "API_GATEWAY_ADDR",
        default_value = "127.0.0.1:5000"
    )]
    gateway: SocketAddr,
    /// Where user-service listens.
    #[arg(
        long,
        global = true,
        env = "USER_SERVICE_ADDR",
        default_value = "127.0.0.1:5001"
    )]
    user_service: SocketAddr,
    /// Where llm-service listens.
    #[arg(
        long,
        global = true,
        env = "LLM_SERVICE_ADDR",
        default_value = "127.0.0.1:5002"
    )]
    llm_service: SocketAddr,
    /// The number of spans to keep; past it the oldest trace goes.
    #[arg(long, global = true, default_value_t = Limits::default().spans)]
    max_spans: usize,
    /// The number of bytes of spans to keep; past it the oldest trace goes.
    #[arg(long, global = true, default_value_t = Limits::default().bytes)]
    max_bytes: usize,
    /// The folder of the book's `book.toml`.
    #[arg(long, global = true, hide_default_value = true, default_value_os_t = book::root())]
    book: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command, options } = Cli::parse();
    let outcome = match command {
        Some(Command::Check { step, project }) => check(&options, step, &project).await,
        Some(Command::View) => lab(options, false).await,
        None => lab(options, true).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn check(options: &Options, step: Step, project: &Path) -> anyhow::Result<()> {
    print(&match step {
        Step::KeepItWhole => check::project(project).await?,
        _ => check::ask(options.site, step).await?,
    });
    Ok(())
}

/// Runs until a signal or a fault; either way, whatever was started is stopped in order before this returns.
async fn lab(options: Options, services: bool) -> anyhow::Result<()> {
    let stopped = stop_signal()?;
    let mut running = Running::default();
    let outcome = tokio::select! {
        fault = start(options, services, &mut running) => fault.map(|never| match never {}),
        () = stopped => Ok(()),
    };
    running.stop().await;
    outcome
}

/// Starts everything, says where it is, and returns only when something goes wrong.
async fn start(
    options: Options,
    services: bool,
    running: &mut Running,
) -> anyhow::Result<Infallible> {
    let store = Store::new(Limits {
        spans: options.max_spans,
        bytes: options.max_bytes,
    });
    let (site_listener, site_address) = listen("--site", options.site).await?;
    let (otlp_listener, otlp_address) = listen("--otlp", options.otlp).await?;
    let (grpc_listener, grpc_address) = listen("--grpc", options.grpc).await?;

    let root = options.book.clone();
    // The folder is the closure's until the book is built: it must not be deleted under it.
    let built = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().context("there is no place to build the book in")?;
        let pages = book::build(&root, folder.path())?;
        anyhow::Ok((folder, pages))
    });
    let (_folder, pages) = built.await.context("building the book was cut short")??;

    let site = serve(
        site_listener,
        site::routes(store.clone(), &pages, otlp_address),
    );
    let otlp = serve(otlp_listener, receiver::routes(store.clone()));
    let grpc = serve(grpc_listener, grpc::routes(store.clone()));
    let work = async {
        if services {
            let system = System {
                gateway: options.gateway,
                user_service: options.user_service,
                llm_service: options.llm_service,
                otlp: otlp_address,
            };
            let gateway = system
                .start(&services::build(false).await?, running)
                .await?;
            let tree = tokio::time::timeout(FIRST_TRACE_DEADLINE, first_trace(&store, gateway))
                .await
                .with_context(|| {
                    format!("no whole trace arrived within {FIRST_TRACE_DEADLINE:?}")
                })??;
            print(&welcome(
                &tree,
                site_address,
                [otlp_address, grpc_address],
                gateway,
            ));
            anyhow::bail!(running.first_to_end().await)
        }
        print(&format!(
            "Book     http://{site_address}/\n\
             Traces   http://{site_address}/traces\n\
             OTLP     http://{otlp_address}\n\
             gRPC     http://{grpc_address}\n\n\
             Send spans here and reload Traces. Ctrl-C stops.\n"
        ));
        std::future::pending().await
    };
    tokio::select! {
        fault = site => fault,
        fault = otlp => fault,
        fault = grpc => fault,
        fault = work => fault,
    }
}

async fn listen(flag: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} (choose another with {flag})"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// At an address that only this machine can reach, requests must also be to a name of this machine.
async fn serve(listener: TcpListener, routes: Router) -> anyhow::Result<Infallible> {
    let address = listener.local_addr()?;
    let routes = match address.ip().is_loopback() {
        true => guard::only_here(routes),
        false => {
            eprintln!("Warning: whoever can reach {address} can read your traces and send spans");
            routes
        }
    };
    axum::serve(listener, routes).await?;
    anyhow::bail!("a server of the lab ended by itself")
}

/// Sends the first request, and waits until its trace is in one piece and has all three services.
async fn first_trace(store: &Store, gateway: SocketAddr) -> anyhow::Result<Tree> {
    let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client
        .post(format!("http://{gateway}/api/query"))
        .json(&query)
        .send()
        .await?;
    let status = response.status();
    ensure!(
        status.is_success(),
        "the first request was answered {status}"
    );

    let mut changes = store.changes();
    loop {
        let mut trees = Tree::all(store).into_iter();
        if let Some(tree) = trees.find(|tree| tree.is_whole() && tree.services().len() == 3) {
            return Ok(tree);
        }
        changes.changed().await?;
    }
}

fn welcome(
    tree: &Tree,
    site: SocketAddr,
    [otlp, grpc]: [SocketAddr; 2],
    gateway: SocketAddr,
) -> String {
    format!(
        "One request, three services, one trace:\n\n\
         {}\n\
         This trace  http://{site}/traces/{}\n\
         All traces  http://{site}/traces\n\
         The book    http://{site}/\n\
         OTLP        http://{otlp}\n\
         gRPC        http://{grpc}\n\n\
         Send one yourself:\n\n\
         curl -i http://{gateway}/api/query -H 'content-type: application/json' \
         -d '{{\"user_id\": \"user_1\", \"query\": \"Where is the time?\"}}'\n\n\
         Ctrl-C stops all of it.\n",
        tree.to_text(),
        tree.trace_id,
    )
}

/// Unlike `println!`, does not panic where nobody reads standard output any more.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Ends at Ctrl-C; on Unix also at SIGTERM, and at SIGHUP, which a closing terminal sends.
#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
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

#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
