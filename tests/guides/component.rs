//! The programs that the guides run beside the services: how they are started and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lab::process;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use support::installed;
use support::{DEADLINE, within_reason};

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

/// Runs a command in the repository and returns what it prints.
pub fn output_of(command: &mut std::process::Command) -> String {
    let output = command.current_dir(support::root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [printed, errors] =
        [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
    assert!(output.status.success(), "{command:?}: {}\n{printed}{errors}", output.status);
    printed
}

/// Compiles the package in `project`, which is outside of the workspace, with the profiles of the book, so that equal crates are shared.
/// A warning fails it. Returns the folder of its programs, below one of that name. Cargo may have to download some of its crates.
pub fn compile(project: &Path, name: &str) -> PathBuf {
    let manifest = fs::read_to_string(support::root().join("Cargo.toml")).expect("a manifest");
    let profiles = manifest.find("[profile.dev]").map(|at| &manifest[at..]).expect("profiles");
    let config = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    fs::write(&config, profiles).expect("written");
    let target = support::temporary().join(name);
    let mut cargo = support::cargo();
    cargo.args(["build", "--quiet", "--locked", "--config"]).arg(config.path());
    cargo.arg("--manifest-path").arg(project.join("Cargo.toml"));
    cargo.env("CARGO_TARGET_DIR", &target).env("CARGO_BUILD_BUILD_DIR", support::target());
    let output = cargo.output().expect("cargo runs");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !printed.contains("warning"), "{name}: {printed}");
    target.join("debug")
}

async fn read(output: impl AsyncRead + Unpin, lines: watch::Sender<Vec<String>>) {
    let mut output = BufReader::new(output).lines();
    while let Ok(Some(line)) = output.next_line().await {
        // libtest shows this when the test fails.
        println!("{line}");
        lines.send_modify(|lines| lines.push(line));
    }
}
