//! From an operation of an OpenAPI document (2.0 or 3.x) and its parameters to a request.

use std::collections::BTreeMap;
use std::fmt::Write;

use cofferdam_plugin_auth::Authentication;
use cofferdam_sdk::http::Response;
use cofferdam_sdk::prelude::*;
use serde_json::Map;

use crate::exchange::{Endpoint, Output};

/// A document is no longer.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// References that lead to references.
const REFERENCES_MAX: usize = 16;
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// An operation to call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Operation {
    /// The document that describes it.
    pub document: Document,
    /// Its id in the document.
    pub operation_id: String,
    /// Its parameters by name. What is no parameter of it is a part of the body; `body` is all of it.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// How the request is authorized, instead of what the connection says.
    #[serde(default)]
    #[schemars(with = "Option<Authentication>")]
    pub authentication: Option<Value>,
    /// What to return of the answer.
    #[serde(default)]
    #[schemars(with = "Output")]
    pub output: Option<Value>,
    /// Whether a redirect (3xx) is an answer like any other.
    #[serde(default)]
    pub redirect: bool,
}

/// A document, by its address or as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Document {
    /// Read from an address; JSON.
    Address {
        /// The address.
        endpoint: Endpoint,
    },
    /// The document itself.
    Content {
        /// The document.
        content: Map<String, Value>,
    },
}

/// A parameter of an operation, whatever the version writes it like.
struct Parameter<'d> {
    name: &'d str,
    place: &'d str,
    required: bool,
    /// Whether each item of a list is a parameter of its own.
    explodes: bool,
}

/// What a request is made up of.
#[derive(Default)]
struct Parts {
    path: String,
    query: Vec<(String, String)>,
    headers: Map<String, Value>,
    cookies: Vec<String>,
    form: Map<String, Value>,
    body: Option<Value>,
}

impl Operation {
    /// The document's address, if it is not given itself.
    pub(crate) fn address(&self) -> Option<&str> {
        match &self.document {
            Document::Address {
                endpoint: Endpoint::Uri(uri) | Endpoint::Object { uri, .. },
            } => Some(uri),
            Document::Content { .. } => None,
        }
    }

    /// How reading the document is authorized.
    pub(crate) fn document_authentication(&self) -> Option<&Authentication> {
        match &self.document {
            Document::Address {
                endpoint: Endpoint::Object { authentication, .. },
            } => authentication.as_deref(),
            _ => None,
        }
    }

    /// The request, as `call: http` writes one. `read` is the document's address and what was read
    /// there.
    ///
    /// # Errors
    /// Class `invalid-input` if the document has no such operation, or a parameter is missing or
    /// unknown; `unsupported` if it is no OpenAPI in JSON.
    pub(crate) fn request(&self, read: Option<(&str, &Response)>) -> Result<Value, Failure> {
        let parsed;
        let document = match (&self.document, read) {
            (Document::Content { content }, _) => content,
            (Document::Address { .. }, Some((_, response))) => {
                parsed = serde_json::from_slice::<Map<String, Value>>(response.body());
                parsed.as_ref().map_err(|_| not_json())?
            }
            (Document::Address { .. }, None) => return Err(not_json()),
        };
        let document = Api(document);
        document.version()?;
        let found = document.find(&self.operation_id)?;
        let base = document.base(&found, read.map(|(address, _)| address))?;
        let parts = self.fill(&document, &found)?;
        let mut uri = format!("{}{}", base.trim_end_matches('/'), parts.path);
        for (index, (name, value)) in parts.query.iter().enumerate() {
            uri.push(if index == 0 && !uri.contains('?') {
                '?'
            } else {
                '&'
            });
            uri.extend([encoded(name).as_str(), "=", &encoded(value)]);
        }
        let mut headers = parts.headers;
        if !parts.cookies.is_empty() {
            headers.insert("cookie".to_owned(), parts.cookies.join("; ").into());
        }
        let mut request = json!({
            "method": found.method,
            "endpoint": uri,
            "headers": headers,
            "redirect": self.redirect,
        });
        if let Some(authentication) = &self.authentication {
            request["endpoint"] = json!({"uri": uri, "authentication": authentication});
        }
        if let Some(body) = parts.body {
            request["body"] = body;
        }
        if let Some(output) = &self.output {
            request["output"] = output.clone();
        }
        Ok(request)
    }

    /// Puts each parameter where it belongs.
    fn fill(&self, document: &Api<'_>, found: &Found<'_>) -> Result<Parts, Failure> {
        let parameters = document.parameters(found)?;
        let mut left = self.parameters.clone();
        let mut parts = Parts {
            path: found.path.to_owned(),
            ..Parts::default()
        };
        for parameter in &parameters {
            match left.remove(parameter.name) {
                Some(Value::Null) | None if parameter.required => {
                    let message = format!(
                        "`{}` needs the parameter `{}` ({})",
                        self.operation_id, parameter.name, parameter.place
                    );
                    return Err(Failure::invalid_input("openapi.parameter", message));
                }
                Some(Value::Null) | None => {}
                Some(value) => parts.put(parameter, value)?,
            }
        }
        let body = document.body(found)?;
        self.fill_body(&mut parts, left, body.as_deref())?;
        Ok(parts)
    }

    /// What is left over is the body, if the operation has one.
    fn fill_body(
        &self,
        parts: &mut Parts,
        mut left: Map<String, Value>,
        kind: Option<&str>,
    ) -> Result<(), Failure> {
        if let Some(kind) = kind {
            parts.body = match left.remove("body") {
                Some(body) if left.is_empty() => Some(body),
                Some(body) => {
                    left.insert("body".to_owned(), body);
                    Some(Value::Object(std::mem::take(&mut left)))
                }
                None if left.is_empty() => None,
                None => Some(Value::Object(std::mem::take(&mut left))),
            };
            if parts.body.is_some() {
                parts.headers.insert("content-type".to_owned(), kind.into());
            }
        }
        if !parts.form.is_empty() {
            parts.headers.insert("content-type".to_owned(), FORM.into());
            parts.body = Some(Value::Object(std::mem::take(&mut parts.form)));
        }
        match left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let message = format!("`{}` has no parameter `{name}`", self.operation_id);
                Err(Failure::invalid_input("openapi.parameter", message))
            }
        }
    }
}

impl Parts {
    fn put(&mut self, parameter: &Parameter<'_>, value: Value) -> Result<(), Failure> {
        let name = parameter.name;
        match parameter.place {
            "path" => {
                let text = encoded(&text(name, &value)?);
                if matches!(text.as_str(), "" | "." | "..") {
                    let message = format!("`{text}` cannot stand for `{name}` in a path");
                    return Err(Failure::invalid_input("openapi.parameter", message));
                }
                self.path = self.path.replace(&format!("{{{name}}}"), &text);
            }
            "query" => match value {
                Value::Array(items) if parameter.explodes => {
                    for item in &items {
                        self.query.push((name.to_owned(), text(name, item)?));
                    }
                }
                value => self.query.push((name.to_owned(), text(name, &value)?)),
            },
            "header" => {
                let text = text(name, &value)?;
                self.headers.insert(name.to_owned(), text.into());
            }
            "cookie" => self
                .cookies
                .push(format!("{name}={}", encoded(&text(name, &value)?))),
            "formData" => drop(self.form.insert(name.to_owned(), value)),
            "body" => {
                self.headers.insert("content-type".to_owned(), JSON.into());
                self.body = Some(value);
            }
            place => {
                let message = format!("`{name}` is a parameter in `{place}`, which is not known");
                return Err(Failure::new(
                    Class::Unsupported,
                    "openapi.parameter",
                    message,
                ));
            }
        }
        Ok(())
    }
}

/// An operation that was found.
struct Found<'d> {
    path: &'d str,
    method: &'static str,
    /// What holds for all operations of the path.
    shared: &'d Map<String, Value>,
    own: &'d Map<String, Value>,
}

/// A document.
struct Api<'d>(&'d Map<String, Value>);

impl<'d> Api<'d> {
    fn version(&self) -> Result<(), Failure> {
        let version = |key: &str| self.0.get(key).and_then(Value::as_str).unwrap_or_default();
        if version("openapi").starts_with("3.") || version("swagger") == "2.0" {
            return Ok(());
        }
        let message = "the document is no OpenAPI 3.x or 2.0";
        Err(Failure::new(Class::Unsupported, "openapi.version", message))
    }

    fn find(&self, id: &str) -> Result<Found<'d>, Failure> {
        let paths = self.0.get("paths").and_then(Value::as_object);
        let mut known = Vec::new();
        for (path, shared) in paths.into_iter().flatten() {
            let Some(shared) = shared.as_object() else {
                continue;
            };
            for method in METHODS {
                let own = shared.get(method).and_then(Value::as_object);
                let Some(own) = own else { continue };
                match own.get("operationId").and_then(Value::as_str) {
                    Some(found) if found == id => {
                        return Ok(Found {
                            path,
                            method,
                            shared,
                            own,
                        });
                    }
                    Some(other) => known.push(other),
                    None => {}
                }
            }
        }
        known.truncate(20);
        let message = format!(
            "there is no operation `{id}`; there are {}",
            known.join(", ")
        );
        Err(Failure::invalid_input("openapi.operation", message))
    }

    /// Follows references inside of the document.
    fn follow(&self, mut value: &'d Value) -> Result<&'d Value, Failure> {
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Ok(value);
            };
            let target = reference.strip_prefix("#/").and_then(|path| {
                let mut steps = path
                    .split('/')
                    .map(|s| s.replace("~1", "/").replace("~0", "~"));
                let first = self.0.get(&steps.next()?)?;
                steps.try_fold(first, |at, step| at.get(&step))
            });
            value = target.ok_or_else(|| broken(reference))?;
        }
        Err(broken("a reference that leads to itself"))
    }

    fn parameters(&self, found: &Found<'d>) -> Result<Vec<Parameter<'d>>, Failure> {
        let list = |of: &'d Map<String, Value>| of.get("parameters").and_then(Value::as_array);
        // The operation's own come last, and count.
        let mut all: BTreeMap<(&str, &str), Parameter<'d>> = BTreeMap::new();
        for given in [list(found.shared), list(found.own)]
            .into_iter()
            .flatten()
            .flatten()
        {
            let given = self.follow(given)?;
            let text = |key: &str| given.get(key).and_then(Value::as_str);
            let (Some(name), Some(place)) = (text("name"), text("in")) else {
                return Err(broken("a parameter without a name or a place"));
            };
            let flag = |key: &str| given.get(key).and_then(Value::as_bool);
            let explodes = match text("collectionFormat") {
                Some(format) => format == "multi",
                None => flag("explode").unwrap_or(self.0.contains_key("openapi")),
            };
            let required = flag("required").unwrap_or(false);
            all.insert(
                (place, name),
                Parameter {
                    name,
                    place,
                    required,
                    explodes,
                },
            );
        }
        Ok(all.into_values().collect())
    }

    /// The kind of body that the operation takes (3.x).
    fn body(&self, found: &Found<'d>) -> Result<Option<String>, Failure> {
        let Some(body) = found.own.get("requestBody") else {
            return Ok(None);
        };
        let content = self.follow(body)?.get("content").and_then(Value::as_object);
        let kinds: Vec<&str> = content
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .collect();
        let kind = [JSON, FORM]
            .into_iter()
            .find(|wanted| kinds.contains(wanted));
        let json = kinds.iter().copied().find(|kind| kind.contains("json"));
        Ok(kind.or(json).or(kinds.first().copied()).map(str::to_owned))
    }

    /// Where the operation is served.
    fn base(&self, found: &Found<'d>, address: Option<&str>) -> Result<String, Failure> {
        let base = if self.0.contains_key("swagger") {
            Some(self.base_2(address))
        } else {
            let servers = [found.own, found.shared, self.0];
            let first = servers
                .into_iter()
                .find_map(|of| of.get("servers")?.as_array()?.first());
            first.map_or_else(|| Some("/".to_owned()), server_url)
        };
        let base = base.ok_or_else(|| broken("no server"))?;
        if base.contains("://") {
            return Ok(base);
        }
        match address.and_then(origin) {
            Some(origin) => Ok(format!("{origin}/{}", base.trim_start_matches('/'))),
            // The connection's `base_url` may say which.
            None => Ok(format!("/{}", base.trim_start_matches('/'))),
        }
    }

    fn base_2(&self, address: Option<&str>) -> String {
        let text = |key: &str| self.0.get(key).and_then(Value::as_str);
        let path = text("basePath").unwrap_or("/");
        let Some(host) = text("host") else {
            return path.to_owned();
        };
        let schemes = self.0.get("schemes").and_then(Value::as_array);
        let mut schemes = schemes.into_iter().flatten().filter_map(Value::as_str);
        let own = address
            .and_then(|address| address.split_once("://"))
            .map(|(scheme, _)| scheme);
        let first = schemes.clone().next();
        let scheme = schemes.find(|scheme| *scheme == "https").or(first).or(own);
        format!("{}://{host}{path}", scheme.unwrap_or("https"))
    }
}

/// A server's address, its variables at their defaults.
fn server_url(server: &Value) -> Option<String> {
    let mut url = server.get("url")?.as_str()?.to_owned();
    let variables = server.get("variables").and_then(Value::as_object);
    for (name, variable) in variables.into_iter().flatten() {
        let default = variable.get("default").and_then(Value::as_str)?;
        url = url.replace(&format!("{{{name}}}"), default);
    }
    Some(url)
}

fn origin(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(format!("{scheme}://{authority}"))
}

/// The one obvious text of a value; a list's items are joined by commas.
fn text(name: &str, value: &Value) -> Result<String, Failure> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Array(items) => {
            let items: Result<Vec<String>, Failure> = items.iter().map(|i| text(name, i)).collect();
            Ok(items?.join(","))
        }
        Value::Null | Value::Object(_) => Err(Failure::invalid_input(
            "openapi.parameter",
            format!("`{name}` is neither text, a number, a flag nor a list of these"),
        )),
    }
}

/// Everything but the unreserved characters of RFC 3986.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn not_json() -> Failure {
    let message = "the document is not JSON; put one in YAML into a file beside the workflow: \
                   `endpoint: file:api.yaml`";
    Failure::new(Class::Unsupported, "openapi.document", message)
}

fn broken(what: &str) -> Failure {
    let message = format!("the document cannot be followed: {what}");
    Failure::new(Class::Unsupported, "openapi.document", message)
}
