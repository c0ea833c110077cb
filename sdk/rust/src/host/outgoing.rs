//! Requests over `wasi:http`.

use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method as WasiMethod,
    OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::http::{Method, Received, TransportError, Wire};

/// The most that one `blocking-write-and-flush` takes (wasi:io).
const WRITE_BYTES_MAX: usize = 4096;
/// How much is read at a time.
const READ_BYTES: u64 = 64 * 1024;

pub(crate) fn http_send(wire: &Wire<'_>) -> Result<Received, TransportError> {
    let request = request(wire)?;
    let body = request.body().map_err(|()| invalid("its body is taken"))?;
    let options = wire.timeout.map(options);
    let answer = outgoing_handler::handle(request, options).map_err(transport_error)?;
    // A server may answer before it has read everything: its answer matters more than that.
    let written = write(body, wire.body);
    answer.subscribe().block();
    match answer.get() {
        Some(Ok(Ok(response))) => {
            if response.status() < 400 {
                written?;
            }
            read(&response, wire.response_max)
        }
        Some(Ok(Err(code))) => Err(transport_error(code)),
        Some(Err(())) | None => Err(TransportError::Broken("no answer".to_owned())),
    }
}

fn invalid(why: &str) -> TransportError {
    TransportError::InvalidRequest(why.to_owned())
}

fn request(wire: &Wire<'_>) -> Result<OutgoingRequest, TransportError> {
    let headers = Fields::new();
    for (name, value) in wire.headers {
        headers.append(name, value.as_bytes()).map_err(|error| {
            invalid(&match error {
                HeaderError::InvalidSyntax => {
                    format!("header `{name}` has characters it may not have")
                }
                HeaderError::Forbidden => format!("header `{name}` may not be set"),
                HeaderError::Immutable => format!("header `{name}` cannot be set"),
            })
        })?;
    }
    // Told in advance, so that the body is not sent in chunks: some servers want that.
    if !wire.body.is_empty() || !wire.method.is_safe() {
        let length = wire.body.len().to_string();
        headers
            .append("content-length", length.as_bytes())
            .map_err(|_| invalid("header `content-length` may not be set"))?;
    }
    let request = OutgoingRequest::new(headers);
    let scheme = if wire.address.scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let path = match wire.address.path_and_query {
        query if query.starts_with('?') => format!("/{query}"),
        "" => "/".to_owned(),
        path => path.to_owned(),
    };
    request
        .set_method(&method(wire.method))
        .map_err(|()| invalid("its method"))?;
    request
        .set_scheme(Some(&scheme))
        .map_err(|()| invalid("its scheme"))?;
    request
        .set_authority(Some(wire.address.authority))
        .map_err(|()| invalid("its host"))?;
    request
        .set_path_with_query(Some(&path))
        .map_err(|()| invalid("its path"))?;
    Ok(request)
}

fn method(method: Method) -> WasiMethod {
    match method {
        Method::Get => WasiMethod::Get,
        Method::Head => WasiMethod::Head,
        Method::Options => WasiMethod::Options,
        Method::Post => WasiMethod::Post,
        Method::Put => WasiMethod::Put,
        Method::Patch => WasiMethod::Patch,
        Method::Delete => WasiMethod::Delete,
    }
}

fn options(timeout: Duration) -> RequestOptions {
    // Zero would mean no time at all to some hosts and no limit to others.
    let ns = u64::try_from(timeout.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1_000_000);
    let options = RequestOptions::new();
    // A host that does not know an option keeps to the call's deadline all the same.
    let _ = options.set_connect_timeout(Some(ns));
    let _ = options.set_first_byte_timeout(Some(ns));
    let _ = options.set_between_bytes_timeout(Some(ns));
    options
}

fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), TransportError> {
    let broken = |what: &str| TransportError::Broken(what.to_owned());
    {
        let stream = body
            .write()
            .map_err(|()| broken("the body cannot be written"))?;
        for chunk in bytes.chunks(WRITE_BYTES_MAX) {
            stream
                .blocking_write_and_flush(chunk)
                .map_err(|_| broken("the connection ended while the body was sent"))?;
        }
    }
    OutgoingBody::finish(body, None).map_err(transport_error)
}

fn read(response: &IncomingResponse, bytes_max: usize) -> Result<Received, TransportError> {
    let headers = response
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let incoming = response
        .consume()
        .map_err(|()| TransportError::Broken("the answer's body is taken".to_owned()))?;
    let body = read_body(&incoming, bytes_max)?;
    Ok(Received {
        status: response.status(),
        headers,
        body,
    })
}

fn read_body(incoming: &IncomingBody, bytes_max: usize) -> Result<Vec<u8>, TransportError> {
    let stream = incoming
        .stream()
        .map_err(|()| TransportError::Broken("the answer's body is taken".to_owned()))?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(chunk) if body.len() + chunk.len() > bytes_max => {
                return Err(TransportError::ResponseTooLarge { bytes_max });
            }
            Ok(chunk) => body.extend(chunk),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match wasip2::http::types::http_error_code(&error) {
                    Some(code) => after_sending(transport_error(code)),
                    None => TransportError::Broken(error.to_debug_string()),
                });
            }
        }
    }
}

/// Once an answer has begun, no error means that nothing was sent.
fn after_sending(error: TransportError) -> TransportError {
    match error {
        TransportError::Unresolved
        | TransportError::Unreachable
        | TransportError::Tls
        | TransportError::Busy
        | TransportError::Denied(_)
        | TransportError::InvalidRequest(_) => {
            TransportError::Broken("the answer broke off".to_owned())
        }
        TransportError::ConnectTimeout => TransportError::ResponseTimeout,
        error @ (TransportError::Broken(_)
        | TransportError::ResponseTimeout
        | TransportError::ResponseTooLarge { .. }) => error,
    }
}

/// Every code is spelled out: whether a request may have been acted upon must never be
/// decided by a catch-all.
fn transport_error(code: ErrorCode) -> TransportError {
    use TransportError as E;
    match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            E::Unresolved
        }
        ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused => E::Unreachable,
        ErrorCode::DestinationIpProhibited => E::Denied("its address is not allowed".to_owned()),
        ErrorCode::HttpRequestDenied => E::Denied("it is not in the allow-list".to_owned()),
        ErrorCode::ConnectionTimeout => E::ConnectTimeout,
        ErrorCode::ConnectionLimitReached => E::Busy,
        ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_) => E::Tls,
        ErrorCode::HttpRequestLengthRequired
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestUriTooLong
        | ErrorCode::HttpRequestHeaderSectionSize(_)
        | ErrorCode::HttpRequestHeaderSize(_)
        | ErrorCode::HttpRequestTrailerSectionSize(_)
        | ErrorCode::HttpRequestTrailerSize(_)
        | ErrorCode::ConfigurationError => E::InvalidRequest(format!("{code:?}")),
        ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => E::ResponseTimeout,
        ErrorCode::ConnectionTerminated
        | ErrorCode::HttpResponseIncomplete
        | ErrorCode::HttpResponseHeaderSectionSize(_)
        | ErrorCode::HttpResponseHeaderSize(_)
        | ErrorCode::HttpResponseBodySize(_)
        | ErrorCode::HttpResponseTrailerSectionSize(_)
        | ErrorCode::HttpResponseTrailerSize(_)
        | ErrorCode::HttpResponseTransferCoding(_)
        | ErrorCode::HttpResponseContentCoding(_)
        | ErrorCode::HttpUpgradeFailed
        | ErrorCode::HttpProtocolError
        | ErrorCode::LoopDetected
        | ErrorCode::InternalError(_) => E::Broken(format!("{code:?}")),
    }
}
