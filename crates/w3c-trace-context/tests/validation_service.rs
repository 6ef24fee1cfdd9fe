//! The service that the W3C validation suite is run against: it calls back with a span of its own, and survives
//! whatever it is sent.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::net::TcpListener;

// Its `main` is not called.
#[allow(dead_code)]
#[path = "../examples/validation_service.rs"]
mod validation_service;

use validation_service::{Propagation, routes};

async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

#[tokio::test]
async fn it_calls_back_and_survives_bad_bodies() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let harness = serve(Router::new().route(
        "/callback",
        post(async move |headers: HeaderMap| seen.lock().expect("a lock").push(headers)),
    ))
    .await;
    let service = serve(routes(Propagation::Strict).expect("routes")).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let no_url = r#"[{"url": "nonsense", "arguments": []}]"#;
    let action = format!(r#"{{"url": "http://{harness}/callback", "arguments": []}}"#);
    let two = format!("[{action}, {action}]");
    for (body, status) in
        [("", 400), ("[", 400), ("{", 422), ("[1]", 422), ("null", 422), (no_url, 502), (&two, 200)]
    {
        let request = client
            .post(format!("http://{service}/test"))
            .header("content-type", "application/json")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02");
        let answer = request.body(body.to_owned()).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{body}");
    }

    let calls = calls.lock().expect("a lock");
    let parents = calls.iter().map(|call| call["traceparent"].to_str().expect("text"));
    // The trace and its random flag go on, with a span for each call.
    let ends = parents.clone().map(|it| (&it[..36], &it[52..]));
    let expected = ("00-4bf92f3577b34da6a3ce929d0e0e4736-", "-02");
    assert_eq!(Vec::from_iter(ends), [expected; 2]);
    assert_eq!(HashSet::<&str>::from_iter(parents).len(), 2);
}
