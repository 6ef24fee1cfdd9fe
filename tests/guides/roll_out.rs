//! One service of three at each stage of the roll-out, as the guide describes them.

use super::example::binaries;
use support::recording::recorded;
use support::{Setup, WHOLE, ask, has, lacks, shapes};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

async fn setup(stage: &str) -> Setup {
    binaries().await;
    Setup::default().run_by("user-service", &format!("roll_out {stage}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_spans_cuts_the_trace_unless_it_passes_the_headers_on() {
    let gateway = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
";
    let cut = "
POST /generate SERVER llm-service http 200
  chat offline INTERNAL llm-service
";
    let joined = "    POST /generate SERVER llm-service http 200
      chat offline INTERNAL llm-service
";
    for (stage, figure, below) in [
        ("untraced", recorded!("roll-out/untraced.html"), cut),
        ("forwarding", recorded!("roll-out/forwarding.html"), joined),
    ] {
        let stopped = setup(stage).await.answers("user_1", 200).await;
        stopped.compare(figure, &format!("{gateway}{below}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_passes_headers_on_passes_those_of_the_trace() {
    let system = setup("forwarding").await.wired().start().await;
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [
        ("traceparent", &*traceparent),
        ("tracestate", "one=1"),
        ("baggage", "tenant=acme"),
        ("b3", "d"),
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", SPAN),
        ("x-b3-sampled", "1"),
        ("x-b3-flags", "1"),
        ("authorization", "secret"),
    ];
    assert_eq!(ask(system.user.address, "/process", &headers).await, 200);
    let stopped = system.stop().await;
    let sent = &stopped.wire.exchanges()[0].sent;
    let [of_the_trace @ .., _] = headers.map(|(name, value)| format!("\n{name}: {value}\r\n"));
    of_the_trace.iter().for_each(|header| has(sent, [header]));
    lacks(sent, ["authorization"]);
}

/// An old caller sends B3, and llm-service behind reads only `traceparent`.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_both_kinds_of_headers_joins_old_and_new() {
    let system = setup("translating").await.wired().start().await;
    let b3 = format!("{TRACE}-{SPAN}-1");
    assert_eq!(ask(system.user.address, "/process", &[("b3", &b3)]).await, 200);
    let stopped = system.stop().await;
    let tree = stopped.only_tree();
    assert_eq!(tree.trace_id.to_string(), TRACE);
    // All but the two spans of the gateway.
    let below: String = WHOLE.lines().skip(2).map(|line| format!("{}\n", &line[4..])).collect();
    assert_eq!(shapes(&[tree]), below);
    let sent = &stopped.wire.exchanges()[0].sent;
    has(sent, [&format!("traceparent: 00-{TRACE}-"), &format!("x-b3-traceid: {TRACE}")]);
}

/// The tutorial's services leave this variable to the SDK.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_disables_the_sdk_has_no_effect() {
    let setup = Setup::default().tutorial().with("all", "OTEL_SDK_DISABLED", true);
    assert_eq!(setup.answers("user_1", 200).await.shapes(), WHOLE);
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
