//! Reading an answer.

use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Method, status};
use crate::failure::{Class, EffectState, Failure, bounded};
use crate::host;

/// So much of a body goes into a failure's details: enough to see the vendor's words.
const EXCERPT_BYTES_MAX: usize = 2 * 1024;

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Response {
    method: Method,
    safe: bool,
    authority: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What the host received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(super) fn new(method: Method, safe: bool, authority: String, received: Received) -> Self {
        let Received {
            status,
            headers,
            body,
        } = received;
        Self {
            method,
            safe,
            authority,
            status,
            headers,
            body,
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    /// All headers, in the order they came.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The same answer if its status is 2xx.
    ///
    /// # Errors
    /// As in the table of [`crate::http`] otherwise: code `http.STATUS`, and in the details
    /// `status` and `body`, the first 2 KiB of it.
    pub fn error_for_status(self) -> Result<Self, Failure> {
        if self.is_success() {
            Ok(self)
        } else {
            Err(self.failure())
        }
    }

    /// The failure that this answer stands for, by its status alone.
    pub fn failure(&self) -> Failure {
        let excerpt = bounded(self.text(), EXCERPT_BYTES_MAX);
        let failure = Failure::new(
            status::class(self.status),
            format!("http.{}", self.status),
            format!(
                "{} answered {} to {}",
                self.authority,
                self.status,
                self.method.as_str()
            ),
        )
        .effect(status::effect(self.safe, self.status))
        .details(json!({"status": self.status, "body": excerpt}));
        match self.retry_after_ms() {
            Some(wait_ms) => failure.retry_after_ms(wait_ms),
            None => failure,
        }
    }

    /// The wait that the header `Retry-After` asks for, in milliseconds.
    pub fn retry_after_ms(&self) -> Option<u32> {
        status::retry_after_ms(self.header("retry-after")?, host::now())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Class `internal`, code `http.body`: the answer is not what the connector understands.
    /// Its effect is `applied` if the request changed something and was answered with 2xx.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let effect = match (self.safe, self.is_success()) {
                (true, _) => EffectState::None,
                (false, true) => EffectState::Applied,
                (false, false) => EffectState::Unknown,
            };
            Failure::new(
                Class::Internal,
                "http.body",
                format!(
                    "the answer of {} is not understood: `{}`: {}",
                    self.authority,
                    error.path(),
                    error.inner()
                ),
            )
            .effect(effect)
            .details(json!({
                "status": self.status,
                "body": bounded(self.text(), EXCERPT_BYTES_MAX),
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Recorded;

    fn response(method: Method, status: u16, body: &str) -> Response {
        let headers = vec![("Retry-After".to_owned(), "2".to_owned())];
        let received = Received {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        };
        Response::new(
            method,
            method.is_safe(),
            "api.example.com".to_owned(),
            received,
        )
    }

    #[test]
    fn a_refused_request_tells_the_wait_and_the_vendors_words() {
        Recorded::new().run(|| {
            let body = "x".repeat(10_000);
            let failure = response(Method::Post, 429, &body)
                .error_for_status()
                .unwrap_err();
            assert_eq!(failure.class, Class::RateLimited);
            assert_eq!(failure.code, "http.429");
            assert_eq!(failure.retry_after_ms, Some(2_000));
            assert_eq!(
                failure.details.unwrap()["body"].as_str().unwrap().len(),
                EXCERPT_BYTES_MAX
            );
        });
    }

    #[test]
    fn an_answer_nobody_understands_says_that_the_effect_happened() {
        let failure = response(Method::Post, 200, "<html>")
            .json::<u32>()
            .unwrap_err();
        assert_eq!(
            (failure.class, failure.effect),
            (Class::Internal, EffectState::Applied)
        );
        let failure = response(Method::Get, 200, "<html>")
            .json::<u32>()
            .unwrap_err();
        assert_eq!(failure.effect, EffectState::None);
    }
}
