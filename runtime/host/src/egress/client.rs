//! One HTTP request on behalf of a guest: allowed, revealed, dialled, sent, and its answer scrubbed.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use super::allow::{HostName, Scheme};
use super::{Destination, answer, body, dial, head};
use crate::call::LogLevel;
use crate::capabilities::secrets;
use crate::scope::Scope;

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
    let destination = Destination::of(request.uri()).map_err(|error| deny(error.to_string()))?;
    let egress = &scope.settings.egress;
    let named = egress
        .permit(&destination)
        .map_err(|error| deny(error.to_string()))?;
    let encoded = secrets::reveal(scope, &destination, request.headers_mut())
        .map_err(|error| deny(error.to_string()))?;
    let mut request = body::reveal(scope, &destination, request)
        .await
        .map_err(|error| deny(error.to_string()))?;
    head::finish(&mut request, &destination).map_err(|error| deny(error.to_string()))?;
    let request = request.map(head::WithoutTrailers);

    let connect = within(scope, options.connect_timeout);
    let (host, port) = (&destination.host, destination.port);
    let stream = dial::dial(egress, host, port, named, connect)
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
    let response = answer::clean(scope, encoded, idle, response);
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
    request: Request<head::WithoutTrailers>,
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
    if !scope.mark_sent() {
        return Err(HttpError::ConnectionTimeout);
    }
    let first_byte = within(scope, options.first_byte_timeout);
    match tokio::time::timeout(first_byte, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok((response, driver)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(HttpError::ConnectionReadTimeout),
    }
}
