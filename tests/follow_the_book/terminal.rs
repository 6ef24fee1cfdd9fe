//! A terminal of the reader: a folder, and one command at a time.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use course::services::is_setting;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::reel::{Place, Tape, What, put};
use crate::support::DEADLINE;

/// Runs the typed lines one after the other until one fails, as a shell does. Writes the folder that it ends in to a file.
/// Ctrl-C ends a service but not this shell. When the test program ends, the input ends too, and the shell then kills its group
/// of processes.
const SHELL: &str = r#"exec 3<&0 </dev/null 2>&1
    { read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 &
    guard=$!
    exec 3<&-
    trap : INT
    trap 'kill $guard; pwd >"$FOLDER_AFTER"' EXIT
    set -e
    eval "$TYPED""#;

/// The variables that change how cargo builds or what it prints.
const CARGO_SETTINGS: [&str; 6] = [
    "RUST_BACKTRACE",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TERM_",
    "CARGO_PROFILE_",
    "CARGO_BUILD_",
];

pub struct Terminal {
    pub folder: PathBuf,
    running: Option<Running>,
    /// The output of the last command, when it has ended.
    printed: String,
    number: u8,
    tape: Tape,
}

struct Running {
    child: Child,
    /// Open for as long as the command may run.
    _input: ChildStdin,
    output: watch::Receiver<String>,
    folder_after: tempfile::NamedTempFile,
}

impl Terminal {
    pub fn new(number: u8, folder: &Path, tape: &Tape) -> Terminal {
        let (folder, tape) = (folder.to_owned(), tape.clone());
        Terminal { folder, running: None, printed: String::new(), number, tape }
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
        let folder_after = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("sh");
        // The settings of the machine that runs the test are not the reader's.
        for (key, _) in std::env::vars() {
            if is_setting(&key) || CARGO_SETTINGS.iter().any(|ours| key.starts_with(ours)) {
                command.env_remove(key);
            }
        }
        let mut child = command
            .args(["-c", SHELL])
            .current_dir(&self.folder)
            .envs(environment.iter().cloned())
            .env("TYPED", typed)
            .env("FOLDER_AFTER", folder_after.path())
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
        self.printed.clear();
        let input = child.stdin.take().expect("an input");
        self.running = Some(Running { child, _input: input, output, folder_after });
    }

    /// The output of the current command, or of the last one.
    pub fn printed(&self) -> String {
        match &self.running {
            Some(running) => running.output.borrow().clone(),
            None => self.printed.clone(),
        }
    }

    /// Waits until the output is as it should be. Returns whether that was within `deadline` and before the command ended.
    pub async fn prints(&mut self, deadline: Duration, is: impl Fn(&str) -> bool) -> bool {
        let Some(running) = &mut self.running else { return is(&self.printed) };
        let seen = running.output.wait_for(|text| is(text));
        matches!(timeout(deadline, seen).await, Ok(Ok(_)))
    }

    /// Waits until the command has ended.
    pub async fn finish(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("no command runs in the terminal")?;
        let Ok(status) = timeout(deadline, running.child.wait()).await else {
            bail!("it did not end within {deadline:?}, and printed:\n{}", self.printed());
        };
        // The sender is dropped after the last line.
        while running.output.changed().await.is_ok() {}
        self.printed = running.output.borrow().clone();
        let folder = std::fs::read_to_string(&running.folder_after).unwrap_or_default();
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
        self.running.as_ref()?.child.id()
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
        let (Some(group), Some(running)) = (self.group(), &mut self.running) else { return };
        kill("-TERM", group);
        let deadline = Instant::now() + DEADLINE;
        while kill("-0", group) && Instant::now() < deadline {
            let _ = running.child.try_wait();
        }
        kill("-KILL", group);
    }
}
