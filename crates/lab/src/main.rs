//! The `lab` command.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use lab::cli::{self, Ask, Options, Outcome, Proxies};
use lab::{server, viewer};

/// A receiver and viewer of traces for the services on your own machine.
#[derive(Parser)]
#[command(name = "lab", version, arg_required_else_help = true, after_long_help = cli::notes("lab"), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receives traces and shows them, until Ctrl-C.
    #[command(after_long_help = cli::notes("lab"))]
    View(Options),
    /// Does what `view` does, with proxies in front of your services.
    ///
    /// Each proxy shows the headers of every request on the page /wire, and `lab break` breaks requests there. It reads HTTP/1.1;
    /// HTTP/2 and TLS pass unread.
    Wire {
        #[command(flatten)]
        proxies: Proxies,
        #[command(flatten)]
        options: Options,
    },
    #[command(flatten)]
    Ask(Ask),
    /// Prints the completions of a shell.
    ///
    /// For bash: lab completions bash > ~/.local/share/bash-completion/completions/lab
    Completions { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    // Before other threads are started.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    return_large_blocks();
    start()
}

/// Makes glibc return every large block to the system once it is freed. By default, each of its arenas keeps freed blocks of up to
/// 32 MiB after the first such block (mallopt(3), `M_MMAP_THRESHOLD`), and any thread may decode a request.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_large_blocks() {
    const LARGE: i32 = 1024 * 1024;
    // SAFETY: this sets a number, and no other thread runs yet. If it fails, nothing changes.
    unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE) };
}

#[tokio::main]
async fn start() -> ExitCode {
    cli::exit_code(run(Cli::parse().command).await)
}

async fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::View(options) => view(options).await?,
        Command::Wire { proxies, options } => view(options.with(proxies)).await?,
        Command::Ask(ask) => return ask.run().await,
        Command::Completions { shell } => cli::completions(shell, &mut Cli::command())?,
    }
    Ok(Outcome::Fine)
}

async fn view(options: Options) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(cli::stop_signal()?);
    let Some(server) = options.bind(&mut stopped).await? else { return Ok(()) };
    lab::print(&server.welcome(None))?;
    let pages = viewer::without_book(server::pages(server.store.clone(), server.wire.clone()));
    server.serve(pages, stopped).await?;
    Ok(())
}
