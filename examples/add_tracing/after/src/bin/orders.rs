//! Takes orders.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry::trace::FutureExt as _;
use reqwest::Client;
use serde::Deserialize;
use shop::{Error, incoming, outgoing, setting, stopped, telemetry};
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;
use tracing::{info, instrument};
use tracing_subscriber::EnvFilter;

#[derive(Clone)]
struct Stock {
    client: Client,
    url: String,
}

#[derive(Deserialize)]
struct Order {
    count: u32,
    email: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let provider = telemetry::init(lines, filter);
    let stock = Stock {
        client: Client::new(),
        url: setting("STOCK_URL", "http://127.0.0.1:7002"),
    };
    let routes = Router::new()
        .route("/orders/{item}", post(order))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(incoming::server_span)
                .on_response(incoming::record_status),
        )
        .with_state(stock);
    let address = setting("ORDERS_ADDR", "127.0.0.1:7001");
    let listener = TcpListener::bind(address).await?;
    println!("orders listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, routes)
        .with_graceful_shutdown(stopped())
        .await;
    provider.shutdown().ok();
    Ok(served?)
}

#[instrument(skip(stock, order), err)]
async fn order(
    State(stock): State<Stock>,
    Path(item): Path<String>,
    Json(order): Json<Order>,
) -> Result<String, Error> {
    let left = stock.take(&item, order.count).await?;
    info!(left, "ordered");
    tokio::spawn(send_receipt(order.email).with_current_context());
    Ok(format!("{} × {item}, {left} left\n", order.count))
}

impl Stock {
    /// Takes `count` pieces from the stock. Returns how many are left.
    async fn take(&self, item: &str, count: u32) -> Result<u32, Error> {
        let url = format!("{}/stock/{item}/take", self.url);
        let request = self.client.post(url).json(&count);
        let response = outgoing::send(request).await?;
        if response.status() == StatusCode::CONFLICT {
            return Err(Error::SoldOut);
        }
        Ok(response.error_for_status()?.json().await?)
    }
}

#[instrument(
    level = "error",
    target = "request",
    skip_all,
    fields(trace_id = telemetry::trace_id())
)]
async fn send_receipt(email: String) {
    info!(domain = email.split('@').next_back(), "receipt sent");
}
