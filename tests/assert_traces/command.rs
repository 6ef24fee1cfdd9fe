//! Runs `lab expect` and services that export to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use support::process::command;
use support::{Setup, free_port, within_reason};
use tempfile::TempDir;

/// The times for services that export every 200 ms.
const TIMES: [&str; 4] = ["--settle", "1s", "--timeout", "5s"];

/// A file of expected traces and the addresses at which `lab expect` listens.
pub struct Expecting {
    pub file: PathBuf,
    pub otlp: SocketAddr,
    grpc: SocketAddr,
    _folder: TempDir,
}

/// How `lab expect` has ended.
pub struct Ended {
    pub status: i32,
    pub printed: String,
    /// The line that says why it couldn't do its work.
    pub error: String,
}

impl Expecting {
    pub fn new(text: &str) -> Expecting {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("query.trace");
        if !text.is_empty() {
            std::fs::write(&file, text).expect("written");
        }
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Expecting { file, otlp: free(), grpc: free(), _folder: folder }
    }

    /// The services, exporting to `lab expect`.
    pub fn setup(&self) -> Setup {
        Setup::default().with_backend(self.otlp).with("all", "OTEL_BSP_SCHEDULE_DELAY", 200)
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.file).expect("a file")
    }

    pub fn rewrite(&self, text: &str) {
        std::fs::write(&self.file, text).expect("written");
    }

    /// Runs `lab expect` with its own receiver.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let [otlp, grpc] = [self.otlp, self.grpc].map(|it| it.to_string());
        expect(&self.file, &[&["--otlp", &otlp, "--grpc", &grpc][..], arguments].concat()).await
    }

    #[track_caller]
    pub fn assert_ends(&self, ended: &Ended, status: i32) {
        assert_eq!(ended.status, status, "{}{}", ended.printed, ended.error);
    }
}

/// Runs `lab expect`.
pub async fn expect(file: &Path, arguments: &[&str]) -> Ended {
    let mut command = command("lab", "expect").await;
    command.arg(file).args(TIMES).args(arguments).env_remove("LAB_SITE").kill_on_drop(true);
    let output: Output = within_reason(command.output()).await.expect("it runs");
    let [printed, errors] =
        [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
    let error = errors.lines().filter(|line| line.starts_with("Error: ")).collect::<Vec<_>>();
    Ended {
        status: output.status.code().expect("it wasn't killed"),
        printed,
        error: error.join("\n"),
    }
}

/// The arguments for a query to the gateway of the book.
pub fn query(gateway: SocketAddr) -> [String; 4] {
    let body = r#"{"user_id":"user_1","query":"What is a trace?"}"#;
    ["--request".into(), format!("POST http://{gateway}/api/query"), "--body".into(), body.into()]
}
