//! The outgoing half of propagation: a CLIENT span around each gRPC call, its ids in
//! the metadata.

use std::task::{Context as Task, Poll};

use axum::http::{Request, Response};
use futures_util::future::{BoxFuture, FutureExt as _};
use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue};
use opentelemetry_semantic_conventions::attribute::{SERVER_ADDRESS, SERVER_PORT};
use production::outgoing::inject_context_into_carrier;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::Service;

use crate::body::{status_in, watch};
use crate::call::Call;

/// A channel to one service that puts a CLIENT span around each call.
#[derive(Clone)]
pub struct Traced {
    channel: Channel,
    server: [KeyValue; 2],
}

impl Traced {
    /// Connects to `endpoint` when the first call is made.
    pub fn new(endpoint: &Endpoint) -> Traced {
        let uri = endpoint.uri();
        let host = uri.host().unwrap_or_default().to_owned();
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = i64::from(uri.port_u16().unwrap_or(default));
        Traced {
            channel: endpoint.connect_lazy(),
            server: [
                KeyValue::new(SERVER_ADDRESS, host),
                KeyValue::new(SERVER_PORT, port),
            ],
        }
    }
}

impl Service<Request<Body>> for Traced {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(task).map_err(status)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let parent = Context::current();
        let server = self.server.to_vec();
        let headers = request.headers();
        let call = Call::start(SpanKind::Client, method, &parent, headers, server);
        let current = call.context().clone().attach();
        inject_context_into_carrier(request.headers_mut());
        let response = self.channel.call(request);
        drop(current);
        async move { finish(call, response.await.map_err(status)) }.boxed()
    }
}

/// Ends the span if the answer has a status already. Otherwise its body ends it.
fn finish(
    mut call: Call,
    answer: Result<Response<Body>, Status>,
) -> Result<Response<Body>, Status> {
    let code = match &answer {
        Ok(response) => status_in(response.headers()),
        Err(status) => Some(status.code()),
    };
    match code {
        // This is how tonic reports that the deadline has passed.
        Some(Code::Cancelled) if call.is_late() => {
            call.end(Code::DeadlineExceeded);
            Err(Status::deadline_exceeded("no answer before the deadline"))
        }
        Some(code) => {
            call.end(code);
            answer
        }
        None => answer.map(|response| {
            let http = response.status();
            response.map(|body| watch(call, http, body))
        }),
    }
}

fn status(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}
