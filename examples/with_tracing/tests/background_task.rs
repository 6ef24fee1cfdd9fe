//! A task that outlives its request: its span joins the trace, and the request's
//! spans must end with the request.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::post;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData,
};
use tokio::sync::Notify;
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
        let mut spans = self.spans.iter();
        spans.find(|span| span.name == name).expect(name)
    }
}

type Spawn = fn(Pin<Box<dyn Future<Output = ()> + Send>>) -> JoinHandle<()>;

/// The task of a request.
struct Task {
    spawn: Spawn,
    started: Notify,
    may_end: Notify,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// The handler: answers while the task still runs.
#[instrument(skip_all)]
async fn checkout(State(task): State<Arc<Task>>) -> StatusCode {
    let same = Arc::clone(&task);
    let handle = (task.spawn)(Box::pin(async move {
        same.started.notify_one();
        same.may_end.notified().await;
    }));
    *task.handle.lock().expect("no panic") = Some(handle);
    StatusCode::ACCEPTED
}

async fn record(spawn: Spawn) -> anyhow::Result<Recorded> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    // The test's runtime has one thread, so the task runs with this subscriber too.
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let task = Arc::new(Task {
        spawn,
        started: Notify::new(),
        may_end: Notify::new(),
        handle: Mutex::default(),
    });
    let routes = Router::new()
        .route("/checkout", post(checkout))
        .layer(from_fn(continue_trace))
        .with_state(Arc::clone(&task));
    let request = Request::post("/checkout").body(Body::empty())?;
    let response = routes.oneshot(request).await?;
    assert_eq!(response.status(), StatusCode::ACCEPTED);

    task.started.notified().await;
    let ended = exporter.get_finished_spans()?;
    let between = SystemTime::now();
    task.may_end.notify_one();
    let handle = task.handle.lock().expect("no panic").take();
    handle.expect("a task").await?;
    Ok(Recorded {
        ended_with_the_answer: ended.iter().map(|it| it.name.to_string()).collect(),
        between,
        spans: exporter.get_finished_spans()?,
    })
}

#[tokio::test]
async fn a_task_with_the_context_lets_the_request_end() -> anyhow::Result<()> {
    let recorded = record(background::kept).await?;
    let ended = ["checkout", "POST /checkout"];
    assert_eq!(recorded.ended_with_the_answer, ended);
    assert_eq!(recorded.spans.len(), 3);
    let checkout = recorded.span("checkout");
    let task = recorded.span("send_receipt");
    let (parent, child) = (&checkout.span_context, &task.span_context);
    assert_eq!(child.trace_id(), parent.trace_id());
    assert_eq!(task.parent_span_id, parent.span_id());
    let times = [checkout.end_time, recorded.between, task.end_time];
    assert!(times.is_sorted(), "only the task goes on: {times:?}");
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
