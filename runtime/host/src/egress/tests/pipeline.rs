//! The whole way out and back: names whose answer changes, redirects, and what servers try.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wasmtime_wasi_http::Error as HttpError;

use super::network::{Came, Fake, scope, send, told};
use crate::spec::Grants;

/// A server that keeps what it got and answers every line with the same text.
pub(super) struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, sink) = (answer.clone(), Arc::clone(&sink));
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    let mut buffer = [0; 4096];
                    while !ended(&got) {
                        match stream.read(&mut buffer).await {
                            Ok(read) if read > 0 => got.extend_from_slice(&buffer[..read]),
                            _ => break,
                        }
                    }
                    sink.lock().push(String::from_utf8_lossy(&got).into_owned());
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        Self { address, received }
    }

    pub(super) fn received(&self) -> Vec<String> {
        self.received.lock().clone()
    }
}

/// Whether a request is whole: its head without a body, or a body of chunks up to the last.
fn ended(got: &[u8]) -> bool {
    let text = String::from_utf8_lossy(got);
    match text.split_once("\r\n\r\n") {
        None => false,
        Some((head, body)) if head.contains("transfer-encoding: chunked") => {
            body.ends_with("0\r\n\r\n")
        }
        Some((head, body)) => {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                (name == "content-length").then(|| value.parse::<usize>().unwrap())
            });
            length.is_none_or(|length| body.len() >= length)
        }
    }
}

pub(super) const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// `http://api.example.com` on a network where it leads to this server.
pub(super) fn toward(server: &Server) -> (Grants, Arc<Fake>) {
    let grants = Grants {
        http: vec!["http://api.example.com".to_owned()],
        ..Grants::default()
    };
    let mut network = Fake::default().knows("api.example.com", &["93.184.216.34"]);
    network.server = Some(server.address);
    (grants, Arc::new(network))
}

async fn get(server: &Server) -> (Result<Came, HttpError>, String) {
    let (grants, network) = toward(server);
    let scope = scope(&grants, &network);
    let request = Request::builder().uri("http://api.example.com/");
    let came = send(&scope, request.body("").unwrap()).await;
    (came, told(&scope))
}

#[tokio::test]
async fn a_name_that_turns_private_is_denied_and_one_line_asks_once() {
    let server = Server::start(PLAIN).await;
    let grants = Grants {
        http: vec!["http://rebound.example.com".to_owned()],
        ..Grants::default()
    };
    let mut network = Fake::default()
        .knows("rebound.example.com", &["93.184.216.34"])
        .knows("rebound.example.com", &["127.0.0.1"]);
    network.server = Some(server.address);
    let network = Arc::new(network);
    let scope = scope(&grants, &network);
    let request = || {
        let request = Request::builder().uri("http://rebound.example.com/");
        request.body("").unwrap()
    };
    // The name server's second answer is private; the first request must not ask for it.
    assert_eq!(send(&scope, request()).await.unwrap().status, 200);
    assert_eq!(network.lookups.lock().len(), 1);
    assert_eq!(
        network.dialled.lock()[..],
        ["93.184.216.34:80".parse().unwrap()]
    );
    let denied = send(&scope, request()).await.err().unwrap();
    assert!(matches!(denied, HttpError::HttpRequestDenied), "{denied:?}");
    assert_eq!(network.lookups.lock().len(), 2);
    assert_eq!(
        network.dialled.lock().len(),
        1,
        "the private one is not dialled"
    );
    assert!(told(&scope).contains("127.0.0.1, which is loopback"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let text =
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start(text).await;
    let (grants, network) = toward(&server);
    let scope = scope(&grants, &network);
    let request = Request::builder().uri("http://api.example.com/");
    let came = send(&scope, request.body("").unwrap()).await.unwrap();
    assert_eq!(came.status, 302);
    assert_eq!(came.headers["location"], "http://169.254.169.254/");
    assert_eq!(network.dialled.lock().len(), 1);
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn what_arrives_names_the_host_that_was_granted_and_a_path() {
    let server = Server::start(PLAIN).await;
    let (grants, network) = toward(&server);
    let scope = scope(&grants, &network);
    let request = Request::builder()
        .method("POST")
        .uri("http://API.example.com./a//b?c=http://evil.net/")
        .header("host", "evil.net")
        .header("transfer-encoding", "chunked")
        .header("connection", "keep-alive, x-important")
        .header("proxy-authorization", "Basic Zm9vOmJhcg==")
        .header("upgrade", "websocket")
        .header("te", "trailers")
        .header("x-important", "1");
    send(&scope, request.body("body").unwrap()).await.unwrap();
    let received = server.received().remove(0);
    let (head, body) = received.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /a//b?c=http://evil.net/ HTTP/1.1"));
    let mut headers: Vec<&str> = lines.collect();
    headers.sort_unstable();
    let expected = [
        "connection: close",
        "content-length: 4",
        "host: api.example.com",
        "x-important: 1",
    ];
    assert_eq!(headers, expected);
    assert_eq!(body, "body");
}

#[tokio::test]
async fn each_request_has_a_line_of_its_own() {
    let server = Server::start(PLAIN).await;
    let (grants, network) = toward(&server);
    let scope = scope(&grants, &network);
    for _ in 0..3 {
        let request = Request::builder().uri("http://api.example.com/");
        send(&scope, request.body("").unwrap()).await.unwrap();
    }
    assert_eq!(network.dialled.lock().len(), 3);
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn after_the_verdict_no_request_is_sent() {
    let server = Server::start(PLAIN).await;
    let (grants, network) = toward(&server);
    let over = scope(&grants, &network);
    assert_eq!(over.close(), cofferdam_core::failure::EffectState::None);
    let request = Request::builder().uri("http://api.example.com/late");
    assert!(send(&over, request.body("").unwrap()).await.is_err());
    let scope = scope(&grants, &network);
    let request = Request::builder().uri("http://api.example.com/next");
    send(&scope, request.body("").unwrap()).await.unwrap();
    let received = server.received();
    assert!(
        received.iter().all(|it| !it.contains("/late")),
        "{received:?}"
    );
}

#[tokio::test]
async fn requests_that_make_a_server_a_relay_are_not_sent() {
    let server = Server::start(PLAIN).await;
    let (grants, network) = toward(&server);
    for method in ["CONNECT", "TRACE"] {
        let scope = scope(&grants, &network);
        let request = Request::builder()
            .method(method)
            .uri("http://api.example.com/");
        assert!(send(&scope, request.body("").unwrap()).await.is_err());
        assert!(told(&scope).contains(&format!("the method {method} is not for")));
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_answer_whose_head_has_no_end_is_cut_off() {
    let endless = format!("HTTP/1.1 200 OK\r\nx-a: {}", "x".repeat(1 << 20));
    assert!(get(&Server::start(endless).await).await.0.is_err());
    let many = "x-a: 1\r\n".repeat(1_000);
    let many = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
    assert!(get(&Server::start(many).await).await.0.is_err());
}

#[tokio::test]
async fn an_answer_that_two_readers_read_differently_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: 1\r\n\u{0}: 1\r\n\r\n",
        "ok",
        "",
    ] {
        assert!(get(&Server::start(text).await).await.0.is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn trailers_of_an_answer_are_left_out() {
    let text = "HTTP/1.1 200 OK\r\ntrailer: x-late\r\ntransfer-encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\nx-late: 1\r\n\r\n";
    let came = get(&Server::start(text).await).await.0.unwrap();
    assert_eq!(&came.body[..], b"ok");
    assert!(!came.headers.contains_key("x-late"));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_answer() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok";
    assert!(get(&Server::start(text).await).await.0.is_err());
}
