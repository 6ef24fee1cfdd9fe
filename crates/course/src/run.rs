//! Runs the course: the lab, the book and, if wanted, the three services with a first request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use course::hops::HOPS;
use course::services::{self, Running, System};
use course::{book, root, site};
use lab::listen;
use lab::server::Addresses;
use lab::store::Store;
use lab::tree::Tree;
use lab::wire::Wire;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::{Serve, Services};

/// How long the first request and its trace may take. They only take this long when something is broken.
const FIRST_TRACE_DEADLINE: Duration = Duration::from_secs(20);

/// Runs the course until it is stopped by a signal or fails. Then stops the services first, callers before the services that
/// they call, so that the receivers still take their last spans.
///
/// # Errors
/// Fails when an address is taken, the services don't compile or start, the book doesn't build, or a service ends by itself.
pub async fn course(options: Serve, services: Option<Services>) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(lab::cli::stop_signal()?);
    let Some(lab) = options.lab.bind(&mut stopped).await? else { return Ok(()) };
    let listeners = match &services {
        Some(services) => Some([
            listen::bind("--gateway", services.gateway).await?,
            listen::bind("--user-service", services.user_service).await?,
            listen::bind("--llm-service", services.llm_service).await?,
        ]),
        None => None,
    };
    let root = match (options.book, &services) {
        (Some(root), _) => Some(root),
        (None, Some(_)) => Some(root::find()?),
        (None, None) => {
            root::find().inspect_err(|error| eprintln!("Warning: no book is served: {error}")).ok()
        }
    };
    let (built, pages) = watch::channel(None);
    let pages = root.is_some().then_some(pages);
    if listeners.is_some() {
        for hop in HOPS {
            let is_taken = lab.wire.address(hop.name).is_some();
            ensure!(
                !is_taken,
                "the proxy {0} needs another name: {0} is a proxy of the book's services",
                hop.name
            );
        }
        lab.wire.announce(HOPS);
    }
    let (store, wire, addresses) = (lab.store.clone(), lab.wire.clone(), lab.addresses());
    let book = format!("http://{}/", addresses.site);
    let welcome = lab.welcome(pages.is_some().then_some(&book));

    let (stop, stopping) = oneshot::channel::<()>();
    let pages = site::pages(store.clone(), wire.clone(), pages);
    // Dropping `stop` stops the server too.
    let mut server = tokio::spawn(lab.serve(pages, async { drop(stopping.await) }));
    let mut running = Running::default();
    let work = async {
        let Some(listeners) = listeners else {
            lab::print(&welcome)?;
            return std::future::pending().await;
        };
        let otlp = addresses.otlp;
        let gateway = start_services(wire, listeners, otlp, &mut running).await?;
        let tree = tokio::time::timeout(FIRST_TRACE_DEADLINE, first_trace(&store, gateway))
            .await
            .with_context(|| format!("no whole trace arrived within {FIRST_TRACE_DEADLINE:?}"))??;
        lab::print(&welcome_with_trace(&tree, addresses, gateway))?;
        bail!(running.first_to_end().await)
    };
    let build = async {
        // The folder is deleted when it is dropped, so it must live as long as the server.
        let _folder = match root {
            Some(root) => Some(build_book(root, built).await?),
            None => None,
        };
        std::future::pending::<anyhow::Result<Infallible>>().await
    };
    let outcome = tokio::select! {
        fault = work => fault.map(|never: Infallible| match never {}),
        fault = build => fault.map(|never| match never {}),
        ended = &mut server => {
            running.stop().await;
            ended.context("the lab's servers were cut short")??;
            bail!("the lab's servers ended by themselves");
        }
        () = &mut stopped => Ok(()),
    };
    running.stop().await;
    drop(stop);
    server.await.context("the lab's servers were cut short")??;
    outcome
}

/// Compiles the services and starts each behind its proxy. Returns the address of the gateway's proxy.
async fn start_services(
    wire: Wire,
    listeners: [TcpListener; 3],
    otlp: SocketAddr,
    running: &mut Running,
) -> anyhow::Result<SocketAddr> {
    let binaries = services::build(&root::find()?, &[], false).await?;
    let system = System { wire, listeners, otlp };
    system.start(&binaries, running).await
}

/// Builds the book and sends the folder of its pages to `built`. Returns the temporary folder that contains them, which is
/// deleted when dropped.
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

/// Sends the first request and waits until its trace is in one piece and has all three services.
async fn first_trace(store: &Store, gateway: SocketAddr) -> anyhow::Result<Tree> {
    let query = json!({ "user_id": "user_1", "query": "What is a trace?" });
    // A session opened with --open may contain whole traces too.
    let before = store.ids();
    let mut changes = store.changes();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.post(format!("http://{gateway}/api/query")).json(&query).send().await?;
    let status = response.status();
    ensure!(status.is_success(), "the first request was answered {status}");

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

fn welcome_with_trace(tree: &Tree, addresses: Addresses, gateway: SocketAddr) -> String {
    let Addresses { site, otlp, grpc } = addresses;
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
