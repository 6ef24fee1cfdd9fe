//! A lab or a course as a process, and commands that ask it.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use course::services::is_setting;
use lab::process;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::{DEADLINE, FREE, binaries, client, has, within_reason};

/// The flags that say where the lab and its services listen.
pub const ADDRESSES: [&str; 6] =
    ["--site", "--otlp", "--grpc", "--gateway", "--user-service", "--llm-service"];

/// A running lab, stopped when dropped.
pub struct Lab {
    /// The program, which also has the commands that ask a lab.
    pub program: String,
    pub child: Child,
    pub output: BufReader<ChildStdout>,
    /// The lines up to the one that says that it is ready.
    pub printed: String,
}

impl Lab {
    /// The program `lab`, without the book and its services.
    pub async fn view(arguments: &str) -> Lab {
        Lab::ready(command("lab", &format!("view {arguments}")).await).await
    }

    /// The book, and with no argument the services too.
    pub async fn course(arguments: &str) -> Lab {
        Lab::ready(command("course", arguments).await).await
    }

    pub async fn ready(command: Command) -> Lab {
        let mut lab = Lab::spawn(command);
        lab.read_to(|line| line.contains("Ctrl-C stops")).await;
        lab
    }

    pub fn spawn(command: Command) -> Lab {
        let program = command.as_std().get_program().to_str().expect("text").to_owned();
        let mut child = process::spawn(command).expect("the lab starts");
        let output = BufReader::new(child.stdout.take().expect("an output"));
        Lab { program, child, output, printed: String::new() }
    }

    pub async fn read_to(&mut self, is_last: impl Fn(&str) -> bool) {
        while !self.printed.lines().last().is_some_and(&is_last) {
            let line = within_reason(self.output.read_line(&mut self.printed)).await;
            if line.expect("text") == 0 {
                let errors = self.errors().await;
                panic!("the lab ended too early:\n{}{errors}", self.printed);
            }
        }
    }

    /// The lab's whole error output, once it has ended.
    pub async fn errors(&mut self) -> String {
        let mut errors = String::new();
        let stderr = self.child.stderr.as_mut().expect("an error output");
        within_reason(stderr.read_to_string(&mut errors)).await.expect("text");
        errors
    }

    /// The address that was printed behind a label.
    pub fn address(&self, label: &str) -> &str {
        let line = self.printed.lines().find_map(|line| line.strip_prefix(label));
        line.unwrap_or_else(|| panic!("{label}: {}", self.printed)).trim()
    }

    /// The address of the pages.
    pub fn site(&self) -> &str {
        let (before, _) = self.printed.split_once("/traces\n").expect("a list of traces");
        before.rsplit_once("http://").expect("its address").1
    }

    pub fn otlp(&self) -> &str {
        self.address("OTLP").trim_start_matches("http://")
    }

    pub async fn get(&self, path: &str) -> String {
        text(&format!("http://{}{path}", self.site())).await
    }

    /// Runs a command that asks this lab, and must succeed.
    pub async fn ask(&self, arguments: &str) -> String {
        let output = run(&self.program, &format!("{arguments} --site {}", self.site())).await;
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that asks this lab and must find a fault. Returns what it printed.
    pub async fn finds(&self, arguments: &str) -> String {
        finds(&self.program, &format!("{arguments} --site {}", self.site())).await
    }

    /// Runs a command that asks this lab, and must fail with this reason.
    pub async fn refuses(&self, arguments: &str, reason: &str) {
        fails(&self.program, &format!("{arguments} --site {}", self.site()), [reason]).await;
    }

    /// The three services that the lab has started, and not git, which it asks for the commit while it builds the book. They
    /// are listed by age, and the leaf is started first.
    pub fn services(&self) -> Vec<String> {
        let id = self.id();
        let output =
            std::process::Command::new("pgrep").args(["-P", &id, "production_serv"]).output();
        let output = output.expect("pgrep runs; install the package `procps`");
        let services = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(services.lines().count(), 3, "{services}");
        services.lines().map(str::to_owned).collect()
    }

    pub fn id(&self) -> String {
        self.child.id().expect("it runs").to_string()
    }

    /// Sends a signal and returns the exit code.
    pub async fn signal(&mut self, signal: &str) -> Option<i32> {
        kill(signal, &self.id());
        within_reason(self.child.wait()).await.expect("it ends").code()
    }
}

/// A test that fails half-way must leave nothing running either: so the lab is asked to stop, not killed. It must end well.
impl Drop for Lab {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        kill("-TERM", &id.to_string());
        let deadline = Instant::now() + DEADLINE;
        let mut ended = None;
        while ended.is_none() && Instant::now() < deadline {
            // At a pace that leaves the processor to the lab.
            std::thread::park_timeout(Duration::from_millis(5));
            ended = self.child.try_wait().unwrap_or_default();
        }
        if !std::thread::panicking() {
            assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", self.printed);
        }
    }
}

/// Sends `signal` to a process; says whether there was one.
pub fn kill(signal: &str, id: &str) -> bool {
    let mut kill = std::process::Command::new("kill");
    kill.args([signal, id]).stderr(Stdio::null()).status().expect("kill runs").success()
}

/// Gives the processes that are started from here on their usual reaction to signals that this process ignores: a script's background
/// jobs ignore SIGINT and SIGQUIT, and everything behind `nohup` ignores SIGHUP. A process inherits which signals its parent ignores
/// and not which ones it handles (signal(7)), and the handlers here do nothing.
#[cfg(unix)]
pub fn handle_ignored_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    // Systems without this file leave the signals as they are.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).expect("a mask"));
    for kind in [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()] {
        if ignored >> (kind.as_raw_value() - 1) & 1 == 1 {
            // The handler outlives what is dropped here.
            drop(signal(kind).expect("a handler"));
        }
    }
}

/// A command that listens on free ports, unless the arguments say where.
pub async fn command(program: &str, arguments: &str) -> Command {
    let mut command = Command::new(binaries().await.join(program));
    // The course passes on what its user sets; a test is not that user.
    for (key, _) in std::env::vars().filter(|(key, _)| is_setting(key)) {
        command.env_remove(key);
    }
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let flags = match arguments.first() {
        Some(&("view" | "wire")) => &ADDRESSES[..3],
        // The others ask a running lab.
        Some(first) if !first.starts_with("--") => &[],
        _ => &ADDRESSES[..],
    };
    command.args(&arguments);
    for flag in flags.iter().filter(|flag| !arguments.contains(flag)) {
        command.args([flag, FREE]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub async fn run(program: &str, arguments: &str) -> Output {
    command(program, arguments).await.output().await.expect("it runs")
}

/// Runs a command that must find a fault. Returns what it printed, errors last.
pub async fn finds(program: &str, arguments: &str) -> String {
    let output = run(program, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
}

/// Runs a command that can't do its work, and must say why in one line with these parts.
pub async fn fails<const N: usize>(program: &str, arguments: &str, parts: [&str; N]) {
    let output = run(program, arguments).await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("Error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(2), 1), "{arguments}: {stderr}");
    has(errors[0], parts);
}

/// The text, if it contains what is expected.
pub fn containing(expected: &str, text: String) -> Result<String, String> {
    match text.contains(expected) {
        true => Ok(text),
        false => Err(text),
    }
}

/// The page at an address.
pub async fn text(url: &str) -> String {
    let response = client().get(url).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "{url}");
    response.text().await.expect("text")
}

pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("text").to_owned()
}
