//! A web site for one test: answers by method and path, and keeps what it got.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    /// `POST /token`
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

type Answer = dyn Fn(&Came) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync;

/// The site; it ends with the test's runtime.
pub(crate) struct Site {
    pub(crate) url: String,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Site {
    pub(crate) async fn start(
        answer: impl Fn(&Came) -> (u16, Vec<(&'static str, String)>, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let came: Arc<Mutex<Vec<Came>>> = Arc::default();
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&came), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&kept)));
            }
        });
        Self { url, came }
    }

    /// What came so far.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// What came for this method and path.
    pub(crate) fn at(&self, line: &str) -> Vec<Came> {
        let mut came = self.came();
        came.retain(|request| request.line == line);
        came
    }
}

/// An answer of JSON.
pub(crate) fn json(value: &Value) -> (u16, Vec<(&'static str, String)>, String) {
    let kind = ("content-type", "application/json".to_owned());
    (200, vec![kind], value.to_string())
}

async fn serve(mut stream: TcpStream, answer: Arc<Answer>, kept: Arc<Mutex<Vec<Came>>>) {
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    let request = loop {
        if let Some(request) = whole(&String::from_utf8_lossy(&got)) {
            break request;
        }
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => got.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    };
    kept.lock().unwrap().push(request.clone());
    let (status, headers, body) = answer(&request);
    let mut text = format!(
        "HTTP/1.1 {status} Fine\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.extend([name, ": ", value.as_str(), "\r\n"]);
    }
    let _ = stream
        .write_all(format!("{text}connection: close\r\n\r\n{body}").as_bytes())
        .await;
}

/// The request, if all of it is there.
fn whole(text: &str) -> Option<Came> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let line = format!("{} {}", first.next()?, first.next()?);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_lowercase(), value.to_owned()))
        })
        .collect();
    let get = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    let body = if get("transfer-encoding") == Some("chunked") {
        unchunked(rest)?
    } else {
        let length: usize = get("content-length").unwrap_or("0").parse().ok()?;
        rest.get(..length)?.to_owned()
    };
    Some(Came {
        line,
        headers,
        body,
    })
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}
