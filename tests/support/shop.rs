//! A system that is hard to assert: three services and a worker with the real SDK and real HTTP, beside two busy loops. It calls
//! in parallel and tries again, its health is checked all the time, its worker finishes late, and its spans arrive in any order
//! and some of them twice. Chance isn't involved: the ids, which are random, say what happens in each request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    Link, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};
use prost::Message as _;
use reqwest::Client;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use trace_expect::{Error, Expect};

const SETTLE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);

/// On a busy machine, the second of two messages that were handled at the same time was exported 2.3 s after the first.
const LONG_SETTLE: Duration = Duration::from_secs(4);

/// A sound system is never waited for so long, however busy the machine is.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

const EXPORT_DELAY: Duration = Duration::from_millis(200);

/// How many parts an export is sent in, and the time between two.
const PARTS: u8 = 4;
const PART_DELAY: Duration = Duration::from_millis(70);
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// The worker begins so late that everything else has been quiet for longer than [`SETTLE`].
const WORKER_DELAY: Duration = Duration::from_millis(1_500);

/// How long an order is packed.
const PACKING: Duration = Duration::from_millis(30);

/// How many requests are sent side by side.
const AT_ONCE: usize = 10;

/// How a system is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call of `payment` has no `traceparent`.
    DropTraceparent,
    /// The stock is asked again.
    OneCallMore,
    /// The order is handled twice.
    HandledTwice,
    /// `payment` fails, and the shop answers 200.
    Error,
    /// The order is lost.
    Lost,
}

impl Fault {
    pub const ALL: [Fault; 5] = [
        Fault::DropTraceparent,
        Fault::OneCallMore,
        Fault::HandledTwice,
        Fault::Error,
        Fault::Lost,
    ];
}

/// The particulars of one request.
#[derive(Debug, Clone, Copy)]
struct Course {
    shop_fails_first: bool,
    payment_fails_first: bool,
    worker_links: bool,
    fault: Option<Fault>,
}

type Carrier = HashMap<String, String>;

/// One service and its spans.
#[derive(Clone)]
struct Service {
    tracer: SdkTracer,
    _provider: SdkTracerProvider,
}

/// Exports again what wasn't taken, as the exporters of most languages do.
#[derive(Debug)]
struct Retrying(opentelemetry_otlp::SpanExporter);

impl SpanExporter for Retrying {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        match self.0.export(batch.clone()).await {
            Ok(()) => Ok(()),
            Err(_) => self.0.export(batch).await,
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl Service {
    fn new(name: &'static str, backend: SocketAddr) -> Self {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("http://{backend}/v1/traces"))
            .build()
            .expect("an exporter");
        let config = BatchConfigBuilder::default().with_scheduled_delay(EXPORT_DELAY).build();
        let batches =
            BatchSpanProcessor::builder(Retrying(exporter)).with_batch_config(config).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name(name).build())
            .with_span_processor(batches)
            .build();
        Service { tracer: provider.tracer("shop"), _provider: provider }
    }

    fn begin(&self, name: &'static str, kind: SpanKind, parent: &Context) -> Context {
        let span = self.tracer.span_builder(name).with_kind(kind);
        parent.with_span(span.start_with_context(&self.tracer, parent))
    }
}

/// Stands for the work of a service, or the way of a message: it takes time, and no test waits by it.
async fn work_for(time: Duration) {
    tokio::time::sleep(time).await;
}

fn extract(headers: &HeaderMap) -> Context {
    let text = headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    extract_carrier(&text.collect())
}

fn extract_carrier(carrier: &Carrier) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), carrier)
}

fn inject(context: &Context) -> Carrier {
    let mut carrier = Carrier::new();
    TraceContextPropagator::new().inject_context(context, &mut carrier);
    carrier
}

fn end(context: &Context, status: u16) {
    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
    if status >= 500 {
        span.set_attribute(KeyValue::new("error.type", status.to_string()));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The whole system and what disturbs it.
pub struct Shop {
    address: SocketAddr,
    client: Client,
    busy: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.busy.store(false, Ordering::Relaxed);
    }
}

/// The state of the shop's handlers.
#[derive(Clone)]
struct Front {
    service: Service,
    client: Client,
    stock: SocketAddr,
    payment: SocketAddr,
    queue: mpsc::UnboundedSender<(Carrier, Course)>,
}

impl Shop {
    pub async fn start() -> Shop {
        let client = Client::builder().no_proxy().build().expect("a client");
        let proxy = Router::new().route("/v1/traces", post(forward)).with_state(client.clone());
        let backend = crate::serve(proxy).await;
        let name = |name| Service::new(name, backend);
        let stock = Router::new()
            .route("/stock/{id}", get(stock))
            .route("/health", get(health))
            .with_state(name("stock"));
        let payment = Router::new()
            .route("/pay", post(pay))
            .route("/health", get(health))
            .with_state(name("payment"));
        let (stock, payment) = (crate::serve(stock).await, crate::serve(payment).await);
        let (queue, orders) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(work(name("worker"), orders));
        let service = name("shop");
        let front =
            Front { service: service.clone(), client: client.clone(), stock, payment, queue };
        let shop = Router::new()
            .route("/checkout", post(checkout))
            .with_state(front)
            .route("/health", get(health).with_state(service));
        let address = crate::serve(shop).await;
        for service in [stock, payment, address] {
            tasks.spawn(check_health(client.clone(), service));
        }
        let busy = Arc::new(AtomicBool::new(true));
        for _ in 0..2 {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Shop { address, client, busy, _tasks: tasks }
    }

    /// Sends this many requests and returns what `expect` says about each, and how long it took.
    pub async fn expect(
        &self,
        times: usize,
        fault: impl Fn(usize) -> Option<Fault>,
    ) -> Vec<(Result<(), Error>, Option<Fault>, Duration)> {
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let mut requests = JoinSet::new();
        for index in 0..times {
            let (at_once, fault) = (Arc::clone(&at_once), fault(index));
            let (client, url) = (self.client.clone(), format!("http://{}/checkout", self.address));
            requests.spawn(async move {
                let _turn = at_once.acquire().await.expect("it stays open");
                let start = Instant::now();
                let file = file();
                let expect = match fault {
                    None => Expect::new(file).settle(SETTLE).timeout(LONG_TIMEOUT),
                    Some(_) => Expect::new(file).settle(LONG_SETTLE).timeout(TIMEOUT),
                };
                let sent = expect.check(|traceparent| buy(client, url, traceparent, fault)).await;
                (sent.map(|_| ()), fault, start.elapsed())
            });
        }
        requests.join_all().await
    }
}

/// Sends one request, and again if it is answered 503.
async fn buy(
    client: Client,
    url: String,
    traceparent: String,
    fault: Option<Fault>,
) -> Result<(), String> {
    for attempt in ["1", "2"] {
        let request = client
            .post(&url)
            .header("traceparent", &traceparent)
            .header("attempt", attempt)
            .header("fault", format!("{fault:?}"));
        let answer = request.send().await.map_err(|error| error.to_string())?;
        match answer.status() {
            StatusCode::OK => return Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => {}
            status => return Err(format!("answered {status}")),
        }
    }
    Err("answered 503 twice".to_owned())
}

/// Chooses the course of a request by the id of its trace.
fn course(context: &Context, headers: &HeaderMap) -> Course {
    let bits = context.span().span_context().trace_id().to_bytes()[15];
    let fault = headers.get("fault").and_then(|it| it.to_str().ok()).unwrap_or_default();
    Course {
        shop_fails_first: bits & 1 == 1,
        payment_fails_first: bits & 2 == 2,
        worker_links: bits & 4 == 4,
        fault: Fault::ALL.into_iter().find(|it| fault == format!("{:?}", Some(*it))),
    }
}

async fn health(State(service): State<Service>, headers: HeaderMap) -> StatusCode {
    end(&service.begin("GET /health", SpanKind::Server, &extract(&headers)), 200);
    StatusCode::OK
}

async fn check_health(client: Client, service: SocketAddr) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    loop {
        interval.tick().await;
        // What comes of it is nothing to the test.
        let _ = client.get(format!("http://{service}/health")).send().await;
    }
}

async fn stock(
    State(service): State<Service>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Json<u64> {
    let context = service.begin("GET /stock/{id}", SpanKind::Server, &extract(&headers));
    // The first call takes longest, so that the answers come in another order.
    work_for(Duration::from_millis(30 / (id + 1))).await;
    end(&context, 200);
    Json(id)
}

async fn pay(State(service): State<Service>, headers: HeaderMap) -> StatusCode {
    let context = service.begin("POST /pay", SpanKind::Server, &extract(&headers));
    let status = match headers.get("answer").map(|it| it.as_bytes()) {
        Some(b"500") => StatusCode::INTERNAL_SERVER_ERROR,
        Some(b"503") => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    end(&context, status.as_u16());
    status
}

async fn checkout(State(front): State<Front>, headers: HeaderMap) -> StatusCode {
    let context = front.service.begin("POST /checkout", SpanKind::Server, &extract(&headers));
    let course = course(&context, &headers);
    if course.shop_fails_first && headers.get("attempt").is_some_and(|it| it == "1") {
        end(&context, 503);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let mut asked = JoinSet::new();
    let calls = if course.fault == Some(Fault::OneCallMore) { 4 } else { 3 };
    for id in 0..calls {
        let (front, context) = (front.clone(), context.clone());
        asked.spawn(async move {
            let request = front.client.get(format!("http://{}/stock/{id}", front.stock));
            front.call("GET /stock/{id}", request, &context, true).await
        });
    }
    asked.join_all().await;
    let has_context = course.fault != Some(Fault::DropTraceparent);
    let answers: &[&str] = match (course.payment_fails_first, course.fault) {
        (_, Some(Fault::Error)) => &["500"],
        (true, _) => &["503", "200"],
        (false, _) => &["200"],
    };
    for answer in answers {
        let request = front.client.post(format!("http://{}/pay", front.payment));
        let request = request.header("answer", *answer);
        front.call("POST /pay", request, &context, has_context).await;
    }
    let producer = front.service.begin("send orders", SpanKind::Producer, &context);
    front.queue.send((inject(&producer), course)).expect("the worker runs");
    producer.span().end();
    end(&context, 200);
    StatusCode::OK
}

impl Front {
    async fn call(
        &self,
        name: &'static str,
        request: reqwest::RequestBuilder,
        parent: &Context,
        has_context: bool,
    ) {
        let context = self.service.begin(name, SpanKind::Client, parent);
        let carrier = if has_context { inject(&context) } else { Carrier::new() };
        let request =
            carrier.iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.send().await.expect("an answer");
        end(&context, answer.status().as_u16());
    }
}

/// Takes the orders, each after [`WORKER_DELAY`].
async fn work(service: Service, mut orders: mpsc::UnboundedReceiver<(Carrier, Course)>) {
    while let Some((carrier, course)) = orders.recv().await {
        let service = service.clone();
        let times = match course.fault {
            Some(Fault::Lost) => 0,
            Some(Fault::HandledTwice) => 2,
            _ => 1,
        };
        tokio::spawn(async move {
            work_for(WORKER_DELAY).await;
            let workers = (0..times).map(|_| {
                let (service, carrier) = (service.clone(), carrier.clone());
                async move { process(&service, &carrier, course.worker_links).await }
            });
            workers.collect::<JoinSet<()>>().join_all().await;
        });
    }
}

async fn process(service: &Service, carrier: &Carrier, links: bool) {
    let sender = extract_carrier(carrier);
    let context = if links {
        let sender = sender.span().span_context().clone();
        let span = service.tracer.span_builder("process orders").with_kind(SpanKind::Consumer);
        let span = span.with_links(vec![Link::with_context(sender)]);
        let none = Context::new();
        none.with_span(span.start_with_context(&service.tracer, &none))
    } else {
        service.begin("process orders", SpanKind::Consumer, &sender)
    };
    let pack = service.begin("pack", SpanKind::Internal, &context);
    work_for(PACKING).await;
    pack.span().end();
    context.span().end();
}

/// Sends the spans of an export to the receiver in parts, which come in an order of their own. It answers some exports with 503,
/// although it has taken them, so that they come again.
async fn forward(State(client): State<Client>, body: Bytes) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for part in 0..PARTS {
        let mut request = request.clone();
        let scopes = request.resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans);
        for scope in scopes {
            scope.spans.retain(|span| span.span_id[0] % PARTS == part);
        }
        let client = client.clone();
        tokio::spawn(async move {
            work_for(PART_DELAY * part.into()).await;
            while !is_taken(&client, &request).await {}
        });
    }
    let spans = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
    match spans.flat_map(|it| &it.spans).next() {
        Some(span) if span.span_id[1] % 4 == 0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

async fn is_taken(client: &Client, request: &ExportTraceServiceRequest) -> bool {
    let request = client
        .post(format!("{}/v1/traces", trace_expect::endpoint()))
        .header("content-type", "application/x-protobuf")
        .body(request.encode_to_vec());
    request.send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
}

/// The file of the expected trace.
fn file() -> PathBuf {
    crate::root().join("tests/assert_traces/checkout.trace")
}
