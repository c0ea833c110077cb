//! Reading requests from a connection.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Request, Response, write};
use crate::fault::FaultKind;

/// Largest request head; what common servers allow.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Largest request body: a batch of a hundred contacts is well below.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most header fields of a request; what common servers allow.
const HEADERS_MAX: usize = 100;

/// Longest line that announces a chunk, extensions included.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// A connection and what was read from it but not used yet.
pub(crate) struct Connection {
    pub(super) stream: TcpStream,
    buffer: Vec<u8>,
}

/// Why no request could be read.
enum ReadError {
    /// The peer is gone.
    Io,
    /// The peer sent something that is answered by this, and then closed on.
    Rejected(Response),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// How the end of a body is told.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Small answers would otherwise wait for the peer's delayed acknowledgement; a socket
        // that cannot be set so is only slower.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The next request; `None` when there is none to come. What is no request has been answered.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        match self.read().await {
            Ok(request) => request,
            Err(ReadError::Io) => None,
            Err(ReadError::Rejected(response)) => {
                // The peer may be gone already; either way the connection ends here.
                let _ = write::reject(self, &response).await;
                None
            }
        }
    }

    /// Sends `response` to whoever sent `request`, spoilt by `fault`; true if the connection can
    /// go on.
    pub(crate) async fn answer(
        &mut self,
        request: &Request,
        response: Response,
        fault: Option<FaultKind>,
    ) -> bool {
        matches!(
            write::deliver(self, request, response, fault).await,
            Ok(true)
        )
    }

    async fn read(&mut self) -> Result<Option<Request>, ReadError> {
        let (mut request, framing) = loop {
            if let Some((request, framing, used)) = parse_head(&self.buffer)? {
                self.buffer.drain(..used);
                break (request, framing);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(rejected(431, "the request head is too large"));
            }
            let idle = self.buffer.is_empty();
            if !self.fill().await? {
                return if idle { Ok(None) } else { Err(ReadError::Io) };
            }
        };
        let expects = request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if expects && self.buffer.is_empty() {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        request.body = match framing {
            Framing::Length(length) => self.take(length).await?,
            Framing::Chunked => self.take_chunks().await?,
        };
        Ok(Some(request))
    }

    /// Reads more; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        if length > BODY_BYTES_MAX {
            return Err(rejected(413, "the request body is too large"));
        }
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(ReadError::Io);
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn take_chunks(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let size = self.take_chunk_size().await?;
            if size == 0 {
                break;
            }
            if body.len() + size > BODY_BYTES_MAX {
                return Err(rejected(413, "the request body is too large"));
            }
            body.append(&mut self.take(size).await?);
            if self.take(2).await? != b"\r\n" {
                return Err(rejected(400, "a chunk does not end where it said"));
            }
        }
        while !self.take_line(HEAD_BYTES_MAX).await?.is_empty() {}
        Ok(body)
    }

    async fn take_chunk_size(&mut self) -> Result<usize, ReadError> {
        let line = self.take_line(CHUNK_LINE_BYTES_MAX).await?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default().trim();
        usize::from_str_radix(digits, 16).map_err(|_| rejected(400, "a chunk has no size"))
    }

    /// The next line, without its end.
    async fn take_line(&mut self, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let mut line = self.take(end + 2).await?;
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > bytes_max {
                return Err(rejected(400, "a line is too long"));
            }
            if !self.fill().await? {
                return Err(ReadError::Io);
            }
        }
    }
}

/// The head at the start of `buffer` and its length, once it is there as a whole.
fn parse_head(buffer: &[u8]) -> Result<Option<(Request, Framing, usize)>, ReadError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let used = match head.parse(buffer) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(rejected(431, "there are too many header fields"));
        }
        Err(_) => return Err(rejected(400, "this is not an HTTP request")),
    };
    let (path, query) = split_target(head.path.unwrap_or("/"));
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|field| {
            (
                field.name.to_ascii_lowercase(),
                String::from_utf8_lossy(field.value).into_owned(),
            )
        })
        .collect();
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path,
        query,
        headers,
        body: Vec::new(),
        keep_alive: head.version == Some(1),
    };
    if let Some(wish) = request.header("connection") {
        request.keep_alive = if wish.eq_ignore_ascii_case("close") {
            false
        } else {
            request.keep_alive
        };
    }
    let chunked = request
        .header("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    let framing = if chunked {
        Framing::Chunked
    } else {
        let length = request
            .header("content-length")
            .map_or(Ok(0), |length| length.trim().parse());
        Framing::Length(length.map_err(|_| rejected(400, "the content length is not a number"))?)
    };
    Ok(Some((request, framing, used)))
}

/// Path and query of a request target, in origin or absolute form.
fn split_target(target: &str) -> (String, Vec<(String, String)>) {
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (
        path.to_owned(),
        form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
    )
}

fn rejected(status: u16, message: &str) -> ReadError {
    ReadError::Rejected(Response::bytes(
        status,
        "text/plain",
        message.as_bytes().to_vec(),
    ))
}
