//! The head of a request as it goes out: what a guest may not say is taken out or refused.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

use super::Destination;

/// Bytes of all names and values, secrets put in: a guest may repeat a stand-in many times.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// What is between two neighbours on the way, and not the guest's to say. The host's HTTP library
/// decides how bodies are framed; `expect` and trailers are not offered.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why a request is not sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "the method {method} is not for connectors: it asks a server to pass bytes on, or back"
    )]
    Method { method: Method },
    #[error("its target is not a path; write one that begins with a slash")]
    Target,
    #[error("its `content-length` is not one number")]
    ContentLength,
    #[error("its headers have {bytes} bytes, and at most {HEAD_BYTES_MAX} are sent; send fewer")]
    TooLarge { bytes: usize },
}

/// Checks a request, and writes the host that was checked and the path alone as the target.
pub(crate) fn finish<B>(request: &mut Request<B>, to: &Destination) -> Result<(), Refused> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        let method = request.method().clone();
        return Err(Refused::Method { method });
    }
    let headers = request.headers_mut();
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    check_length(headers)?;
    // One call, one line, one request: nothing that is left on a line can be taken for another's.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let host = HeaderValue::from_str(&to.host_header()).map_err(|_| Refused::Target)?;
    headers.insert(HOST, host);
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > HEAD_BYTES_MAX {
        return Err(Refused::TooLarge { bytes });
    }
    *request.uri_mut() = target(request.uri())?;
    Ok(())
}

/// Two lengths, or one that two readers read differently, are how requests are smuggled.
fn check_length(headers: &HeaderMap) -> Result<(), Refused> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(());
    };
    let digits = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if digits && lengths.next().is_none() {
        Ok(())
    } else {
        Err(Refused::ContentLength)
    }
}

/// The path and the query; never a whole URL, which a proxy would follow.
fn target(uri: &Uri) -> Result<Uri, Refused> {
    let path = match uri.path_and_query().map(PathAndQuery::as_str) {
        None | Some("") => "/".to_owned(),
        Some(query) if query.starts_with('?') => format!("/{query}"),
        Some(path) => path.to_owned(),
    };
    if !path.starts_with('/') {
        return Err(Refused::Target);
    }
    let mut parts = Parts::default();
    parts.path_and_query = Some(path.parse().map_err(|_| Refused::Target)?);
    Uri::from_parts(parts).map_err(|_| Refused::Target)
}

/// A request's body, whose trailers are dropped: they are headers that nobody checked.
pub(crate) struct WithoutTrailers(pub(crate) WasiBody);

impl Body for WithoutTrailers {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            return match Pin::new(&mut self.0).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => continue,
                other => other,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(request: http::request::Builder) -> Result<Request<()>, Refused> {
        let mut request = request.body(()).unwrap();
        let to = Destination::of(&"https://api.example.com:8443/".parse().unwrap()).unwrap();
        finish(&mut request, &to).map(|()| request)
    }

    #[test]
    fn what_is_between_neighbours_is_the_hosts_to_say() {
        let mut request = Request::builder().uri("https://api.example.com:8443/a?b=c");
        for name in &HOP_BY_HOP {
            request = request.header(name, "close, x-secret");
        }
        let request = request.header(HOST, "evil.example").header("x-kept", "1");
        let request = finished(request.header(HOST, "other.example")).unwrap();
        let left: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left.contains(&("x-kept", "1")));
        assert!(left.contains(&("connection", "close")));
        assert!(left.contains(&("host", "api.example.com:8443")));
        assert_eq!(request.uri(), "/a?b=c");
    }

    #[test]
    fn methods_that_make_a_server_a_relay_are_refused() {
        for method in [Method::CONNECT, Method::TRACE] {
            let refused = finished(Request::builder().method(&method)).unwrap_err();
            assert_eq!(refused, Refused::Method { method });
        }
        assert!(finished(Request::builder().method("PROPFIND")).is_ok());
    }

    #[test]
    fn a_body_has_one_length() {
        for length in ["", "+5", "5, 5", "0x5", "-1", "5 5"] {
            let request = Request::builder().header(CONTENT_LENGTH, length);
            assert_eq!(finished(request).unwrap_err(), Refused::ContentLength);
        }
        let twice = Request::builder().header(CONTENT_LENGTH, "5");
        let twice = twice.header(CONTENT_LENGTH, "6");
        assert_eq!(finished(twice).unwrap_err(), Refused::ContentLength);
        assert!(finished(Request::builder().header(CONTENT_LENGTH, "5")).is_ok());
    }

    #[test]
    fn the_target_is_a_path() {
        for (uri, target) in [
            ("https://api.example.com:8443", "/"),
            ("https://api.example.com:8443?x=1", "/?x=1"),
            ("https://api.example.com:8443//evil/x", "//evil/x"),
            ("/http://evil/", "/http://evil/"),
        ] {
            assert_eq!(finished(Request::builder().uri(uri)).unwrap().uri(), target);
        }
        let star = Request::builder().method(Method::OPTIONS).uri("*");
        assert_eq!(finished(star).unwrap_err(), Refused::Target);
    }

    #[test]
    fn headers_that_secrets_made_too_large_are_refused() {
        let large = HeaderValue::from_str(&"x".repeat(HEAD_BYTES_MAX)).unwrap();
        let refused = finished(Request::builder().header("x-a", large)).unwrap_err();
        assert!(matches!(refused, Refused::TooLarge { .. }), "{refused}");
    }
}
