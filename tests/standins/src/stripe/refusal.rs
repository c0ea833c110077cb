//! What Stripe says when it says no.

use serde_json::{Map, Value, json};

use crate::http::Response;

/// One error of Stripe's, in the terms of its error object.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<Box<str>>,
    message: Box<str>,
    decline_code: Option<&'static str>,
    /// The intent as the refusal leaves it.
    intent: Option<Box<Value>>,
}

impl Refusal {
    fn new(
        status: u16,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message: message.into().into(),
            decline_code: None,
            intent: None,
        }
    }

    /// 400: a parameter has a value that cannot be.
    pub(super) fn invalid(code: &'static str, param: &str, message: String) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new(400, "invalid_request_error", Some(code), message)
        }
    }

    /// 400: a parameter is missing.
    pub(super) fn missing(param: &str) -> Self {
        Self::invalid(
            "parameter_missing",
            param,
            format!("Missing required param: {param}."),
        )
    }

    /// 400: the object is in no state for this.
    pub(super) fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", Some(code), message)
    }

    /// 404: an object of the path does not exist.
    pub(super) fn no_such(object: &str, param: &str, id: &str) -> Self {
        let message = format!("No such {object}: '{id}'");
        Self {
            status: 404,
            ..Self::invalid("resource_missing", param, message)
        }
    }

    /// 402: the card was declined.
    pub(super) fn declined(
        code: &'static str,
        decline_code: Option<&'static str>,
        message: &str,
        intent: Value,
    ) -> Self {
        Self {
            decline_code,
            intent: Some(Box::new(intent)),
            ..Self::new(402, "card_error", Some(code), message)
        }
    }

    /// 401: no key was sent.
    pub(super) fn no_key() -> Self {
        let message =
            "You did not provide an API key. You need to provide it in the Authorization header.";
        Self::new(401, "invalid_request_error", None, message)
    }

    /// 401: the key is not one of ours. Most of it is masked, as Stripe does.
    pub(super) fn bad_key(given: &str) -> Self {
        let start: String = given.chars().take(8).collect();
        Self::new(
            401,
            "invalid_request_error",
            None,
            format!("Invalid API Key provided: {start}****"),
        )
    }

    /// 404: there is no such endpoint.
    pub(super) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self::new(404, "invalid_request_error", None, message)
    }

    /// 400: the key was used for something else.
    pub(super) fn key_reused(message: String) -> Self {
        Self::new(400, "idempotency_error", None, message)
    }

    /// 409: a request with this key is being worked on.
    pub(super) fn in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key: {key}."
        );
        Self::new(
            409,
            "idempotency_error",
            Some("idempotency_key_in_use"),
            message,
        )
    }

    /// What Stripe's edge says with this status, before any of its logic.
    pub(super) fn of_status(status: u16) -> Self {
        let (kind, code, message) = match status {
            401 => ("invalid_request_error", None, "Invalid API Key provided."),
            402 => (
                "card_error",
                Some("card_declined"),
                "Your card was declined.",
            ),
            404 => (
                "invalid_request_error",
                Some("resource_missing"),
                "No such object.",
            ),
            429 => (
                "invalid_request_error",
                Some("rate_limit"),
                "Request rate limit exceeded.",
            ),
            400..=499 => ("invalid_request_error", None, "The request was refused."),
            _ => ("api_error", None, "An unknown error occurred."),
        };
        Self::new(status, kind, code, message)
    }

    /// The `error` object.
    pub(super) fn body(&self) -> Value {
        let mut error = Map::new();
        let texts = [
            ("code", self.code),
            ("decline_code", self.decline_code),
            ("message", Some(&*self.message)),
            ("param", self.param.as_deref()),
            ("type", Some(self.kind)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                error.insert(name.to_owned(), json!(text));
            }
        }
        if let Some(intent) = &self.intent {
            error.insert("payment_intent".to_owned(), Value::clone(intent));
        }
        json!({ "error": error })
    }

    pub(super) fn response(&self) -> Response {
        let response = Response::json(self.status, &self.body());
        if self.status == 401 {
            response.with("WWW-Authenticate", "Basic realm=\"Stripe\"")
        } else {
            response
        }
    }

    pub(super) fn into_response(self) -> Response {
        self.response()
    }
}
