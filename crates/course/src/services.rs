//! Starts the three services of examples/production as processes and stops them in order, callers first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::hops::HOPS;
use lab::process;
use lab::wire::Wire;

/// How long a service may take to finish its requests and flush its spans before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// How often a service exports its spans, in milliseconds. The standard variable `OTEL_BSP_SCHEDULE_DELAY` overrides it.
const EXPORT_DELAY_MS: &str = "200";

/// Compiles the services of the repository at `root`, the lab, the course and the programs in `others`, with the cargo that
/// runs this program. Returns the folder of the binaries.
///
/// # Errors
/// Fails when they don't compile. Cargo has then printed why.
pub async fn build(root: &Path, others: &[&str], release: bool) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--message-format=json-render-diagnostics"]);
    // Naming no package keeps the features the same as in `cargo run`, so nothing is compiled twice.
    for name in ["production_services", "course", "lab"].iter().chain(others) {
        command.args(["--bin", &name.replace('-', "_")]);
    }
    if release {
        command.arg("--release");
    }
    command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let child = process::spawn(command).context("cargo cannot be started")?;
    let output = child.wait_with_output().await.context("cargo cannot be followed")?;
    ensure!(output.status.success(), "the services do not compile: see above");

    // Ask cargo for the paths, because a setting may have moved the target folder.
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    let folder = executables.next_back().and_then(|path| path.parent().map(Path::to_owned));
    folder.context("cargo built no service")
}

/// The names of the three services. Each one is called by the next.
pub const CHAIN: [&str; 3] = ["llm-service", "user-service", "api-gateway"];

/// How to start a service: its name, its binary, its arguments and its environment.
pub struct Plan {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// Plans the service `name`, which listens on `address` and exports its spans to the receiver at `otlp`.
    pub fn new(binaries: &Path, name: &'static str, address: SocketAddr, otlp: SocketAddr) -> Self {
        Plan::bare(binaries, name)
            .with(&variable(name, "ADDR"), address)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
    }

    /// Plans the service `name` with its default settings.
    pub fn bare(binaries: &Path, name: &'static str) -> Self {
        let program = binaries.join(name);
        let plan = Plan { name, program, arguments: Vec::new(), environment: Vec::new() };
        let command = match CHAIN.contains(&name) {
            true => format!("production_services {name}"),
            false => name.replace('-', "_"),
        };
        plan.run_by(&command).with("NO_PROXY", "127.0.0.1,localhost")
    }

    /// Runs another command as this service: the name of a binary in the same folder, and arguments separated by blanks.
    pub fn run_by(mut self, command: &str) -> Self {
        let mut parts = command.split(' ');
        let binary = parts.next().unwrap_or_default();
        self.program.set_file_name(format!("{binary}{}", std::env::consts::EXE_SUFFIX));
        self.arguments = parts.map(str::to_owned).collect();
        self
    }

    /// Sets the address of the service `next`, which this service calls.
    pub fn calling(self, next: &str, address: SocketAddr) -> Self {
        self.with(&variable(next, "URL"), format!("http://{address}"))
    }

    /// Sets a variable of the service's environment.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.environment.push((key.to_owned(), value.to_string()));
        self
    }
}

/// Returns the name of a variable, such as `LLM_SERVICE_ADDR` for `llm-service` and `ADDR`.
fn variable(name: &str, suffix: &str) -> String {
    format!("{}_{suffix}", name.replace('-', "_").to_uppercase())
}

/// Returns whether the environment variable `key` changes what a service does.
pub fn is_setting(key: &str) -> bool {
    let prefixes = ["OTEL_", "LLM_", "USER_SERVICE_", "API_GATEWAY_"];
    let others = ["RUST_LOG", "BODY_TIMEOUT_MS", "HEAD_TIMEOUT_MS", "SHUTDOWN_TIMEOUT_MS"];
    prefixes.iter().any(|prefix| key.starts_with(prefix)) || others.contains(&key)
}

/// A running service, killed when dropped.
pub struct Service {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
    log: JoinHandle<String>,
}

impl Service {
    /// Starts a service and waits until it listens. Calls `log` with its name and each line that it logs. The service gets
    /// only the settings of the plan, so that our own environment can't change a test or a recording.
    ///
    /// # Errors
    /// Fails when the service ends before it listens. The message is the last line that it logged.
    pub async fn start(
        plan: Plan,
        log: impl Fn(&'static str, &str) + Send + 'static,
    ) -> anyhow::Result<Service> {
        let Plan { name, program, arguments, environment } = plan;
        let mut command = Command::new(&program);
        command.args(arguments);
        for (key, _) in std::env::vars_os().filter(|(key, _)| is_setting(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        command
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // In a process group of its own, Ctrl-C doesn't reach the service, and we can stop the services in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = process::spawn(command)
            .with_context(|| format!("{} cannot be started", program.display()))?;

        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("{name} has no output to read");
        };
        let log = tokio::spawn(forward(stderr, move |line| log(name, line)));
        let mut output = BufReader::new(stdout).lines();
        match listening_address(&mut output).await {
            Some(address) => {
                tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });
                Ok(Service { name, address, child, log })
            }
            None => {
                let reason = log.await.unwrap_or_default();
                bail!("{name} did not start: {}", reason.trim_start_matches("Error: "))
            }
        }
    }

    /// Asks the service to finish its requests and flush its spans. Waits until it has ended and its last line has been
    /// logged. Kills it after 25 seconds.
    pub async fn stop(mut self) {
        self.terminate();
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            // An error means that the service has ended in the meantime.
            let _ = self.child.kill().await;
        }
        let _ = self.log.await;
    }

    /// Returns the id of the process while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGTERM. On systems without this signal, kills the process.
    pub fn terminate(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            use nix::sys::signal::{Signal, kill};
            // An error means that the process has ended by itself.
            let _ = kill(nix::unistd::Pid::from_raw(id), Signal::SIGTERM);
        }
        #[cfg(not(unix))]
        let _ = self.child.start_kill();
    }
}

/// Returns the address in the line `NAME listening on http://ADDRESS`, or `None` when the output ends without this line.
async fn listening_address(output: &mut Lines<BufReader<ChildStdout>>) -> Option<SocketAddr> {
    while let Ok(Some(line)) = output.next_line().await {
        if let Some((_, address)) = line.split_once(" listening on http://") {
            return address.parse().ok();
        }
    }
    None
}

/// Calls `log` with every line and returns the last one.
async fn forward(stderr: impl AsyncRead + Unpin, log: impl Fn(&str)) -> String {
    let mut lines = BufReader::new(stderr).lines();
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        log(&line);
        last = line;
    }
    last
}

/// Prints a line to standard error after the name of its service. Leaves out the error of a service that doesn't start,
/// because [`Service::start`] returns it.
fn show(name: &'static str, line: &str) {
    if !line.starts_with("Error: ") {
        eprintln!("{name:>12} | {line}");
    }
}

/// The listeners of the three services and the address of the OTLP receiver.
pub struct System {
    /// Runs the proxies, one in front of each service. The services themselves listen on free ports.
    pub wire: Wire,
    /// The proxies' listeners, in the order of [`HOPS`].
    pub listeners: [TcpListener; 3],
    pub otlp: SocketAddr,
}

/// The running services, in the order in which they are stopped: the gateway first.
#[derive(Default)]
pub struct Running(Vec<Service>);

impl System {
    /// Starts the services in the order of [`CHAIN`], so that each gets the address of the one that it calls. Adds each to
    /// `running` as it starts, so that the caller can stop them when a later one fails. Returns the address of the gateway's
    /// proxy.
    ///
    /// # Errors
    /// Fails when a service doesn't start.
    pub async fn start(self, binaries: &Path, running: &mut Running) -> anyhow::Result<SocketAddr> {
        // Pass on the reader's settings, except the addresses of the services and of the receiver.
        let ours = |key: &str| {
            key.starts_with("OTEL_EXPORTER_")
                || key.ends_with("SERVICE_URL")
                || key.ends_with("_ADDR")
        };
        let inherited: Vec<(String, String)> =
            std::env::vars().filter(|(key, _)| is_setting(key) && !ours(key)).collect();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut next: Option<(&str, SocketAddr)> = None;
        for (hop, listener) in HOPS.into_iter().zip(self.listeners).rev() {
            let name = hop.to;
            let mut plan = Plan::new(binaries, name, free, self.otlp)
                .with("OTEL_BSP_SCHEDULE_DELAY", EXPORT_DELAY_MS);
            plan = inherited.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
            if let Some((next, address)) = next {
                plan = plan.calling(next, address);
            }
            let service = Service::start(plan, show).await;
            let service = service.with_context(|| format!("starting {name}"))?;
            next = Some((name, self.wire.serve(hop, listener, service.address)?));
            running.0.insert(0, service);
        }
        next.map(|(_, address)| address).context("there is no service to start")
    }
}

impl Running {
    /// Waits until a service ends by itself, which is always a fault. Returns a message with its name and its last log line.
    pub async fn first_to_end(&mut self) -> String {
        let (index, status) = std::future::poll_fn(|context| {
            for (index, service) in self.0.iter_mut().enumerate() {
                let ended = std::pin::pin!(service.child.wait());
                if let Poll::Ready(status) = ended.poll(context) {
                    return Poll::Ready((index, status));
                }
            }
            Poll::Pending
        })
        .await;
        let Service { name, log, .. } = self.0.remove(index);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let last_line = log.await.unwrap_or_default();
        format!("{name} ended by itself ({status}): {}", last_line.trim_start_matches("Error: "))
    }

    /// Stops the services, callers before the services that they call, so that no request in flight is cut off.
    pub async fn stop(self) {
        for service in self.0 {
            service.stop().await;
        }
    }
}
