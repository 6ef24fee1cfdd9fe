//! The commands of the guide for proxies, with two of the book's services in place of a reader's.

use std::net::SocketAddr;

use super::example::{local, page};
use course::services::Service;
use lab::wire::Fault;
use serde_json::Value;
use support::process::{Lab, command, run};
use support::{Log, binaries, check, free_port, has, lacks, plan, until, within_reason};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// The ports on the page, and those of this run.
struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// A text of the page, with the ports of this run.
    fn here(&self, text: &str) -> String {
        let ports = self.0.iter();
        ports.fold(text.to_owned(), |text, (page, here)| {
            text.replace(&format!(":{page}"), &format!(":{here}"))
        })
    }

    /// A text of this run, with the ports of the page.
    fn on_the_page(&self, text: &str) -> String {
        let ports = self.0.iter();
        ports.fold(text.to_owned(), |text, (page, here)| {
            text.replace(&format!(":{here}"), &format!(":{page}"))
        })
    }
}

/// Starts one of the book's services at `address`, which calls `next`.
async fn start(name: &'static str, address: SocketAddr, otlp: &str, next: &str) -> Service {
    let variable = name.replace('-', "_").to_uppercase() + "_ADDR";
    let plan = plan(&binaries().await, name, otlp.parse().expect("an address"))
        .with(&variable, address)
        .with("OTEL_BSP_SCHEDULE_DELAY", 10)
        .with("LLM_SERVICE_URL", next);
    Service::start(plan, Log::default().sink()).await.expect("it starts")
}

/// The arguments of a `lab` command of the page.
fn arguments(command: &str) -> &str {
    command.strip_prefix("lab ").expect("lab")
}

/// Runs a `curl` command of the page, which must be answered 200.
async fn curl(command: &str) {
    let arguments = command.strip_prefix("curl ").expect("curl");
    let mut shell = tokio::process::Command::new("bash");
    let sent = shell.arg("-c").arg(format!("curl --noproxy '*' --silent {arguments}")).output();
    let output = within_reason(sent).await.expect("bash runs");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200"), "{output:?}");
}

/// Waits until the lab has this many traces and spans.
async fn arrived(lab: &Lab, expected: (usize, u64)) {
    until(async || {
        let list: Value = serde_json::from_str(&lab.ask("traces --json").await).expect("JSON");
        let list = list.as_array().expect("a list");
        let spans = list.iter().filter_map(|trace| trace["spans"].as_u64()).sum();
        match (list.len(), spans) {
            now if now == expected => Ok(()),
            now => Err(format!("{now:?}")),
        }
    })
    .await;
}

/// The headers of the only call of a service in the output of `lab trace`.
fn headers_of(trace: &str, service: &str) -> String {
    let mut lines = trace.lines().skip_while(|line| !line.starts_with(&format!("{service}  ")));
    let first = lines.next().unwrap_or_else(|| panic!("no {service} in {trace}"));
    let headers = lines.take_while(|line| line.starts_with("  "));
    [first].into_iter().chain(headers).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_show_a_request_and_break_it() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let page = page("proxy");
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("\n```").next());
    let blocks: Vec<&str> = blocks.map(|block| block.expect("a block")).collect();
    let [wire, send, set, diagnose, restore, trace] = blocks[..] else { panic!("{blocks:#?}") };

    let [user, llm] = [free_port(), free_port()];
    let mut ports =
        Ports(vec![(5001, user), (5002, llm), (8001, free_port()), (8002, free_port())]);
    let mut lab = Lab::ready(command("lab", &ports.here(arguments(wire))).await).await;
    let port = |address: &str| address.rsplit_once(':').expect("a port").1.parse().expect("a port");
    for (page, label) in [(4317, "gRPC"), (4318, "OTLP")] {
        ports.0.push((page, port(lab.address(label))));
    }
    ports.0.push((3000, port(lab.site())));
    check!("proxy/start.txt", &ports.on_the_page(&lab.printed));

    let url = "http://localhost:8002";
    assert!(page.contains(&format!("`LLM_SERVICE_URL={url}`")), "the page does not say {url}");
    let otlp = lab.otlp().to_owned();
    let services = [
        start("llm-service", local(llm), &otlp, "").await,
        start("user-service", local(user), &otlp, &ports.here(url)).await,
    ];
    curl(&ports.here(send)).await;
    has(&lab.get("/wire").await, ["<code>POST /process</code>", "<code>POST /generate</code>"]);
    arrived(&lab, (1, 5)).await;
    let whole = lab.ask(arguments(trace)).await;
    lacks(&whole, ["\n  - ", "\n  + "]);
    has(
        &headers_of(&whole, "llm-service"),
        ["sent by POST /generate of user-service", "traceparent: 00-"],
    );

    check!("proxy/set.txt", &ports.on_the_page(&lab.ask(arguments(set)).await));
    curl(&ports.here(send)).await;
    // The second request is in two traces.
    arrived(&lab, (3, 10)).await;
    let broken = lab.ask(arguments(trace)).await;
    let headers = headers_of(&broken, "llm-service");
    has(&headers, [&Fault::DropTraceparent.name(), "\n  - traceparent: 00-"]);
    let found = lab.finds(arguments(diagnose)).await;
    has(&found, ["A broken header (certain)", "llm-service"]);
    let session = [("headers", headers), ("diagnosis", found)].map(|(name, text)| {
        let (begin, end) = ("ANCHOR", "ANCHOR_END");
        format!("{begin}: {name}\n{text}{end}: {name}\n")
    });
    check!("proxy/broken.txt", &ports.on_the_page(&session.concat()));
    assert_eq!(lab.ask(arguments(restore)).await.matches("no fault").count(), 2);

    // A client that begins with HTTP/2.
    let mut client = TcpStream::connect(ports.here("127.0.0.1:8002")).await.expect("a connection");
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it is read");
    let note = until(async || {
        let listed = run("lab", &format!("break list --site {}", lab.site())).await;
        let note = String::from_utf8(listed.stderr).expect("text");
        if note.is_empty() { Err("no note") } else { Ok(note) }
    });
    check!("proxy/unread.txt", &note.await);
    for service in services.into_iter().rev() {
        service.stop().await;
    }
    assert_eq!(within_reason(lab.signal("-TERM")).await, Some(0));
}
