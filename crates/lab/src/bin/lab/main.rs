//! What can be typed: `cargo run`, its commands and their flags.

mod commands;
mod output;
mod run;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;
use lab::check::Step;
use lab::list::Filter;
use lab::publish::Home;
use lab::store::Limits;
use lab::wire::Fault;
use lab::{grpc, otlp, receiver, span, viewer};
use reqwest::Url;

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
        None => run::lab(receive, Some(services)).await,
        Some(Command::View(receive)) => run::lab(receive, None).await,
        Some(Command::Traces {
            lab,
            filter,
            limit,
            json,
        }) => commands::traces(&lab.site, filter, limit, json).await,
        Some(Command::Trace { id, lab, json }) => {
            commands::trace(&lab.site, id.as_deref(), json).await
        }
        Some(Command::Diagnose { trace, lab }) => {
            commands::diagnose(&lab.site, trace.as_deref()).await
        }
        Some(Command::Break { hop, fault, lab }) => {
            commands::break_hop(&lab.site, &hop, fault.as_deref()).await
        }
        Some(Command::Check { step, lab, project }) => {
            commands::check(&lab.site, step, &project).await
        }
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
            commands::publish(&folder, book, &home)
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lab", &mut script);
            output::write(&script)
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
