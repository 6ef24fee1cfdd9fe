//! A checkout is one trace through both services, as `checkout.trace` says.

// ANCHOR: test
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A running service. It is killed when the test ends.
struct Service {
    url: String,
    _process: Child,
    _output: Lines<BufReader<ChildStdout>>,
}

async fn start(name: &str, payment: &str) -> anyhow::Result<Service> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_shop"))
        .arg(name)
        .env("PAYMENT_URL", payment)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", trace_expect::endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = process.stdout.take().context("no output")?;
    let mut output = BufReader::new(output).lines();
    // It prints `shop listening on http://127.0.0.1:43117`.
    let ready = output.next_line().await?.context("it ended")?;
    let (_, url) = ready.split_once(" on ").context(ready.clone())?;
    Ok(Service {
        url: url.to_owned(),
        _process: process,
        _output: output,
    })
}

#[tokio::test]
async fn a_checkout_is_one_trace() -> anyhow::Result<()> {
    let payment = start("payment", "http://127.0.0.1:1").await?;
    let shop = start("shop", &payment.url).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let checkout = client.post(format!("{}/checkout", shop.url));

    trace_expect::expect("tests/checkout.trace", async |traceparent| {
        let answer = checkout.header("traceparent", traceparent).send().await?;
        answer.error_for_status().map(drop)
    })
    .await;
    Ok(())
}
// ANCHOR_END: test
