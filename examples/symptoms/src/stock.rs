//! `stock`, the service that `shop` calls, as a process of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use production::outgoing::Upstream;
use production::spans::{EventType, trace};
use production::{server, telemetry};
use reqwest::Url;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;

const DEADLINE: Duration = Duration::from_secs(5);

/// The running process, and where it listens.
pub struct Stock {
    child: Child,
    pub url: Url,
}

impl Stock {
    /// Starts this program again, with the same arguments and `stock`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> anyhow::Result<Stock> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args().skip(1))
            .arg("stock")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("stock has no output")?;
        let mut lines = BufReader::new(output).lines();
        let url = lines.next_line().await?.context("stock did not start")?;
        let url = url.parse()?;
        Ok(Stock { child, url })
    }

    /// A client for it, as in the tutorial.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn upstream(&self) -> anyhow::Result<Upstream> {
        Ok(Upstream::new(self.url.clone(), DEADLINE)?)
    }

    /// Closes its input, so that it flushes its spans and ends.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        self.child.wait().await?;
        Ok(())
    }
}

/// Serves `routes` on a free port until the input ends.
///
/// # Errors
/// When no port can be listened on.
pub async fn serve(routes: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async {
            // An error ends it too, because then nothing else could stop it.
            let end = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = spawn_blocking(end).await;
        })
        .await?;
    Ok(())
}

/// Calls `stock` under a CLIENT span, as part of an order.
///
/// # Errors
/// When it does not answer.
pub async fn order(upstream: Upstream) -> anyhow::Result<()> {
    let reserve = async { upstream.post::<u32>("/reserve", &1).await };
    trace("order", EventType::Chain, reserve).await?;
    Ok(())
}

/// A `stock` without a fault.
///
/// # Errors
/// When it cannot be started.
pub async fn sound() -> anyhow::Result<()> {
    let telemetry = telemetry::init("stock");
    let routes = Router::new()
        .route("/reserve", post(async || Json(1)))
        .route("/fail", post(async || StatusCode::INTERNAL_SERVER_ERROR));
    let served = serve(server::traced(routes, DEADLINE)).await;
    telemetry.shutdown();
    served
}
