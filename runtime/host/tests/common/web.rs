//! A tiny web server: it keeps what it got and answers with what it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The server; it ends with the test's runtime.
pub struct Web {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    /// Answers every request with this text as it stands; `{echo}` becomes the request itself, and
    /// no text at all leaves the request without an answer.
    pub async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&kept)));
            }
        });
        Self { url, requests }
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: &'static str, kept: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    kept.lock().unwrap().push(head.clone());
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    let body = answer.replace("{echo}", &head);
    let echoed = head
        .lines()
        .find(|line| line.to_lowercase().starts_with("authorization:"));
    let echoed = echoed.map_or(String::new(), |line| format!("x-{line}\r\n"));
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{echoed}connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes()).await;
    // In two pieces, so that a secret may be cut.
    let (first, second) = body.as_bytes().split_at(body.len() / 2);
    let _ = stream.write_all(first).await;
    let _ = stream.flush().await;
    let _ = stream.write_all(second).await;
}
