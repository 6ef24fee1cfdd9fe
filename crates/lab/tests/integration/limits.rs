//! The limits that keep the pages and Jaeger's API small, whatever the store holds, and those of refused connections.

use std::net::SocketAddr;

use support::in_process::Lab;
use support::{has, within_reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The rows of a table, one for each id.
fn rows(ids: std::ops::RangeInclusive<usize>, row: impl Fn(usize) -> String) -> String {
    ids.map(row).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_map_says_which_operations_and_calls_it_does_not_count() {
    // Each has a service of its own, which the first calls.
    let row = |id| {
        let parent = if id == 1 { "" } else { "<1" };
        format!("1 s{id} {id}{parent} SERVER 0..9 GET /")
    };
    let map = Lab::of(&rows(1..=10_002, row)).await.page("/traces/map").await;
    has(
        &map,
        [
            "The lab counts 5000 operations. Others are left out.",
            "the 500 most frequent of 10000 are shown",
            "Calls between further services are not counted.",
        ],
    );
}

#[tokio::test]
async fn jaegers_lists_of_names_have_at_most_4_mib() {
    let row = |id| format!("{id} shop 1 SERVER 0..1 {id}{}", "x".repeat(1_000_000));
    let lab = Lab::of(&rows(1..=5, row)).await;
    let names = lab.get_json("/api/services/shop/operations").await;
    assert_eq!(names["total"], 4);
    has(&names["errors"][0]["msg"].to_string(), ["only the first 4 names"]);
}

/// Checks a listener that has all the connections it takes. It must limit how many others it answers at the same time and how long it waits
/// for one that sends nothing. Opens 301 connections.
pub async fn bound_refusals(address: SocketAddr) {
    const CLIENTS: usize = 300;
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    assert_eq!(within_reason(silent.read(&mut [0; 1])).await.expect("its end"), 0);

    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(address).await.expect("a connection");
        // It may be closed by now.
        let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        clients.push(client);
    }
    let mut answered = 0;
    for client in &mut clients {
        let mut answer = Vec::new();
        let _ = within_reason(client.read_to_end(&mut answer)).await;
        answered += usize::from(answer.starts_with(b"HTTP/1.1 429"));
    }
    assert!((100..CLIENTS).contains(&answered), "{answered} were answered");
}
