//! The services that the service under test calls. They answer from files or pass requests on to the real ones, and record the
//! headers of each call.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cases::Ids;
use crate::http;
use crate::traceparent::Traceparent;

/// A neighbor to play.
#[derive(Debug, Clone)]
pub struct Neighbor {
    pub name: String,
    pub address: SocketAddr,
    /// `HOST:PORT` of the real service, to which requests are passed on.
    pub target: Option<String>,
}

/// A method and a path: `POST /generate`. Without a method, any; a path that ends in `*` is the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    method: Option<Method>,
    path: String,
}

impl FromStr for Route {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (method, path) = match text.trim().split_once(' ') {
            Some((method, path)) => (Some(method), path.trim()),
            None => (None, text.trim()),
        };
        let method = method.map(|it| Method::from_bytes(it.to_uppercase().as_bytes()));
        match (method.transpose(), path.starts_with('/')) {
            (Ok(method), true) => Ok(Route { method, path: path.to_owned() }),
            _ => Err("write a path that begins with /, and before it a method: POST /generate"),
        }
    }
}

impl Route {
    fn fits(&self, method: &Method, uri: &Uri) -> bool {
        let path = match self.path.strip_suffix('*') {
            Some(start) => uri.path().starts_with(start),
            None => uri.path() == self.path,
        };
        path && self.method.as_ref().is_none_or(|it| it == method)
    }
}

/// The answer to all requests of a route.
#[derive(Debug, Clone)]
pub struct Answer {
    pub route: Route,
    pub status: StatusCode,
    pub media_type: &'static str,
    pub body: Bytes,
}

/// A request that a neighbor got.
#[derive(Debug, Clone)]
pub struct Call {
    /// The index of the case that it belongs to; another number for a request that belongs to none.
    pub case: usize,
    pub neighbor: String,
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
}

/// The calls so far, and how to find the case of a new one.
pub struct Calls {
    ids: Vec<Ids>,
    list: watch::Sender<List>,
}

/// The calls so far, in the order of their arrival.
#[derive(Default)]
pub struct List {
    /// The neighbor that was called over gRPC and has no real service behind it to answer.
    unanswered: Option<String>,
    /// The index of the case whose request was sent last.
    current: usize,
    pub calls: Vec<Call>,
}

impl List {
    pub fn of(&self, case: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.case == case)
    }
}

impl Calls {
    pub fn new(ids: Vec<Ids>) -> Self {
        Calls { ids, list: watch::Sender::default() }
    }

    /// Assigns the calls without a known trace id to this case from now on.
    pub fn begin(&self, case: usize) {
        self.list.send_modify(|list| list.current = case);
    }

    pub fn changes(&self) -> watch::Receiver<List> {
        self.list.subscribe()
    }

    /// The neighbor that was called over gRPC and couldn't answer.
    pub fn unanswered(&self) -> Option<String> {
        self.list.borrow().unanswered.clone()
    }

    pub fn of(&self, case: usize) -> Vec<Call> {
        self.list.borrow().of(case).cloned().collect()
    }

    /// Finds the case by the trace id, which is another in every case. A late call may come when the next request is under way.
    fn add(&self, neighbor: &str, request: &Request<Body>) {
        let value = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let trace = value.and_then(|value| Traceparent::parse(value).ok()).map(|it| it.trace_id);
        let known =
            self.ids.iter().position(|ids| trace == Some(ids.trace) || trace == Some(ids.other));
        self.list.send_modify(|list| {
            list.calls.push(Call {
                case: known.unwrap_or(list.current),
                neighbor: neighbor.to_owned(),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                headers: request.headers().clone(),
            });
        });
    }
}

/// The parts that all neighbors share.
pub struct Shared {
    pub calls: Calls,
    pub answers: Vec<Answer>,
    pub ignored: Vec<Route>,
}

/// Serves a neighbor until the tasks end.
pub fn serve(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    neighbor: Neighbor,
    shared: Arc<Shared>,
) {
    let neighbor = Arc::new(neighbor);
    let routes = Router::new().fallback(async move |request: Request<Body>| {
        let (method, uri) = (request.method(), request.uri());
        if !shared.ignored.iter().any(|route| route.fits(method, uri)) {
            shared.calls.add(&neighbor.name, &request);
        }
        if let Some(answer) = shared.answers.iter().find(|it| it.route.fits(method, uri)) {
            let headers = [(CONTENT_TYPE, answer.media_type)];
            return (answer.status, headers, answer.body.clone()).into_response();
        }
        match &neighbor.target {
            Some(target) => pass_on(target, request).await,
            None if is_grpc(&request) => {
                shared.calls.list.send_modify(|list| list.unanswered = Some(neighbor.name.clone()));
                let headers = [(CONTENT_TYPE.as_str(), GRPC), ("grpc-status", UNIMPLEMENTED)];
                headers.into_response()
            }
            None => ([(CONTENT_TYPE, "application/json")], "{}").into_response(),
        }
    });
    tasks.spawn(async move {
        // axum's `serve` only ends with its task.
        let _ = axum::serve(listener, routes).await;
    });
}

/// The media type of gRPC. A format may follow.
const GRPC: &str = "application/grpc";

/// The status of a method that a server of gRPC doesn't have.
const UNIMPLEMENTED: &str = "12";

fn is_grpc(request: &Request<Body>) -> bool {
    let media_type = request.headers().get(CONTENT_TYPE);
    media_type.is_some_and(|it| it.as_bytes().starts_with(GRPC.as_bytes()))
}

/// Passes a request on to the real service, and its answer back.
async fn pass_on(target: &str, mut request: Request<Body>) -> Response {
    let answer = match request.version() {
        // gRPC needs it.
        Version::HTTP_2 => http::open_http2(target, request).await,
        _ => {
            *request.version_mut() = Version::HTTP_11;
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
            http::open(target, request, false).await
        }
    };
    match answer {
        Ok(answer) => answer.map(Body::new),
        Err(error) => {
            eprintln!("Warning: a call can't be passed on to {target}: {error}");
            (StatusCode::BAD_GATEWAY, format!("{target} does not answer: {error}\n"))
                .into_response()
        }
    }
}
