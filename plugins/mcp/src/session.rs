//! A session with a server: opened, used, closed. Streamable HTTP as of the protocol's revision of
//! 2025-06-18.

use std::collections::BTreeMap;

use cofferdam_plugin_auth::Authorized;
use cofferdam_sdk::http::{Method, Request, Response};
use cofferdam_sdk::prelude::*;
use serde_json::Map;

use crate::Client;

/// The revision that is asked for unless a call says otherwise.
const VERSION: &str = "2025-06-18";
/// Revisions with streamable HTTP, in which what is asked here is the same.
const VERSIONS: [&str; 3] = ["2025-03-26", VERSION, "2025-11-25"];
const SESSION: &str = "mcp-session-id";
/// Lets secrets be put into a body; data must not be able to.
const SECRETS_HEADER: &str = "cofferdam-secrets";
/// Of JSON-RPC: the request was understood and is wrong, so that nothing came of it.
const UNDERSTOOD: [i64; 3] = [-32600, -32601, -32602];

pub(crate) struct Session<'a> {
    url: &'a str,
    headers: BTreeMap<String, String>,
    authorized: Option<&'a Authorized>,
    id: Option<String>,
    version: Option<String>,
    asked: i64,
}

impl<'a> Session<'a> {
    /// Says hello, and what is wanted.
    ///
    /// # Errors
    /// The effect is `none`: nothing was asked of the server yet.
    pub(crate) fn open(
        url: &'a str,
        headers: BTreeMap<String, String>,
        authorized: Option<&'a Authorized>,
        version: Option<&str>,
        client: Option<Client>,
    ) -> Result<Self, Failure> {
        if headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case(SECRETS_HEADER))
        {
            let message = format!("`{SECRETS_HEADER}` is between plugins and their host");
            return Err(Failure::invalid_input("mcp.header", message));
        }
        let mut session = Self {
            url,
            headers,
            authorized,
            id: None,
            version: None,
            asked: 0,
        };
        session
            .hello(version, client)
            .map_err(|failure| failure.effect(EffectState::None))?;
        Ok(session)
    }

    fn hello(&mut self, version: Option<&str>, client: Option<Client>) -> Result<(), Failure> {
        let client = client.unwrap_or_else(|| Client {
            name: "cofferdam".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let about = json!({
            "protocolVersion": version.unwrap_or(VERSION),
            "capabilities": {},
            "clientInfo": client,
        });
        let (hello, id) = self.send("initialize", about.as_object(), true)?;
        let answer = result(&hello, id)?;
        let spoken = answer.get("protocolVersion").and_then(Value::as_str);
        let spoken = spoken.unwrap_or_default();
        if !VERSIONS.contains(&spoken) {
            let message = format!("the server speaks `{spoken}`, and this connector {VERSIONS:?}");
            return Err(Failure::new(Class::Unsupported, "mcp.version", message));
        }
        self.version = Some(spoken.to_owned());
        self.id = hello.header(SESSION).map(str::to_owned);
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.request(Method::Post)
            .reads()
            .json(&ready)
            .send()?
            .error_for_status()?;
        Ok(())
    }

    /// Asks, and returns the result.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        parameters: Option<&Map<String, Value>>,
        reads: bool,
    ) -> Result<Value, Failure> {
        let (answer, id) = self.send(method, parameters, reads)?;
        let effect = if reads {
            EffectState::None
        } else {
            EffectState::Unknown
        };
        result(&answer, id).map_err(|failure| match failure.effect {
            EffectState::None => failure,
            _ => failure.effect(effect),
        })
    }

    /// Ends the session. A server that does not know how, or does not answer, forgets it by itself.
    pub(crate) fn close(&self) {
        if self.id.is_some() {
            drop(self.request(Method::Delete).reads().send());
        }
    }

    fn send(
        &mut self,
        method: &str,
        parameters: Option<&Map<String, Value>>,
        reads: bool,
    ) -> Result<(Response, i64), Failure> {
        self.asked += 1;
        let mut message = json!({"jsonrpc": "2.0", "id": self.asked, "method": method});
        if let Some(parameters) = parameters {
            message["params"] = Value::Object(parameters.clone());
        }
        let request = self.request(Method::Post);
        let request = if reads { request.reads() } else { request };
        let response = request.json(&message).send()?.error_for_status()?;
        Ok((response, self.asked))
    }

    fn request(&self, method: Method) -> Request {
        let mut request =
            Request::new(method, self.url).header("accept", "application/json, text/event-stream");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(authorized) = self.authorized {
            request = authorized.apply(request);
        }
        if let Some(version) = &self.version {
            request = request.header("mcp-protocol-version", version);
        }
        if let Some(id) = &self.id {
            request = request.header(SESSION, id);
        }
        request
    }
}

/// The result of the request with this id, from a body of JSON or a stream of events.
fn result(response: &Response, id: i64) -> Result<Value, Failure> {
    let kind = response.header("content-type").unwrap_or_default();
    let answer = if kind.starts_with("text/event-stream") {
        let text = response.text();
        events(&text).find(|message| message.get("id").and_then(Value::as_i64) == Some(id))
    } else {
        Some(response.json::<Value>()?)
    };
    let Some(mut answer) = answer else {
        let message = "the server's answer does not have the response in it";
        return Err(Failure::internal("mcp.answer", message).effect(EffectState::Unknown));
    };
    if let Some(error) = answer.get("error") {
        return Err(refusal(error));
    }
    if let Some(result) = answer.get_mut("result") {
        return Ok(result.take());
    }
    let message = "the server's answer has neither a result nor an error";
    Err(Failure::internal("mcp.answer", message).effect(EffectState::Unknown))
}

/// What a server refused, in its words.
fn refusal(error: &Value) -> Failure {
    let code = error
        .get("code")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let said = error
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or("no reason given");
    let message = format!("the server refused: {said}");
    let effect = if UNDERSTOOD.contains(&code) {
        EffectState::None
    } else {
        EffectState::Unknown
    };
    Failure::new(Class::Other, format!("mcp.{code}"), message)
        .effect(effect)
        .details(json!({"code": code, "data": error.get("data")}))
}

/// The messages of a stream of events (the standard of server-sent events, `data` lines only).
fn events(text: &str) -> impl Iterator<Item = Value> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let blocks: Vec<String> = text.split("\n\n").map(data).collect();
    blocks
        .into_iter()
        .filter_map(|data| serde_json::from_str(&data).ok())
}

fn data(block: &str) -> String {
    let lines = block.lines().filter_map(|line| {
        let rest = line.strip_prefix("data:")?;
        Some(rest.strip_prefix(' ').unwrap_or(rest))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_events_is_taken_apart() {
        let text = ": hello\n\nevent: message\nid: 1\ndata: {\"id\": 7,\ndata: \"result\": 1}\n\n\
                    data:{\"method\":\"x\"}\r\n\r\ndata: no json\n\n";
        let found: Vec<Value> = events(text).collect();
        assert_eq!(
            found,
            [json!({"id": 7, "result": 1}), json!({"method": "x"})]
        );
    }
}
