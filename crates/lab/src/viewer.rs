//! The viewer: pages with the list of traces, each trace and the map of the services. They work without JavaScript. With it,
//! they update by themselves, can be used with keys, and accept dropped files.

pub mod document;
mod list;
mod map;
mod model_call;
mod span;
mod timeline;
mod trace;
mod wire;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRef, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::diagnose::Place;
use crate::list::List;
use crate::read::{self, Piece, Problem, StreamError};
use crate::render::{Renderers, in_turn};
use crate::report;
use crate::span::{TraceId, trace_id};
use crate::store::Store;
use crate::waterfall;
use crate::wire::Wire;

/// The style of the viewer's own pages.
const CSS: &str = include_str!("viewer/viewer.css");
const SCRIPT: &str = include_str!("viewer/viewer.js");

/// The shortest time between two events for a page.
const EVENT_INTERVAL: Duration = Duration::from_millis(250);

/// The largest file that can be dropped on a page, in bytes.
pub const IMPORT_LIMIT: usize = 256 * 1024 * 1024;

/// How long the next part of such a file may take to arrive.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the pages' handlers.
#[derive(Clone)]
pub struct ViewerState {
    list: List,
    wire: Wire,
    renderers: Renderers,
    imports: Renderers,
}

impl FromRef<ViewerState> for List {
    fn from_ref(site: &ViewerState) -> List {
        site.list.clone()
    }
}

/// Returns the URL of a span, relative to the lab.
pub fn span_address((trace, span): Place) -> String {
    format!("/traces/{trace}?span={span}")
}

/// Serves `/traces` and `/wire` with everything below them.
pub fn routes(store: Store, wire: Wire) -> Router {
    let asset = |media_type: &'static str, text: String| {
        let asset = ([(CONTENT_TYPE, media_type)], text);
        get(move || std::future::ready(asset.clone()))
    };
    // A page of the list is rendered quickly, so it doesn't wait for those of traces, which may be large.
    let (renderers, imports) = (Renderers::default(), Renderers::default());
    let quick = Router::new()
        .route("/traces", get(list::page))
        .route("/traces/dropped.txt", get(list::dropped))
        .layer(from_fn_with_state(Renderers::default(), in_turn));
    Router::new()
        .route("/traces.json", get(list::json))
        .route("/traces.case.json", get(list::whole_case))
        .route("/traces/{id}", get(trace::page))
        .route("/traces/{id}/spans/{span}", get(span::fragment))
        .route("/traces/map", get(map::page))
        .route("/traces/events", get(events))
        .route("/traces/clear", post(list::clear))
        .route("/traces/import", post(import))
        .route("/traces/viewer.css", asset("text/css", [waterfall::CSS, report::CSS, CSS].concat()))
        .route("/traces/viewer.js", asset("text/javascript", SCRIPT.to_owned()))
        .route("/wire", get(wire::page))
        .route("/wire.json", get(wire::json))
        .route("/wire.events", get(wire::events))
        .route("/wire/{hop}", post(wire::set))
        .layer(from_fn_with_state(renderers.clone(), in_turn))
        .merge(quick)
        .with_state(ViewerState { list: List::new(store), wire, renderers, imports })
}

/// Renders a page with the head and the navigation that all pages share.
fn page(title: &str, body: Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · One Trace" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/traces/viewer.css";
                script src="/traces/viewer.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header { nav { a href="/" { "Book" } a href="/traces" { "Traces" } a href="/traces/map" { "Map" } a href="/wire" { "Wire" } } }
                main id="main" { (body) }
                p.unseen id="news" role="status" {}
                p id="problem" role="alert" hidden {}
            }
        }
    };
    // A cached page would claim to be live although it shows old traces.
    ([(CACHE_CONTROL, "no-store")], Html(page.into_string())).into_response()
}

fn not_found(title: &str, what: &str) -> Response {
    let body = html! {
        h1 { (title) }
        p { (what) " " a href="/traces" { "All traces" } }
    };
    (StatusCode::NOT_FOUND, page(title, body)).into_response()
}

/// Adds a page that replaces the book, because the viewer's pages link to its guides.
pub fn without_book(pages: Router) -> Router {
    pages.route("/", get(async || no_book())).fallback(async || (StatusCode::NOT_FOUND, no_book()))
}

fn no_book() -> Response {
    let body = html! {
        h1 { "The book is not here" }
        p { "This lab was installed by itself; its book is in the repository that it was built from. " a href="/traces" { "Traces" } }
    };
    page("No book", body)
}

/// Renders a time in nanoseconds since 1970 as UTC. The script converts it to local time.
fn moment(nanoseconds: u64) -> Markup {
    let moment = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok();
    html! {
        @match moment.filter(|_| nanoseconds > 0) {
            Some(moment) => {
                @let text = format!("{moment:.3}");
                time datetime=(text) { (text.replace('T', " ").replace('Z', " UTC")) }
            },
            None => "without a time",
        }
    }
}

/// Returns the URL of the events that tell a page about new spans. `seen` is the store's version when the page was rendered.
/// With a trace, only events of this trace are sent.
fn events_url(seen: u64, trace: Option<TraceId>) -> String {
    match trace {
        Some(trace) => format!("/traces/events?seen={seen}&trace={trace}"),
        None => format!("/traces/events?seen={seen}"),
    }
}

/// The query of [`events`].
#[derive(Deserialize)]
struct EventsQuery {
    /// The store's version when the page was rendered.
    seen: Option<u64>,
    /// The id of the only trace to send events for. Without it, all traces count.
    trace: Option<String>,
}

/// Sends an empty event whenever spans arrive that the page shows. The page then fetches its new contents. If spans arrived
/// since the page was rendered, sends the first event immediately.
async fn events(State(list): State<List>, Query(query): Query<EventsQuery>) -> Response {
    let trace = match query.trace.as_deref().map(trace_id) {
        Some(None) => {
            let reason = "a trace id has at most 32 hexadecimal digits";
            return (StatusCode::BAD_REQUEST, reason).into_response();
        }
        Some(id) => id,
        None => None,
    };
    let mut changes = list.store.changes();
    if query.seen.is_some_and(|seen| seen != *changes.borrow()) {
        changes.mark_changed();
    }
    let subscription = Subscription { store: list.store, changes, trace, seen: None };
    let events = futures_util::stream::unfold(subscription, async |mut subscription| {
        subscription.changed().await?;
        let event = Event::default().data("new");
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// The state of a page's connection, which waits for new spans.
struct Subscription {
    store: Store,
    changes: watch::Receiver<u64>,
    trace: Option<TraceId>,
    /// How often the trace had changed at the last event.
    seen: Option<usize>,
}

impl Subscription {
    /// Waits for new spans and then for [`EVENT_INTERVAL`], so that spans which arrive together cause one event. Returns `None`
    /// when the store is gone.
    async fn changed(&mut self) -> Option<()> {
        loop {
            self.changes.changed().await.ok()?;
            tokio::time::sleep(EVENT_INTERVAL).await;
            self.changes.mark_unchanged();
            let Some(trace) = self.trace else {
                return Some(());
            };
            let changes = self.store.changes_of(trace);
            if self.seen.replace(changes) != Some(changes) {
                return Some(());
            }
        }
    }
}

/// Imports a file that was dropped on a page, in any form that [`read::read`] knows, while it arrives. Returns the counts and
/// problems as JSON. Requires the media type `application/json`, because for it browsers send other sites' pages through a CORS
/// preflight, which fails here.
async fn import(
    State(ViewerState { list, imports, .. }): State<ViewerState>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let refused = |status: StatusCode, reason: String| {
        (status, Json(json!({ "message": reason }))).into_response()
    };
    let json = headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes() == b"application/json");
    if !json {
        return refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json".to_owned(),
        );
    }
    let too_large = format!("a file has at most {IMPORT_LIMIT} bytes");
    if body.size_hint().lower() > IMPORT_LIMIT as u64 {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, too_large);
    }
    let upload = Upload {
        body,
        chunk: Bytes::new(),
        left: IMPORT_LIMIT,
        within: UPLOAD_TIMEOUT,
        runtime: Handle::current(),
    };
    let import = move || {
        let mut traces = BTreeSet::new();
        let contents = read::stream(upload, |Piece { spans, logs }| {
            // The store doesn't keep more traces than that, and their ids must not fill the memory either.
            if traces.len() < list.usage().limits.spans {
                traces.extend(spans.iter().map(|span| span.trace_id));
            }
            list.store.add(spans);
            list.store.add_logs(logs);
        });
        contents.map(|contents| (contents, traces))
    };
    let (contents, traces) = match imports.run(import).await {
        Ok(Ok(imported)) => imported,
        Ok(Err(StreamError::Io(error))) => {
            let status = match error.kind() {
                io::ErrorKind::FileTooLarge => {
                    return refused(StatusCode::PAYLOAD_TOO_LARGE, too_large);
                }
                io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
                _ => StatusCode::BAD_REQUEST,
            };
            return refused(status, error.to_string());
        }
        Ok(Err(unreadable)) => return refused(StatusCode::BAD_REQUEST, unreadable.to_string()),
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let only = traces.first().filter(|_| traces.len() == 1);
    let problems: Vec<String> = contents.problems.iter().map(Problem::to_string).collect();
    let answer = json!({
        "spans": contents.count, "logRecords": contents.log_count, "traces": traces.len(), "traceId": only, "unread": contents.unread, "problems": problems,
        "notShown": (!contents.others.is_empty()).then(|| contents.others.to_string()),
    });
    Json(answer).into_response()
}

/// The body of a request as a file. Reading waits for the body, so it needs a thread that may block.
struct Upload {
    body: Body,
    chunk: Bytes,
    /// The number of bytes that may still arrive.
    left: usize,
    /// How long its next bytes may take to arrive.
    within: Duration,
    runtime: Handle,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let (body, within) = (&mut self.body, self.within);
            let frame = async { timeout(within, body.frame()).await };
            let Some(frame) = self.runtime.block_on(frame)? else { return Ok(0) };
            self.chunk = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
            let left = self.left.checked_sub(self.chunk.len());
            self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn an_upload_ends_at_its_limit_and_when_nothing_comes() {
        let silent = || Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        for (body, left, expected) in [
            (Body::from("abcd"), 4, Ok(4)),
            (Body::from("abcd"), 3, Err(io::ErrorKind::FileTooLarge)),
            (silent(), 4, Err(io::ErrorKind::TimedOut)),
        ] {
            let (within, runtime) = (Duration::from_millis(50), Handle::current());
            let mut upload = Upload { body, chunk: Bytes::new(), left, within, runtime };
            let read = tokio::task::spawn_blocking(move || io::copy(&mut upload, &mut io::sink()));
            assert_eq!(read.await.expect("no panic").map_err(|error| error.kind()), expected);
        }
    }
}
