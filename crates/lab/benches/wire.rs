//! Measures the cost of a proxy: sends the same request alternately to a server directly and through its proxy.
//!
//! Run it with `cargo bench --bench wire`.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use lab::wire::{Hop, Wire};
use reqwest::{Client, Url};
use tokio::net::TcpListener;

/// The number of direct and of proxied requests in a round.
const REQUESTS: usize = 5_000;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let direct = listener.local_addr()?;
    let routes = Router::new().route("/", post(async |body: String| body));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let proxy = TcpListener::bind("127.0.0.1:0").await?;
    let proxied = Wire::default().serve(Hop::named_after("server"), proxy, direct)?;

    let client = Client::builder().no_proxy().build()?;
    let urls = [direct, proxied].map(|address| format!("http://{address}/").parse::<Url>());
    let [direct, proxied] = urls;
    let (direct, proxied) = (direct?, proxied?);
    println!("round   direct p50   p99    proxied p50   p99    difference of the medians, µs");
    for round in 1..=ROUNDS {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..REQUESTS {
            for (url, times) in [&direct, &proxied].into_iter().zip(&mut times) {
                times.push(send(&client, url).await?);
            }
        }
        let [direct, proxied] = times.map(|mut times| {
            times.sort_unstable();
            [times.len() / 2, times.len() * 99 / 100].map(|at| times[at].as_micros())
        });
        println!(
            "{round:5}   {:10} {:5}    {:11} {:5}    {}",
            direct[0],
            direct[1],
            proxied[0],
            proxied[1],
            proxied[0] as i128 - direct[0] as i128
        );
    }
    Ok(())
}

async fn send(client: &Client, url: &Url) -> anyhow::Result<Duration> {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = client.post(url.clone()).header("traceparent", traceparent).body("hello");
    let start = Instant::now();
    let answer = request.send().await?.error_for_status()?;
    anyhow::ensure!(answer.text().await? == "hello");
    Ok(start.elapsed())
}
