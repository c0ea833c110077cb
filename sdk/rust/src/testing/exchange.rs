//! What a test expects the connector to ask, and what it is answered.

use std::fmt;

use serde_json::Value;

use crate::failure::Failure;
use crate::http::{Method, TransportError, Wire};

/// One expected request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Body,
    pub(super) answer: Result<Answer, TransportError>,
}

#[derive(Debug, Clone)]
enum Body {
    Any,
    Json(Value),
    Form(Vec<(String, String)>),
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Exchange {
    /// Expects a request with this method and exactly this address; answers 200 without a body.
    pub fn new(method: Method, url: &str) -> Self {
        Self {
            method,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Body::Any,
            answer: Ok(Answer {
                status: 200,
                headers: Vec::new(),
                body: Vec::new(),
            }),
        }
    }

    /// Expects a `GET`.
    pub fn get(url: &str) -> Self {
        Self::new(Method::Get, url)
    }

    /// Expects a `POST`.
    pub fn post(url: &str) -> Self {
        Self::new(Method::Post, url)
    }

    /// Expects a `PATCH`.
    pub fn patch(url: &str) -> Self {
        Self::new(Method::Patch, url)
    }

    /// Expects a `PUT`.
    pub fn put(url: &str) -> Self {
        Self::new(Method::Put, url)
    }

    /// Expects a `DELETE`.
    pub fn delete(url: &str) -> Self {
        Self::new(Method::Delete, url)
    }

    /// Expects this header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Expects a JSON body that has at least these members, at any depth.
    pub fn with_json(mut self, body: Value) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// Expects a form body that has at least these fields.
    pub fn with_form(mut self, fields: &[(&str, &str)]) -> Self {
        let fields = fields
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        self.body = Body::Form(fields.collect());
        self
    }

    /// Answers with this status and JSON body.
    pub fn reply(self, status: u16, body: &Value) -> Self {
        self.reply_text(status, &body.to_string())
    }

    /// Answers with this status and body.
    pub fn reply_text(mut self, status: u16, body: &str) -> Self {
        self.answer = Ok(Answer {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        });
        self
    }

    /// Adds a header to the answer.
    pub fn reply_header(mut self, name: &str, value: &str) -> Self {
        if let Ok(answer) = &mut self.answer {
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Gives no answer.
    pub fn fail(mut self, error: TransportError) -> Self {
        self.answer = Err(error);
        self
    }

    /// What is different about the request that came, if anything.
    pub(super) fn difference(&self, wire: &Wire<'_>) -> Option<String> {
        if (wire.method, wire.url) != (self.method, self.url.as_str()) {
            return Some(format!("it was {} {}", wire.method.as_str(), wire.url));
        }
        for (name, value) in &self.headers {
            let sent: Vec<_> = wire
                .headers
                .iter()
                .filter(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.as_str())
                .collect();
            if !sent.contains(&value.as_str()) {
                return Some(format!(
                    "header `{name}` should be `{value}` and was {sent:?}"
                ));
            }
        }
        match &self.body {
            Body::Any => None,
            Body::Json(expected) => match serde_json::from_slice(wire.body) {
                Ok(sent) if includes(&sent, expected) => None,
                Ok(sent) => Some(format!("the body should include {expected} and was {sent}")),
                Err(_) => Some(format!("the body should be JSON: {}", shown(wire.body))),
            },
            Body::Form(expected) => {
                let sent: Vec<(String, String)> =
                    form_urlencoded::parse(wire.body).into_owned().collect();
                let missing = expected.iter().find(|pair| !sent.contains(pair))?;
                Some(format!("the form should have {missing:?} and was {sent:?}"))
            }
        }
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method.as_str(), self.url)
    }
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(500).collect()
}

/// Whether `sent` has everything that `expected` has.
fn includes(sent: &Value, expected: &Value) -> bool {
    match (sent, expected) {
        (Value::Object(sent), Value::Object(expected)) => expected
            .iter()
            .all(|(name, value)| sent.get(name).is_some_and(|sent| includes(sent, value))),
        (Value::Array(sent), Value::Array(expected)) => {
            sent.len() == expected.len() && sent.iter().zip(expected).all(|(s, e)| includes(s, e))
        }
        _ => sent == expected,
    }
}

/// One expected SQL statement and its answer.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(super) text: String,
    pub(super) parameters: Value,
    pub(super) answer: Result<Table, Failure>,
}

#[derive(Debug, Clone)]
pub(super) enum Table {
    Rows(Value),
    Affected(u32),
}

impl Statement {
    /// Expects exactly this text and these values; answers with no rows.
    pub fn new(text: &str, parameters: Value) -> Self {
        let answer = Ok(Table::Rows(Value::Array(Vec::new())));
        Self {
            text: text.to_owned(),
            parameters,
            answer,
        }
    }

    /// Answers with rows: an array of objects.
    pub fn rows(mut self, rows: Value) -> Self {
        self.answer = Ok(Table::Rows(rows));
        self
    }

    /// Answers with the number of affected rows.
    pub fn affected(mut self, rows: u32) -> Self {
        self.answer = Ok(Table::Affected(rows));
        self
    }

    /// Answers with a failure.
    pub fn fail(mut self, failure: Failure) -> Self {
        self.answer = Err(failure);
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_may_have_more_than_expected_and_not_less() {
        assert!(includes(
            &json!({"a": {"b": 1, "c": 2}}),
            &json!({"a": {"b": 1}})
        ));
        assert!(!includes(&json!({"a": {"c": 2}}), &json!({"a": {"b": 1}})));
        assert!(!includes(&json!([1, 2]), &json!([1])));
    }
}
