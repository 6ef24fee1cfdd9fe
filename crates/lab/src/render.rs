//! Renders answers outside the async workers, a few at a time, so that a large page doesn't hold up the other requests, and
//! streams answers that may be as large as the store.

use std::convert::Infallible;
use std::fmt::Display;
use std::iter;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::log::LogRecord;
use crate::otlp;
use crate::span::{Source, Span};

/// The number of answers that one part of the site renders at the same time. Other requests wait for their turn.
pub const RENDERERS: usize = 4;

/// The size in bytes at which a chunk of a streamed answer is sent.
const CHUNK: usize = 64 * 1024;

/// The largest number of pieces in a chunk. Other requests may take their turn after each chunk.
const PIECES: usize = 1000;

/// The most bytes of answers that one part of the site holds until their clients have read them. A larger answer is sent alone.
pub const UNREAD_LIMIT: usize = 32 * 1024 * 1024;

/// The threads that render for one part of the site, and the memory of its answers. Clones share them.
#[derive(Clone)]
pub struct Renderers {
    turns: Arc<Semaphore>,
    unread: Arc<Semaphore>,
}

impl Default for Renderers {
    fn default() -> Self {
        Renderers {
            turns: Arc::new(Semaphore::new(RENDERERS)),
            unread: Arc::new(Semaphore::new(UNREAD_LIMIT)),
        }
    }
}

impl Renderers {
    /// Runs `render` on a thread that may block, when it is its turn.
    ///
    /// # Errors
    /// Fails when `render` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        render: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // The semaphore is never closed. The permit goes with the work, which doesn't end when the client leaves.
        let permit = Arc::clone(&self.turns).acquire_owned().await;
        spawn_blocking(move || {
            let _permit = permit;
            render()
        })
        .await
    }

    /// Returns an answer that counts as unread until its client has read it. Returns the status 503 instead when there are too many.
    async fn held(&self, answer: Response) -> Response {
        // A stream makes its chunks when they are read.
        let Some(length @ 1..) = answer.body().size_hint().exact() else { return answer };
        let weight = u32::try_from(length).unwrap_or(u32::MAX).min(UNREAD_LIMIT as u32);
        let Ok(permit) = Arc::clone(&self.unread).try_acquire_many_owned(weight) else {
            return (StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_UNREAD).into_response();
        };
        let (mut parts, body) = answer.into_parts();
        parts.headers.insert(CONTENT_LENGTH, length.into());
        let mut rest = match to_bytes(body, usize::MAX).await {
            Ok(bytes) => bytes,
            Err(error) => return failed(error),
        };
        // In chunks, so that its end means that it has been read.
        let chunks = iter::from_fn(move || {
            let _permit = &permit;
            let chunk = rest.split_to(rest.len().min(CHUNK));
            (!chunk.is_empty()).then_some(Ok::<_, Infallible>(chunk))
        });
        Response::from_parts(parts, Body::from_stream(futures_util::stream::iter(chunks)))
    }

    /// Streams `pieces` as a body. Each piece should be small and quick to make. It may be empty.
    pub fn stream(&self, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Body {
        let state = Some((self.clone(), pieces));
        let chunks = futures_util::stream::unfold(state, async |state| {
            let (renderers, mut pieces) = state?;
            loop {
                let render = move || {
                    let mut chunk = Vec::new();
                    let ended = !fill(&mut chunk, &mut pieces);
                    (chunk, (!ended).then_some(pieces))
                };
                match renderers.run(render).await {
                    Ok((chunk, None)) if chunk.is_empty() => return None,
                    Ok((chunk, Some(rest))) if chunk.is_empty() => pieces = rest,
                    Ok((chunk, rest)) => {
                        let rest = rest.map(|rest| (renderers, rest));
                        return Some((Ok(Bytes::from(chunk)), rest));
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Body::from_stream(chunks)
    }

    /// Streams `pieces` as an answer in JSON.
    pub fn stream_json(&self, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.stream(pieces)).into_response()
    }
}

/// Adds pieces to a chunk until it is large enough. Returns whether there may be more.
fn fill(chunk: &mut Vec<u8>, pieces: &mut impl Iterator<Item = Vec<u8>>) -> bool {
    for _ in 0..PIECES {
        match pieces.next() {
            Some(piece) => chunk.extend_from_slice(&piece),
            None => return false,
        }
        if chunk.len() >= CHUNK {
            break;
        }
    }
    true
}

const TOO_MANY_UNREAD: &str =
    "the lab holds as many answers as it can that nobody has read; try again later\n";

/// The size in bytes of the spans or log records that are written together. Their resource is written with each such group.
const GROUP: usize = 1024 * 1024;

/// Runs the handler of a GET request on a thread that may block. For handlers that wait for nothing.
pub async fn in_turn(State(renderers): State<Renderers>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let runtime = Handle::current();
    let response = renderers.run(move || runtime.block_on(next.run(request))).await;
    match response {
        Ok(answer) => renderers.held(answer).await,
        Err(error) => failed(error),
    }
}

fn failed(error: impl Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

/// Puts a comma before each item but the first.
fn separated(items: impl Iterator<Item = Vec<u8>> + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    items.enumerate().map(|(index, item)| if index == 0 { item } else { [b",", &*item].concat() })
}

/// Writes a JSON array of these items.
pub fn array(items: impl Iterator<Item = Vec<u8>> + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    iter::once(b"[".to_vec()).chain(separated(items)).chain(iter::once(b"]".to_vec()))
}

/// Writes a value that can always be written as JSON.
pub fn json_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())
}

/// Writes the spans of several traces as one document of OTLP JSON, followed by further fields of the document, each with a comma
/// before it.
pub fn otlp_json(
    traces: impl Iterator<Item = Vec<Arc<Span>>> + Send,
    fields: impl Iterator<Item = Vec<u8>> + Send,
) -> impl Iterator<Item = Vec<u8>> + Send {
    let resource_spans = traces.flat_map(resource_spans);
    let start = iter::once(b"{\"resourceSpans\":[".to_vec());
    let spans = start.chain(separated(resource_spans)).chain(iter::once(b"]".to_vec()));
    spans.chain(fields).chain(iter::once(b"}".to_vec()))
}

/// Writes the log records of several traces as a further field of such a document; nothing if there are none.
pub fn logs_json(
    traces: impl Iterator<Item = Vec<Arc<LogRecord>>> + Send,
) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut is_first = true;
    let items = traces.flat_map(resource_logs).map(move |item| {
        let before: &[u8] = if is_first { b",\"resourceLogs\":[" } else { b"," };
        is_first = false;
        [before, &item].concat()
    });
    closed(items)
}

/// Puts a bracket behind the last item, if there is one.
fn closed(mut items: impl Iterator<Item = Vec<u8>> + Send) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut is_open = false;
    iter::from_fn(move || match items.next() {
        Some(item) => {
            is_open = true;
            Some(item)
        }
        None => std::mem::take(&mut is_open).then(|| b"]".to_vec()),
    })
    .fuse()
}

/// Writes the log records of one trace as items of `resourceLogs`.
fn resource_logs(records: Vec<Arc<LogRecord>>) -> impl Iterator<Item = Vec<u8>> + Send {
    groups(records, |record| (record.size(), &record.source)).map(|group| {
        let request = otlp::logs_to_request(group.iter().map(Arc::as_ref));
        request.resource_logs.iter().map(json_of).collect::<Vec<_>>().join(&b',')
    })
}

/// Writes the spans of one trace as items of `resourceSpans`.
fn resource_spans(spans: Vec<Arc<Span>>) -> impl Iterator<Item = Vec<u8>> + Send {
    groups(spans, |span| (span.size(), &span.source)).map(|group| {
        let request = otlp::to_request(group.iter().map(Arc::as_ref));
        request.resource_spans.iter().map(json_of).collect::<Vec<_>>().join(&b',')
    })
}

/// Splits items, whose size and source `of` returns, into groups that are written together.
fn groups<T: Send + Sync + 'static>(
    items: Vec<Arc<T>>,
    of: fn(&T) -> (usize, &Arc<Source>),
) -> impl Iterator<Item = Vec<Arc<T>>> + Send {
    let mut left = items.into_iter().peekable();
    iter::from_fn(move || {
        let first = left.next()?;
        let mut total = of(&first).0;
        let mut group = vec![first];
        while let Some(item) = left.next_if(|item| {
            let (size, source) = of(item);
            total += size;
            total <= GROUP && Arc::ptr_eq(source, of(&group[0]).1)
        }) {
            group.push(item);
        }
        Some(group)
    })
}
