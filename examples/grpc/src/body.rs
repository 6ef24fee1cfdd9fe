//! The body of an answer, which ends the span of its call.

use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::call::Call;
use crate::code;

/// The messages of an answer, and the call that ends with the trailers behind them.
struct Watched {
    body: Body,
    http: StatusCode,
    call: Call,
}

/// Returns a body with the same messages. It ends `call` with the status in its
/// trailers, or when it's dropped.
pub fn watch(mut call: Call, http: StatusCode, body: Body) -> Body {
    if body.is_end_stream() {
        call.end(code::without_status(http));
    }
    Body::new(Watched { body, http, call })
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Watched { body, http, call } = &mut *self;
        // A server makes its messages in this poll, so their spans have this parent.
        let _current = call.context().clone().attach();
        let frame = ready!(Pin::new(body).poll_frame(task));
        let code = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().and_then(status_in),
            Some(Err(status)) => Some(status.code()),
            None => Some(code::without_status(*http)),
        };
        if let Some(code) = code {
            call.end(code);
        }
        Poll::Ready(frame)
    }
}

/// Returns the code in `grpc-status`, if it's among these headers. It's in the
/// trailers, or in the head of an answer without messages.
pub fn status_in(headers: &HeaderMap) -> Option<Code> {
    Some(Status::from_header_map(headers)?.code())
}
