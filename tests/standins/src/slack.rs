//! Slack's Web API: posting messages to channels.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::http::{Request, Response};
use crate::service::{Backend, Effects, HttpBackend};

/// Longest text of a message before Slack refuses it.
const TEXT_CHARS_MAX: usize = 40_000;

/// Messages of a page of history unless asked otherwise, and at most.
const HISTORY_DEFAULT: usize = 100;
const HISTORY_MAX: usize = 999;

/// Slack's stand-in. Every posted message is an effect: Slack does not deduplicate. The key is
/// `metadata.event_payload.idempotency_key`, else `client_msg_id`, else `CHANNEL:TEXT`.
#[derive(Debug)]
pub struct Slack {
    token: String,
    /// Id by name, in the order in which the names were given.
    channels: BTreeMap<String, String>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By channel id, oldest first.
    messages: BTreeMap<String, Vec<Value>>,
    posted: u64,
    effects: Effects,
}

impl Slack {
    pub(crate) fn new(token: String, channels: &[String]) -> Self {
        let named = channels.iter().enumerate();
        let channels = named.map(|(index, name)| {
            (
                name.trim_start_matches('#').to_owned(),
                format!("C{:010}", index + 1),
            )
        });
        Self {
            token,
            channels: channels.collect(),
            memory: Mutex::default(),
        }
    }

    /// The id of a channel given as id, `#name` or `name`.
    fn channel(&self, wanted: &str) -> Option<&str> {
        let by_id = self.channels.values().find(|id| *id == wanted);
        by_id
            .or_else(|| self.channels.get(wanted.trim_start_matches('#')))
            .map(String::as_str)
    }

    fn post(&self, arguments: &Map<String, Value>) -> Value {
        let text = arguments
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(wanted) = arguments.get("channel").and_then(Value::as_str) else {
            return refused("channel_not_found");
        };
        let Some(channel) = self.channel(wanted) else {
            return refused("channel_not_found");
        };
        let rich = ["blocks", "attachments"]
            .iter()
            .any(|name| arguments.get(*name).is_some_and(filled));
        if text.is_empty() && !rich {
            return refused("no_text");
        }
        if text.chars().count() > TEXT_CHARS_MAX {
            return refused("msg_too_long");
        }
        let metadata = match arguments.get("metadata").map(unpacked) {
            Some(Value::Object(metadata)) => Some(metadata),
            None => None,
            Some(_) => return refused("invalid_metadata_format"),
        };
        let key = effect_key(channel, text, arguments, metadata.as_ref());
        let mut memory = self.memory.lock();
        memory.posted += 1;
        let ts = format!("{}.{:06}", seconds(), memory.posted);
        let mut message = json!({
            "type": "message", "subtype": "bot_message", "bot_id": "B0000000001", "user": "U0000000001",
            "team": "T0000000001", "app_id": "A0000000001", "text": text, "ts": ts,
        });
        for name in [
            "blocks",
            "attachments",
            "thread_ts",
            "client_msg_id",
            "username",
        ] {
            if let Some(value) = arguments.get(name) {
                message[name] = unpacked(value);
            }
        }
        if let Some(metadata) = metadata {
            message["metadata"] = Value::Object(metadata);
        }
        memory
            .messages
            .entry(channel.to_owned())
            .or_default()
            .push(message.clone());
        *memory.effects.entry(key).or_default() += 1;
        json!({ "ok": true, "channel": channel, "ts": ts, "message": message })
    }

    fn history(&self, arguments: &Map<String, Value>) -> Value {
        let wanted = arguments
            .get("channel")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(channel) = self.channel(wanted) else {
            return refused("channel_not_found");
        };
        let number = |name: &str, otherwise| match arguments.get(name) {
            None => Some(otherwise),
            Some(Value::String(text)) if text.is_empty() => Some(otherwise),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64().map(|number| number as usize),
        };
        let Some(limit @ 1..=HISTORY_MAX) = number("limit", HISTORY_DEFAULT) else {
            return refused("invalid_limit");
        };
        let Some(start) = number("cursor", 0) else {
            return refused("invalid_cursor");
        };
        let memory = self.memory.lock();
        let messages = memory
            .messages
            .get(channel)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let page: Vec<&Value> = messages.iter().rev().skip(start).take(limit).collect();
        let next = start.saturating_add(page.len());
        let more = next < messages.len();
        let cursor = if more {
            next.to_string()
        } else {
            String::new()
        };
        json!({ "ok": true, "messages": page, "has_more": more, "response_metadata": { "next_cursor": cursor } })
    }

    fn dispatch(&self, request: &Request) -> Value {
        let Some(method) = request.path.strip_prefix("/api/") else {
            return refused("unknown_method");
        };
        let arguments = match arguments(request) {
            Ok(arguments) => arguments,
            Err(error) => return refused(error),
        };
        let token = request
            .bearer()
            .or_else(|| arguments.get("token").and_then(Value::as_str));
        match token {
            None | Some("") => return refused("not_authed"),
            Some(token) if token != self.token => return refused("invalid_auth"),
            Some(_) => {}
        }
        match method {
            "chat.postMessage" => self.post(&arguments),
            "conversations.history" => self.history(&arguments),
            "auth.test" => json!({
                "ok": true, "url": "https://standin.slack.example/", "team": "Standin", "user": "standin-bot",
                "team_id": "T0000000001", "user_id": "U0000000001", "bot_id": "B0000000001",
                "is_enterprise_install": false,
            }),
            _ => json!({ "ok": false, "error": "unknown_method", "req_method": method }),
        }
    }
}

impl Backend for Slack {
    fn effects(&self) -> Effects {
        self.memory.lock().effects.clone()
    }

    fn state(&self) -> Value {
        json!({ "channels": self.channels, "messages": self.memory.lock().messages })
    }

    fn reset(&self) {
        *self.memory.lock() = Memory::default();
    }
}

impl HttpBackend for Slack {
    fn handle(&self, request: &Request) -> Response {
        let mut answer = self.dispatch(request);
        let charset = request
            .header("content-type")
            .is_some_and(|media| media.contains("charset"));
        if request.is("application/json") && !charset && answer["ok"] == true {
            answer["warning"] = json!("missing_charset");
            answer["response_metadata"] = json!({ "warnings": ["missing_charset"] });
        }
        Response::json(200, &answer)
    }

    fn refusal(&self, status: u16, retry_after_s: Option<u64>) -> Response {
        let error = match status {
            400 => "invalid_arguments",
            401 => "invalid_auth",
            403 => "access_denied",
            404 => "channel_not_found",
            // A word that is in no list: Slack adds some without notice.
            402..=428 => "request_refused",
            429 => "ratelimited",
            503 => "service_unavailable",
            _ => "internal_error",
        };
        Response::json(status, &refused(error)).retry_after(retry_after_s)
    }
}

/// The arguments of a call, from a JSON body, a form body or the query.
fn arguments(request: &Request) -> Result<Map<String, Value>, &'static str> {
    if request.is("application/json") {
        return match request.json() {
            Ok(Value::Object(arguments)) => Ok(arguments),
            Ok(_) => Err("json_not_object"),
            Err(_) if request.body.is_empty() => Ok(Map::new()),
            Err(_) => Err("invalid_json"),
        };
    }
    if !request.body.is_empty() && !request.is("application/x-www-form-urlencoded") {
        return Err("invalid_post_type");
    }
    let pairs = request.query.iter().cloned().chain(request.form());
    Ok(pairs
        .map(|(name, value)| (name, Value::String(value)))
        .collect())
}

/// Structured arguments may come as JSON in a string, in forms always.
fn unpacked(value: &Value) -> Value {
    let inner = value
        .as_str()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    inner
        .filter(|inner| inner.is_object() || inner.is_array())
        .unwrap_or_else(|| value.clone())
}

fn filled(value: &Value) -> bool {
    unpacked(value)
        .as_array()
        .is_some_and(|items| !items.is_empty())
}

fn effect_key(
    channel: &str,
    text: &str,
    arguments: &Map<String, Value>,
    metadata: Option<&Map<String, Value>>,
) -> String {
    let planned = metadata.and_then(|metadata| {
        metadata
            .get("event_payload")?
            .get("idempotency_key")?
            .as_str()
    });
    let given = planned.or_else(|| arguments.get("client_msg_id")?.as_str());
    given.map_or_else(|| format!("{channel}:{text}"), str::to_owned)
}

fn refused(error: &str) -> Value {
    json!({ "ok": false, "error": error })
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
