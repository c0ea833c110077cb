//! Building and sending a request.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::url::Address;
use super::{RESPONSE_BYTES_MAX, Response};
use crate::failure::Failure;
use crate::{call, host};

/// What is kept of a call's time for the connector itself, so that it can still tell of a
/// timeout before the host ends the call.
const MARGIN: Duration = Duration::from_millis(100);

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads the headers.
    Head,
    /// Asks what is allowed.
    Options,
    /// Creates, or does anything.
    Post,
    /// Replaces.
    Put,
    /// Changes in part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// The name as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a request with this method changes nothing (RFC 9110, 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

impl FromStr for Method {
    type Err = Failure;

    /// Reads a method in upper or lower case.
    fn from_str(text: &str) -> Result<Self, Failure> {
        [
            Self::Get,
            Self::Head,
            Self::Options,
            Self::Post,
            Self::Put,
            Self::Patch,
            Self::Delete,
        ]
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            Failure::invalid_input(
                "http.method",
                format!("`{text}` is not a known HTTP method"),
            )
        })
    }
}

/// One request. Nothing is sent before [`Request::send`].
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    safe: bool,
    url: String,
    headers: Vec<(String, String)>,
    body: Result<Vec<u8>, Failure>,
    timeout: Option<Duration>,
    response_max: usize,
}

/// A request as the host sends it.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) method: Method,
    // A test double compares the whole address, the component sends it in parts.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "see above"))]
    pub(crate) url: &'a str,
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "see above"))]
    pub(crate) address: Address<'a>,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: &'a [u8],
    #[cfg_attr(not(target_arch = "wasm32"), expect(dead_code, reason = "see above"))]
    pub(crate) timeout: Option<Duration>,
    pub(crate) response_max: usize,
}

impl Request {
    /// A request with any method.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            safe: method.is_safe(),
            url: url.into(),
            headers: Vec::new(),
            body: Ok(Vec::new()),
            timeout: None,
            response_max: RESPONSE_BYTES_MAX,
        }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A `POST`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(Method::Post, url)
    }

    /// A `PUT`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new(Method::Put, url)
    }

    /// A `PATCH`.
    pub fn patch(url: impl Into<String>) -> Self {
        Self::new(Method::Patch, url)
    }

    /// A `DELETE`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new(Method::Delete, url)
    }

    /// Adds a header. A name may come more than once.
    pub fn header(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Adds `Authorization: Bearer …`; give it [`crate::secrets::placeholder`].
    pub fn bearer(self, token: impl Display) -> Self {
        self.header("authorization", format_args!("Bearer {token}"))
    }

    /// Adds a parameter to the query, encoded.
    pub fn query(mut self, name: &str, value: impl Display) -> Self {
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair(name, &value.to_string())
            .finish();
        self.url
            .push(if self.url.contains('?') { '&' } else { '?' });
        self.url.push_str(&pair);
        self
    }

    /// The address, with what [`Request::query`] added.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets a JSON body and its content type.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(body).map_err(|error| {
            Failure::internal(
                "http.body",
                format!("the request's body cannot be written: {error}"),
            )
        });
        self.header("content-type", "application/json")
    }

    /// Sets a form body (`application/x-www-form-urlencoded`) and its content type.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(self, pairs: &[(N, V)]) -> Self {
        self.form_body(pairs)
            .header("content-type", "application/x-www-form-urlencoded")
    }

    /// Sets a form body, for a request that has a content type already.
    pub fn form_body<N: AsRef<str>, V: AsRef<str>>(mut self, pairs: &[(N, V)]) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(pairs);
        self.body = Ok(form.finish().into_bytes());
        self
    }

    /// Sets a body as it is; set the content type with [`Request::header`].
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Ok(body.into());
        self
    }

    /// Says that this request changes nothing, whatever its method: a search that is a `POST`.
    /// If it fails, its effect is `none`.
    pub fn reads(mut self) -> Self {
        self.safe = true;
        self
    }

    /// Waits for the answer no longer than this. The call's deadline holds in any case.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Reads an answer of at most `bytes_max` bytes; a longer one is a failure. Default 1 MiB.
    pub fn response_max(mut self, bytes_max: usize) -> Self {
        self.response_max = bytes_max;
        self
    }

    /// Sends the request and reads the whole answer, whatever its status; see
    /// [`Response::error_for_status`].
    ///
    /// # Errors
    /// As in the table of [`crate::http`], for requests that got no answer.
    pub fn send(mut self) -> Result<Response, Failure> {
        let body = self.body?;
        let address = Address::parse(&self.url)?;
        let authority = address.authority.to_owned();
        if let Some(traceparent) = call::traceparent()
            && !self
                .headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("traceparent"))
        {
            self.headers.push(("traceparent".to_owned(), traceparent));
        }
        let left = call::remaining().map(|left| left.saturating_sub(MARGIN));
        let wire = Wire {
            method: self.method,
            url: &self.url,
            address,
            headers: &self.headers,
            body: &body,
            timeout: [self.timeout, left].into_iter().flatten().min(),
            response_max: self.response_max,
        };
        match host::http_send(&wire) {
            Ok(received) => Ok(Response::new(self.method, self.safe, authority, received)),
            Err(error) => Err(error.into_failure(self.safe, &authority)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_encoded_and_joined() {
        let request = Request::get("http://h/p").query("a b", "1&2").query("c", 3);
        assert_eq!(request.url, "http://h/p?a+b=1%262&c=3");
    }

    #[test]
    fn methods_are_read_in_any_case() {
        assert_eq!("patch".parse::<Method>().unwrap(), Method::Patch);
        assert!("BREW".parse::<Method>().is_err());
    }
}
