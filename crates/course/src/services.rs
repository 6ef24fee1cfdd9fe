//! Starts the three services of examples/distributed_tracing as processes and stops them in order.

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

/// A service finishes its requests and flushes its spans within this time, or is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// How soon a service exports its spans. The standard variable `OTEL_BSP_SCHEDULE_DELAY` overrides it.
const EXPORT_DELAY_MS: &str = "200";

/// Compiles the services of the repository at `root`, the lab and the course with the cargo that runs this program. Returns
/// the folder of the binaries.
///
/// # Errors
/// When they don't compile; cargo has then printed why.
pub async fn build(root: &Path, release: bool) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--message-format=json-render-diagnostics"]);
    // Naming no package keeps the features the same as in `cargo run`, so nothing is compiled twice.
    for name in CHAIN.iter().chain(&["course", "lab"]) {
        command.args(["--bin", &name.replace('-', "_")]);
    }
    if release {
        command.arg("--release");
    }
    command
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let child = process::spawn(command).context("cargo cannot be started")?;
    let output = child
        .wait_with_output()
        .await
        .context("cargo cannot be followed")?;
    ensure!(
        output.status.success(),
        "the services do not compile: see above"
    );

    // Cargo knows where it put them; a setting may have moved the target folder.
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    let folder = executables
        .next_back()
        .and_then(|path| path.parent().map(Path::to_owned));
    folder.context("cargo built no service")
}

/// The three services, the leaf first.
pub const CHAIN: [&str; 3] = ["llm-service", "user-service", "api-gateway"];

/// What to start: the name of a service, its binary, and its environment.
pub struct Plan {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Plan {
    /// The service `name`, which listens on `address` and exports its spans to the receiver at `otlp`.
    pub fn new(binaries: &Path, name: &'static str, address: SocketAddr, otlp: SocketAddr) -> Self {
        Plan::bare(binaries, name)
            .with(&variable(name, "ADDR"), address)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"))
    }

    /// The service `name`, with the settings that it has by itself.
    pub fn bare(binaries: &Path, name: &'static str) -> Self {
        let file = name.replace('-', "_") + std::env::consts::EXE_SUFFIX;
        let plan = Plan {
            name,
            program: binaries.join(file),
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        plan.with("NO_PROXY", "127.0.0.1,localhost")
    }

    /// Lets another command be the service: a binary of the same folder, and its arguments.
    pub fn run_by(mut self, command: &str) -> Self {
        let mut words = command.split(' ');
        let binary = words.next().unwrap_or_default();
        self.program
            .set_file_name(format!("{binary}{}", std::env::consts::EXE_SUFFIX));
        self.arguments = words.map(str::to_owned).collect();
        self
    }

    /// Tells the service where to find the one that it calls.
    pub fn calling(self, next: &str, address: SocketAddr) -> Self {
        self.with(&variable(next, "URL"), format!("http://{address}"))
    }

    /// Sets a variable of the service's environment.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.environment.push((key.to_owned(), value.to_string()));
        self
    }
}

/// `LLM_SERVICE_ADDR` for `llm-service` and `ADDR`.
fn variable(name: &str, suffix: &str) -> String {
    format!("{}_{suffix}", name.replace('-', "_").to_uppercase())
}

/// Whether a variable of the environment changes what a service does.
pub fn is_setting(key: &str) -> bool {
    let prefixes = ["OTEL_", "LLM_", "USER_SERVICE_", "API_GATEWAY_"];
    let others = ["RUST_LOG", "BODY_TIMEOUT_MS", "SHUTDOWN_TIMEOUT_MS"];
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
    /// Starts a service and waits until it listens. Every line that it logs is handed to `log`. Its settings are
    /// those of the plan alone: what happens to be set where we run must not change a test, nor a recording.
    ///
    /// # Errors
    /// When it ends before it listens; the message is its own last line.
    pub async fn start(
        plan: Plan,
        log: impl Fn(&'static str, &str) + Send + 'static,
    ) -> anyhow::Result<Service> {
        let Plan {
            name,
            program,
            arguments,
            environment,
        } = plan;
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
        // Of its own group, so that Ctrl-C reaches us alone and we can stop the services in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = process::spawn(command)
            .with_context(|| format!("{} cannot be started", program.display()))?;

        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("{name} has no output to read");
        };
        let log = tokio::spawn(forward(stderr, move |line| log(name, line)));
        let mut output = BufReader::new(stdout).lines();
        match listening(&mut output).await {
            Some(address) => {
                tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });
                Ok(Service {
                    name,
                    address,
                    child,
                    log,
                })
            }
            None => {
                let reason = log.await.unwrap_or_default();
                bail!(
                    "{name} did not start: {}",
                    reason.trim_start_matches("Error: ")
                )
            }
        }
    }

    /// Asks the service to finish its requests and flush its spans, and waits until it has ended and its last log
    /// line was handed on. Kills it when it takes too long.
    pub async fn stop(mut self) {
        self.terminate();
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait())
            .await
            .is_err()
        {
            // An error means that it has ended by now.
            let _ = self.child.kill().await;
        }
        let _ = self.log.await;
    }

    /// The id of the process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGTERM; where there is no such signal, the end.
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

/// The address in the line `NAME listening on http://ADDRESS`; nothing when the output ends without one.
async fn listening(output: &mut Lines<BufReader<ChildStdout>>) -> Option<SocketAddr> {
    while let Ok(Some(line)) = output.next_line().await {
        if let Some((_, address)) = line.split_once(" listening on http://") {
            return address.parse().ok();
        }
    }
    None
}

/// Hands on every line; returns the last one.
async fn forward(stderr: impl AsyncRead + Unpin, log: impl Fn(&str)) -> String {
    let mut lines = BufReader::new(stderr).lines();
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        log(&line);
        last = line;
    }
    last
}

/// Shows a line on standard error behind the name of its service. A service that does not start says why through us.
fn show(name: &'static str, line: &str) {
    if !line.starts_with("Error: ") {
        eprintln!("{name:>12} | {line}");
    }
}

/// Where the three services can be reached, and where the OTLP receiver is.
pub struct System {
    /// Before each service stands a proxy, which listens here; the service itself takes a free port.
    pub wire: Wire,
    /// In the order of [`HOPS`].
    pub listeners: [TcpListener; 3],
    pub otlp: SocketAddr,
}

/// The running services: the gateway first, as it is stopped first.
#[derive(Default)]
pub struct Running(Vec<Service>);

impl System {
    /// Starts the services, the leaf first, so that each is told where the next one really listens. Those that
    /// start are added to `running`, also when a later one does not. Returns the address of the gateway.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(self, binaries: &Path, running: &mut Running) -> anyhow::Result<SocketAddr> {
        // What the reader sets is passed on, but for where the services are and where their spans go.
        let ours = |key: &str| {
            key.starts_with("OTEL_EXPORTER_")
                || key.ends_with("SERVICE_URL")
                || key.ends_with("_ADDR")
        };
        let inherited: Vec<(String, String)> = std::env::vars()
            .filter(|(key, _)| is_setting(key) && !ours(key))
            .collect();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut next: Option<(&str, SocketAddr)> = None;
        for (hop, listener) in HOPS.into_iter().zip(self.listeners).rev() {
            let name = hop.to;
            let mut plan = Plan::new(binaries, name, free, self.otlp)
                .with("OTEL_BSP_SCHEDULE_DELAY", EXPORT_DELAY_MS);
            plan = inherited
                .iter()
                .fold(plan, |plan, (key, value)| plan.with(key, value));
            if let Some((next, address)) = next {
                plan = plan.calling(next, address);
            }
            let service = Service::start(plan, show).await;
            let service = service.with_context(|| format!("starting {name}"))?;
            next = Some((name, self.wire.serve(hop, listener, service.address)?));
            running.0.insert(0, service);
        }
        next.map(|(_, address)| address)
            .context("there is no service to start")
    }
}

impl Running {
    /// Waits until one of the services ends by itself, which it should not; says which, and its last words.
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
        let last_words = log.await.unwrap_or_default();
        format!(
            "{name} ended by itself ({status}): {}",
            last_words.trim_start_matches("Error: ")
        )
    }

    /// Stops the services, callers before those they call, so that no request in flight is cut off.
    pub async fn stop(self) {
        for service in self.0 {
            service.stop().await;
        }
    }
}
