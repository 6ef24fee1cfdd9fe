//! The programs that the guides run beside the services: how they are started and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lab::process;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::example::local;
pub use support::installed;
use support::{DEADLINE, until, within_reason};

/// A component that runs until it is stopped, or dropped.
pub struct Component {
    child: Child,
    lines: watch::Receiver<Vec<String>>,
    _readers: JoinSet<()>,
}

impl Component {
    /// Starts it and waits until it prints a line that contains `ready`.
    pub async fn start(mut command: Command, ready: &str) -> Component {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let mut child =
            process::spawn(command).unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let (sender, lines) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        readers.spawn(read(child.stdout.take().expect("an output"), sender.clone()));
        readers.spawn(read(child.stderr.take().expect("an output"), sender));
        let component = Component { child, lines, _readers: readers };
        component.wait_for(ready).await;
        component
    }

    /// The id of the process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// All that it has printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits until it has printed a line that contains `text`.
    pub async fn wait_for(&self, text: &str) {
        let mut lines = self.lines.clone();
        let printed = lines.wait_for(|lines| lines.iter().any(|line| line.contains(text)));
        let printed = timeout(DEADLINE, printed).await;
        assert!(matches!(printed, Ok(Ok(_))), "it did not print {text:?}, but {:#?}", self.lines());
    }

    /// Sends it a signal such as `-INT` and waits until it has ended.
    pub async fn stop(mut self, signal: &str) {
        let id = self.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await;
        assert!(sent.expect("kill runs").success());
        within_reason(self.child.wait()).await.expect("it ended");
    }

    /// Kills it, as a crash does.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it was running");
    }
}

/// A program in a Python wheel that is installed as `component`.
pub fn wheel(component: &str, path: &str) -> Option<PathBuf> {
    let mut python = fs::read_dir(installed(component)?.join("lib")).expect("a folder");
    let python = python.next().expect("Python's folder").expect("an entry");
    Some(python.path().join("site-packages").join(path))
}

/// Starts rotel, a collector of OTLP that installs without Docker. It receives on the ports `http` and `grpc`, and exports
/// as `exporter` says.
pub async fn rotel(
    [http, grpc]: [u16; 2],
    folder: &Path,
    exporter: &[(&str, String)],
) -> Option<Component> {
    let mut command = Command::new(wheel("rotel", "rotel/rotel-agent")?);
    command
        .arg("start")
        .env("ROTEL_PID_FILE", folder.join("rotel.pid"))
        .env("ROTEL_LOG_FILE", folder.join("rotel.log"))
        .env("ROTEL_OTLP_HTTP_ENDPOINT", local(http).to_string())
        .env("ROTEL_OTLP_GRPC_ENDPOINT", local(grpc).to_string())
        .envs(exporter.iter().map(|(key, value)| (key, value)));
    let rotel = Component::start(command, "Starting Rotel").await;
    // It prints this before it listens.
    for port in [http, grpc] {
        until(async || TcpStream::connect(local(port)).await).await;
    }
    Some(rotel)
}

/// Runs a command in the repository and returns what it prints.
pub fn output_of(command: &mut std::process::Command) -> String {
    let output = command.current_dir(support::root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [printed, errors] =
        [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed
}

async fn read(output: impl AsyncRead + Unpin, lines: watch::Sender<Vec<String>>) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(line)) = output.next_line().await {
        // libtest shows this when the test fails.
        println!("{line}");
        lines.send_modify(|lines| lines.push(line));
    }
}
