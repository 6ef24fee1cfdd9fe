//! Counts the commands of `lab run` that use a lab, so that a lab which one of them has started ends with the last. It also gives
//! them the addresses of the receivers.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

/// The path with the addresses of the receivers.
pub const RECEIVERS: &str = "/traces/receivers.json";

/// The path of the answer that lasts for as long as the lab is used.
pub const HELD: &str = "/traces/held";

/// How long the command that starts a lab may take to use it.
const FIRST_USE: Duration = Duration::from_secs(10);

/// The addresses that receive spans, as `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receivers {
    /// OTLP over HTTP.
    pub otlp: String,
    /// OTLP over gRPC.
    pub grpc: String,
}

/// The commands that use this lab.
#[derive(Clone, Default)]
pub struct Users(watch::Sender<Use>);

/// How a lab is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    By(usize),
    /// Nobody uses it any longer, so it is ending.
    Ended,
}

impl Default for Use {
    fn default() -> Self {
        Use::By(0)
    }
}

/// One user, until it is dropped.
struct User(Users);

impl Drop for User {
    fn drop(&mut self) {
        self.0.0.send_modify(|it| {
            if let Use::By(users) = it {
                *users = users.saturating_sub(1);
            }
        });
    }
}

impl Users {
    /// Serves [`RECEIVERS`] and [`HELD`].
    pub fn routes(&self, receivers: Receivers) -> Router {
        let users = self.clone();
        Router::new()
            .route(RECEIVERS, get(async move || Json(receivers)))
            .route(HELD, get(async move || users.hold()))
    }

    /// Answers until the client goes. If the lab is ending, answers 503 until it has ended.
    fn hold(self) -> Response {
        let is_added = self.0.send_if_modified(|it| match it {
            Use::By(users) => {
                *users += 1;
                true
            }
            Use::Ended => false,
        });
        let user = is_added.then(|| User(self));
        let status = match user {
            Some(_) => StatusCode::OK,
            None => StatusCode::SERVICE_UNAVAILABLE,
        };
        let never = stream::unfold(user, async |_user| {
            std::future::pending::<Option<(Result<Event, Infallible>, Option<User>)>>().await
        });
        (status, Sse::new(never).keep_alive(KeepAlive::default())).into_response()
    }

    /// Waits until the last user has gone, or until the first hasn't come in time.
    pub async fn gone(&self) {
        let mut changes = self.0.subscribe();
        let used = async { changes.wait_for(|it| *it != Use::By(0)).await.map(drop) };
        // Without a first user, the loop below ends.
        let _ = timeout(FIRST_USE, used).await;
        loop {
            let is_ended = self.0.send_if_modified(|it| {
                let is_unused = *it == Use::By(0);
                if is_unused {
                    *it = Use::Ended;
                }
                is_unused
            });
            // The sender is here, so waiting can't fail.
            if is_ended || changes.changed().await.is_err() {
                return;
            }
        }
    }
}
