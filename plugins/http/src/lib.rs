//! Any HTTP endpoint that the operator allows, and what a workflow's `call: http` runs on.
//!
//! Three actions, by what repeating a request does: `get` (GET and HEAD) reads, `put` (PUT and
//! DELETE) may be repeated, `send` (POST and PATCH) must not be. All take the same input.
//!
//! Settings, none of them needed: `base_url`, what addresses that begin with `/` are joined to;
//! `headers`, sent with every request that has no such header; `bearer`, the name of a secret to
//! send as a bearer token; `authentications`, policies that requests name; `check_url`, what `check`
//! reads.
//!
//! `operation` finds an operation in an OpenAPI document and says which request it is.

mod exchange;
mod openapi;
#[cfg(test)]
mod openapi_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cofferdam_sdk::http::Method;
use cofferdam_sdk::prelude::*;

use cofferdam_plugin_auth::{Authentication, Authorized, Policy};

pub use exchange::{Endpoint, Exchange, Output, Scalar};
pub use openapi::{Document, Operation};

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct Http {
    #[serde(default)]
    base_url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    bearer: Option<String>,
    #[serde(default)]
    authentications: BTreeMap<String, Policy>,
    #[serde(default)]
    check_url: Option<String>,
}

#[connector(
    name = "http",
    description = "Any HTTP endpoint that the operator allows"
)]
impl Http {
    /// Reads: GET, or HEAD if `method` says so.
    #[action(effect = read, example = r#"{"url": "https://api.example.com/items", "query": {"page": 2}}"#)]
    fn get(&self, input: Exchange) -> Result<Value, Failure> {
        self.exchange(&input, &[Method::Get, Method::Head])
    }

    /// Replaces or removes: PUT, or DELETE if `method` says so.
    #[action(effect = idempotent, example = r#"{"url": "https://api.example.com/items/1", "body": {"name": "Ada"}}"#)]
    fn put(&self, input: Exchange) -> Result<Value, Failure> {
        self.exchange(&input, &[Method::Put, Method::Delete])
    }

    /// Creates or changes: POST, or PATCH if `method` says so. An endpoint that takes an
    /// idempotency key gets it as the header `Idempotency-Key`.
    #[action(effect = once, example = r#"{"url": "https://api.example.com/items", "body": {"name": "Ada"}}"#)]
    fn send(&self, call: &Call, mut input: Exchange) -> Result<Value, Failure> {
        if !input
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("idempotency-key"))
        {
            let key = Scalar::Text(call.idempotency_key.clone());
            input.headers.insert("idempotency-key".to_owned(), key);
        }
        self.exchange(&input, &[Method::Post, Method::Patch])
    }

    /// Finds an operation in an OpenAPI document (2.0 or 3.x), and says which request it is: what
    /// `get`, `put` or `send` take, by its method.
    #[action(effect = read, example = r#"{"document": {"endpoint": "https://api.example.com/openapi.json"}, "operationId": "listItems", "parameters": {"page": 2}}"#)]
    fn operation(&self, input: Operation) -> Result<Value, Failure> {
        match input.address() {
            None => input.request(None),
            Some(address) => {
                let url = self.absolute(address)?;
                let request = http::Request::get(&url).response_max(openapi::DOCUMENT_BYTES_MAX);
                let (request, _) = self.authorized(request, input.document_authentication())?;
                let response = request.send()?.error_for_status()?;
                input.request(Some((&url, &response)))
            }
        }
    }

    fn check(&self) -> Result<Health, Failure> {
        let Some(url) = &self.check_url else {
            return Ok(Health::healthy(
                "nothing to check: set `check_url` to have it read",
            ));
        };
        let (request, _) = self.authorized(http::Request::get(self.absolute(url)?), None)?;
        let response = request.send()?.error_for_status()?;
        Ok(Health::healthy(format!(
            "{url} answers {}",
            response.status()
        )))
    }

    fn exchange(&self, input: &Exchange, allowed: &[Method]) -> Result<Value, Failure> {
        let method = input.method(allowed)?;
        let mut request = http::Request::new(method, self.absolute(input.address()?)?);
        for (name, value) in &self.headers {
            if !input
                .headers
                .keys()
                .any(|given| given.eq_ignore_ascii_case(name))
            {
                request = request.header(name, value);
            }
        }
        let (request, uri) = input.fill(request)?;
        let (request, authorized) = self.authorized(request, input.authentication())?;
        let clean = |answer| match &authorized {
            Some(authorized) => authorized.clean(answer),
            None => answer,
        };
        let response = request.send()?;
        let redirected = (300..400).contains(&response.status()) && input.redirect;
        let answered = if redirected {
            Ok(response)
        } else {
            response.error_for_status()
        };
        let response = answered.map_err(|mut failure| {
            failure.details = failure.details.map(|details| Box::new(clean(*details)));
            failure
        })?;
        input.output(method, &uri, &response).map(clean)
    }

    /// The address itself, or joined to the base if it begins with `/`.
    fn absolute(&self, address: &str) -> Result<String, Failure> {
        if !address.starts_with('/') {
            return Ok(address.to_owned());
        }
        match &self.base_url {
            Some(base) => Ok(format!("{}{address}", base.trim_end_matches('/'))),
            None => Err(Failure::invalid_input(
                "http.url",
                format!("`{address}` needs a `base_url` in the connection's config"),
            )),
        }
    }

    /// The request, authorized as it says itself, else as the connection says; and what is to be
    /// overwritten in the answer.
    fn authorized(
        &self,
        request: http::Request,
        own: Option<&Authentication>,
    ) -> Result<(http::Request, Option<Authorized>), Failure> {
        if let Some(own) = own {
            let authorized = own.authorize(&self.authentications)?;
            return Ok((authorized.apply(request), Some(authorized)));
        }
        let request = match &self.bearer {
            Some(secret) => request.bearer(secrets::placeholder(secret)?),
            None => request,
        };
        Ok((request, None))
    }
}
