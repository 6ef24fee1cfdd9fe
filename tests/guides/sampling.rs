//! A trace arrives whole or not at all, the flag on the wire says which, and the Collector's configuration is one.

use lab::proto::trace as proto;
use lab::report;

use super::collector::{Collector, collector, texts};
use super::example::{free_address, send};
use support::recording::{check, check_named, recorded};
use support::{Setup, WHOLE, in_process, shape, shapes};

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Lets the gateway sample this share of the traces, as the guide sets it.
fn share(ratio: &str) -> Setup {
    let setup = Setup::default().with("api-gateway", SAMPLER, "parentbased_traceidratio");
    setup.with("api-gateway", RATIO, ratio)
}

/// None and all of 200 have a chance of one in 10^25 each.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_arrives_whole_or_not_at_all() {
    let system = share("0.25").start().await;
    for _ in 0..200 {
        assert_eq!(system.ask("user_1").await.status(), 200);
    }
    let trees = system.stop().await.trees();
    assert!((1..200).contains(&trees.len()), "{} of 200", trees.len());
    for tree in trees {
        assert_eq!(shape(&tree), WHOLE);
    }
}

/// The headers differ only in the last digit.
#[tokio::test(flavor = "multi_thread")]
async fn the_flag_on_the_wire_says_what_the_next_service_does() {
    for (ratio, sampled, spans, name) in [
        ("1.0", true, 7, recorded!("sampling/flags-01.html")),
        ("0.0", false, 0, recorded!("sampling/flags-00.html")),
    ] {
        let stopped = share(ratio).wired().answers("user_1", 200).await;
        assert_eq!(stopped.store.usage().spans, spans);
        let exchanges = stopped.wire.exchanges();
        let sent = exchanges.iter().filter_map(|it| it.sent_by()).map(|header| header.sampled);
        assert_eq!(sent.collect::<Vec<_>>(), [sampled; 2], "on each hop between services");
        let between: Vec<_> =
            exchanges.into_iter().filter(|it| it.hop != "client-gateway").collect();
        check_named(name, &(report::wire(&between, false).into_string() + "\n"));
    }
}

/// `traceidratio` looks at the trace id alone: a service that has another ratio than the first tears traces apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_ratio_that_ignores_the_parent_tears_traces_apart() {
    let setup = Setup::default().with("user-service", SAMPLER, "traceidratio");
    let stopped = setup.with("user-service", RATIO, "0.0").answers("user_1", 200).await;
    let expected = "\
POST /api/query SERVER api-gateway http 200
  POST /process CLIENT api-gateway http 200
";
    stopped.compare(recorded!("sampling/torn.html"), expected);
}

/// The Collector chooses by the trace id, and the ids here are always the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_collector_keeps_errors_slow_traces_and_a_tenth_of_the_rest() {
    let (store, backend) = support::receiver().await;
    let (http, grpc) = (free_address(), free_address());
    let moved = [("127.0.0.1:4318", http), ("127.0.0.1:4317", grpc)];
    let backend = format!("http://{backend}");
    let variables = [("BACKEND_ENDPOINT", &*backend)];
    let collector = Collector::with("examples/sampling/collector.yaml", &moved, &variables);
    let Some(collector) = collector else { return };
    let collector = collector.start().await;

    let kinds =
        [("with an error", 0..10), ("that take 2 seconds", 10..20), ("the rest", 20..1_000)];
    // The parents come in one request, and their children in another. Only a child fails or is slow.
    for id in [1, 2] {
        let spans =
            kinds.iter().flat_map(|(kind, numbers)| numbers.clone().map(move |it| (*kind, it)));
        let spans = spans.map(|(kind, number)| {
            let span = in_process::span(0, id, id - 1, kind);
            let takes = if (id, kind) == (2, kinds[1].0) { 2_000_000_000 } else { 1_000_000 };
            let status = proto::Status { code: 2, ..proto::Status::default() };
            let golden = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
            proto::Span {
                trace_id: u128::wrapping_mul(number + 1, golden).to_be_bytes().to_vec(),
                end_time_unix_nano: span.start_time_unix_nano + takes,
                status: ((id, kind) == (2, kinds[0].0)).then_some(status),
                ..span
            }
        });
        send(http, spans.collect()).await;
    }
    // It decides about all that it holds before it ends.
    collector.stop("-TERM").await;
    let trees = store.trees();
    assert!(trees.iter().all(|tree| tree.rows.len() == 2), "{}", shapes(&trees));
    let mut table = "| Traces | sent | kept |\n|---|--:|--:|\n".to_owned();
    for (kind, numbers) in kinds {
        let kept = trees.iter().filter(|tree| tree.rows[0].span.name() == kind);
        table += &format!("| {kind} | {} | {} |\n", numbers.end - numbers.start, kept.count());
    }
    check!("sampling/kept.md", &table);
}

/// Checks the configuration against the Collector's documentation.
#[test]
fn the_configuration_of_the_collector_holds_together() {
    let file = collector("examples/sampling/collector.yaml");
    // https://github.com/open-telemetry/opentelemetry-collector/tree/main/processor#recommended-processors
    let processors = texts(&file["service"]["pipelines"]["traces"]["processors"]);
    assert_eq!(processors, ["memory_limiter", "tail_sampling", "batch"]);

    let sampling = &file["processors"]["tail_sampling"];
    for policy in sampling["policies"].as_sequence().expect("policies") {
        let kind = policy["type"].as_str().expect("a type");
        let setting = match kind {
            "status_code" => "status_codes",
            "latency" => "threshold_ms",
            "probabilistic" => "sampling_percentage",
            other => panic!("this test doesn't check {other}"),
        };
        assert!(!policy[kind][setting].is_null(), "{kind} has no {setting}");
        assert!(policy["name"].is_string());
    }
    // A decision that comes before the deadline of a request would not see its end.
    let wait = sampling["decision_wait"].as_str().and_then(|it| it.strip_suffix('s'));
    assert!(wait.expect("seconds").parse::<u32>().expect("a number") > 10);
}
