//! A small HTTP client over hyper: one connection per request, so that a fault on one cannot
//! hide behind a pool.

// Each test file uses its own share of this.
#![allow(dead_code)]

use cofferdam_standins::{Options, Standins};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("a JSON body")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a readable header"))
    }
}

/// A request being built.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

pub(crate) fn call(method: &str, url: impl Into<String>) -> Call {
    Call {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: String::new(),
    }
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw("application/json; charset=utf-8", &body.to_string())
    }

    pub(crate) fn form(self, body: &str) -> Self {
        self.raw("application/x-www-form-urlencoded", body)
    }

    pub(crate) fn raw(mut self, media: &str, body: &str) -> Self {
        self.body = body.into();
        self.header("content-type", media)
    }

    /// The answer, or how the connection failed.
    pub(crate) async fn attempt(self) -> Result<Answer, Failure> {
        let rest = self.url.strip_prefix("http://").ok_or("not an http URL")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let stream = TcpStream::connect(authority).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder().method(self.method.as_str());
        request = request
            .uri(if path.is_empty() { "/" } else { path })
            .header("host", authority);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = sender
            .send_request(request.body(Full::new(Bytes::from(self.body)))?)
            .await?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes().to_vec();
        driver.abort();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            bytes,
        })
    }

    pub(crate) async fn send(self) -> Answer {
        self.attempt().await.expect("an answer")
    }
}

pub(crate) async fn standins() -> Standins {
    Standins::start(Options::default())
        .await
        .expect("free ports")
}
