//! The course as a process, as `cargo run` starts it: what it does and prints, and how it ends when something is wrong.

use std::path::Path;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use support::process::{ADDRESSES, Lab, command, containing, fails, kill, run, text, write};
use support::{FREE, client, has, until};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn cargo_run_traces_one_request_and_serves_the_book_and_the_traces() {
    let mut lab = Lab::course("").await;
    has(&text(lab.address("The book")).await, ["The 200 that lied"]);
    let trace = lab.address("This trace");
    let services = ["api-gateway", "user-service", "llm-service"];
    has(&text(trace).await, services);
    has(&text(trace).await, ["validate_user", "table class=\"waterfall\""]);
    has(&text(lab.address("All traces")).await, [trace.rsplit('/').next().expect("an id")]);

    // The same tree in the terminal, as text, and in Jaeger's JSON.
    has(&lab.printed, [&text(&format!("{trace}.txt")).await]);
    let json = text(&trace.replace("/traces/", "/api/traces/")).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["data"][0]["spans"].as_array().map(Vec::len), Some(7), "{json}");
    let services = lab.get("/api/services").await;
    has(&services, [r#"["api-gateway","llm-service","user-service"]"#]);
    assert_eq!(lab.signal("-INT").await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_that_the_lab_prints_works_as_it_stands() {
    if support::is_missing("curl", "install the package `curl`") {
        return;
    }
    let lab = Lab::course("").await;
    let line = lab.printed.lines().find(|line| line.starts_with("curl ")).expect("a curl");
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("NO_PROXY", "*").env("no_proxy", "*");
    let output = shell.output().await.expect("a shell");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200"), "{output:?}");
}

/// Fails if one of the services still runs.
fn all_ended(services: &[String], why: &str) {
    let left: Vec<_> = services.iter().filter(|id| kill("-0", id)).collect();
    assert!(left.is_empty(), "{why}: still running: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_the_lab_ends_the_services() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut lab = Lab::course("").await;
        let services = lab.services();
        assert_eq!(lab.signal(signal).await, Some(0), "{signal}");
        all_ended(&services, signal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_ends_the_lab_with_its_name() {
    let mut lab = Lab::course("").await;
    let services = lab.services();
    assert!(kill("-KILL", &services[0]));
    let errors = lab.errors().await;
    assert_eq!(lab.child.wait().await.expect("it ends").code(), Some(2), "{errors}");
    has(&errors, ["Error: llm-service ended by itself"]);
    all_ended(&services, &errors);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_lab_leaves_no_service_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut killed = command("course", "").await;
    // It can't remove its book.
    killed.env("TMPDIR", folder.path());
    let mut lab = Lab::ready(killed).await;
    let services = lab.services();
    assert_eq!(lab.signal("-KILL").await, None);
    // Each dies immediately, but stays in the table of processes until the system has collected it.
    let state = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('X')
    };
    until(async || {
        let states: String = services.iter().map(state).collect();
        states.chars().all(|state| "ZX".contains(state)).then_some(()).ok_or(states)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_is_broken_and_diagnosed_from_the_terminal() {
    let lab = Lab::course("").await;
    let site = format!("http://{}/", lab.site());
    let sound = "No rule found a fault in 7 spans of 3 services or in 3 requests on the wire.\n";
    assert_eq!(lab.ask("diagnose").await, sound);
    assert_eq!(lab.ask("break list").await.matches("no fault").count(), 3);
    let set = lab.ask("break gateway-user drop-traceparent").await;
    let broken =
        |line: &str| line.starts_with("gateway-user") && line.ends_with("drop-traceparent");
    assert!(set.lines().any(broken), "{set}");

    // Through the address that the lab has printed.
    let (_, gateway) = lab.printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let answer = client().post(gateway).json(&query).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let expected = "A broken header (certain): On gateway-user, the `traceparent` that was sent did not arrive";
    let diagnose = async || {
        let output = run("course", &format!("diagnose --site {}", lab.site())).await;
        String::from_utf8(output.stdout).expect("text")
    };
    let broken = until(async || containing(expected, diagnose().await)).await;
    has(&broken, [&format!("{site}how-to/diagnose.html#broken-header")]);
    // The header stands beside the span that sent it.
    let beside = "gateway-user  200  sent by POST /process of api-gateway  fault: drop-traceparent\n  - traceparent: 00-";
    until(async || containing(beside, lab.ask("trace").await)).await;

    // The same from a file; more spans may arrive between the two.
    let folder = tempfile::tempdir().expect("a folder");
    until(async || {
        let id = lab.ask("traces --limit 1 --json").await;
        let id: Value = serde_json::from_str(&id).expect("JSON");
        let id = id[0]["traceId"].as_str().expect("an id");
        let broken = lab.finds(&format!("diagnose {id}")).await.replace(&site, "the book's page ");
        let case = lab.get(&format!("/traces/{id}.case.json")).await;
        let file = write(folder.path(), "case.json", &case);
        let told = lab.finds(&format!("diagnose {file}")).await;
        (told == broken).then_some(()).ok_or(format!("{told}\nand\n{broken}"))
    })
    .await;

    assert_eq!(lab.ask("break restore").await.matches("no fault").count(), 3);
    lab.ask("break user-llm cut").await;
    let restored = lab.ask("break user-llm restore").await;
    assert_eq!(restored.matches("no fault").count(), 3);
    for (arguments, reason) in [
        ("break nowhere cut", "unknown hop \"nowhere\": use one of client-gateway"),
        ("break user-llm burn", "unknown fault \"burn\": use one of drop-traceparent"),
        ("break user-llm", "which fault?"),
        ("diagnose typo.json", "typo.json is neither a file nor"),
    ] {
        lab.refuses(arguments, reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_have_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run("course", &format!("completions {shell}")).await;
        assert!(output.status.success(), "{shell}: {output:?}");
        let script = String::from_utf8(output.stdout).expect("text");
        has(&script, ["view", "traces", "trace", "diagnose", "break", "check", "max-connections"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_asks_the_lab_and_its_exit_code_is_the_answer() {
    let lab = Lab::course("view").await;
    has(&lab.finds("check 1").await, ["Error: not yet: no `POST /generate`"]);
    let nobody = format!("check 1 --site {FREE}");
    fails("course", &nobody, ["no lab answers at 127.0.0.1:0: start it"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_line_that_names_it() {
    let holder = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
    let taken = holder.local_addr().expect("an address").to_string();
    for flag in ADDRESSES {
        fails("course", &format!("{flag} {taken}"), [&taken, "in use"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readers_proxy_cannot_have_the_name_of_one_of_ours() {
    let wire = format!("--wire user-llm={FREE},localhost:9090");
    fails("course", &wire, ["the proxy user-llm needs another name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_that_does_not_build_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = format!("--book {}", folder.path().display());
    fails("course", &book, ["does not build"]).await;
    write(folder.path(), "book.toml", "[book]\ntitle = \"x\"\n");
    write(folder.path(), "src/SUMMARY.md", "- [Missing](missing.md)\n");
    fails("course", &book, ["missing.md"]).await;
}

/// A program that is run by hand, with its own folder as the only hint where the book is.
async fn in_folder(folder: &Path, arguments: &str) -> Command {
    let mut command = command("course", arguments).await;
    command.current_dir(folder).env_remove("CARGO_MANIFEST_DIR");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_book_is_that_of_the_clone_it_runs_in_wherever_it_was_compiled() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("book.toml", "[book]\ntitle = \"x\"\n"),
        ("examples/distributed_tracing/Cargo.toml", ""),
        ("src/SUMMARY.md", "- [Moved](moved.md)\n"),
        ("src/moved.md", "# The clone was moved\n"),
        ("inside/it/file", ""),
    ] {
        write(folder.path(), name, text);
    }
    let lab = Lab::ready(in_folder(&folder.path().join("inside/it"), "view").await).await;
    has(&text(lab.address("Book")).await, ["The clone was moved"]);

    let elsewhere = tempfile::tempdir().expect("a folder");
    let lab = Lab::ready(in_folder(elsewhere.path(), "view").await).await;
    assert!(lab.printed.starts_with("Traces"), "{}", lab.printed);
    let output = in_folder(elsewhere.path(), "").await.output().await.expect("it runs");
    let error = String::from_utf8(output.stderr).expect("text");
    let expected = "Error: the book's repository is not here: run this in a clone of it";
    assert!(error.starts_with(expected), "{error}");
}

/// A request that is under way when the course gets SIGTERM is answered, and all of its spans are saved.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_loses_no_span_of_a_request_that_is_under_way() {
    // A model that answers the first request and holds the second one back.
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let held_back = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let permits = std::sync::Arc::clone(&held_back);
    let model = post(async move || {
        asked.send(()).expect("the test goes on");
        permits.acquire().await.expect("a permit").forget();
        let message = json!({ "role": "assistant", "content": "hi" });
        let choice = json!({ "message": message, "finish_reason": "stop" });
        axum::Json(json!({ "model": "m", "choices": [choice] }))
    });
    let model = support::serve(Router::new().route("/v1/chat/completions", model)).await;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("session.jsonl").display().to_string();
    let mut course = command("course", &format!("--save {file}")).await;
    course.env("LLM_BASE_URL", format!("http://{model}/v1")).env("LLM_MODEL", "m");
    let mut course = Lab::ready(course).await;
    requests.recv().await.expect("the first request");
    let (_, gateway) = course.printed.split_once("curl -i ").expect("a command");
    let gateway = gateway.split(' ').next().expect("an address").to_owned();
    let health = gateway.replace("/api/query", "/health");
    let query = json!({ "user_id": "user_1", "query": "?" });
    let under_way = tokio::spawn(client().post(gateway).json(&query).send());
    requests.recv().await.expect("the second request");

    kill("-TERM", &course.id());
    // The gateway refuses connections once it is stopping: its proxy answers 502, or has ended too.
    until(async || match client().get(&health).send().await {
        Ok(answer) if answer.status() == 502 => Ok(()),
        Ok(answer) => Err(format!("the gateway still answers {}", answer.status())),
        Err(_) => Ok(()),
    })
    .await;
    held_back.add_permits(1);
    let answer = under_way.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(course.child.wait().await.expect("it ends").code(), Some(0));
    let opened = lab::session::open(Path::new(&file), drop).expect("the session");
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    assert_eq!(opened.count, 2 * 7);
}
