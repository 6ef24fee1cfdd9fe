//! The services of the page before and after its changes: the changes are those that the page shows, both compile, and one
//! order is one trace, with the ids in the log lines and nothing lost at the stop.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use course::services::{Plan, Service};
use lab::span::SpanKind;
use lab::store::Store;
use lab::tree::Tree;
use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tracing::dispatcher::{Dispatch, with_default};
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt as _;
use walkdir::WalkDir;

use super::component::compile;
use crate::exercises::check_changes;
use crate::gates::TREE;
use support::recording::{check_as, figures, recorded, redact};
use support::{
    FREE, Log, arrived, client, has, has_attributes, in_order, lacks, receiver, refused, root,
    shapes, span, within_reason,
};

const EXAMPLE: &str = "examples/add_tracing";

#[test]
fn the_page_shows_every_change() {
    let changed = [
        ("src/lib.rs", recorded!("add-tracing/lib.diff")),
        ("src/bin/orders.rs", recorded!("add-tracing/orders.diff")),
        ("src/bin/stock.rs", recorded!("add-tracing/stock.diff")),
    ];
    for (file, recorded) in changed {
        let [before, after] =
            ["before", "after"].map(|side| TREE.read(&format!("{EXAMPLE}/{side}/{file}")));
        check_changes(file, [&before, &after], recorded);
    }
    // The page shows these whole.
    let page = TREE.read("src/how-to/add-tracing.md");
    let whole = ["Cargo.toml", "src/telemetry.rs", "src/incoming.rs", "src/outgoing.rs"];
    for file in whole {
        has(&page, [&format!("{{{{#include ../../{EXAMPLE}/after/{file}}}}}")]);
    }
    let shown = changed.map(|(file, _)| file).into_iter().chain(whole).collect::<Vec<_>>();
    let after = root().join(EXAMPLE).join("after");
    let files = WalkDir::new(&after).into_iter().map(|entry| entry.expect("an entry"));
    for file in files.filter(|it| it.file_type().is_file() && it.file_name() != "Cargo.lock") {
        let name =
            file.path().strip_prefix(&after).expect("below it").to_string_lossy().into_owned();
        assert!(shown.contains(&&*name), "the page doesn't show {name}");
    }
}

#[test]
fn the_services_before_the_changes_compile() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let to = folder.path().join(name);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::write(to, text).expect("written");
    };
    let read = |side: &str, name: &str| TREE.read(&format!("{EXAMPLE}/{side}/{name}"));
    for name in ["src/lib.rs", "src/bin/orders.rs", "src/bin/stock.rs"] {
        write(name, &read("before", name));
    }
    // With the crates of the finished services, because these have a lock file; and under another name, because in the build folder
    // a package of the same name would be taken for them.
    let other = "[lib]\nname = \"shop\"\n\n[package]\nname = \"shop_before\"";
    write("Cargo.toml", &read("after", "Cargo.toml").replace("[package]\nname = \"shop\"", other));
    write("Cargo.lock", &read("after", "Cargo.lock").replace("\"shop\"", "\"shop_before\""));
    compile(folder.path(), "add_tracing/before");
    // Their own manifest has no other crates than that.
    let finished = read("after", "Cargo.toml");
    assert!(read("before", "Cargo.toml").lines().all(|line| finished.lines().any(|it| it == line)));
}

/// The two services, which export to a receiver of their own.
struct Shop {
    orders: Service,
    stock: Service,
    store: Store,
    log: Log,
}

impl Shop {
    async fn open() -> Shop {
        Shop::with(&[]).await
    }

    /// Starts the services with these environment variables.
    async fn with(settings: &[(&str, &str)]) -> Shop {
        let (store, backend) = receiver().await;
        let log = Log::default();
        let stock = start("stock", backend, settings, &log).await;
        let url = format!("http://{}", stock.address);
        let settings = [&[("STOCK_URL", &*url)], settings].concat();
        let orders = start("orders", backend, &settings, &log).await;
        Shop { orders, stock, store, log }
    }

    /// Orders this number of packets of tea. Returns the status of the answer.
    async fn order(&self, count: u32, headers: &[(&str, &str)]) -> u16 {
        let url = format!("http://{}/orders/tea", self.orders.address);
        let order = json!({ "count": count, "email": "reader@example.com" });
        let request = client().post(url).json(&order);
        let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        within_reason(request.send()).await.expect("an answer").status().as_u16()
    }

    /// Stops both, which flushes their spans. Returns the traces.
    async fn close(self) -> Vec<Tree> {
        self.orders.stop().await;
        self.stock.stop().await;
        in_order(self.store.trees())
    }
}

/// Starts one of the services. It exports nothing before the flush at its end.
async fn start(
    name: &'static str,
    backend: SocketAddr,
    settings: &[(&str, &str)],
    log: &Log,
) -> Service {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let built = BUILT
        .get_or_init(async || compile(&root().join(EXAMPLE).join("after"), "add_tracing/after"))
        .await;
    let plan = Plan::new(built, name, FREE.parse().expect("an address"), backend)
        .with("OTEL_SERVICE_NAME", name)
        .with("OTEL_BSP_SCHEDULE_DELAY", 3_600_000)
        .with("NO_COLOR", 1);
    let plan = settings.iter().fold(plan, |plan, (key, value)| plan.with(key, value));
    Service::start(plan, log.sink()).await.expect("the service starts")
}

const ORDERED: &str = "\
POST /orders/{item} SERVER orders http 200
  order INTERNAL orders
    POST CLIENT orders http 200
      POST /stock/{item}/take SERVER stock http 200
        take INTERNAL stock
    send_receipt INTERNAL orders
";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_one_trace_and_its_log_lines_name_it() {
    let shop = Shop::with(&[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    assert_eq!(shop.order(3, &[]).await, 200);
    // The task that sends the receipt isn't part of the request, and nothing else waits for its end.
    arrived(&shop.store, 6).await;
    let (log, address) = (shop.log.clone(), shop.stock.address);
    let trees = shop.close().await;
    assert_eq!(shapes(&trees), ORDERED);
    // The task may start before or after the request ends.
    let late = "<bdi>starts <time> after its parent ended</bdi>";
    let early = |text: &str| redact(text).replace(late, "");
    check_as(recorded!("add-tracing/whole.html"), &figures(&trees), early).unwrap();
    let call = span(&trees[0], "POST", SpanKind::Client);
    let url = format!("http://{address}/stock/tea/take");
    has_attributes(call, &format!("http.request.method=POST url.full={url}"));
    let request = span(&trees[0], "POST /orders/{item}", SpanKind::Server);
    has_attributes(request, "http.route=/orders/{item} url.path=/orders/tea error.type=(none)");

    let lines = log.lines();
    let lines = lines.iter().filter(|line| line.contains(&trees[0].trace_id.to_string()));
    let lines = lines.map(|line| line.split_once(" | ").expect("a name").1.to_owned() + "\n");
    check_as(recorded!("add-tracing/lines.txt"), &String::from_iter(lines), redact).unwrap();
}

/// The page says how to keep the trace in `spawn_blocking`, and what happens otherwise.
#[tokio::test]
async fn a_closure_on_another_thread_keeps_the_trace_if_it_enters_the_span() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    let request = with_default(&dispatch, || info_span!("request"));
    for enters in [true, false] {
        let (dispatch, span) = (dispatch.clone(), request.clone());
        let find = || drop(info_span!("find").entered());
        let work = move || if enters { span.in_scope(find) } else { find() };
        spawn_blocking(move || with_default(&dispatch, work)).await.expect("it ends");
    }
    drop(request);
    let spans = exporter.get_finished_spans().expect("spans");
    let [within, apart, request] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(within.parent_span_id, request.span_context.span_id());
    assert_eq!(apart.parent_span_id, SpanId::INVALID);
}

/// Headers of a caller that records its trace, and of one that doesn't.
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_the_caller_goes_on() {
    let shop = Shop::open().await;
    assert_eq!(shop.order(1, &[("traceparent", UNSAMPLED)]).await, 200);
    assert_eq!(shop.order(1, &[("traceparent", SAMPLED)]).await, 200);
    shop.log.wait_for("orders", "receipt sent").await;
    let trees = shop.close().await;
    assert_eq!(trees.len(), 1, "{}", shapes(&trees));
    let first = &trees[0].rows[0].span;
    assert!(SAMPLED.contains(&first.trace_id.to_string()));
    assert!(SAMPLED.contains(&first.parent.expect("a parent").to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_order_is_an_error_where_it_was_refused() {
    let shop = Shop::open().await;
    assert_eq!(shop.order(30, &[]).await, 409);
    let expected = "\
POST /orders/{item} SERVER orders http 409
  order INTERNAL orders error
    POST CLIENT orders http 409 error 409
      POST /stock/{item}/take SERVER stock http 409
        take INTERNAL stock error
";
    assert_eq!(shapes(&shop.close().await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_no_route_is_named_by_its_method() {
    let shop = Shop::open().await;
    let url = format!("http://{}/nothing", shop.orders.address);
    let answer = within_reason(client().get(url).send()).await.expect("an answer");
    assert_eq!(answer.status(), 404);
    let trees = shop.close().await;
    assert_eq!(shapes(&trees), "GET SERVER orders http 404\n");
    has_attributes(&trees[0].rows[0].span, "http.route=(none) url.path=/nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_an_error_up_to_the_first() {
    let (nobody, _kept) = refused();
    let shop = Shop::with(&[("STOCK_URL", &format!("http://{nobody}"))]).await;
    assert_eq!(shop.order(1, &[]).await, 502);
    let expected = "\
POST /orders/{item} SERVER orders http 502 error 502
  order INTERNAL orders error
    POST CLIENT orders error connect
";
    assert_eq!(shapes(&shop.close().await), expected);
}

/// The filter is for lines alone, and the ids stay in those that it lets through.
#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_lines_removes_no_span_and_no_id() {
    // The second has no level for other targets than these two.
    for filter in ["error", "orders=info,stock=info"] {
        let shop = Shop::with(&[("RUST_LOG", filter)]).await;
        assert_eq!(shop.order(30, &[]).await, 409);
        assert_eq!(shop.order(1, &[]).await, 200);
        let log = shop.log.clone();
        let trees = shop.close().await;
        // Nothing waits for the task that sends the receipt, and at `error` it writes no line to wait for.
        for tree in &trees {
            let request = tree.rows.iter().filter(|row| row.span.name() != "send_receipt");
            assert_eq!(request.count(), 5, "{}", shapes(&trees));
        }
        let lines = log.lines();
        assert!(lines.len() >= 2, "{lines:?}");
        let ids: Vec<String> = trees.iter().map(|tree| tree.trace_id.to_string()).collect();
        let named = |line: &&String| ids.iter().any(|id| line.contains(id));
        assert_eq!(lines.iter().filter(named).count(), lines.len(), "{filter}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_used_stops_no_service() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret-48151@[not an address");
    let shop = Shop::with(&[endpoint]).await;
    assert_eq!(shop.order(1, &[]).await, 200);
    let log = shop.log.clone();
    assert!(shop.close().await.is_empty());
    let lines = log.lines().join("\n");
    has(&lines, ["orders | no span is sent: check OTEL_EXPORTER_OTLP_*"]);
    lacks(&lines, ["secret-48151"]);
}
