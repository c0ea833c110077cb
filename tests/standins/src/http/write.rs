//! Delivering a response: whole, or in one of the ways a network spoils it.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{Connection, Request, Response};
use crate::fault::FaultKind;

/// What a malformed answer says: well begun JSON that breaks off.
const BROKEN_JSON: &[u8] = br#"{"status":"COMPLETE","results":[{"id":"1","#;

/// Sends `response` to whoever sent `request`, spoilt by `fault`; true if the connection can go on.
pub(super) async fn deliver(
    connection: &mut Connection,
    request: &Request,
    mut response: Response,
    fault: Option<FaultKind>,
) -> io::Result<bool> {
    if fault == Some(FaultKind::Malformed) {
        response = Response::bytes(200, "application/json", BROKEN_JSON.to_vec());
    }
    if let Some(body) = fault.as_ref().and_then(|fault| altered(&response, fault)) {
        response.body = body;
    }
    let head = head(&response, request.keep_alive);
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &response.body[..]
    };
    let whole = [head.as_slice(), body].concat();
    // Where to break off: inside the body if there is one, else inside the head.
    let half = if body.is_empty() {
        head.len() / 2
    } else {
        head.len() + body.len() / 2
    };
    let stream = &mut connection.stream;
    match fault {
        Some(FaultKind::AcceptThenDrop) => return Ok(false),
        Some(FaultKind::Reset) => {
            stream.write_all(&whole[..half]).await?;
            // Closing with a linger of zero discards what is unsent and sends RST, not FIN.
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Some(FaultKind::Truncated) => {
            stream.write_all(&whole[..half]).await?;
            stream.shutdown().await?;
            return Ok(false);
        }
        Some(FaultKind::SlowDrip { bytes, every_ms }) => {
            for portion in whole.chunks(bytes.max(1)) {
                stream.write_all(portion).await?;
                tokio::time::sleep(Duration::from_millis(every_ms)).await;
            }
        }
        // The rest is decided before an answer is written.
        None
        | Some(
            FaultKind::Malformed
            | FaultKind::MissingField { .. }
            | FaultKind::WrongType { .. }
            | FaultKind::Status { .. }
            | FaultKind::Latency { .. }
            | FaultKind::Hang
            | FaultKind::Refuse,
        ) => {
            stream.write_all(&whole).await?;
        }
    }
    Ok(request.keep_alive)
}

/// The body without a field, or with one of another type; none if it has no such field.
fn altered(response: &Response, fault: &FaultKind) -> Option<Vec<u8>> {
    let (FaultKind::MissingField { pointer } | FaultKind::WrongType { pointer }) = fault else {
        return None;
    };
    let mut body: Value = serde_json::from_slice(&response.body).ok()?;
    let found = body.pointer_mut(pointer)?;
    if matches!(fault, FaultKind::WrongType { .. }) {
        *found = match found {
            Value::Array(_) | Value::Object(_) => json!("not what was promised"),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!([]),
        };
    } else {
        let (parent, name) = pointer.rsplit_once('/')?;
        let name = name.replace("~1", "/").replace("~0", "~");
        match body.pointer_mut(parent)? {
            Value::Object(fields) => drop(fields.shift_remove(&name)),
            Value::Array(items) => drop(items.remove(name.parse().ok()?)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
        }
    }
    Some(body.to_string().into_bytes())
}

/// Sends an answer to something that was no request.
pub(super) async fn reject(connection: &mut Connection, response: &Response) -> io::Result<()> {
    let whole = [head(response, false).as_slice(), &response.body].concat();
    connection.stream.write_all(&whole).await
}

fn head(response: &Response, keep_alive: bool) -> Vec<u8> {
    let mut lines = vec![format!(
        "HTTP/1.1 {} {}",
        response.status,
        reason(response.status)
    )];
    for (name, value) in &response.headers {
        // A value that breaks the line would forge headers; stand-ins echo what callers send.
        let value: String = value
            .chars()
            .filter(|letter| !letter.is_control())
            .collect();
        lines.push(format!("{name}: {value}"));
    }
    if !matches!(response.status, 204 | 304) {
        lines.push(format!("Content-Length: {}", response.body.len()));
    }
    if !keep_alive {
        lines.push("Connection: close".to_owned());
    }
    lines.push("\r\n".to_owned());
    lines.join("\r\n").into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        // The phrase carries no meaning; the code does.
        _ => "Status",
    }
}
