//! The program that `cargo run` starts in a clone of the book's repository.

mod run;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use course::check::{self, Step, Verdict};
use course::publish::Home;
use course::{book, root, start};
use lab::cli::{self, Ask, Outcome};
use reqwest::Url;

/// The book, three services to learn from, and the lab that receives and shows their traces.
///
/// Without a command: builds and serves the book, starts the lab and the three services, and traces one request.
#[derive(Parser)]
#[command(
    name = "course",
    bin_name = "cargo run --",
    version,
    args_conflicts_with_subcommands = true,
    after_long_help = cli::notes("cargo run --"),
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Serve,
    #[command(flatten)]
    services: Services,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the book and the lab without the services, for when you bring your own.
    #[command(after_long_help = cli::notes("cargo run --"))]
    View(Serve),
    /// Does what `view` does, with proxies in front of your services.
    #[command(after_long_help = cli::notes("cargo run --"))]
    Wire {
        #[command(flatten)]
        proxies: cli::Proxies,
        #[command(flatten)]
        options: Serve,
    },
    #[command(flatten)]
    Ask(Ask),
    /// Writes the project that the tutorial starts from: three services without tracing.
    Start {
        /// A folder beside the clone that doesn't exist yet.
        #[arg(default_value = "../distributed_tracing")]
        folder: PathBuf,
    },
    /// Checks a step of the tutorial and says what is missing.
    Check {
        step: Step,
        #[command(flatten)]
        lab: cli::LabAddress,
    },
    /// Builds the book for publishing: its pages in FOLDER/html, with the commit that is checked out.
    Book {
        folder: PathBuf,
        /// The address of the published pages, for canonical links, the site map and the "not found" page.
        #[arg(long, value_parser = address_of_folder)]
        url: Option<Url>,
        /// The address of the repository, such as https://github.com/OWNER/NAME, for links to the commit and to edit a page.
        #[arg(long, value_name = "URL", value_parser = address_of_repository)]
        repository: Option<String>,
        /// A Chromium to print FOLDER/html/one-trace.pdf with and to draw the preview picture of shared links.
        #[arg(long, value_name = "PROGRAM")]
        browser: Option<PathBuf>,
        /// The folder of the book's `book.toml`. [default: the clone that this runs in]
        #[arg(long, value_name = "FOLDER", hide_default_value = true)]
        book: Option<PathBuf>,
    },
    /// Prints the completions of a shell.
    ///
    /// For bash: lab completions bash > ~/.local/share/bash-completion/completions/lab
    Completions { shell: clap_complete::Shell },
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    lab: cli::Options,
    /// The folder of the book's `book.toml`. [default: the clone that this runs in]
    #[arg(long, value_name = "FOLDER", hide_default_value = true)]
    book: Option<PathBuf>,
}

#[derive(Args)]
struct Services {
    /// The address of api-gateway.
    #[arg(
        long,
        env = "API_GATEWAY_ADDR",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5000",
        help_heading = "Services"
    )]
    gateway: SocketAddr,
    /// The address of user-service.
    #[arg(
        long,
        env = "USER_SERVICE_ADDR",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5001",
        help_heading = "Services"
    )]
    user_service: SocketAddr,
    /// The address of llm-service.
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

fn address_of_folder(text: &str) -> Result<Url, String> {
    let address = format!("{}/", text.trim_end_matches('/'));
    match Url::parse(&address) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(url),
        _ => Err("write an address, such as https://OWNER.github.io/NAME".to_owned()),
    }
}

fn address_of_repository(text: &str) -> Result<String, String> {
    Ok(String::from(address_of_folder(text)?).trim_end_matches('/').to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    cli::exit_code(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<Outcome> {
    match cli.command {
        None => run::course(cli.options, Some(cli.services)).await?,
        Some(Command::View(options)) => run::course(options, None).await?,
        Some(Command::Wire { proxies, options: Serve { lab, book } }) => {
            run::course(Serve { lab: lab.with(proxies), book }, None).await?;
        }
        Some(Command::Ask(ask)) => return ask.run().await,
        Some(Command::Start { folder }) => {
            let count = start::write(&root::find()?, &folder)?;
            let folder = folder.display();
            lab::print(&format!("Wrote {count} files to {folder}. Run `cargo run` in it.\n"))?;
        }
        Some(Command::Check { step, lab }) => return check(&lab.site, step).await,
        Some(Command::Book { folder, url, repository, browser, book }) => {
            let home = Home { url, repository, browser };
            publish(&folder, book, &home)?;
        }
        Some(Command::Completions { shell }) => cli::completions(shell, &mut Cli::command())?,
    }
    Ok(Outcome::Fine)
}

fn publish(folder: &Path, book: Option<PathBuf>, home: &Home) -> anyhow::Result<()> {
    let root = match book {
        Some(root) => root,
        None => root::find()?,
    };
    let pages = book::publish(&root, folder, home)?;
    lab::print(&format!("The book is in {}\n", pages.display()))
}

async fn check(site: &str, step: Step) -> anyhow::Result<Outcome> {
    let verdict = check::ask(site, step).await?;
    match verdict {
        Verdict::Passed(_) => {
            lab::print(&verdict.to_string())?;
            Ok(Outcome::Fine)
        }
        Verdict::NotYet { .. } => {
            eprintln!("Error: {}", verdict.to_string().trim_end());
            Ok(Outcome::Found)
        }
    }
}
