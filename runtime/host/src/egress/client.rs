//! One HTTP request on behalf of a guest: allowed, revealed, dialled, sent, and its answer scrubbed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsConnector;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use super::allow::{HostName, Scheme};
use super::{Destination, dial};
use crate::call::LogLevel;
use crate::capabilities::secrets;
use crate::scope::Scope;
use crate::scrub::{Scrubber, StreamScrub};

/// Header lines of an answer.
const HEADERS_MAX: usize = 128;
/// Bytes of an answer's head, and of the buffer it is read into.
const HEAD_BYTES_MAX: usize = 256 << 10;

type Io = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

/// Sends one request. Whatever is denied is also told in the call's log, with the remedy.
pub(crate) async fn send(
    scope: &Arc<Scope>,
    mut request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<WasiBody>, Io), HttpError> {
    let deny = |message: String| {
        scope.log(LogLevel::Error, format!("request denied: {message}"));
        HttpError::HttpRequestDenied
    };
    scope
        .take_request()
        .map_err(|_| HttpError::ConnectionLimitReached)?;
    let Some(destination) = Destination::of(request.uri()) else {
        return Err(deny(
            "its URL has no plain `scheme://host[:port]`".to_owned(),
        ));
    };
    let egress = &scope.settings.egress;
    let named = egress
        .permit(&destination)
        .map_err(|error| deny(error.to_string()))?;
    let encoded = secrets::reveal(scope, &destination, request.headers_mut())
        .map_err(|error| deny(error.to_string()))?;
    finish_head(&mut request, &destination)?;

    let connect = within(scope, options.connect_timeout);
    let (host, port) = (&destination.host, destination.port);
    let stream = dial::dial(host, port, named, egress.allow_private, connect)
        .await
        .map_err(|error| not_dialled(scope, &error))?;
    let response = match destination.scheme {
        Scheme::Http => exchange(scope, stream, request, options).await?,
        Scheme::Https => {
            let stream = encrypt(scope, host, stream, connect).await?;
            exchange(scope, stream, request, options).await?
        }
    };
    let (response, driver) = response;
    let idle = within(scope, options.between_bytes_timeout);
    let response = scrubbed(scope, encoded, idle, response);
    // The worker carries the answer's body; it ends with the answer or with the call.
    Ok((
        response,
        Box::new(async move {
            driver.await;
            Ok(())
        }),
    ))
}

/// Guests may ask for more time than the call has.
fn within(scope: &Scope, wish: Option<Duration>) -> Duration {
    let left = scope.left();
    wish.map_or(left, |wish| wish.min(left))
}

/// Writes the host that was checked, and the path alone as the target.
fn finish_head(request: &mut Request<WasiBody>, to: &Destination) -> Result<(), HttpError> {
    let host =
        HeaderValue::from_str(&to.host_header()).map_err(|_| HttpError::HttpRequestUriInvalid)?;
    request.headers_mut().insert(HOST, host);
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = path.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| HttpError::HttpRequestUriInvalid)?;
    Ok(())
}

fn not_dialled(scope: &Scope, error: &dial::Error) -> HttpError {
    scope.log(LogLevel::Error, format!("request not sent: {error}"));
    match error {
        dial::Error::Forbidden { .. } => HttpError::HttpRequestDenied,
        dial::Error::Unresolved { .. } => HttpError::DnsError {
            rcode: Some("no such host".to_owned()),
            info_code: None,
        },
        dial::Error::Refused { .. } => HttpError::ConnectionRefused,
        dial::Error::Timeout { .. } => HttpError::ConnectionTimeout,
    }
}

async fn encrypt(
    scope: &Scope,
    host: &HostName,
    stream: tokio::net::TcpStream,
    limit: Duration,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, HttpError> {
    let name = match host {
        HostName::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| HttpError::HttpRequestUriInvalid)?
        }
        HostName::Address(address) => ServerName::from(*address),
    };
    let connector = TlsConnector::from(Arc::clone(&scope.settings.egress.tls));
    match tokio::time::timeout(limit.min(scope.left()), connector.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let text = format!("request not sent: no trusted TLS with `{host}`: {error}");
            scope.log(LogLevel::Error, text);
            Err(HttpError::TlsCertificateError)
        }
        Err(_) => Err(HttpError::ConnectionTimeout),
    }
}

async fn exchange(
    scope: &Scope,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<Incoming>, AbortOnDropJoinHandle<()>), HttpError> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let driver = wasmtime_wasi::runtime::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of a guest ended");
        }
    });
    // From here on the other side may have got it.
    scope.mark_sent();
    let first_byte = within(scope, options.first_byte_timeout);
    match tokio::time::timeout(first_byte, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, driver)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(HttpError::ConnectionReadTimeout),
    }
}

fn scrubbed(
    scope: &Scope,
    encoded: Scrubber,
    idle: Duration,
    response: Response<Incoming>,
) -> Response<WasiBody> {
    let scrubbers = [Arc::clone(&scope.settings.scrubber), Arc::new(encoded)];
    let (mut parts, body) = response.into_parts();
    for value in parts.headers.values_mut() {
        let mut bytes = value.as_bytes().to_vec();
        for scrubber in &scrubbers {
            scrubber.bytes(&mut bytes);
        }
        if bytes != value.as_bytes()
            && let Ok(clean) = HeaderValue::from_bytes(&bytes)
        {
            *value = clean;
        }
    }
    let streams = scrubbers
        .into_iter()
        .filter(|scrubber| !scrubber.is_empty())
        .map(|scrubber| (scrubber, StreamScrub::default()))
        .collect();
    let timer = Box::pin(tokio::time::sleep(idle));
    let body = Answer {
        body: Some(body),
        streams,
        idle,
        timer,
    };
    Response::from_parts(parts, body.boxed_unsync())
}

/// An answer's body: ends when it idles too long, and never holds a secret.
struct Answer {
    body: Option<Incoming>,
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
            piece.extend(stream.finish());
            rest = piece;
        }
        rest.into()
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
                    match frame.into_data() {
                        Ok(piece) => {
                            let piece = self.clean(piece);
                            if !piece.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::data(piece))));
                            }
                        }
                        // Trailers are rare and not needed by any connector; they end the body.
                        Err(_trailers) => {}
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
