//! The service that the W3C validation suite is run against: it calls back with a span of its own, and survives
//! whatever it is sent.

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
    let ask = async |body: String| {
        let request = client
            .post(format!("http://{service}/test"))
            .header("content-type", "application/json")
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02");
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    let no_url = r#"[{"url": "nonsense", "arguments": []}]"#;
    for (body, status) in
        [("", 400), ("[", 400), ("{", 422), ("[1]", 422), ("null", 422), (no_url, 502)]
    {
        assert_eq!(ask(body.to_owned()).await, status, "{body}");
    }
    let action = format!(r#"{{"url": "http://{harness}/callback", "arguments": []}}"#);
    assert_eq!(ask(format!("[{action}, {action}]")).await, 200);

    let calls = calls.lock().expect("a lock");
    let parents: Vec<&str> =
        calls.iter().map(|call| call["traceparent"].to_str().expect("text")).collect();
    assert_eq!(parents.len(), 2);
    assert_ne!(parents[0], parents[1], "each call has a span of its own");
    for parent in parents {
        assert!(parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{parent}");
        assert!(parent.ends_with("-02"), "the random flag: {parent}");
    }
}
