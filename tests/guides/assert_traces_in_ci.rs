//! The commands of the guide print what the guide shows, with the three services behind proxies.

use std::process::Output;

use course::hops::HOPS;
use regex::Regex;
use tempfile::TempDir;
use tokio::process::Command;

use super::action::{Ran, Runner};
use super::collector::source;
use super::example::{binaries, page};
use support::in_process::Lab;
use support::recording::{check, figures};
use support::{Setup, System, has, within_reason};

const GUIDE: &str = "assert-traces-in-ci";

/// The gateway's address on the page.
const GATEWAY: &str = "127.0.0.1:5000";

/// The services, a lab that shows them, and a folder to run commands in.
struct Terminal {
    system: System,
    lab: Lab,
    gateway: String,
    folder: TempDir,
}

impl Terminal {
    async fn open() -> Terminal {
        // As `cargo run` starts them.
        let setup = Setup::default().wired().with("all", "OTEL_BSP_SCHEDULE_DELAY", 200);
        let system = setup.start().await;
        let lab = Lab::around(system.store.clone(), system.wire.clone()).await;
        let gateway = system.wire.address(HOPS[0].name).expect("a proxy").to_string();
        Terminal { system, lab, gateway, folder: tempfile::tempdir().expect("a folder") }
    }

    /// Runs a command of the page, which must end with this status. Returns what it printed.
    async fn run(&self, command: &str, status: i32) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", &command.replace(GATEWAY, &self.gateway)])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", binaries().await.display()))
            .env("LAB_SITE", self.lab.address.to_string())
            .kill_on_drop(true);
        let Output { status: ended, stdout, stderr } =
            within_reason(bash.output()).await.expect("bash runs");
        let stderr = String::from_utf8_lossy(&stderr);
        let stdout = String::from_utf8(stdout).expect("text");
        assert_eq!(ended.code(), Some(status), "{command}\n{stdout}{stderr}");
        stdout
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("it was written")
    }
}

/// The commands of the page that begin with `lab`, in its order.
fn commands() -> Vec<String> {
    let page = page(GUIDE);
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("lab ")).map(str::to_owned).collect()
}

/// Runs the book's action as the workflow that the page shows does.
async fn run_action(terminal: &Terminal, runner: &Runner) -> Ran {
    let file = source("examples/assert_traces_in_ci/.github/workflows/expect.yml");
    let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&file).expect("YAML");
    let [.., start, compare] = &file["jobs"]["expect"]["steps"].as_sequence().expect("steps")[..]
    else {
        panic!("not two steps")
    };
    // The address where `lab expect` listens by default.
    assert_eq!(start["env"]["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://127.0.0.1:4318");
    let uses = compare["uses"].as_str().expect("an action");
    has(uses, ["OWNER/one-trace/.github/actions/expect@"]);
    let inputs = compare["with"].as_mapping().expect("inputs").iter();
    let inputs = inputs.map(|(name, value)| (name.as_str().expect("a name"), value));
    let inputs: Vec<(&str, String)> = inputs
        .map(|(name, value)| {
            (name, value.as_str().expect(name).replace(GATEWAY, &terminal.gateway))
        })
        .collect();
    let inputs: Vec<(&str, &str)> = inputs.iter().map(|(name, value)| (*name, &**value)).collect();
    let site = terminal.lab.address.to_string();
    runner.run("expect", &inputs, terminal.folder.path(), &[("LAB_SITE", &site)]).await
}

/// Writes ports as the page has them.
fn with_the_ports_of_the_page(text: &str) -> String {
    let port = Regex::new(r"127\.0\.0\.1:\d+ +").expect("a pattern");
    let mut ports = [5000, 5001, 5002].iter();
    port.replace_all(text, |_: &regex::Captures<'_>| {
        format!("127.0.0.1:{}         ", ports.next().unwrap_or(&0))
    })
    .into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_print_what_it_shows() {
    let terminal = Terminal::open().await;
    let [write, compare, break_hop, compare_broken, restore, write_edges, mutate] = &commands()[..]
    else {
        panic!("not seven commands on the page: {:#?}", commands())
    };
    // Without a parent that never arrives.
    assert_eq!(terminal.system.ask("user_1").await.status(), 200);
    support::arrived(&terminal.system.store, 7).await;
    check!("assert-traces-in-ci/query.html", &figures(&terminal.system.store.trees()));
    check!("assert-traces-in-ci/written.txt", &terminal.run(write, 0).await);
    check!("assert-traces-in-ci/query.trace", &terminal.read("query.trace"));
    check!("assert-traces-in-ci/green.txt", &terminal.run(compare, 0).await);
    let hops = with_the_ports_of_the_page(&terminal.run(break_hop, 0).await);
    check!("assert-traces-in-ci/broken.txt", &hops);
    assert_eq!(compare, compare_broken);
    check!("assert-traces-in-ci/red.txt", &terminal.run(compare, 1).await);
    support::process::write(
        terminal.folder.path(),
        "tests/query.trace",
        &terminal.read("query.trace"),
    );
    let runner = Runner::new(&binaries().await).await;
    let failed = run_action(&terminal, &runner).await;
    assert!(!failed.succeeded, "{}", failed.printed);
    has(&failed.printed, ["::error file=tests/query.trace,"]);
    let [(name, folder)] = &failed.artifacts[..] else { panic!("not one artifact") };
    assert_eq!(name, "trace");
    let page = std::fs::read_to_string(folder.join("trace.html")).expect("a page");
    has(&page, ["Compared with tests/query.trace", "missing"]);
    let time = Regex::new(r#"time="[\d.]+""#).expect("a pattern");
    for (format, extension) in [("json", "json"), ("github", "txt"), ("junit", "xml")] {
        let printed = terminal.run(&format!("{} --format {format}", compare.trim_end()), 1).await;
        match extension {
            "json" => check!("reference/expect.json", &printed),
            "txt" => check!("reference/expect-github.txt", &printed),
            _ => {
                let printed = time.replace_all(&printed, "time=\"5.041\"");
                check!("reference/expect-junit.xml", &printed);
            }
        }
    }
    terminal.run(restore, 0).await;
    let fine = run_action(&terminal, &runner).await;
    assert!(fine.succeeded && fine.artifacts.is_empty(), "{}", fine.printed);
    terminal.run(write_edges, 0).await;
    check!("assert-traces-in-ci/services.trace", &terminal.read("services.trace"));
    check!("assert-traces-in-ci/mutate.txt", &terminal.run(mutate, 1).await);
    terminal.system.stop().await;
}
