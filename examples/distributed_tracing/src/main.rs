//! Builds the three services and runs them in one terminal. Enter builds and starts
//! them again, Ctrl-C stops them. `--without llm-service` leaves one out.

use std::process::Stdio;
use std::{env, io, thread};

use anyhow::{Context as _, bail, ensure};
use distributed_tracing::error::Failure;
use distributed_tracing::{api_gateway, llm_service, user_service};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal;
use tokio::sync::mpsc;

/// Each service comes after the one that it calls.
const SERVICES: [&str; 3] =
    [llm_service::NAME, user_service::NAME, api_gateway::NAME];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let services = chosen(env::args().skip(1).collect())?;
    let mut enter = enter();
    let mut is_again = false;
    loop {
        let mut running = Vec::new();
        if build().await? {
            for name in &services {
                match start(name).await {
                    Ok(service) => running.push((name, service)),
                    Err(error) if is_again => {
                        eprintln!("{error:#}. Press Enter to try again.");
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        is_again = true;
        tokio::select! {
            Some(()) = enter.recv() => {
                for (name, service) in running.into_iter().rev() {
                    let id = service.id().unwrap_or_default().to_string();
                    Command::new("kill").arg(id).status().await?;
                    stopped(name, service).await?;
                }
            }
            // Ctrl-C reaches the services too.
            signal = signal::ctrl_c() => {
                signal?;
                for (name, service) in running {
                    stopped(name, service).await?;
                }
                return Ok(());
            }
        }
    }
}

/// The services to start, without the one that `arguments` leaves out.
fn chosen(arguments: Vec<String>) -> anyhow::Result<Vec<&'static str>> {
    let mut services = SERVICES.to_vec();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--without", name] if SERVICES.contains(&name) => {
            services.retain(|service| *service != name);
        }
        _ => bail!(
            "write nothing, or --without and one of {}",
            SERVICES.join(", ")
        ),
    }
    Ok(services)
}

/// A message each time that somebody presses Enter.
fn enter() -> mpsc::Receiver<()> {
    let (pressed, enter) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if !line.trim().is_empty() {
                eprintln!("The services run here. Press Ctrl-C first.");
                continue;
            }
            if pressed.blocking_send(()).is_err() {
                break;
            }
        }
    });
    enter
}

/// Whether the services compile.
async fn build() -> anyhow::Result<bool> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .args(["build", "--quiet", "--bins"])
        .status();
    let built = build.await.context("cargo cannot be started")?.success();
    if !built {
        eprintln!("The services don't compile. Press Enter to try again.");
    }
    Ok(built)
}

/// Starts a service and waits until it listens. Prints its lines behind its name.
async fn start(name: &'static str) -> anyhow::Result<Child> {
    let file = format!("{}{}", name.replace('-', "_"), env::consts::EXE_SUFFIX);
    let mut service = Command::new(env::current_exe()?.with_file_name(file))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    let stderr = service.stderr.take().context("a pipe")?;
    tokio::spawn(print(name, stderr));
    let stdout = service.stdout.take().context("a pipe")?;
    match BufReader::new(stdout).lines().next_line().await? {
        Some(line) => println!("{line}"),
        None => bail!("{name} ended: {}", service.wait().await?),
    }
    Ok(service)
}

async fn print(name: &'static str, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name:12} | {line}");
    }
}

/// Waits until a service has stopped.
async fn stopped(name: &str, mut service: Child) -> anyhow::Result<()> {
    let status = service.wait().await?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
