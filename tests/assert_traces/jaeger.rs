//! `lab expect --jaeger` with Jaeger itself.

use std::net::SocketAddr;

use lab::wire::Fault;
use support::{free_port, has, installed, root};
use tokio::process::Command;

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
