//! Both ways of making spans give the same trace, and one system can mix them.

use lab::span::SpanKind;
use reqwest::header::AUTHORIZATION;
use serde_json::json;

use super::example::{binaries, sent};
use crate::support::recording::{check, figures};
use crate::support::{Setup, Stopped, WHOLE, client, hung, refused, shape, span};

const SERVICES: [&str; 3] = ["api-gateway", "user-service", "llm-service"];
const WAYS: [&str; 2] = ["instrumented_services", "ready_made_services"];

/// Each service by its own command; nothing for the tutorial's.
async fn setup(ways: [Option<&str>; 3]) -> Setup {
    binaries().await;
    let setup = Setup::default().with("all", "OTEL_BSP_SCHEDULE_DELAY", 3_600_000);
    let pairs = SERVICES.into_iter().zip(ways);
    pairs.fold(setup, |setup, (service, way)| match way {
        Some(way) => setup.run_by(service, &format!("{way} {service}")),
        None => setup,
    })
}

async fn ask(setup: Setup, user: &str, status: u16) -> Stopped {
    let system = setup.start().await;
    assert_eq!(system.ask(user).await.status(), status);
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_request_gives_the_tree_of_the_tutorial() {
    for way in WAYS {
        let tree = ask(setup([Some(way); 3]).await, "user_1", 200).await.only_tree();
        assert_eq!(shape(&tree), WHOLE, "{way}");
        if way == WAYS[0] {
            check!("with-tracing/instrumented.html", &figures(&[tree]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_services_in_three_ways_give_one_trace() {
    let [one, other] = WAYS.map(Some);
    for ways in [[None, one, other], [one, other, None], [other, None, one]] {
        let tree = ask(setup(ways).await, "user_1", 200).await.only_tree();
        assert_eq!(shape(&tree), WHOLE, "{ways:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_gives_the_tree_of_the_tutorial() {
    let reference = ask(setup([None; 3]).await, "nobody", 403).await.only_tree();
    // In the tutorial the type of the error is that of Rust.
    let kind = span(&reference, "validate_user", SpanKind::Internal).attribute("error.type");
    let reference = shape(&reference).replace(&*kind.expect("a type"), "invalid_user");
    for way in WAYS {
        let tree = ask(setup([Some(way); 3]).await, "nobody", 403).await.only_tree();
        assert_eq!(shape(&tree), reference, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_gives_the_tree_of_the_tutorial() {
    let (nobody, _kept) = refused();
    let mut trees = Vec::new();
    for way in [None, Some(WAYS[0]), Some(WAYS[1])] {
        let url = format!("http://{nobody}");
        let setup = setup([way; 3]).await.with("user-service", "LLM_SERVICE_URL", url);
        let tree = ask(setup, "user_1", 502).await.only_tree();
        // A message that holds the address would be in the status, or in `error.message`.
        let failed = span(&tree, "POST /generate", SpanKind::Client);
        let message = failed.attribute("error.message").unwrap_or_default();
        assert!(!message.contains("127.0.0.1"), "{way:?}: {message}");
        trees.push(shape(&tree));
    }
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);
}

/// Services of either way pass on the caller's headers and follow its sampling decision.
#[tokio::test(flavor = "multi_thread")]
async fn baggage_gets_through_and_the_flag_is_respected() {
    for way in WAYS {
        let system = setup([Some(way); 3]).await.wired().start().await;
        for flags in ["01", "00"] {
            let traceparent =
                format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let request = client()
                .post(format!("http://{}/api/query", system.gateway.address))
                .header("traceparent", traceparent)
                .header("baggage", "tenant=acme")
                .header(AUTHORIZATION, "Bearer key-48151")
                .json(&json!({ "user_id": "user_1", "query": "What is a trace?" }));
            assert_eq!(request.send().await.expect("an answer").status(), 200);
        }
        let stopped = system.stop().await;
        let tree = stopped.only_tree();
        assert_eq!(tree.rows.len(), 7, "{way}: of the request that its caller recorded");
        let exchanges = stopped.wire.exchanges();
        assert_eq!(exchanges.len(), 4, "two requests on two hops");
        for exchange in exchanges {
            assert!(exchange.sent.contains("baggage: tenant=acme"), "{way}: {}", exchange.sent);
        }
        // A layer that records all headers was told to leave this one out.
        assert!(!sent(&tree).contains("key-48151"), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_to_answer_does_not_hold_up_the_stop() {
    for way in WAYS {
        let (silent, connected) = hung().await;
        let url = format!("http://{silent}");
        let setup = setup([None, Some(way), None]).await;
        let system = setup
            .with("user-service", "LLM_SERVICE_URL", url)
            .with("api-gateway", "USER_SERVICE_TIMEOUT_MS", 200)
            .start()
            .await;
        assert_eq!(system.ask("user_1").await.status(), 504);
        connected.notified().await;
        let stopped = system.stop().await;
        // The caller went away, so the work of the request was dropped; its spans ended.
        let tree = stopped.only_tree();
        span(&tree, "POST /process", SpanKind::Server);
    }
}
