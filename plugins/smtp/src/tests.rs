use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::Recorded;

use crate::Smtp;

fn mail() -> Value {
    json!({
        "from": "CRM <crm@example.com>",
        "to": ["Ada <ada@example.org>"],
        "subject": "Welcome",
        "text": "Hello Ada"
    })
}

fn with(mut mail: Value, name: &str, value: Value) -> Value {
    mail[name] = value;
    mail
}

#[test]
fn a_mail_has_its_headers_and_its_envelope() {
    let host = Recorded::new().mail(Ok("250 queued as 7"));
    let input = with(
        with(mail(), "cc", json!(["c@example.org"])),
        "bcc",
        json!(["b@example.org"]),
    );
    let input = with(input, "replyTo", json!("help@example.com"));
    let sent = host.invoke::<Smtp>("send", input).unwrap();
    assert_eq!(sent["reply"], "250 queued as 7");
    let mail = &host.mails()[0];
    assert_eq!(mail.sender, "crm@example.com");
    assert_eq!(
        mail.recipients,
        ["ada@example.org", "c@example.org", "b@example.org"]
    );
    for header in [
        "From: \"CRM\" <crm@example.com>\r\n",
        "To: \"Ada\" <ada@example.org>\r\n",
        "Cc: <c@example.org>\r\n",
        "Reply-To: <help@example.com>\r\n",
        "Subject: Welcome\r\n",
        "Date: Fri, 2 Jan 2026 03:04:05 +0000\r\n",
        &format!("Message-ID: {}\r\n", sent["messageId"].as_str().unwrap()),
    ] {
        assert!(
            mail.message.contains(header),
            "{header} in {}",
            mail.message
        );
    }
    assert!(
        !mail.message.contains("b@example.org"),
        "a Bcc must not show"
    );
    assert!(mail.message.ends_with("Hello Ada") || mail.message.contains("\r\n\r\nHello Ada"));
}

#[test]
fn every_attempt_of_a_task_has_the_same_id_and_every_task_its_own() {
    let id = |key: &str| {
        let host = Recorded::new()
            .call(|call| call.idempotency_key = key.to_owned())
            .mail(Ok("250 ok"));
        host.invoke::<Smtp>("send", mail()).unwrap()["messageId"].clone()
    };
    assert_eq!(id("run-1/greet"), id("run-1/greet"));
    assert_ne!(id("run-1/greet"), id("run-2/greet"));
    assert!(id("x").as_str().unwrap().ends_with("@example.com>"));
}

#[test]
fn no_header_can_be_slipped_in() {
    for (name, value) in [
        ("subject", json!("Hi\r\nBcc: eve@example.com")),
        ("subject", json!("Hi\nX: y")),
        ("from", json!("Eve\r\nBcc: e@x.org <crm@example.com>")),
        ("to", json!(["ada@example.org\r\nBcc: eve@example.com"])),
        ("replyTo", json!("a@b.c>\r\nX: <y@z.org")),
    ] {
        let failure = Recorded::new()
            .invoke::<Smtp>("send", with(mail(), name, value.clone()))
            .unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput, "{name} {value}");
    }
}

#[test]
fn a_subject_in_any_script_is_encoded() {
    let host = Recorded::new().mail(Ok("250 ok"));
    host.invoke::<Smtp>("send", with(mail(), "subject", json!("Tervetuloa, Äijä")))
        .unwrap();
    let message = &host.mails()[0].message;
    assert!(message.contains("Subject: =?utf-8?"), "{message}");
    assert!(message.is_ascii());
}

#[test]
fn the_connections_sender_is_used_if_a_mail_names_none() {
    let mut input = mail();
    input.as_object_mut().unwrap().remove("from");
    let failure = Recorded::new().invoke::<Smtp>("send", &input).unwrap_err();
    assert_eq!(failure.code, "smtp.from");
    let host = Recorded::new()
        .config("from", "sales@example.net")
        .mail(Ok("250 ok"));
    host.invoke::<Smtp>("send", &input).unwrap();
    assert_eq!(host.mails()[0].sender, "sales@example.net");
}

#[test]
fn a_mail_needs_a_recipient_and_a_body() {
    for (name, value) in [("to", json!([])), ("text", Value::Null)] {
        let failure = Recorded::new()
            .invoke::<Smtp>("send", with(mail(), name, value))
            .unwrap_err();
        assert_eq!(failure.class, Class::InvalidInput);
    }
}

#[test]
fn what_the_host_says_of_the_effect_is_passed_on() {
    let lost =
        Failure::new(Class::Timeout, "smtp.timeout", "no reply").effect(EffectState::Unknown);
    let host = Recorded::new().mail(Err(lost.clone()));
    assert_eq!(host.invoke::<Smtp>("send", mail()).unwrap_err(), lost);
}
