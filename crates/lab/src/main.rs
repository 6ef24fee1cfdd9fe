//! `cargo run`: the book, the trace viewer and the three services, with one request traced.

use std::convert::Infallible;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;
use lab::case::Case;
use lab::check::Step;
use lab::list::Filter;
use lab::listen::Names;
use lab::publish::Home;
use lab::services::{self, Running, System};
use lab::session::{self, Recorder};
use lab::store::{Limits, Store};
use lab::terminal::{self, Lab};
use lab::tree::Tree;
use lab::wire::{Fault, Hop, Wire};
use lab::{book, check, grpc, listen, otlp, receiver, report, site, span, viewer};
use reqwest::Url;
use serde_json::json;
use tokio::sync::watch;

/// How long the first request and its trace may take. Far more than they need: only a fault takes longer.
const FIRST_TRACE_DEADLINE: Duration = Duration::from_secs(20);

/// A receiver and a viewer of traces on your own machine, with a book and three services to learn from.
///
/// Without a command: the book, the viewer and the three services of the book, with one request traced.
#[derive(Parser)]
#[command(name = "lab", version, args_conflicts_with_subcommands = true, after_long_help = notes(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    receive: Receive,
    #[command(flatten)]
    services: Services,
}

#[derive(Subcommand)]
enum Command {
    /// The viewer and the book without the services: for those who bring their own.
    #[command(after_long_help = notes())]
    View(Receive),
    /// Lists the traces of a running lab, the newest first.
    Traces {
        #[command(flatten)]
        lab: Site,
        #[command(flatten)]
        filter: Filter,
        /// The most traces to list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Prints JSON, one array, with durations in nanoseconds.
        #[arg(long)]
        json: bool,
    },
    /// Shows one trace of a running lab as a tree with bars.
    Trace {
        /// The trace id or its first digits; the newest trace where it is not given.
        id: Option<String>,
        #[command(flatten)]
        lab: Site,
        /// Prints OTLP JSON, which `--open` and other tools read.
        #[arg(long)]
        json: bool,
    },
    /// Asks whether a step of the tutorial has left the trace that it should, and what is missing.
    Check {
        step: Step,
        #[command(flatten)]
        lab: Site,
        /// The folder of the reader's own project, which step 5 tests.
        #[arg(long, env = "LAB_PROJECT", default_value = "../distributed_tracing")]
        project: PathBuf,
    },
    /// Says what is wrong with a trace, why, and what to do about it.
    ///
    /// Of a trace of a running lab, or of a file of OTLP JSON; `-` reads standard input.
    Diagnose {
        /// The trace id or its first digits, or a file; the newest trace where it is not given.
        trace: Option<String>,
        #[command(flatten)]
        lab: Site,
    },
    /// Breaks the requests of one hop between the services of a running lab, until it is restored.
    ///
    /// `break list` shows the hops, and `break restore` restores all of them.
    #[command(after_long_help = faults())]
    Break {
        /// client-gateway, gateway-user or user-llm; or list, or restore.
        hop: String,
        /// The fault, or restore.
        fault: Option<String>,
        #[command(flatten)]
        lab: Site,
    },
    /// Builds the book to be published: its pages in FOLDER/html, with the commit that is checked out.
    Book {
        folder: PathBuf,
        /// Where the pages will be: for their canonical addresses, a site map, and the page that is not found.
        #[arg(long, value_parser = address_of_folder)]
        url: Option<Url>,
        /// Where the sources are, such as https://github.com/OWNER/NAME: for links to the commit, and to edit a page.
        #[arg(long, value_name = "URL", value_parser = address_of_repository)]
        repository: Option<String>,
        /// A Chromium, which prints FOLDER/html/one-trace.pdf, and draws the picture that links to a page show elsewhere.
        #[arg(long, value_name = "PROGRAM")]
        browser: Option<PathBuf>,
        /// The folder of the book's `book.toml`. [default: where the lab was built, if that is still there]
        #[arg(long, value_name = "FOLDER", hide_default_value = true)]
        book: Option<PathBuf>,
    },
    /// Prints the completions of a shell.
    ///
    /// For bash: lab completions bash > ~/.local/share/bash-completion/completions/lab
    Completions { shell: Shell },
}

/// Where a running lab is.
#[derive(Args)]
struct Site {
    /// Where the lab serves its pages: HOST:PORT, or the address that it has printed.
    #[arg(long, env = "LAB_SITE", hide_env_values = true, value_name = "ADDRESS", value_parser = host_and_port, default_value = "127.0.0.1:3000")]
    site: String,
}

fn address_of_folder(text: &str) -> Result<Url, String> {
    let address = format!("{}/", text.trim_end_matches('/'));
    match Url::parse(&address) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        _ => Err("write an address, such as https://OWNER.github.io/NAME".to_owned()),
    }
}

fn address_of_repository(text: &str) -> Result<String, String> {
    Ok(String::from(address_of_folder(text)?)
        .trim_end_matches('/')
        .to_owned())
}

fn host_and_port(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    let (address, _) = text.split_once('/').unwrap_or((text, ""));
    match address
        .rsplit_once(':')
        .map(|(_, port)| port.parse::<u16>())
    {
        Some(Ok(_)) => Ok(address.to_owned()),
        _ => Err("write HOST:PORT, such as localhost:3000".to_owned()),
    }
}

#[derive(Args)]
struct Receive {
    /// Where to serve the book and the traces. Port 0 takes a free one.
    #[arg(
        long,
        env = "LAB_SITE",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:3000",
        help_heading = "Addresses"
    )]
    site: SocketAddr,
    /// Where to receive spans over OTLP/HTTP.
    #[arg(
        long,
        env = "LAB_OTLP",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4318",
        help_heading = "Addresses"
    )]
    otlp: SocketAddr,
    /// Where to receive spans over OTLP/gRPC.
    #[arg(
        long,
        env = "LAB_GRPC",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4317",
        help_heading = "Addresses"
    )]
    grpc: SocketAddr,
    /// Shows the spans of a file from the start: OTLP JSON, a request a line, as --save and the OpenTelemetry
    /// Collector write it. Can be given several times.
    #[arg(long, value_name = "FILE", help_heading = "Session")]
    open: Vec<PathBuf>,
    /// Appends what is received to a file, as OTLP JSON, a request a line.
    #[arg(long, value_name = "FILE", help_heading = "Session")]
    save: Option<PathBuf>,
    /// The number of spans to keep; past it the oldest trace goes.
    #[arg(long, value_name = "SPANS", default_value_t = Limits::default().spans, help_heading = "Limits")]
    max_spans: usize,
    /// The number of bytes of spans to keep; past it the oldest trace goes.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes, help_heading = "Limits")]
    max_bytes: usize,
    /// The number of connections to take at each address; one more is answered 429.
    #[arg(
        long,
        value_name = "CONNECTIONS",
        default_value_t = 250,
        help_heading = "Limits"
    )]
    max_connections: usize,
    /// The folder of the book's `book.toml`. [default: where the lab was built, if that is still there]
    #[arg(long, value_name = "FOLDER", hide_default_value = true)]
    book: Option<PathBuf>,
}

#[derive(Args)]
struct Services {
    /// Where api-gateway can be reached.
    #[arg(
        long,
        env = "API_GATEWAY_ADDR",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5000",
        help_heading = "Services"
    )]
    gateway: SocketAddr,
    /// Where user-service can be reached.
    #[arg(
        long,
        env = "USER_SERVICE_ADDR",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5001",
        help_heading = "Services"
    )]
    user_service: SocketAddr,
    /// Where llm-service can be reached.
    #[arg(
        long,
        env = "LLM_SERVICE_ADDR",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5002",
        help_heading = "Services"
    )]
    llm_service: SocketAddr,
}

/// What the flags do not say: the fixed limits, and how to begin.
fn notes() -> String {
    format!(
        "Fixed limits, past which a request is refused with a reason:\n  \
         a body, unpacked    {} bytes over HTTP (413), {} over gRPC\n  \
         spans in a request  {} (400)\n  \
         a name or a value   {} bytes (its span is rejected, the others are taken)\n  \
         levels of a value   {} (likewise)\n  \
         a dropped file      {} bytes (413)\n\n\
         Examples:\n  \
         lab view                               look at the traces of your own services\n  \
         OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 my-service\n  \
         lab view --save today.jsonl            and keep them\n  \
         lab traces --status error --min 100ms  what failed slowly\n  \
         lab trace                              the newest trace\n  \
         lab diagnose                           what is wrong with it",
        receiver::BODY_LIMIT,
        grpc::MESSAGE_LIMIT,
        otlp::SPANS_LIMIT,
        span::TEXT_LIMIT,
        span::DEPTH_LIMIT,
        viewer::IMPORT_LIMIT,
    )
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {
        command,
        receive,
        services,
    } = Cli::parse();
    let outcome = match command {
        None => lab(receive, Some(services)).await,
        Some(Command::View(receive)) => lab(receive, None).await,
        Some(Command::Traces {
            lab,
            filter,
            limit,
            json,
        }) => traces(&lab.site, filter, limit, json).await,
        Some(Command::Trace { id, lab, json }) => trace(&lab.site, id.as_deref(), json).await,
        Some(Command::Diagnose { trace, lab }) => diagnose(&lab.site, trace.as_deref()).await,
        Some(Command::Break { hop, fault, lab }) => {
            break_hop(&lab.site, &hop, fault.as_deref()).await
        }
        Some(Command::Check { step, lab, project }) => check(&lab.site, step, &project).await,
        Some(Command::Book {
            folder,
            url,
            repository,
            browser,
            book,
        }) => {
            let home = Home {
                url,
                repository,
                browser,
            };
            publish(&folder, book, &home)
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lab", &mut script);
            write(&script)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn publish(folder: &Path, book: Option<PathBuf>, home: &Home) -> anyhow::Result<()> {
    let root = book.or_else(book::root_if_there);
    let root =
        root.context("the book is no longer where the lab was built: --book says where it is")?;
    let pages = book::publish(&root, folder, home)?;
    print(&format!("The book is in {}\n", pages.display()));
    Ok(())
}

async fn traces(site: &str, filter: Filter, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut traces = Lab::at(site)?.traces(&filter).await?;
    let found = traces.len();
    traces.truncate(limit);
    if json {
        return print_json(&serde_json::to_string_pretty(&traces)?);
    }
    print(&terminal::list(&traces));
    match found {
        0 if filter.is_empty() => eprintln!("There is no trace yet."),
        0 => eprintln!("No trace passes this filter."),
        _ if found > limit => eprintln!("{} more: --limit shows them.", found - limit),
        _ => {}
    }
    Ok(())
}

async fn trace(site: &str, id: Option<&str>, json: bool) -> anyhow::Result<()> {
    let lab = Lab::at(site)?;
    if json {
        return print_json(&String::from_utf8(lab.trace(id).await?)?);
    }
    let case = lab.case(id).await?;
    let (id, case) = case.with_context(|| match id {
        Some(id) => terminal::no_such_trace(id),
        None => "there is no trace yet".to_owned(),
    })?;
    // As a shell tells it, as the terminal does, or as a page of the book has room for.
    let told = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    let columns = told.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()));
    print(&terminal::trace(&case, id, columns.unwrap_or(100))?);
    Ok(())
}

async fn diagnose(site: &str, trace: Option<&str>) -> anyhow::Result<()> {
    let file = trace.filter(|name| *name == "-" || Path::new(name).exists());
    let is_id = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(name) = trace.filter(|name| file.is_none() && !is_id(name)) {
        anyhow::bail!("there is no file {name}, and no trace id begins so");
    }
    let (case, book) = match file {
        Some(name) => {
            let text = match name {
                "-" => std::io::read_to_string(std::io::stdin()).map(String::into_bytes),
                path => std::fs::read(path),
            };
            let text = text.with_context(|| format!("{name} cannot be read"))?;
            let case = Case::read(&text).map_err(|problem| anyhow::anyhow!("{name}: {problem}"))?;
            // There need not be a lab.
            (case, "the book's page ".to_owned())
        }
        None => {
            let case = Lab::at(site)?.case(trace).await?;
            let case = case.map(|(_, case)| case).unwrap_or_default();
            (case, format!("http://{site}/"))
        }
    };
    for problem in &case.problems {
        eprintln!("Warning: {problem}");
    }
    print(&report::text(&case.findings(), &book));
    Ok(())
}

async fn break_hop(site: &str, hop: &str, fault: Option<&str>) -> anyhow::Result<()> {
    let lab = Lab::at(site)?;
    let hops = match (hop, fault) {
        ("list", None) => lab.hops().await?,
        ("restore", None) => {
            let broken = lab
                .hops()
                .await?
                .into_iter()
                .filter(|it| it.fault.is_some());
            for state in broken {
                let hop = Hop::named(&state.hop).map_err(anyhow::Error::msg)?;
                lab.set(hop, None).await?;
            }
            lab.hops().await?
        }
        (name, Some(fault)) => {
            let hop = Hop::named(name).map_err(anyhow::Error::msg)?;
            let fault = match fault {
                "restore" => None,
                fault => Some(Fault::named(fault).map_err(anyhow::Error::msg)?),
            };
            lab.set(hop, fault).await?
        }
        (name, None) => {
            Hop::named(name).map_err(anyhow::Error::msg)?;
            anyhow::bail!("which fault? `lab break --help` lists them; `restore` is one too")
        }
    };
    ensure!(
        !hops.is_empty(),
        "this lab runs no services: start it with `cargo run`, without `view`"
    );
    print(&terminal::hops(&hops));
    Ok(())
}

/// The faults, for the help of `break`.
fn faults() -> String {
    let faults = Fault::value_variants().iter();
    let lines = faults.map(|fault| format!("  {:23}{}\n", fault.name(), fault.what()));
    let lines: String = lines.collect();
    format!(
        "Faults:\n{lines}\nExamples:\n  lab break gateway-user drop-traceparent\n  lab break gateway-user restore\n  \
         lab break list"
    )
}

async fn check(site: &str, step: Step, project: &Path) -> anyhow::Result<()> {
    print(&match step {
        Step::KeepItWhole => check::project(project).await?,
        _ => check::ask(site, step).await?,
    });
    Ok(())
}

/// Runs until a signal or a fault; either way, whatever was started is stopped in order before this returns.
async fn lab(receive: Receive, services: Option<Services>) -> anyhow::Result<()> {
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

/// For other programs: nothing is added for a terminal, and what a terminal would obey is written as JSON escapes it.
fn print_json(text: &str) -> anyhow::Result<()> {
    let escaped: String = text
        .chars()
        .map(|it| match it {
            '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(it)),
            _ => it.to_string(),
        })
        .collect();
    write((escaped + "\n").as_bytes())
}

/// Writes to standard output; nobody needs to hear that whoever read it has had enough.
fn write(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write"),
        _ => Ok(()),
    }
}

/// Unlike `println!`, does not panic where nobody reads standard output any more. Colours only where they can be seen.
fn print(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
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
