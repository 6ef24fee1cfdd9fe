//! A terminal of the reader: a folder, and one command at a time.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use course::services::is_setting;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::page::pattern;
use super::reel::{Place, Tape, What, put};
use support::{DEADLINE, FREE, binaries};

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

/// A command that is pasted into the terminal of the services is not Enter.
#[tokio::test(flavor = "multi_thread")]
async fn a_pasted_command_does_not_start_the_services_again() -> Result<()> {
    let runner = binaries().await.join("distributed_tracing");
    let folder = tempfile::tempdir()?;
    let environment = [
        // Stands in for cargo: everything is built.
        ("CARGO", "true".to_owned()),
        ("OTEL_SDK_DISABLED", "true".to_owned()),
        ("LLM_SERVICE_ADDR", FREE.to_owned()),
        ("USER_SERVICE_ADDR", FREE.to_owned()),
        ("API_GATEWAY_ADDR", FREE.to_owned()),
    ];
    let mut terminal = Terminal::new(2, folder.path(), &Tape::default());
    terminal.start(&runner.display().to_string(), &environment);
    let ready = "api-gateway listening";
    assert!(terminal.prints(DEADLINE, |text| text.contains(ready)).await);

    terminal.press("cargo run -- --without llm-service\n")?;
    assert!(terminal.prints(DEADLINE, |text| text.contains("Press Ctrl-C first")).await);

    assert!(terminal.interrupt(DEADLINE).await?.success());
    Ok(())
}
