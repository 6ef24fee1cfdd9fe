//! A trace arrives whole or not at all, the flag on the wire says which, and the Collector's configuration is one.

use lab::report;

use super::collector::{collector, texts};
use support::recording::{check_named, recorded};
use support::{Setup, WHOLE, shape};

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

/// Checks the configuration against the Collector's documentation; the workflow runs the Collector itself.
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
