//! `lab expect` with the three services of the book.

use std::net::SocketAddr;

use lab::wire::Fault;
use serde_json::Value;
use support::process::Lab;
use support::{Setup, has, is_missing};

use super::command::{Ended, Expecting, expect, query};

/// The trace of a query.
pub const QUERY: &str = "\
POST /api/query                 SERVER    api-gateway   200
└─ POST /process                CLIENT    api-gateway   200
   └─ POST /process             SERVER    user-service  200
      ├─ validate_user          INTERNAL  user-service
      └─ POST /generate         CLIENT    user-service  200
         └─ POST /generate      SERVER    llm-service   200
            └─ chat offline     INTERNAL  llm-service
";

async fn ask(expecting: &Expecting, gateway: SocketAddr, more: &[&str]) -> Ended {
    let query = query(gateway);
    let query: Vec<&str> = query.iter().map(String::as_str).collect();
    expecting.run(&[query.as_slice(), more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_and_then_notices_each_fault() {
    let expecting = Expecting::new("");
    let system = expecting.setup().wired().start().await;
    let gateway = system.wire.address("client-gateway").unwrap_or(system.gateway.address);

    let missing = ask(&expecting, gateway, &[]).await;
    expecting.assert_ends(&missing, 2);
    has(&missing.error, ["query.trace", "--update writes it"]);

    let written = ask(&expecting, gateway, &["--update"]).await;
    expecting.assert_ends(&written, 0);
    has(&written.printed, ["written, 7 spans"]);
    let text = expecting.text();
    expecting.assert_ends(&ask(&expecting, gateway, &["--status", "200"]).await, 0);

    for (fault, parts) in [
        (Fault::DropTraceparent, ["one request, several traces", "llm-service in another trace"]),
        (Fault::Answer500, ["- ", "500  error"]),
    ] {
        system.wire.set("user-llm", Some(fault));
        let broken = ask(&expecting, gateway, &[]).await;
        expecting.assert_ends(&broken, 1);
        has(&broken.printed, parts);
    }
    system.wire.set("user-llm", None);

    // A call that the file doesn't have.
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("validate_user")).collect();
    expecting.rewrite(&(lines.join("\n") + "\n"));
    let surplus = ask(&expecting, gateway, &[]).await;
    expecting.assert_ends(&surplus, 1);
    has(&surplus.printed, ["1 surplus", "+ "]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_traceparent_in_two_ways() {
    if is_missing("curl", "install the package `curl`") {
        return;
    }
    let expecting = Expecting::new(QUERY);
    let system = expecting.setup().start().await;
    let url = format!("http://{}/api/query", system.gateway.address);
    let body = r#"{"user_id":"user_1","query":"What is a trace?"}"#;
    let curl = ["curl", "-sSf", "--noproxy", "*", &url, "--json", body, "-H"];
    let in_arguments = [&["--"][..], &curl, &["traceparent: {traceparent}"]].concat();
    expecting.assert_ends(&expecting.run(&in_arguments).await, 0);

    let script = format!(
        "curl -sSf --noproxy '*' {url} --json '{body}' -H \"traceparent: $TRACEPARENT\" -o /dev/null"
    );
    expecting.assert_ends(&expecting.run(&["--", "sh", "-c", &script]).await, 0);

    let twice = format!("{script}; {script}");
    let twice = expecting.run(&["--", "sh", "-c", &twice]).await;
    expecting.assert_ends(&twice, 1);
    has(&twice.printed, ["7 surplus"]);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_lab_and_jaegers_api_have_the_same_trace() {
    let lab = Lab::view("").await;
    let backend = lab.otlp().parse().expect("an address");
    let setup = Setup::default().with_backend(backend).with("all", "OTEL_BSP_SCHEDULE_DELAY", 200);
    let system = setup.start().await;
    let (site, url) = (lab.site().to_owned(), format!("http://{}", lab.site()));
    for source in [["--site", &site], ["--jaeger", &url]] {
        let expecting = Expecting::new(QUERY);
        let query = query(system.gateway.address);
        let query: Vec<&str> = query.iter().map(String::as_str).collect();
        let ended = expect(&expecting.file, &[&source[..], &query].concat()).await;
        expecting.assert_ends(&ended, 0);
        expecting.rewrite(&QUERY.replace("chat offline", "chat online"));
        let ended = expect(&expecting.file, &[&source[..], &query].concat()).await;
        expecting.assert_ends(&ended, 1);
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_can_read_the_report() {
    let expecting = Expecting::new(&QUERY.replace("chat offline", "chat online"));
    let system = expecting.setup().start().await;
    let gateway = system.gateway.address;

    let json = ask(&expecting, gateway, &["--format", "json"]).await;
    expecting.assert_ends(&json, 1);
    let json: Value = serde_json::from_str(&json.printed).expect("JSON");
    assert_eq!((&json["matches"], &json["spans"]), (&Value::Bool(false), &Value::from(7)));
    assert_eq!(json["traceId"].as_str().map(str::len), Some(32));

    let github = ask(&expecting, gateway, &["--format", "github"]).await;
    expecting.assert_ends(&github, 1);
    assert_eq!(github.printed.lines().count(), 1, "{}", github.printed);
    has(&github.printed, ["::error file=", ",title=The trace differs::", "%0A"]);

    let junit = ask(&expecting, gateway, &["--format", "junit"]).await;
    expecting.assert_ends(&junit, 1);
    has(&junit.printed, ["<testsuites>", "tests=\"1\" failures=\"1\"", "<failure message="]);
    system.stop().await;
}
