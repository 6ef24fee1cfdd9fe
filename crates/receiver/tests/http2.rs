//! The bytes that a connection of HTTP/2 may send before a handler reads them, and the requests that it may have at the same time.

use std::future::pending;

use axum::Router;
use axum::body::Body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use traces_receiver::listen::{self, AllowedHosts};

/// The bytes that one connection may send unread: 16 frames of the largest size.
const WINDOW: u32 = 256 * 1024;
const LARGEST: usize = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// The flags that settings are accepted, and that the headers end in this frame.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The setting for the number of requests at the same time.
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
const FLOW_CONTROL_ERROR: [u8; 4] = [0, 0, 0, 3];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames up to the first of this kind. Returns its payload and the kinds of those before it.
async fn read_to(kind: u8, from: &mut TcpStream) -> (Vec<u8>, Vec<u8>) {
    let mut before = Vec::new();
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        from.read_exact(&mut payload).await.expect("its payload");
        if head[3] == kind {
            return (payload, before);
        }
        before.push(head[3]);
    }
}

#[tokio::test]
async fn a_connection_may_send_a_quarter_of_a_mib_that_nobody_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let unread = Router::new().fallback(async |_body: Body| pending::<()>().await);
    tokio::spawn(listen::serve(listener, 4, AllowedHosts::Any, unread, pending()));

    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut start = [&preface[..], &frame(SETTINGS, 0, 0, &[])].concat();
    // `POST http://localhost/`, twice.
    let head = [&[0x83, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
    for request in [1, 3] {
        start.extend(frame(HEADERS, END_HEADERS, request, &head));
    }
    stream.write_all(&start).await.expect("it is sent");
    let (settings, _) = read_to(SETTINGS, &mut stream).await;
    let requests = settings.chunks(6).find(|it| it[..2] == MAX_CONCURRENT_STREAMS);
    assert_eq!(requests.map(|it| &it[2..]), Some(&[0, 0, 0, 64][..]));
    let (more, _) = read_to(WINDOW_UPDATE, &mut stream).await;
    let more = u32::from_be_bytes(more.try_into().expect("four bytes"));
    assert_eq!(65_535 + more, WINDOW, "the window of the connection");

    // The window of a request has its size from here on.
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.expect("it is sent");
    let data = [1, 3].map(|request| frame(DATA, 0, request, &[0; LARGEST]));
    for _ in 0..WINDOW as usize / LARGEST / 2 {
        stream.write_all(&data.concat()).await.expect("it is sent");
    }
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.expect("it is sent");
    let (_, before) = read_to(PING, &mut stream).await;
    assert!(!before.contains(&WINDOW_UPDATE), "nothing makes room for more: {before:?}");
    stream.write_all(&frame(DATA, 0, 3, &[0])).await.expect("it is sent");
    let (reason, _) = read_to(GOAWAY, &mut stream).await;
    assert_eq!(reason[4..8], FLOW_CONTROL_ERROR);
}
