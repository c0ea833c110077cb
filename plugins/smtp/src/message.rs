//! The message itself (RFC 5322).

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use cofferdam_sdk::clock;
use cofferdam_sdk::prelude::*;
use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address as Written;
use mail_builder::headers::date::Date;
use sha2::{Digest, Sha256};

use crate::{Address, Send};

/// A `Message-ID` that is the same for every attempt of one task, and tells nothing of the key.
pub(crate) fn id(idempotency_key: &str, from: &Address) -> String {
    let digest = Sha256::digest(idempotency_key.as_bytes());
    let mut id = String::new();
    for byte in &digest[..16] {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id.push('@');
    id.push_str(from.domain());
    id
}

/// The message without `Bcc`, which only the envelope has.
pub(crate) fn build(mail: &Send, from: &Address, id: &str) -> Result<Vec<u8>, Failure> {
    if mail.subject.chars().any(char::is_control) {
        let message = "a subject has no line breaks or other control characters";
        return Err(Failure::invalid_input("smtp.subject", message));
    }
    if mail.text.is_none() && mail.html.is_none() {
        return Err(Failure::invalid_input(
            "smtp.body",
            "give `text`, `html` or both",
        ));
    }
    let seconds = clock::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut message = MessageBuilder::new()
        .message_id(id)
        .date(Date::new(i64::try_from(seconds).unwrap_or(i64::MAX)))
        .from(written(from))
        .subject(mail.subject.as_str());
    if !mail.to.is_empty() {
        message = message.to(list(&mail.to));
    }
    if !mail.cc.is_empty() {
        message = message.cc(list(&mail.cc));
    }
    if let Some(reply_to) = &mail.reply_to {
        message = message.reply_to(written(reply_to));
    }
    if let Some(text) = &mail.text {
        message = message.text_body(text.as_str());
    }
    if let Some(html) = &mail.html {
        message = message.html_body(html.as_str());
    }
    message.write_to_vec().map_err(|error| {
        Failure::internal(
            "smtp.message",
            format!("the message cannot be written: {error}"),
        )
    })
}

fn written(address: &Address) -> Written<'_> {
    Written::new_address(address.name.as_deref(), address.email.as_str())
}

fn list(addresses: &[Address]) -> Written<'_> {
    Written::new_list(addresses.iter().map(written).collect())
}
