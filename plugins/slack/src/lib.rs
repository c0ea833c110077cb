//! Messages in Slack (Web API).
//!
//! Settings: `base_url`, default `https://slack.com`; `channel`, where messages go that name
//! none. Secret: `SLACK_TOKEN`, a bot's token with the scope `chat:write`.

#[cfg(test)]
mod tests;

use cofferdam_sdk::prelude::*;

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct Slack {
    #[serde(default = "vendor")]
    base_url: String,
    #[serde(default)]
    channel: Option<String>,
}

fn vendor() -> String {
    "https://slack.com".to_owned()
}

/// A message to post.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostMessage {
    /// The channel's id or `#name`; the connection's `channel` if there is none.
    #[serde(default)]
    pub channel: Option<String>,
    /// The text; with `blocks`, what notifications show.
    #[serde(default)]
    #[schemars(length(max = 40_000))]
    pub text: Option<String>,
    /// Block Kit blocks.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub blocks: Vec<Value>,
    /// The `ts` of the message to answer in its thread.
    #[serde(default)]
    pub thread_ts: Option<String>,
}

/// The message as Slack has it.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub struct Posted {
    /// The channel's id.
    pub channel: String,
    /// The message's id in its channel.
    pub ts: String,
}

/// Slack answers 200 to nearly everything and says in the body whether it worked.
#[derive(Debug, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    team: String,
    #[serde(default)]
    user: String,
}

#[connector(name = "slack", description = "Messages in Slack")]
impl Slack {
    /// Posts a message. Slack has no idempotency key: the call's key travels in the message's
    /// metadata, where a person or a program can find it.
    #[action(effect = once, example = r##"{"channel": "#leads", "text": "A new lead: Ada"}"##)]
    fn post_message(&self, call: &Call, input: PostMessage) -> Result<Posted, Failure> {
        let Some(channel) = input.channel.or_else(|| self.channel.clone()) else {
            let message = "name a `channel`, here or in the connection's config";
            return Err(Failure::invalid_input("slack.no_channel", message));
        };
        if input.text.as_deref().unwrap_or_default().is_empty() && input.blocks.is_empty() {
            return Err(Failure::invalid_input(
                "slack.no_text",
                "give `text` or `blocks`",
            ));
        }
        let mut body = json!({
            "channel": channel,
            "metadata": {
                "event_type": "cofferdam_call",
                "event_payload": {"idempotency_key": call.idempotency_key},
            },
        });
        if let Some(text) = input.text {
            body["text"] = json!(text);
        }
        if !input.blocks.is_empty() {
            body["blocks"] = json!(input.blocks);
        }
        if let Some(thread) = input.thread_ts {
            body["thread_ts"] = json!(thread);
        }
        let request = http::Request::post(self.method("chat.postMessage")?)
            // Slack warns of JSON without a charset.
            .header("content-type", "application/json; charset=utf-8")
            .body(body.to_string());
        send(request)?.json()
    }

    fn check(&self) -> Result<Health, Failure> {
        let answer: Answer = send(http::Request::get(self.method("auth.test")?))?.json()?;
        Ok(Health::healthy(format!(
            "authenticated as {} in {}",
            answer.user, answer.team
        )))
    }

    fn method(&self, name: &str) -> Result<String, Failure> {
        http::url(&self.base_url, &["api", name])
    }
}

fn send(request: http::Request) -> Result<http::Response, Failure> {
    let response = request
        .bearer(secrets::placeholder("SLACK_TOKEN")?)
        .send()?;
    match response.json::<Answer>() {
        Ok(answer) if answer.ok && response.is_success() => Ok(response),
        // A refusal in Slack's words says more than the status, which is mostly 200.
        Ok(answer) if !answer.ok && !answer.error.is_empty() => {
            Err(refusal(&answer.error, &response))
        }
        Err(unread) if response.is_success() => Err(unread),
        Ok(_) | Err(_) => Err(response.failure()),
    }
}

fn refusal(error: &str, response: &http::Response) -> Failure {
    let code = format!("slack.{error}");
    let message = format!("Slack refused the call: {error}");
    let mut failure = match class(error) {
        // Slack may fail after it has posted.
        Some(Class::Unavailable) => {
            Failure::new(Class::Unavailable, code, message).effect(EffectState::Unknown)
        }
        Some(class) => Failure::new(class, code, message),
        // Slack adds words without notice. A status that says no says more than they do.
        None if !response.is_success() => response.failure().reworded(code, message),
        None => Failure::new(Class::Other, code, message).effect(EffectState::Unknown),
    };
    failure.retry_after_ms = response.retry_after_ms();
    failure
}

/// The class of Slack's error words; none for those that nobody here has heard of.
fn class(error: &str) -> Option<Class> {
    let class = match error {
        "invalid_auth" | "not_authed" | "account_inactive" => Class::Unauthenticated,
        "channel_not_found" | "thread_not_found" | "message_not_found" | "user_not_found" => {
            Class::NotFound
        }
        "not_in_channel"
        | "is_archived"
        | "restricted_action"
        | "missing_scope"
        | "no_permission"
        | "access_denied"
        | "ekm_access_denied"
        | "not_allowed_token_type" => Class::Denied,
        "ratelimited" | "rate_limited" => Class::RateLimited,
        "msg_too_long"
        | "no_text"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "too_many_attachments"
        | "invalid_arguments"
        | "invalid_json"
        | "json_not_object"
        | "metadata_too_large"
        | "invalid_metadata_format" => Class::InvalidInput,
        "fatal_error"
        | "internal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Class::Unavailable,
        "unknown_method" | "method_deprecated" => Class::Unsupported,
        token if token.starts_with("token_") => Class::Unauthenticated,
        _ => return None,
    };
    Some(class)
}
