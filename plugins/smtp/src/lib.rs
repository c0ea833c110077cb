//! Mail through the connection's SMTP server.
//!
//! Settings: `from`, the sender of mails that name none. The server and its credentials are the
//! connection's `smtp` grant, which the host holds.
//!
//! A mail's `Message-ID` is made from the call's idempotency key, so that every attempt of one
//! task sends the same one and mail systems that look at it can drop the second copy.

mod address;
mod message;
#[cfg(test)]
mod tests;

use cofferdam_sdk::prelude::*;

pub use address::Address;

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct Smtp {
    #[serde(default)]
    from: Option<Address>,
}

/// A mail to send.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Send {
    /// The sender; the connection's `from` if there is none. Bounces go there too.
    #[serde(default)]
    pub from: Option<Address>,
    /// Who gets it.
    #[serde(default)]
    pub to: Vec<Address>,
    /// Who gets a copy.
    #[serde(default)]
    pub cc: Vec<Address>,
    /// Who gets a copy that the others do not see.
    #[serde(default)]
    pub bcc: Vec<Address>,
    /// Where answers go, if not to the sender.
    #[serde(default)]
    pub reply_to: Option<Address>,
    /// The subject: one line.
    #[schemars(length(max = 998))]
    pub subject: String,
    /// The text. Give this, `html` or both.
    #[serde(default)]
    pub text: Option<String>,
    /// The same as HTML.
    #[serde(default)]
    pub html: Option<String>,
}

/// A mail that the server took.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The mail's id, with angle brackets.
    pub message_id: String,
    /// What the server said.
    pub reply: String,
}

/// Servers take at least 100 recipients (RFC 5321, 4.5.3.1.8), and not all take more.
const RECIPIENTS_MAX: usize = 100;

#[connector(
    name = "smtp",
    description = "Mail through the connection's SMTP server"
)]
impl Smtp {
    /// Sends one mail to everybody it names.
    #[action(
        effect = once,
        example = r#"{"from": "crm@example.com", "to": ["Ada <ada@example.org>"], "subject": "Welcome", "text": "Hello Ada"}"#
    )]
    fn send(&self, call: &Call, input: Send) -> Result<Sent, Failure> {
        let from = input.from.as_ref().or(self.from.as_ref()).ok_or_else(|| {
            Failure::invalid_input(
                "smtp.from",
                "name a `from`, here or in the connection's config",
            )
        })?;
        let recipients: Vec<String> = [&input.to, &input.cc, &input.bcc]
            .into_iter()
            .flatten()
            .map(|address| address.email.clone())
            .collect();
        if !(1..=RECIPIENTS_MAX).contains(&recipients.len()) {
            let message = format!("a mail has 1 to {RECIPIENTS_MAX} recipients");
            return Err(Failure::invalid_input("smtp.recipients", message));
        }
        let id = message::id(&call.idempotency_key, from);
        let message = message::build(&input, from, &id)?;
        let reply = smtp::send(&from.email, &recipients, &message)?;
        Ok(Sent {
            message_id: format!("<{id}>"),
            reply,
        })
    }

    /// The host knows the server and tries it before it publishes the connection: what can be
    /// said here without sending a mail is that the settings are right.
    fn check(&self) -> Result<Health, Failure> {
        Ok(match &self.from {
            Some(from) => Health::healthy(format!("ready to send as {}", from.email)),
            None => Health::healthy("ready to send"),
        })
    }
}
