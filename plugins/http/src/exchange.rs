//! The input of a request and the shapes of its output.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_plugin_auth::Authentication;
use cofferdam_sdk::http::{Method, Request, Response};
use cofferdam_sdk::prelude::*;

/// Lets secrets be put into a body; data must not be able to.
const SECRETS_HEADER: &str = "cofferdam-secrets";

/// One request, as a workflow's `call: http` writes it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The method; each action has a default.
    #[serde(default)]
    pub method: Option<String>,
    /// The address. Give this or `endpoint`.
    #[serde(default)]
    pub url: Option<String>,
    /// The address, as Open Workflow writes it. Give this or `url`.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Headers to send.
    #[serde(default)]
    pub headers: BTreeMap<String, Scalar>,
    /// Parameters to add to the address' query.
    #[serde(default)]
    pub query: BTreeMap<String, Scalar>,
    /// The body. Text is sent as it is, an object as a form if `content-type` says so, anything
    /// else as JSON.
    #[serde(default)]
    pub body: Value,
    /// What to return.
    #[serde(default)]
    pub output: Output,
    /// Whether a redirect (3xx) is an answer like any other. It is never followed.
    #[serde(default)]
    pub redirect: bool,
}

/// An address, bare or in an object.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Endpoint {
    /// The address.
    Uri(String),
    /// The address in an object.
    Object {
        /// The address.
        uri: String,
        /// How the request is authorized, instead of what the connection says.
        #[serde(default)]
        authentication: Option<Box<Authentication>>,
    },
}

/// A value that has one obvious text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
        }
    }
}

/// What to return of an answer.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// The body: parsed if it is JSON, else as text.
    #[default]
    Content,
    /// The request, the status, the headers and the content.
    Response,
    /// The body as base64.
    Raw,
}

impl Exchange {
    pub(crate) fn address(&self) -> Result<&str, Failure> {
        match (&self.url, &self.endpoint) {
            (Some(url), None) => Ok(url),
            (None, Some(Endpoint::Uri(uri) | Endpoint::Object { uri, .. })) => Ok(uri),
            _ => Err(Failure::invalid_input(
                "http.url",
                "give either `url` or `endpoint`, not both",
            )),
        }
    }

    /// How the request itself says that it is authorized.
    pub(crate) fn authentication(&self) -> Option<&Authentication> {
        match &self.endpoint {
            Some(Endpoint::Object { authentication, .. }) => authentication.as_deref(),
            Some(Endpoint::Uri(_)) | None => None,
        }
    }

    /// The method, which must be one of the action's; the first is the default.
    pub(crate) fn method(&self, allowed: &[Method]) -> Result<Method, Failure> {
        let method = match &self.method {
            Some(method) => method.parse()?,
            None => allowed[0],
        };
        if allowed.contains(&method) {
            return Ok(method);
        }
        let names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
        Err(Failure::invalid_input(
            "http.method",
            format!(
                "this action sends {} and not {}",
                names.join(" or "),
                method.as_str()
            ),
        ))
    }

    /// Adds query, headers and body, and tells the whole address.
    pub(crate) fn fill(&self, mut request: Request) -> Result<(Request, String), Failure> {
        for (name, value) in &self.query {
            request = request.query(name, value);
        }
        let uri = request.url().to_owned();
        for (name, value) in &self.headers {
            if name.eq_ignore_ascii_case(SECRETS_HEADER) {
                let message = format!("`{name}` is between plugins and their host");
                return Err(Failure::invalid_input("http.header", message));
            }
            request = request.header(name, value);
        }
        let typed = self.content_type();
        let request = match &self.body {
            Value::Null => request,
            Value::String(text) => {
                let request = request.body(text.as_str());
                if typed.is_some() {
                    request
                } else {
                    request.header("content-type", "text/plain; charset=utf-8")
                }
            }
            Value::Object(fields) if typed.is_some_and(|t| t.contains("x-www-form-urlencoded")) => {
                let pairs = fields
                    .iter()
                    .map(|(name, value)| Ok((name.as_str(), text(name, value)?)));
                request.form_body(&pairs.collect::<Result<Vec<_>, Failure>>()?)
            }
            json => {
                let request = request.body(json.to_string());
                if typed.is_some() {
                    request
                } else {
                    request.header("content-type", "application/json")
                }
            }
        };
        Ok((request, uri))
    }

    fn content_type(&self) -> Option<&str> {
        self.headers.iter().find_map(|(name, value)| match value {
            Scalar::Text(text) if name.eq_ignore_ascii_case("content-type") => Some(text.as_str()),
            _ => None,
        })
    }

    pub(crate) fn output(
        &self,
        method: Method,
        uri: &str,
        response: &Response,
    ) -> Result<Value, Failure> {
        Ok(match self.output {
            Output::Content => content(response)?,
            Output::Raw => Value::from(STANDARD.encode(response.body())),
            Output::Response => {
                let sent: BTreeMap<&String, String> = self
                    .headers
                    .iter()
                    .map(|(name, value)| (name, value.to_string()))
                    .collect();
                json!({
                    "request": {"method": method.as_str(), "uri": uri, "headers": sent},
                    "statusCode": response.status(),
                    "headers": headers(response),
                    "content": content(response)?,
                })
            }
        })
    }
}

fn text(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Failure::invalid_input(
            "http.body",
            format!("`body.{name}`: a form has texts, numbers and flags only"),
        )),
    }
}

/// The headers by their names in lower case; what came more than once is joined by a comma.
fn headers(response: &Response) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers() {
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    headers
}

/// The body as JSON if it says so, or says nothing and is; else as text; null if it is empty.
fn content(response: &Response) -> Result<Value, Failure> {
    if response.body().is_empty() {
        return Ok(Value::Null);
    }
    match response.header("content-type") {
        Some(kind) if kind.contains("json") => response.json(),
        Some(_) => Ok(Value::from(response.text())),
        None => Ok(response
            .json()
            .unwrap_or_else(|_| Value::from(response.text()))),
    }
}
