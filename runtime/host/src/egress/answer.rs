//! The answer to a request: bounded in size and in time, and without secrets before a guest sees it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

use crate::call::LogLevel;
use crate::scope::Scope;
use crate::scrub::{Scrubber, StreamScrub};

/// Bytes of one answer's body. A guest may stream what does not fit into its memory, not forever.
pub(crate) const BODY_BYTES_MAX: u64 = 256 << 20;

/// Wraps an answer: its headers are clean, its body is cleaned while it is read. `encoded` looks
/// for what was sent besides the connection's own secrets; `idle` is how long no byte may come.
pub(crate) fn clean(
    scope: &Arc<Scope>,
    encoded: Scrubber,
    idle: Duration,
    response: Response<Incoming>,
) -> Response<WasiBody> {
    let scrubbers = [Arc::clone(&scope.settings.scrubber), Arc::new(encoded)];
    let (mut parts, body) = response.into_parts();
    clean_headers(&scrubbers, &mut parts.headers);
    let streams = scrubbers
        .into_iter()
        .filter(|scrubber| !scrubber.is_empty())
        .map(|scrubber| (scrubber, StreamScrub::default()))
        .collect();
    let timer = Box::pin(tokio::time::sleep(idle));
    let body = Answer {
        scope: Arc::clone(scope),
        body: Some(body),
        bytes_left: BODY_BYTES_MAX,
        streams,
        idle,
        timer,
    };
    Response::from_parts(parts, body.boxed_unsync())
}

/// Overwrites secrets in values. A name is an identifier that cannot be overwritten without
/// becoming another; a header whose name holds a secret is left out.
fn clean_headers(scrubbers: &[Arc<Scrubber>], headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str().as_bytes();
            scrubbers.iter().any(|s| s.finds_in_lower_case(name))
        })
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        let mut bytes = value.as_bytes().to_vec();
        for scrubber in scrubbers {
            scrubber.bytes(&mut bytes);
        }
        if bytes != value.as_bytes() {
            // Asterisks are valid wherever a value is.
            *value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("*"));
        }
    }
}

/// An answer's body: ends when it idles too long or grows too large, and never holds a secret.
struct Answer {
    scope: Arc<Scope>,
    body: Option<Incoming>,
    bytes_left: u64,
    streams: Vec<(Arc<Scrubber>, StreamScrub)>,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Answer {
    fn clean(&mut self, piece: Bytes) -> Bytes {
        let mut piece = piece;
        for (scrubber, stream) in &mut self.streams {
            piece = stream.push(scrubber, &piece).into();
        }
        piece
    }

    /// What the scrubbers held back, once the body has ended.
    fn rest(&mut self) -> Bytes {
        let mut rest = Vec::new();
        for (scrubber, stream) in &mut self.streams {
            let mut piece = stream.push(scrubber, &rest);
            piece.extend(stream.finish(scrubber));
            rest = piece;
        }
        rest.into()
    }

    fn too_large(&mut self) -> HttpError {
        self.body = None;
        let text = format!("an answer has more than {BODY_BYTES_MAX} bytes, and was cut off");
        self.scope.log(LogLevel::Error, text);
        HttpError::HttpResponseBodySize(Some(BODY_BYTES_MAX))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            let Some(body) = self.body.as_mut() else {
                return Poll::Ready(None);
            };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    let next = Instant::now() + self.idle;
                    self.timer.as_mut().reset(next);
                    // Trailers are rare and not needed by any connector; they are left out.
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    let Some(left) = self.bytes_left.checked_sub(piece.len() as u64) else {
                        return Poll::Ready(Some(Err(self.too_large())));
                    };
                    self.bytes_left = left;
                    let piece = self.clean(piece);
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    let rest = self.rest();
                    let last = (!rest.is_empty()).then(|| Ok(Frame::data(rest)));
                    return Poll::Ready(last);
                }
                Poll::Pending => {
                    return match self.timer.as_mut().poll(context) {
                        Poll::Ready(()) => {
                            self.body = None;
                            Poll::Ready(Some(Err(HttpError::ConnectionReadTimeout)))
                        }
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }
}
