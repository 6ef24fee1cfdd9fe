//! A stream: its reader polls it, long after the function that made it has returned.

use std::convert::Infallible;
use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt as _};
use opentelemetry::trace::FutureExt as _;
use production::spans::{EventType, trace};

/// The lines of an answer, such as the body of a response.
pub type Lines = Pin<Box<dyn Stream<Item = String> + Send>>;

/// `with_current_context` works for streams too: it sets the context for each poll.
pub fn kept() -> Lines {
    Box::pin(lines().with_current_context())
}

/// Wrong: each line is made in the reader's context.
pub fn lost() -> Lines {
    Box::pin(lines())
}

fn lines() -> impl Stream<Item = String> {
    stream::iter(["first", "second"]).then(|line| async move {
        let work = async { Ok::<_, Infallible>(line.to_owned()) };
        let Ok(line) = trace("render line", EventType::Tool, work).await;
        line
    })
}

/// Reads to the end, as a server does when it sends a body.
pub async fn read(mut lines: Lines) {
    while let Some(line) = lines.next().await {
        println!("{line}");
    }
}
