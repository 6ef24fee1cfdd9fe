//! Each reason for a slow request of the guide, as it was and as it is repaired.

use course::services::{Plan, Service};
use lab::span::{Span, SpanKind};
use lab::tree::Tree;
use tokio::task::JoinSet;

use super::example::binaries;
use support::recording::{check_named, figures, recorded};
use support::{FREE, Log, client, in_order, receiver, shapes, within_reason};

/// The program's three services. Sends `requests` requests to the shop at the same time, then stops them.
async fn ask(path: &str, requests: usize, status: u16) -> Vec<Tree> {
    let (store, backend) = receiver().await;
    let log = Log::default();
    let binaries = binaries().await;
    let plan = |name| {
        Plan::new(&binaries, name, FREE.parse().expect("an address"), backend)
            .run_by(&format!("slow_requests {name}"))
            .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
    };
    let start = async |plan| Service::start(plan, log.sink()).await.expect("it starts");
    let supplier = start(plan("supplier")).await;
    let prices = start(plan("prices").calling("supplier", supplier.address)).await;
    let shop = start(plan("shop").calling("prices", prices.address)).await;
    let mut answers = JoinSet::new();
    for _ in 0..requests {
        let request = client().post(format!("http://{}{path}", shop.address)).json("");
        answers.spawn(within_reason(request.send()));
    }
    for answer in answers.join_all().await {
        assert_eq!(answer.expect("an answer").status(), status, "{path}");
    }
    for service in [shop, prices, supplier] {
        service.stop().await;
    }
    in_order(store.trees())
}

/// The only trace of one request, compared with the figure of the page.
async fn one(path: &str, status: u16, figure: &str) -> Tree {
    let trees = ask(path, 1, status).await;
    assert_eq!(trees.len(), 1, "{}", shapes(&trees));
    check_named(figure, &figures(&trees));
    trees.into_iter().next().expect("one")
}

/// The spans of this kind and service, in the order of the tree.
fn of<'a>(tree: &'a Tree, kind: SpanKind, service: &'a str) -> Vec<&'a Span> {
    let spans = tree.rows.iter().map(|row| &*row.span);
    spans.filter(|it| it.kind() == kind && it.service() == service).collect()
}

/// Whether each of these spans begins before the first of them ends.
fn overlap(spans: &[&Span]) -> bool {
    let first_end = spans.iter().map(|it| it.end()).min();
    spans.iter().all(|it| Some(it.start()) < first_end)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_become_one() {
    let slow = one("/many-calls/slow", 200, recorded!("slow-requests/many-calls-slow.html")).await;
    assert_eq!(of(&slow, SpanKind::Client, "shop").len(), 6);
    let figure = recorded!("slow-requests/many-calls-repaired.html");
    let repaired = one("/many-calls/repaired", 200, figure).await;
    assert_eq!(of(&repaired, SpanKind::Client, "shop").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_waited_for_each_other_run_side_by_side() {
    let slow = one("/in-turn/slow", 200, recorded!("slow-requests/in-turn-slow.html")).await;
    assert!(!overlap(&of(&slow, SpanKind::Client, "shop")));
    let figure = recorded!("slow-requests/in-turn-repaired.html");
    let repaired = one("/in-turn/repaired", 200, figure).await;
    assert!(overlap(&of(&repaired, SpanKind::Client, "shop")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_no_longer_waits_for_the_slowest_call() {
    let figure = recorded!("slow-requests/critical-path-slow.html");
    let slow = one("/critical-path/slow", 200, figure).await;
    let figure = recorded!("slow-requests/critical-path-repaired.html");
    let repaired = one("/critical-path/repaired", 200, figure).await;
    for (tree, waits) in [(slow, true), (repaired, false)] {
        let calls = of(&tree, SpanKind::Client, "shop");
        let advice = calls.iter().find(|it| it.name() == "POST /advice").expect("a span");
        assert_eq!(advice.attribute("http.response.status_code").is_some(), waits);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_held_only_while_it_is_used() {
    for (path, figure, held) in [
        ("/empty-pool/slow", recorded!("slow-requests/empty-pool-slow.html"), true),
        ("/empty-pool/repaired", recorded!("slow-requests/empty-pool-repaired.html"), false),
    ] {
        let trees = ask(path, 3, 200).await;
        assert_eq!(trees.len(), 3, "{}", shapes(&trees));
        let mut renders = Vec::from_iter(trees.iter().map(|tree| {
            let spans = tree.rows.iter().map(|row| &*row.span);
            spans.clone().find(|it| it.name() == "render").expect("a span")
        }));
        renders.sort_by_key(|it| it.start());
        let in_turn = renders.is_sorted_by(|one, next| one.end() <= next.start());
        assert_eq!(in_turn, held);
        // The request that waited longest shows it best.
        let longest = trees.iter().max_by_key(|tree| tree.duration).expect("three");
        check_named(figure, &figures(std::slice::from_ref(longest)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_on_one_level_dont_multiply() {
    let slow =
        one("/retry-storm/slow", 502, recorded!("slow-requests/retry-storm-slow.html")).await;
    assert_eq!(of(&slow, SpanKind::Server, "supplier").len(), 9);
    let figure = recorded!("slow-requests/retry-storm-repaired.html");
    let repaired = one("/retry-storm/repaired", 502, figure).await;
    assert_eq!(of(&repaired, SpanKind::Server, "supplier").len(), 3);
}
