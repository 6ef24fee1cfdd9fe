//! `lab expect --jaeger` with Jaeger itself, and the lab's answers beside Jaeger's.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::http::header::CONTENT_TYPE;
use lab::otlp;
use lab::wire::Fault;
use prost::Message as _;
use serde_json::Value;
use support::{client, free_port, has, in_process, installed, root, until};
use tokio::process::Command;

use crate::gates::TREE;
use crate::guides::component::Component;

use super::command::{Expecting, expect, query};
use super::services::QUERY;

/// Starts Jaeger, which receives OTLP over HTTP at the first address and answers queries at the second. Returns `None` where it
/// isn't installed.
pub async fn start([otlp, api]: [SocketAddr; 2]) -> Option<Component> {
    let mut jaeger = Command::new(installed("jaeger")?.join("bin/jaeger"));
    jaeger
        .arg("--config")
        .arg(root().join("tests/assert_traces/jaeger.yaml"))
        .env("OTLP", otlp.to_string())
        .env("QUERY", api.to_string());
    Some(Component::start(jaeger, "Everything is ready").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn jaeger_has_the_trace_and_the_traces_that_fell_off_it() {
    let addresses = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let Some(_jaeger) = start(addresses).await else { return };
    let expecting = Expecting::new(QUERY);
    let system = expecting.setup().with_backend(addresses[0]).wired().start().await;
    let gateway = system.wire.address("client-gateway").unwrap_or(system.gateway.address);
    let (url, query) = (format!("http://{}", addresses[1]), query(gateway));
    let query: Vec<&str> = query.iter().map(String::as_str).collect();
    let arguments = [&["--jaeger", &url][..], &query].concat();
    expecting.assert_ends(&expect(&expecting.file, &arguments).await, 0);

    system.wire.set("user-llm", Some(Fault::DropTraceparent));
    let broken = expect(&expecting.file, &arguments).await;
    expecting.assert_ends(&broken, 1);
    has(&broken.printed, ["- ", "one request, several traces", "llm-service in another trace"]);
    system.stop().await;
}

/// A trace with its spans and tags in one order and each span's process in it. Jaeger's warnings and the lab's `flags` are the only
/// fields that one of them has alone.
fn normal(answer: &str) -> Value {
    let mut answer: Value = serde_json::from_str(answer).expect("JSON");
    let trace = answer["data"][0].take();
    let by_key = |tags: &Value| {
        let mut tags = tags.as_array().cloned().unwrap_or_default();
        tags.sort_by_key(|tag| (tag["key"].to_string(), tag["value"].to_string()));
        Value::from(tags)
    };
    let spans = trace["spans"].as_array().expect("spans").iter().map(|span| {
        let mut process = trace["processes"][span["processID"].as_str().expect("an id")].clone();
        process["tags"] = by_key(&process["tags"]);
        let mut span = span.clone();
        for log in span["logs"].as_array_mut().into_iter().flatten() {
            log["fields"] = by_key(&log["fields"]);
        }
        span["tags"] = by_key(&span["tags"]);
        let fields = span.as_object_mut().expect("a span");
        fields.retain(|name, _| !["processID", "warnings", "flags"].contains(&&**name));
        fields.insert("process".to_owned(), process);
        span
    });
    let mut spans = Vec::from_iter(spans);
    spans.sort_by_key(|span| span["spanID"].to_string());
    spans.into()
}

/// The traces are those of the diagnosis, sound and faulty.
#[tokio::test(flavor = "multi_thread")]
async fn the_lab_answers_as_jaeger_does() {
    let [to, api] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let Some(_jaeger) = start([to, api]).await else { return };
    let lab = in_process::Lab::start().await;
    let mut sent = BTreeSet::new();
    for file in TREE.files("src/recordings/diagnose/", ".json") {
        let read = lab::read::read(TREE.read(file).as_bytes()).expect("spans");
        let ids: BTreeSet<_> = read.spans.iter().map(|it| (it.trace_id, it.id)).collect();
        // Jaeger keeps a span as often as it comes.
        if ids.len() != read.spans.len() || !ids.is_disjoint(&sent) {
            continue;
        }
        let request = otlp::to_request(read.spans.iter()).encode_to_vec();
        for receiver in [to, lab.address] {
            let export = client().post(format!("http://{receiver}/v1/traces"));
            let export = export.header(CONTENT_TYPE, in_process::PROTOBUF).body(request.clone());
            assert_eq!(export.send().await.expect("an answer").status(), 200, "{file}");
        }
        for id in ids.iter().map(|(trace, _)| trace).collect::<BTreeSet<_>>() {
            let path = format!("/api/traces/{id}");
            let ours = normal(&lab.page(&path).await);
            until(async || {
                let theirs = client().get(format!("http://{api}{path}")).send().await;
                let theirs = theirs.expect("an answer").text().await.expect("text");
                if normal(&theirs) == ours { Ok(()) } else { Err(format!("{file}: {theirs}")) }
            })
            .await;
        }
        sent.extend(ids);
    }
    let traces = sent.iter().map(|(trace, _)| trace).collect::<BTreeSet<_>>();
    assert!(traces.len() >= 20, "{} traces", traces.len());
}
