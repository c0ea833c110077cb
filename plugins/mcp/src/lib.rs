//! Servers of the Model Context Protocol, over streamable HTTP, and what a workflow's `call: mcp`
//! runs on.
//!
//! Two actions, by what repeating a request does: `read` lists and reads, `call` calls a tool, which
//! may do anything. Each call is a session of its own: it is opened, used for one request, and closed.
//!
//! Settings, none of them needed: `endpoint`, the server's address, for calls that name none;
//! `headers`, sent with every request; `authentications`, policies that calls name.

mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cofferdam_plugin_auth::{Authentication, Policy};
use cofferdam_sdk::prelude::*;
use serde_json::Map;

use session::Session;

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct Mcp {
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    authentications: BTreeMap<String, Policy>,
}

/// One request of the protocol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Question {
    /// The method: `tools/list`, `resources/read`, …
    pub method: String,
    /// Its parameters.
    #[serde(default)]
    pub parameters: Option<Map<String, Value>>,
    /// The server; the connection's if none is given.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Headers to send with every request of the session.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The version of the protocol to ask for.
    #[serde(default)]
    pub protocol_version: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub client: Option<Client>,
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
        /// How requests are authorized.
        #[serde(default)]
        authentication: Option<Box<Authentication>>,
    },
}

/// Who asks.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

const READS: [&str; 6] = [
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
];

#[connector(
    name = "mcp",
    description = "Servers of the Model Context Protocol, over streamable HTTP"
)]
impl Mcp {
    /// Lists or reads: tools, prompts, resources.
    #[action(effect = read, example = r#"{"method": "tools/list", "endpoint": "https://mcp.example.com/mcp"}"#)]
    fn read(&self, input: Question) -> Result<Value, Failure> {
        self.ask(&input, &READS)
    }

    /// Calls a tool.
    #[action(effect = once, example = r#"{"method": "tools/call", "endpoint": "https://mcp.example.com/mcp", "parameters": {"name": "add", "arguments": {"a": 1, "b": 2}}}"#)]
    fn call(&self, input: Question) -> Result<Value, Failure> {
        self.ask(&input, &["tools/call"])
    }

    fn check(&self) -> Result<Health, Failure> {
        let Some(url) = &self.endpoint else {
            return Ok(Health::healthy(
                "nothing to check: set `endpoint` to have a session opened",
            ));
        };
        let session = Session::open(url, self.headers.clone(), None, None, None)?;
        session.close();
        Ok(Health::healthy(format!("{url} opens a session")))
    }

    fn ask(&self, input: &Question, allowed: &[&str]) -> Result<Value, Failure> {
        if !allowed.contains(&input.method.as_str()) {
            let message = format!(
                "this action sends {} and not {}",
                allowed.join(", "),
                input.method
            );
            return Err(Failure::invalid_input("mcp.method", message));
        }
        let (address, authentication) = match &input.endpoint {
            Some(Endpoint::Uri(uri)) => (uri.as_str(), None),
            Some(Endpoint::Object {
                uri,
                authentication,
            }) => (uri.as_str(), authentication.as_deref()),
            None => {
                let message = "give an `endpoint`, or set one in the connection's config";
                let missing = || Failure::invalid_input("mcp.endpoint", message);
                (self.endpoint.as_deref().ok_or_else(missing)?, None)
            }
        };
        let authorized = authentication
            .map(|own| own.authorize(&self.authentications))
            .transpose()?;
        let mut headers = self.headers.clone();
        headers.extend(input.headers.clone());
        let (version, client) = (input.protocol_version.as_deref(), input.client.clone());
        let mut session = Session::open(address, headers, authorized.as_ref(), version, client)?;
        let reads = READS.contains(&input.method.as_str());
        let answer = session.ask(&input.method, input.parameters.as_ref(), reads);
        session.close();
        let answer = answer?;
        Ok(match &authorized {
            Some(authorized) => authorized.clean(answer),
            None => answer,
        })
    }
}
