//! A mail server: what it stores, and what it counts.
//!
//! `session` speaks the protocol; `message` reads headers.

mod message;
mod session;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Error;
use crate::fault::Protocol;
use crate::service::{self, Backend, Effects, Handle};

/// A message that was accepted, as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The sender of the envelope; empty for a bounce.
    pub mail_from: String,
    /// The recipients of the envelope.
    pub rcpt_to: Vec<String>,
    /// `Message-ID`, without its angle brackets.
    pub message_id: Option<String>,
    /// The `To` header, unfolded.
    pub to: Option<String>,
    /// The `Subject` header, unfolded; encoded words are left as they are.
    pub subject: Option<String>,
    /// The whole message, dots unstuffed; bytes that are no UTF-8 are replaced.
    pub raw: String,
}

/// The SMTP stand-in. An effect is a message accepted for delivery, keyed by its Message-ID
/// (without brackets), or `unnamed:N` for the Nth message if it has none.
#[derive(Debug)]
pub struct Smtp {
    credentials: Option<(String, String)>,
    size_max: usize,
    mailbox: Mutex<Mailbox>,
}

#[derive(Debug, Default)]
struct Mailbox {
    messages: Vec<Message>,
    effects: Effects,
}

impl Smtp {
    /// Takes a message in; the number it was filed under.
    fn accept(&self, message: Message) -> usize {
        let mut mailbox = self.mailbox.lock();
        let number = mailbox.messages.len() + 1;
        let key = message
            .message_id
            .clone()
            .unwrap_or_else(|| format!("unnamed:{number}"));
        *mailbox.effects.entry(key).or_default() += 1;
        mailbox.messages.push(message);
        number
    }
}

impl Handle<Smtp> {
    /// Every accepted message, in the order of acceptance.
    pub fn messages(&self) -> Vec<Message> {
        self.backend.mailbox.lock().messages.clone()
    }

    /// The first accepted message with this Message-ID, given with or without angle brackets.
    pub fn lookup(&self, message_id: &str) -> Option<Message> {
        let wanted = message::bare_id(message_id);
        let mailbox = self.backend.mailbox.lock();
        mailbox
            .messages
            .iter()
            .find(|message| message.message_id.as_deref() == Some(wanted))
            .cloned()
    }
}

impl Backend for Smtp {
    fn effects(&self) -> Effects {
        self.mailbox.lock().effects.clone()
    }

    fn state(&self) -> Value {
        json!({ "messages": self.mailbox.lock().messages })
    }

    fn reset(&self) {
        *self.mailbox.lock() = Mailbox::default();
    }
}

/// Starts the server. With `credentials`, mail is taken only after AUTH.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    port: u16,
    credentials: Option<(String, String)>,
    size_max: usize,
) -> Result<Handle<Smtp>, Error> {
    let backend = Smtp {
        credentials,
        size_max,
        mailbox: Mutex::default(),
    };
    service::start(tasks, "smtp", Protocol::Smtp, port, backend, session::serve)
}
