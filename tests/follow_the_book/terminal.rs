//! A terminal of the reader: a folder, and one command at a time.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use course::services::is_setting;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::page::pattern;
use super::reel::{Place, Tape, What, put};
use support::{DEADLINE, binaries, free_port};

/// Runs the typed lines one after the other until one fails, as a shell does. Writes the folder that it ends in to a file.
/// `$KEYS` is the keyboard, a pipe. Ctrl-C ends a service but not this shell. When the test program ends, the input ends too, and the shell then kills its group
/// of processes.
const SHELL: &str = r#"exec 3<&0 2>&1
    [ -p "$KEYS" ] || mkfifo "$KEYS"
    exec <>"$KEYS"
    { read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 &
    guard=$!
    exec 3<&-
    trap : INT
    trap 'kill $guard; pwd >"$FOLDER_AFTER"' EXIT
    set -e
    eval "$TYPED""#;

/// The variables that change how cargo builds or what it prints.
const CARGO_SETTINGS: &str =
    "^(RUST_BACKTRACE|RUSTFLAGS|CARGO_ENCODED_RUSTFLAGS|CARGO_(TERM|PROFILE|BUILD)_)";

pub struct Terminal {
    pub folder: PathBuf,
    /// The command and its input, which is open for as long as the command may run.
    running: Option<(Child, ChildStdin)>,
    /// The output of the current command, or of the last one.
    output: watch::Receiver<String>,
    folder_after: NamedTempFile,
    keyboard: TempDir,
    number: u8,
    tape: Tape,
}

impl Terminal {
    pub fn new(number: u8, folder: &Path, tape: &Tape) -> Terminal {
        Terminal {
            folder: folder.to_owned(),
            running: None,
            output: watch::Sender::default().subscribe(),
            folder_after: NamedTempFile::new().expect("a file"),
            keyboard: tempfile::tempdir().expect("a folder"),
            number,
            tape: tape.clone(),
        }
    }

    /// Its place on the tape while the last command runs.
    fn place(&self) -> Place {
        Place::Terminal(self.number, self.folder.display().to_string())
    }

    pub fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Types a command.
    pub fn start(&mut self, typed: &str, environment: &[(&str, String)]) {
        put(&self.tape, self.place(), What::Typed, typed);
        let mut command = Command::new("sh");
        // The settings of the machine that runs the test are not the reader's.
        let of_cargo = pattern(CARGO_SETTINGS);
        for (key, _) in std::env::vars() {
            if is_setting(&key) || of_cargo.is_match(&key) {
                command.env_remove(key);
            }
        }
        let mut child = command
            .args(["-c", SHELL])
            .current_dir(&self.folder)
            .envs(environment.iter().cloned())
            .env("TYPED", typed)
            .env("FOLDER_AFTER", self.folder_after.path())
            .env("KEYS", self.keys())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let mut stdout = child.stdout.take().expect("an output");
        let (sender, output) = watch::channel(String::new());
        let (tape, place) = (self.tape.clone(), self.place());
        tokio::spawn(async move {
            let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(length @ 1..) = stdout.read(&mut buffer).await {
                let piece = String::from_utf8_lossy(&buffer[..length]);
                put(&tape, place.clone(), What::Shown, &piece);
                all.extend_from_slice(&buffer[..length]);
                sender.send_replace(String::from_utf8_lossy(&all).into_owned());
            }
        });
        self.output = output;
        let input = child.stdin.take().expect("an input");
        self.running = Some((child, input));
    }

    fn keys(&self) -> PathBuf {
        self.keyboard.path().join("keys")
    }

    /// Presses Enter for the command that runs.
    pub fn press_enter(&self) -> Result<()> {
        put(&self.tape, self.place(), What::Typed, "Enter");
        self.press("\n")
    }

    fn press(&self, keys: &str) -> Result<()> {
        std::fs::write(self.keys(), keys).context("the keyboard is gone")
    }

    pub fn printed(&self) -> String {
        self.output.borrow().clone()
    }

    /// Waits until the output is as it should be. Returns whether that was within `deadline` and before the command ended.
    pub async fn prints(&mut self, deadline: Duration, is: impl Fn(&str) -> bool) -> bool {
        let seen = self.output.wait_for(|text| is(text));
        matches!(timeout(deadline, seen).await, Ok(Ok(_)))
    }

    /// Waits until the command has ended.
    pub async fn finish(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let (child, _) = self.running.as_mut().context("no command runs in the terminal")?;
        let Ok(status) = timeout(deadline, child.wait()).await else {
            bail!("it did not end within {deadline:?}, and printed:\n{}", self.printed());
        };
        // The sender is dropped after the last line.
        let rest = async { while self.output.changed().await.is_ok() {} };
        timeout(deadline, rest).await.context("something still holds its output")?;
        let folder = std::fs::read_to_string(&self.folder_after)?;
        if !folder.trim().is_empty() {
            self.folder = folder.trim().into();
        }
        self.running = None;
        Ok(status?)
    }

    /// Sends the signal of Ctrl-C to every process of the command and waits for its end.
    pub async fn interrupt(&mut self, deadline: Duration) -> Result<ExitStatus> {
        put(&self.tape, self.place(), What::Typed, "^C");
        if let Some(group) = self.group() {
            kill("-INT", group);
        }
        self.finish(deadline).await
    }

    fn group(&self) -> Option<u32> {
        self.running.as_ref()?.0.id()
    }
}

/// Sends a signal to a group of processes. Returns whether there was one.
fn kill(signal: &str, group: u32) -> bool {
    let mut command = std::process::Command::new("kill");
    command.args([signal, "--", &format!("-{group}")]);
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A test that fails must leave nothing running either. Processes that don't end in time are killed.
impl Drop for Terminal {
    fn drop(&mut self) {
        let (Some(group), Some((child, _))) = (self.group(), &mut self.running) else { return };
        kill("-TERM", group);
        let deadline = Instant::now() + DEADLINE;
        while kill("-0", group) && Instant::now() < deadline {
            let _ = child.try_wait();
        }
        kill("-KILL", group);
    }
}

/// Enter is a line without text. A command that is pasted is none, and a service that can't start again leaves the runner waiting.
#[tokio::test(flavor = "multi_thread")]
async fn the_runner_starts_the_services_again_on_enter_alone() -> Result<()> {
    let runner = binaries().await.join("distributed_tracing");
    let folder = tempfile::tempdir()?;
    // Stands in for cargo: it has built when somebody has read the file.
    let (cargo, built) = (folder.path().join("cargo"), folder.path().join("built"));
    std::fs::write(&cargo, format!("#!/bin/sh\nmkfifo {0}; echo >{0}\n", built.display()))?;
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755))?;
    let [llm, user, gateway] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let environment = [
        ("CARGO", cargo.display().to_string()),
        ("OTEL_SDK_DISABLED", "true".to_owned()),
        ("LLM_SERVICE_ADDR", llm.clone()),
        ("USER_SERVICE_ADDR", user),
        ("API_GATEWAY_ADDR", gateway),
    ];
    let mut terminal = Terminal::new(2, folder.path(), &Tape::default());
    terminal.start(&runner.display().to_string(), &environment);
    let ready = "api-gateway listening";
    let build = async || {
        while !built.exists() {
            tokio::task::yield_now().await;
        }
        tokio::fs::read(&built).await?;
        tokio::fs::remove_file(&built).await
    };
    build().await?;
    assert!(terminal.prints(DEADLINE, |text| text.contains(ready)).await);

    terminal.press("cargo run -- --without llm-service\n")?;
    assert!(terminal.prints(DEADLINE, |text| text.contains("Press Ctrl-C first")).await);

    terminal.press_enter()?;
    let taken = loop {
        match TcpListener::bind(&llm).await {
            Ok(taken) => break taken,
            Err(_still_serving) => tokio::task::yield_now().await,
        }
    };
    build().await?;
    let again = "Press Enter to try again";
    assert!(terminal.prints(DEADLINE, |text| text.contains(again)).await);

    drop(taken);
    terminal.press_enter()?;
    build().await?;
    assert!(terminal.prints(DEADLINE, |text| text.matches(ready).count() == 2).await);
    assert!(terminal.interrupt(DEADLINE).await?.success());
    Ok(())
}
