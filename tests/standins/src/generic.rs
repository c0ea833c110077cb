//! A small JSON service without a vendor: echo, statuses, bytes and a key-value store.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::service::{Backend, Effects, HttpBackend};

/// Most bytes `/bytes/{n}` sends: enough to exceed any limit under test.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The vendorless service. An effect is a `PUT /kv/{key}` or a `POST /echo`, keyed by the
/// `Idempotency-Key` header, else by method and path. It does not deduplicate.
#[derive(Debug, Default)]
pub struct Generic {
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    values: BTreeMap<String, Value>,
    effects: Effects,
}

impl Memory {
    fn count(&mut self, request: &Request) {
        let key = request.header("idempotency-key").map(str::to_owned);
        let key = key.unwrap_or_else(|| format!("{} {}", request.method, request.path));
        *self.effects.entry(key).or_default() += 1;
    }
}

impl Backend for Generic {
    fn effects(&self) -> Effects {
        self.memory.lock().effects.clone()
    }

    fn state(&self) -> Value {
        json!({ "kv": self.memory.lock().values })
    }

    fn reset(&self) {
        *self.memory.lock() = Memory::default();
    }
}

impl HttpBackend for Generic {
    fn handle(&self, request: &Request) -> Response {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let mut memory = self.memory.lock();
        match (request.method.as_str(), segments.as_slice()) {
            (method, ["echo"]) => {
                if method == "POST" {
                    memory.count(request);
                }
                Response::json(200, &echo(request))
            }
            (_, ["status", code]) => match code.parse() {
                Ok(code @ 200..=599) => self.refusal(
                    code,
                    request
                        .query("retry_after")
                        .and_then(|seconds| seconds.parse().ok()),
                ),
                _ => error(400, "bad-status", "the status is a number from 200 to 599"),
            },
            ("GET", ["bytes", count]) => match count.parse::<usize>() {
                Ok(count) if count <= BYTES_MAX => {
                    Response::bytes(200, "application/octet-stream", vec![b'x'; count])
                }
                _ => error(
                    400,
                    "bad-count",
                    &format!("the count is a number up to {BYTES_MAX}"),
                ),
            },
            ("PUT", ["kv", key]) => match request.json() {
                Ok(value) => {
                    memory.count(request);
                    memory.values.insert((*key).to_owned(), value.clone());
                    Response::json(200, &json!({ "key": key, "value": value }))
                }
                Err(cause) => error(400, "bad-json", &cause.to_string()),
            },
            ("GET", ["kv", key]) => match memory.values.get(*key) {
                Some(value) => Response::json(200, &json!({ "key": key, "value": value })),
                None => error(404, "not-found", &format!("no value under `{key}`")),
            },
            _ => error(
                404,
                "not-found",
                "GET|POST /echo, /status/{code}, /bytes/{n}, GET|PUT /kv/{key}",
            ),
        }
    }

    fn refusal(&self, status: u16, retry_after_s: Option<u64>) -> Response {
        if matches!(status, 204 | 304) {
            return Response::empty(status);
        }
        Response::json(status, &json!({ "status": status })).retry_after(retry_after_s)
    }
}

fn echo(request: &Request) -> Value {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    json!({
        "method": request.method,
        "path": request.path,
        "query": request.query.iter().cloned().collect::<BTreeMap<_, _>>(),
        "headers": request.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
        "body": request.json().unwrap_or(Value::String(text)),
    })
}

fn error(status: u16, code: &str, message: &str) -> Response {
    Response::json(
        status,
        &json!({ "error": { "code": code, "message": message } }),
    )
}
