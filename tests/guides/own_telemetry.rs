//! Rules for every example that starts OpenTelemetry: variables name the service, and telemetry that can't work fails no
//! request and stops no service.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::example::{binaries, neighbor};
use support::{FREE, Setup, WHOLE, client, refused, shape, within_reason};

/// user-service with the telemetry of each example that has its own.
const USER_SERVICES: [&str; 6] = [
    "production_services user-service",
    "instrumented_services user-service",
    "ready_made_services user-service",
    "portable_services user-service",
    "tenant_services user-service",
    "observed_user_service",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_names_the_service_and_each_process_has_an_instance_id() {
    binaries().await;
    for command in USER_SERVICES {
        let setup = Setup::default().run_by("user-service", command);
        let setup = setup.with("user-service", "OTEL_SERVICE_NAME", "renamed");
        let stopped = setup.answers("user_1", 200).await;
        let tree = stopped.only_tree();
        assert_eq!(shape(&tree), WHOLE.replace("user-service", "renamed"), "{command}");
        for row in tree.rows.iter().filter(|row| row.span.service() == "renamed") {
            let mut attributes = row.span.source.resource.attributes.iter();
            assert!(attributes.any(|it| it.key == "service.instance.id"), "{command}");
        }
        // A log line in JSON names the service too.
        let named = stopped.log.find("user-service", "\"service.name\":");
        let all_renamed = named.iter().all(|line| line.contains(":\"renamed\""));
        assert!(all_renamed, "{command}: {named:?}");
        assert_eq!(named.is_empty(), command != "observed_user_service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_cannot_be_built_stops_no_service_and_cuts_no_trace() {
    binaries().await;
    let around = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /generate SERVER llm-service http 200
      chat offline INTERNAL llm-service
";
    for command in USER_SERVICES {
        let setup = Setup::default().run_by("user-service", command);
        let setup = setup.with("user-service", "OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere");
        let stopped = setup.answers("user_1", 200).await;
        assert_eq!(stopped.shapes(), around, "{command}");
        // One line when it starts, and none for each request.
        let lines = ["nothing is exported", "set parent"]
            .map(|text| stopped.log.find("user-service", text).len());
        assert_eq!(lines, [1, 0], "{command}");
    }
}

/// Standard error is a pipe that nothing reads, which happens when a log shipper dies.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_that_cannot_be_written_fail_no_request() {
    let binaries = binaries().await;
    let (llm_service, _requests) = neighbor().await;
    let (backend, _taken) = refused();
    for command in USER_SERVICES {
        let mut words = command.split(' ');
        let mut service = Command::new(binaries.join(words.next().expect("a name")))
            .args(words)
            .env("USER_SERVICE_ADDR", FREE)
            .env("LLM_SERVICE_URL", format!("http://{llm_service}"))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{backend}"))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        drop(service.stderr.take());
        let mut lines = BufReader::new(service.stdout.take().expect("piped")).lines();
        let ready = within_reason(lines.next_line()).await.expect("a line");
        let ready = ready.unwrap_or_else(|| panic!("{command} does not start"));
        let (_, url) = ready.split_once("listening on ").expect("a URL");
        for _ in 0..2 {
            let body = json!({ "user_id": "user_1", "query": "What is a trace?" });
            let request = client().post(format!("{url}/process")).json(&body);
            let answer = within_reason(request.send()).await;
            let status = answer.map(|answer| answer.status().as_u16());
            assert_eq!(status.ok(), Some(200), "{command}");
        }
        service.kill().await.expect("it runs");
    }
}
