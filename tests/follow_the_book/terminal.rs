//! A terminal of the reader: a folder, and one command at a time.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use course::services::is_setting;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::reel::{Place, Tape, What, put};
use crate::support::DEADLINE;

/// Runs the typed lines as a shell does, one after the other until one fails. Writes the folder it ended in to a file. A service that is interrupted ends; the shell of a terminal does not. Its input ends when the program of the
/// tests does, and then it kills its group of processes.
const SHELL: &str = r#"exec 3<&0 </dev/null 2>&1
    { read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 &
    guard=$!
    exec 3<&-
    trap : INT
    trap 'kill $guard; pwd >"$FOLDER_AFTER"' EXIT
    set -e
    eval "$TYPED""#;

/// The variables that change how cargo builds, or what it prints.
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
    input: ChildStdin,
    output: watch::Receiver<String>,
    folder_after: tempfile::NamedTempFile,
}

impl Terminal {
    pub fn new(number: u8, folder: &Path, tape: &Tape) -> Terminal {
        Terminal {
            folder: folder.to_owned(),
            running: None,
            printed: String::new(),
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
    pub fn start(&mut self, typed: &str, environment: &[(String, String)]) {
        assert!(!self.is_busy(), "the terminal is busy with another command");
        put(&self.tape, self.place(), What::Typed(typed.to_owned()));
        let folder_after = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("sh");
        // What happens to be set where the test runs is not the reader's.
        for (key, _) in std::env::vars() {
            if is_setting(&key) || CARGO_SETTINGS.iter().any(|ours| key.starts_with(ours)) {
                command.env_remove(key);
            }
        }
        let mut child = command
            .args(["-c", SHELL])
            .current_dir(&self.folder)
            .envs(environment.iter().map(|(key, value)| (key, value)))
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
                let piece = String::from_utf8_lossy(&buffer[..length]).into_owned();
                put(&tape, place.clone(), What::Shown(piece));
                all.extend_from_slice(&buffer[..length]);
                sender.send_replace(String::from_utf8_lossy(&all).into_owned());
            }
        });
        self.printed.clear();
        self.running = Some(Running {
            input: child.stdin.take().expect("an input"),
            child,
            output,
            folder_after,
        });
    }

    /// The output of the current command, or of the last one.
    pub fn printed(&self) -> String {
        match &self.running {
            Some(running) => running.output.borrow().clone(),
            None => self.printed.clone(),
        }
    }

    /// Waits until what is printed is as it should be; says whether it was within `deadline`, and before the command
    /// ended.
    pub async fn prints(&mut self, deadline: Duration, is: impl Fn(&str) -> bool) -> bool {
        let Some(running) = &mut self.running else {
            return is(&self.printed);
        };
        let seen = running.output.wait_for(|text| is(text));
        matches!(tokio::time::timeout(deadline, seen).await, Ok(Ok(_)))
    }

    /// Waits until the command has ended.
    pub async fn finish(&mut self, deadline: Duration) -> Result<ExitStatus, String> {
        let Running { mut child, input, mut output, folder_after } =
            self.running.take().ok_or("no command runs in the terminal")?;
        let status = match tokio::time::timeout(deadline, child.wait()).await {
            Ok(status) => status.map_err(|error| error.to_string())?,
            Err(_) => {
                let printed = output.borrow().clone();
                self.running = Some(Running { child, input, output, folder_after });
                return Err(format!("it did not end within {deadline:?}; it printed:\n{printed}"));
            }
        };
        // Its sender goes when the last line is read.
        while output.changed().await.is_ok() {}
        self.printed = output.borrow().clone();
        let folder = std::fs::read_to_string(folder_after.path()).unwrap_or_default();
        if !folder.trim().is_empty() {
            self.folder = folder.trim().into();
        }
        Ok(status)
    }

    /// Presses Ctrl-C and waits for the end of the command.
    pub async fn interrupt(&mut self, deadline: Duration) -> Result<ExitStatus, String> {
        put(&self.tape, self.place(), What::Typed("^C".to_owned()));
        self.signal("-INT");
        self.finish(deadline).await
    }

    /// The terminal sends the signal to every process of the command, as Ctrl-C does.
    fn signal(&self, signal: &str) {
        if let Some(id) = self.running.as_ref().and_then(|running| running.child.id()) {
            kill(signal, id);
        }
    }
}

/// Sends a signal to a group of processes; says whether there was one.
fn kill(signal: &str, group: u32) -> bool {
    let mut command = std::process::Command::new("kill");
    command.args([signal, "--", &format!("-{group}")]);
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A test that fails half-way must leave nothing running either: what does not end in time is killed.
impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(group) = running.child.id() else {
            return;
        };
        kill("-TERM", group);
        let deadline = Instant::now() + DEADLINE;
        while kill("-0", group) && Instant::now() < deadline {
            let _ = running.child.try_wait();
        }
        kill("-KILL", group);
    }
}
