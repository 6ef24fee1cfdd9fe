//! `lab run`: the lab that it finds or starts, the environment, the output, the signals and the end of a command.

use std::process::Stdio;

use axum::Router;
use serde_json::Value;
use support::in_process::{JSON, table, trace_id, trace_path};
use support::process::{Lab, command, kill, run, text};
use support::{FREE, client, free_port, has, lacks, serve, until, within_reason};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// A command that runs a script of a shell, with receivers at free ports if it has to start a lab.
async fn script(site: &str, flags: &str, script: &str) -> Command {
    let mut command = command("lab", &format!("run --site {site} {flags} -- sh -c")).await;
    command.arg(script).stdin(Stdio::piped()).env("LAB_OTLP", FREE).env("LAB_GRPC", FREE);
    command
}

/// A script that runs.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    async fn start(site: &str, text: &str) -> Running {
        let mut child = lab::process::spawn(script(site, "", text).await).expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("an output"));
        Running { child, output }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        within_reason(self.output.read_line(&mut line)).await.expect("text");
        line
    }

    fn signal(&self, signal: &str) {
        kill(signal, &self.child.id().expect("it runs").to_string());
    }

    async fn status(&mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        within_reason(self.child.wait()).await.expect("it ends").code()
    }
}

/// Waits until nothing answers at an address.
async fn is_gone(site: &str) {
    let url = format!("http://{site}/traces");
    until(async || match client().get(&url).send().await {
        Err(_) => Ok(()),
        Ok(answer) => Err(answer.status()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_status_pass_unchanged() {
    let lab = Lab::view("").await;
    let program = r"printf 'a\r\n\033[31mb\000\377'; printf 'error: c' >&2; exit 7";
    let ended = script(lab.site(), "", program).await.output().await.expect("it runs");
    assert_eq!(ended.stdout, b"a\r\n\x1b[31mb\0\xff");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "error: c");
    assert_eq!(ended.status.code(), Some(7));

    // Two megabytes, more than any buffer holds.
    let many = "yes 0123456789abcde | head -c 2000000";
    let ended = script(lab.site(), "", many).await.output().await.expect("it runs");
    assert_eq!(ended.stdout, b"0123456789abcde\n".repeat(125_000));

    // A program in the background that holds the output doesn't hold the command.
    let mut left = script(lab.site(), "", "sleep 300 & echo $!").await;
    let ended = within_reason(left.output()).await.expect("it runs");
    kill("-KILL", String::from_utf8_lossy(&ended.stdout).trim());
    assert_eq!(ended.status.code(), Some(0));
    has(&String::from_utf8_lossy(&ended.stderr), ["a program that it started still writes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_the_exit_status_that_env_gives_it() {
    let lab = Lab::view("").await;
    let nobody = serve(Router::new()).await;
    for (site, command, status, reason) in [
        (lab.site(), "/nowhere/shop", 127, "cannot find the command /nowhere/shop"),
        (lab.site(), "/", 126, "cannot run the command /"),
        (&nobody.to_string(), "true", 125, "is not the lab (404"),
        ("192.0.2.1.invalid:80", "true", 125, "no lab answers at"),
    ] {
        let ended = run("lab", &format!("run --site {site} -- {command}")).await;
        assert_eq!(ended.status.code(), Some(status), "{command}: {ended:?}");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(errors.lines().count(), 1, "{errors}");
        has(&errors, [reason]);
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_command_once() {
    support::process::handle_ignored_signals();
    let lab = Lab::view("").await;
    let count = "n=0; trap 'n=$((n+1)); echo got $n' USR1 INT HUP QUIT USR2; trap 'exit 3' TERM; \
                 echo ready; while :; do read x || sleep 0.01; done";
    let mut counting = Running::start(lab.site(), count).await;
    assert_eq!(counting.line().await, "ready\n");
    for (number, signal) in ["-USR1", "-INT", "-HUP", "-QUIT", "-USR2"].iter().enumerate() {
        counting.signal(signal);
        assert_eq!(counting.line().await, format!("got {}\n", number + 1), "{signal}");
    }
    counting.signal("-TERM");
    assert_eq!(counting.status().await, Some(3));

    let mut killed = Running::start(lab.site(), "echo ready; kill -KILL $$").await;
    assert_eq!(killed.status().await, Some(128 + 9));

    // A signal that is ignored stays so.
    let nohup = "trap '' HUP; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    let run = script(lab.site(), "", "echo ready; read x; echo went on").await;
    command.args(["-c", nohup]).arg(run.as_std().get_program()).args(run.as_std().get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = lab::process::spawn(command).expect("it starts");
    let output = BufReader::new(child.stdout.take().expect("an output"));
    let mut ignoring = Running { child, output };
    assert_eq!(ignoring.line().await, "ready\n");
    ignoring.signal("-HUP");
    let input = ignoring.child.stdin.as_mut().expect("an input");
    input.write_all(b"\n").await.expect("it reads");
    assert_eq!(ignoring.line().await, "went on\n");
    assert_eq!(ignoring.status().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_exports_to_the_lab_unless_its_user_wants_otherwise() {
    let lab = Lab::view("").await;
    let show = "env | grep ^OTEL | sort; echo \"$0\" \"$@\"";
    let ended = script(lab.site(), "--name shop", show).await.output().await.expect("it runs");
    let set = format!(
        "OTEL_BLRP_SCHEDULE_DELAY=200\nOTEL_BSP_SCHEDULE_DELAY=200\n\
         OTEL_EXPORTER_OTLP_ENDPOINT=http://{}\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n\
         OTEL_SERVICE_NAME=shop\nsh\n",
        lab.otlp()
    );
    assert_eq!(String::from_utf8_lossy(&ended.stdout), set);

    let mut elsewhere = script(lab.site(), "-v", show).await;
    elsewhere.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@vendor:4318");
    let ended = elsewhere.output().await.expect("it runs");
    has(&String::from_utf8_lossy(&ended.stdout), ["@vendor:4318\n", "OTEL_SERVICE_NAME=sh\n"]);
    let errors = String::from_utf8_lossy(&ended.stderr);
    has(&errors, ["Warning: OTEL_EXPORTER_OTLP_ENDPOINT is set", "Left as it is: OTEL_EXPORTER"]);
    lacks(&errors, ["secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_a_trace_id_joins_its_trace() {
    let lab = Lab::view("").await;
    let span = table("1 shop 1 SERVER 0..9 pay").to_string();
    let request = client().post(format!("http://{}/v1/traces", lab.otlp()));
    let answer = request.header("content-type", JSON).body(span).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    let id = trace_id(1);
    let lines = format!(
        "echo no id; echo 'WARN late trace_id={id} span_id=0000000000000001'; \
         echo '{{\"trace_id\":\"{id}\",\"msg\":\"paid\"}}' >&2; printf 'last traceId={id}'"
    );
    let ended = script(lab.site(), "--name till", &lines).await.output().await.expect("it runs");
    assert_eq!(String::from_utf8_lossy(&ended.stdout).lines().count(), 3, "{ended:?}");

    let case = lab.get(&format!("{}.case.json", trace_path(1))).await;
    let case: Value = serde_json::from_str(&case).expect("JSON");
    let lists = case["resourceLogs"].as_array().expect("log records");
    let resources: Vec<&Value> = lists.iter().collect();
    let records: Vec<&Value> = resources
        .iter()
        .flat_map(|it| it["scopeLogs"][0]["logRecords"].as_array().expect("records"))
        .collect();
    let named = |name: &str| {
        let found = records.iter().find(|it| it["body"].to_string().contains(name));
        *found.unwrap_or_else(|| panic!("{records:#?}"))
    };
    assert_eq!(records.len(), 3, "{records:#?}");
    assert_eq!(resources[0]["resource"]["attributes"][0]["value"]["stringValue"], "till");
    assert!(records.iter().all(|it| it["traceId"] == *id), "{records:#?}");
    let late = named("late");
    assert_eq!((&late["severityText"], &late["severityNumber"]), (&"WARN".into(), &13.into()));
    assert_eq!(late["spanId"], "0000000000000001");
    // Standard error isn't an error.
    let paid = named("paid");
    assert_eq!(paid["attributes"][0]["value"]["stringValue"], "stderr");
    assert!(paid["severityNumber"].as_u64().is_none_or(|it| it == 0), "{paid}");
    named("last");
}

/// A lab that nobody started ends with the last command that uses it, however that ends.
#[tokio::test(flavor = "multi_thread")]
async fn several_commands_share_one_lab_that_ends_with_the_last() {
    let site = format!("127.0.0.1:{}", free_port());
    let waits = "echo $OTEL_EXPORTER_OTLP_ENDPOINT; echo $$; read x || true";
    let (mut first, mut second) =
        tokio::join!(Running::start(&site, waits), Running::start(&site, waits));
    let endpoint = first.line().await;
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
    assert_eq!(second.line().await, endpoint);
    assert_eq!(first.status().await, Some(0));
    has(&text(&format!("http://{site}/traces")).await, ["No trace yet"]);

    // Killed, it can't do anything any more, and still leaves neither the command nor the lab.
    second.line().await;
    second.signal("-KILL");
    assert_eq!(second.status().await, None);
    is_gone(&site).await;
    let mut rest = String::new();
    // On Linux the command is gone too, so the other end of its output is closed.
    if cfg!(target_os = "linux") {
        within_reason(second.output.read_to_string(&mut rest)).await.expect("text");
    }

    let mut third = Running::start(&site, "read x || true").await;
    until(async || match client().get(format!("http://{site}/traces")).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    assert_eq!(third.status().await, Some(0));
    let mut errors = String::new();
    let stderr = third.child.stderr.as_mut().expect("errors");
    within_reason(stderr.read_to_string(&mut errors)).await.expect("text");
    assert_eq!(errors, format!("Traces: http://{site}/traces, until the last `lab run` ends\n"));
    is_gone(&site).await;
}

/// A command finds a terminal where we have one: it prints colours and keeps no lines back.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_finds_a_terminal_where_we_have_one() {
    let lab = Lab::view("").await;
    let show = "[ -t 1 ] && echo out; [ -t 2 ] && echo err >&2; stty size <&1; printf 'a\\nb\\n'";
    let run = script(lab.site(), "", show).await;
    // `script` gives what it runs a terminal.
    let mut line = String::from("stty rows 33 columns 77;");
    for part in [run.as_std().get_program()].into_iter().chain(run.as_std().get_args()) {
        line += &format!(" '{}'", part.to_str().expect("text").replace('\'', r"'\''"));
    }
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let Ok(ended) = terminal.output().await else {
        support::skipped("script", "install the package `bsdutils`");
        return;
    };
    let printed = String::from_utf8_lossy(&ended.stdout);
    has(&printed, ["out\r\n", "err\r\n", "33 77\r\n", "a\r\nb\r\n"]);
    assert_eq!(ended.status.code(), Some(0), "{printed}");
}
