//! A task that outlives its request: its span joins the trace, and the request's
//! spans must end with the request.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::post;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use tracing::instrument;
use tracing_subscriber::layer::SubscriberExt as _;
use with_tracing::background;
use with_tracing::by_hand::continue_trace;

/// The recording of one request whose task still runs when the request is answered.
struct Recorded {
    /// The names of the spans that had ended by the time of the answer.
    ended_with_the_answer: Vec<String>,
    /// After the answer, and before the task was allowed to end.
    between: SystemTime,
    spans: Vec<SpanData>,
}

impl Recorded {
    fn span(&self, name: &str) -> &SpanData {
        let mut found = self.spans.iter().filter(|span| span.name == name);
        let span = found.next().unwrap_or_else(|| panic!("no span {name}"));
        assert!(found.next().is_none(), "two spans {name}");
        span
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The handler: answers while the task still runs.
#[instrument(skip_all)]
async fn checkout(
    spawn: fn(Work) -> JoinHandle<()>,
    work: Work,
    hand_over: oneshot::Sender<JoinHandle<()>>,
) -> StatusCode {
    hand_over.send(spawn(work)).expect("the test waits");
    StatusCode::ACCEPTED
}

async fn record(spawn: fn(Work) -> JoinHandle<()>) -> anyhow::Result<Recorded> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    // The test's runtime has one thread, so the task runs with this subscriber too.
    let _subscriber = tracing::subscriber::set_default(subscriber);

    let (allow_the_end, allowed) = oneshot::channel();
    let (started, mut has_started) = mpsc::channel(1);
    let work: Work = Box::pin(async move {
        started.send(()).await.expect("the test waits");
        allowed.await.expect("the test allows it");
    });
    let (hand_over, handed_over) = oneshot::channel();
    let arguments = Arc::new(Mutex::new(Some((work, hand_over))));
    let routes = Router::new()
        .route(
            "/checkout",
            post(async move || {
                let arguments = arguments.lock().expect("no panic").take();
                let (work, hand_over) = arguments.expect("one request");
                checkout(spawn, work, hand_over).await
            }),
        )
        .layer(from_fn(continue_trace));
    let request = Request::post("/checkout").body(Body::empty())?;
    let response = routes.oneshot(request).await?;
    assert_eq!(response.status(), StatusCode::ACCEPTED);

    has_started.recv().await.expect("the task starts");
    let ended = exporter.get_finished_spans()?;
    let between = SystemTime::now();
    allow_the_end.send(()).expect("the task waits");
    handed_over.await?.await?;
    Ok(Recorded {
        ended_with_the_answer: ended.iter().map(|it| it.name.to_string()).collect(),
        between,
        spans: exporter.get_finished_spans()?,
    })
}

#[tokio::test]
async fn a_task_with_the_context_lets_the_request_end() -> anyhow::Result<()> {
    let recorded = record(background::kept).await?;
    assert_eq!(
        recorded.ended_with_the_answer,
        ["checkout", "POST /checkout"]
    );
    let (checkout, task) =
        (recorded.span("checkout"), recorded.span("send_receipt"));
    assert_eq!(
        task.span_context.trace_id(),
        checkout.span_context.trace_id()
    );
    assert_eq!(task.parent_span_id, checkout.span_context.span_id());
    assert!(
        checkout.end_time <= recorded.between,
        "the handler is short"
    );
    assert!(recorded.between <= task.end_time, "the task is long");
    Ok(())
}

/// The guide warns about these two. If this fails, the bridge has changed, and the
/// guide must change too.
#[tokio::test]
async fn a_task_with_the_span_keeps_the_request_open() -> anyhow::Result<()> {
    for spawn in [background::held_open, background::held_open_by_a_child] {
        let recorded = record(spawn).await?;
        assert_eq!(recorded.ended_with_the_answer, [""; 0]);
        assert_eq!(recorded.spans.len(), 3);
    }
    // Here the span even gets the task's duration, because the task enters it again.
    let recorded = record(background::held_open).await?;
    assert!(recorded.span("checkout").end_time >= recorded.between);
    Ok(())
}
