//! One service of three at each stage of the roll-out, as the guide describes them.

use lab::tree::Tree;
use serde_json::json;

use super::example::{binaries, in_order};
use support::recording::{check_named, figures, recorded};
use support::{Setup, WHOLE, client, shapes, within_reason};

async fn setup(stage: &str) -> Setup {
    binaries().await;
    Setup::default().run_by("user-service", &format!("roll_out {stage}"))
}

/// The traces of one request, compared with the figure of the page.
async fn traces(stage: &str, figure: &str) -> Vec<Tree> {
    let trees = in_order(setup(stage).await.answers("user_1", 200).await.trees());
    check_named(figure, &figures(&trees));
    trees
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_tracing_cuts_the_trace_in_two() {
    let trees = traces("untraced", recorded!("roll-out/untraced.html")).await;
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200

POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service
";
    assert_eq!(shapes(&trees), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_passes_the_headers_on_is_a_gap_in_one_trace() {
    let trees = traces("forwarding", recorded!("roll-out/forwarding.html")).await;
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
    POST /generate SERVER llm-service http 200
      chat offline INTERNAL llm-service
";
    assert_eq!(shapes(&trees), expected);
}

/// An old caller sends B3, and llm-service behind reads only `traceparent`.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_both_kinds_of_headers_joins_old_and_new() {
    let system = setup("translating").await.wired().start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let url = format!("http://{}/process", system.user.address);
    let body = json!({ "user_id": "user_1", "query": "What is a trace?" });
    let request = client().post(url).json(&body);
    let request = request.header("b3", format!("{trace}-00f067aa0ba902b7-1"));
    assert_eq!(within_reason(request.send()).await.expect("an answer").status(), 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    assert_eq!(tree.trace_id.to_string(), trace);
    // All but the two spans of the gateway.
    let below: String = WHOLE.lines().skip(2).map(|line| format!("{}\n", &line[4..])).collect();
    assert_eq!(shapes(&[tree]), below);
    let sent = &stopped.wire.exchanges()[0].sent;
    support::has(sent, [&format!("traceparent: 00-{trace}-"), &format!("x-b3-traceid: {trace}")]);
}

/// Tracing is switched off by a variable, and the caller's trace goes on behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_sampler_is_off_passes_the_trace_on_unrecorded() {
    let setup = Setup::default().with("all", "OTEL_TRACES_SAMPLER", "always_off").wired();
    let system = setup.start().await;
    system.ask_with(&[("baggage", "tenant=acme")]).await;
    let stopped = system.stop().await;
    assert_eq!(stopped.trees().len(), 0);
    let exchanges = stopped.wire.exchanges();
    assert_eq!(exchanges.len(), 2);
    for exchange in exchanges {
        let traceparent = exchange.sent.split("traceparent: ").nth(1).expect("a header");
        assert_eq!(&traceparent[52..55], "-00", "{traceparent}");
    }
}
