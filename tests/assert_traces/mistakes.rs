//! `lab expect` says in one line why it can't look and what to do. Its exit status is 2 then.

use std::net::TcpListener;

use support::{has, refused};

use super::command::Expecting;

const FILE: &str = "[checkout]\nPOST /checkout  SERVER  shop  200\n";

/// Runs `lab expect`, which must fail with these parts in its one line.
async fn fails(text: &str, arguments: &[&str], parts: [&str; 2]) {
    let expecting = Expecting::new(text);
    let ended = expecting.run(arguments).await;
    expecting.assert_ends(&ended, 2);
    assert_eq!((ended.error.lines().count(), ended.printed.as_str()), (1, ""), "{}", ended.error);
    has(&ended.error, parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used() {
    fails("", &["--", "true"], ["query.trace", "--update writes it"]).await;
    fails("POST /checkout\n", &["--", "true"], ["line 1", "two blanks between them"]).await;
    fails(FILE, &["basket", "--", "true"], ["basket", "query.trace"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_sent() {
    let (nobody, _kept) = refused();
    let request = format!("GET http://{nobody}/");
    let nobody = nobody.to_string();
    fails(FILE, &["--request", &request], ["no service answers at", &nobody]).await;
    let https = ["--request", "GET https://example.com/"];
    fails(FILE, &https, ["https", "a command behind `--`"]).await;
    fails(FILE, &[], ["nothing sends the request", "--request"]).await;
    fails(FILE, &["--", "false"], ["the command failed", "false"]).await;
    fails(FILE, &["--", "/does/not/exist"], ["cannot start the command", "/does/not/exist"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_gets_nothing() {
    fails(FILE, &["--", "true"], ["no span has arrived within 5 s", "export to"]).await;

    let expecting = Expecting::new(FILE);
    let _kept = TcpListener::bind(expecting.otlp).expect("a free port");
    let ended = expecting.run(&["--", "true"]).await;
    expecting.assert_ends(&ended, 2);
    has(&ended.error, [&format!("cannot listen on {}", expecting.otlp), "--otlp"]);

    let (nobody, _refusing) = refused();
    let (url, nobody) = (format!("http://{nobody}"), nobody.to_string());
    fails(FILE, &["--jaeger", &url, "--", "true"], ["nothing answers", &nobody]).await;
}
