//! Measures the page of a trace with 10,000 spans: the server's time, the size of the page and, in Chromium, the first paint,
//! the frame times while scrolling and the time to collapse a row.
//!
//! Run it with `cargo bench --bench large_trace`. Needs ChromeDriver. The browser renders without a graphics card.

use std::time::Instant;

use axum::Router;
use lab::otlp;
use lab::store::{Limits, Store};
use lab::viewer;
use lab::wire::Wire;
use serde_json::{Value, json};
use support::browser::{Browser, WIDE};

const ROUNDS: usize = 5;
const SPANS: u64 = 10_000;

/// Measures the frame times of scrolling by most of a window and by large leaps, then of one collapse and one expansion.
const SCROLL: &str = "
    const frame = async (change) => {
        const began = performance.now(); change();
        await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);
        return (performance.now() - began) / 2;
    };
    const height = document.documentElement.scrollHeight, steps = [], leaps = [];
    for (let step = 0; step < 120; step++) steps.push(await frame(() => scrollBy(0, 600)));
    for (let leap = 0; leap < 20; leap++) leaps.push(await frame(() => scrollTo(0, height * (leap * 7 % 20) / 20)));
    scrollTo(0, 0);
    const twist = document.querySelector('.twist');
    const toggles = [await frame(() => twist.click()), await frame(() => twist.click())];
    const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime;
    steps.sort((a, b) => a - b);
    return [paint, steps[60], steps.at(-1), Math.max(...leaps), Math.max(...toggles)];";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = Store::new(Limits::default());
    store.add(otlp::from_json(&serde_json::to_vec(&trace())?).map_err(anyhow::Error::msg)?.items);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes: Router = viewer::routes(store, Wire::default());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let path = format!("/traces/{}", "0a".repeat(16));

    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut times, mut size) = (Vec::new(), 0);
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); 5];
    for _ in 0..ROUNDS {
        let began = Instant::now();
        size = client.get(format!("http://{address}{path}")).send().await?.bytes().await?.len();
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let browser = Browser::open(address, &path, WIDE).await;
        let numbers: Vec<f64> = serde_json::from_value(browser.run(SCROLL).await)?;
        measured.iter_mut().zip(numbers).for_each(|(all, number)| all.push(number));
    }
    println!("Medians of {ROUNDS} rounds, {SPANS} spans:\n\n| | |\n|---|---|");
    println!(
        "| server | {:.0} ms |\n| page | {:.1} MiB |",
        median(&mut times),
        size as f64 / 1024.0 / 1024.0
    );
    let names = [
        "first paint",
        "a frame while scrolling",
        "the slowest of 120",
        "the slowest of 20 leaps",
        "collapsing, expanding",
    ];
    for (name, numbers) in names.into_iter().zip(&mut measured) {
        println!("| {name} | {:.0} ms |", median(numbers));
    }
    Ok(())
}

/// Creates a trace of seven services whose spans have two to four children.
fn trace() -> Value {
    let spans = (1..=SPANS).map(|index| {
        let start = 1_767_225_600_000_000_000 + index * 50_000;
        let end = start + (SPANS + 1 - index) * 25_000;
        let mut span = json!({
            "traceId": "0a".repeat(16), "spanId": format!("{index:016x}"), "name": format!("operation {}", index % 50),
            "kind": index % 3 + 1, "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
            "attributes": [{ "key": "http.response.status_code", "value": { "intValue": "200" } }],
        });
        if index > 1 {
            span["parentSpanId"] = json!(format!("{:016x}", (index / 3).max(1)));
        }
        let service = json!({ "key": "service.name", "value": { "stringValue": format!("service-{}", index % 7) } });
        json!({ "resource": { "attributes": [service] }, "scopeSpans": [{ "spans": [span] }] })
    });
    json!({ "resourceSpans": spans.collect::<Vec<_>>() })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
