//! The lab itself: the servers, the book, and where they are wanted the three services with a first request; until a signal
//! or a fault.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use lab::listen::Names;
use lab::services::{self, Running, System};
use lab::session::{self, Recorder};
use lab::store::{Limits, Store};
use lab::tree::Tree;
use lab::wire::Wire;
use lab::{book, grpc, listen, receiver, site};
use serde_json::json;
use tokio::sync::watch;

use crate::output::print;
use crate::{Receive, Services};

/// How long the first request and its trace may take. Far more than they need: only a fault takes longer.
const FIRST_TRACE_DEADLINE: Duration = Duration::from_secs(20);

/// Runs until a signal or a fault; either way, whatever was started is stopped in order before this returns.
pub async fn lab(receive: Receive, services: Option<Services>) -> anyhow::Result<()> {
    let stopped = stop_signal()?;
    let mut running = Running::default();
    let outcome = tokio::select! {
        fault = start(receive, services, &mut running) => fault.map(|never| match never {}),
        () = stopped => Ok(()),
    };
    running.stop().await;
    outcome
}

/// Starts everything, says where it is, and returns only when something goes wrong.
async fn start(
    options: Receive,
    services: Option<Services>,
    running: &mut Running,
) -> anyhow::Result<Infallible> {
    let site_listener = listen::bind("--site", options.site).await?;
    let otlp_listener = listen::bind("--otlp", options.otlp).await?;
    let grpc_listener = listen::bind("--grpc", options.grpc).await?;
    let site_address = site_listener.local_addr()?;
    let addresses = [otlp_listener.local_addr()?, grpc_listener.local_addr()?];
    let [otlp_address, _] = addresses;

    let hops = match &services {
        Some(services) => Some([
            listen::bind("--gateway", services.gateway).await?,
            listen::bind("--user-service", services.user_service).await?,
            listen::bind("--llm-service", services.llm_service).await?,
        ]),
        None => None,
    };

    let wire = Wire::default();
    let store = session(&options)?;
    let root = options.book.clone().or_else(book::root_if_there);
    let (built, pages) = watch::channel(None);
    let pages = root.is_some().then_some(pages);
    let site = site::routes(store.clone(), wire.clone(), pages.clone(), otlp_address);
    let serve =
        |listener, routes, names| listen::serve(listener, options.max_connections, names, routes);
    let servers = async {
        tokio::try_join!(
            serve(site_listener, site, Names::Addresses),
            serve(otlp_listener, receiver::routes(store.clone()), Names::Any),
            serve(grpc_listener, grpc::routes(store.clone()), Names::Any),
        )?;
        anyhow::bail!("the servers of the lab ended by themselves")
    };
    let build = async {
        // The folder lives as long as we do: it must not be deleted under the server.
        let _folder = match root {
            Some(root) => Some(build_book(root, built).await?),
            None => None,
        };
        std::future::pending().await
    };
    let work = async {
        let Some(listeners) = hops else {
            print(&welcome(site_address, addresses, pages.is_some()));
            return std::future::pending().await;
        };
        let system = System {
            wire,
            listeners,
            otlp: otlp_address,
        };
        let gateway = system
            .start(&services::build(false).await?, running)
            .await?;
        let tree = tokio::time::timeout(FIRST_TRACE_DEADLINE, first_trace(&store, gateway))
            .await
            .with_context(|| format!("no whole trace arrived within {FIRST_TRACE_DEADLINE:?}"))??;
        print(&welcome_with_trace(&tree, site_address, addresses, gateway));
        anyhow::bail!(running.first_to_end().await)
    };
    tokio::select! {
        fault = servers => fault,
        fault = build => fault,
        fault = work => fault,
    }
}

/// The store, with the sessions that are to be opened in it.
fn session(options: &Receive) -> anyhow::Result<Store> {
    let mut store = Store::new(Limits {
        spans: options.max_spans,
        bytes: options.max_bytes,
    });
    for path in &options.open {
        let (spans, lines) = session::open(path, &store)?;
        if let Some(problem) = lines.problems.first() {
            let (path, unread) = (path.display(), lines.unread);
            eprintln!(
                "Warning: {path}: {unread} of its documents cannot be read whole, the first: {problem}"
            );
        }
        print(&format!("Opened   {}: {spans} spans\n", path.display()));
    }
    if let Some(path) = &options.save {
        store = store.recorded_by(Recorder::append(path)?);
    }
    Ok(store)
}

/// Builds the book and says where its pages are; returns the folder, which goes when it is dropped.
async fn build_book(
    root: PathBuf,
    built: watch::Sender<Option<PathBuf>>,
) -> anyhow::Result<tempfile::TempDir> {
    let build = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().context("there is no place to build the book in")?;
        let pages = book::build(&root, folder.path())?;
        anyhow::Ok((folder, pages))
    });
    let (folder, pages) = build.await.context("building the book was cut short")??;
    built.send_replace(Some(pages));
    Ok(folder)
}

/// Sends the first request, and waits until its trace is in one piece and has all three services.
async fn first_trace(store: &Store, gateway: SocketAddr) -> anyhow::Result<Tree> {
    let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
    // A session that was opened has such traces too.
    let before: Vec<_> = store.sizes().into_iter().map(|(id, _)| id).collect();
    let mut changes = store.changes();
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

    loop {
        let mut trees = store.trees().into_iter();
        let new = |tree: &Tree| !before.contains(&tree.trace_id);
        let whole = |tree: &Tree| tree.is_whole() && tree.services().len() == 3;
        if let Some(tree) = trees.find(|tree| new(tree) && whole(tree)) {
            return Ok(tree);
        }
        changes.changed().await?;
    }
}

fn welcome(site: SocketAddr, [otlp, grpc]: [SocketAddr; 2], book: bool) -> String {
    let book = match book {
        true => format!("Book     http://{site}/\n"),
        false => String::new(),
    };
    format!(
        "{book}\
         Traces   http://{site}/traces\n\
         OTLP     http://{otlp}\n\
         gRPC     http://{grpc}\n\n\
         Send spans here: Traces shows them at once. Ctrl-C stops.\n"
    )
}

fn welcome_with_trace(
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
