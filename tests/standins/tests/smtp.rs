//! The mail server speaks ESMTP, keeps what it accepted, and fails on demand.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::ErrorKind;

use cofferdam_standins::{Fault, Options, Standins};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const MESSAGE: &str =
    "Message-ID: <1@test>\r\nTo: ada@example.com\r\nSubject: Hello\r\n\r\n..dot\r\n.\r\n";

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(standins: &Standins) -> Self {
        let mut client = Self(BufReader::new(
            TcpStream::connect(standins.smtp.address()).await.unwrap(),
        ));
        assert!(client.reply().await.starts_with("220 "));
        client
    }

    /// The last line of a reply; empty once the connection is closed.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn say(&mut self, command: &str) -> String {
        self.0
            .write_all(format!("{command}\r\n").as_bytes())
            .await
            .unwrap();
        self.reply().await
    }

    /// The code of the reply to `command`.
    async fn code(&mut self, command: &str) -> String {
        self.say(command).await.chars().take(3).collect()
    }

    /// Sends `message` and returns the reply to its end.
    async fn submit(&mut self, message: &str) -> String {
        assert_eq!(self.code("EHLO test").await, "250");
        assert_eq!(
            self.code("MAIL FROM:<me@test.example> BODY=8BITMIME").await,
            "250"
        );
        assert_eq!(self.code("RCPT TO:<ada@example.com>").await, "250");
        assert_eq!(self.code("DATA").await, "354");
        self.0.write_all(message.as_bytes()).await.unwrap();
        self.reply().await
    }
}

async fn standins() -> Standins {
    Standins::start(Options::default()).await.unwrap()
}

async fn faulty(fault: Fault) -> Standins {
    let standins = standins().await;
    standins
        .smtp
        .set_faults(vec![fault.times(1)])
        .await
        .unwrap();
    standins
}

#[tokio::test]
async fn an_accepted_message_is_kept_and_found_by_its_id() {
    let standins = standins().await;
    let mut client = Client::connect(&standins).await;
    assert!(client.submit(MESSAGE).await.starts_with("250 "));
    assert_eq!(client.code("QUIT").await, "221");
    let message = standins.smtp.lookup("<1@test>").unwrap();
    assert_eq!(message, standins.smtp.lookup("1@test").unwrap());
    assert_eq!(message.mail_from, "me@test.example");
    assert_eq!(message.rcpt_to, ["ada@example.com"]);
    assert_eq!(
        (message.to.as_deref(), message.subject.as_deref()),
        (Some("ada@example.com"), Some("Hello"))
    );
    assert!(
        message.raw.ends_with("\r\n\r\n.dot\r\n"),
        "dots are unstuffed: {}",
        message.raw
    );
    assert!(standins.smtp.lookup("2@test").is_none());
}

#[tokio::test]
async fn the_same_message_twice_is_a_duplicate() {
    let standins = standins().await;
    let mut client = Client::connect(&standins).await;
    client.submit(MESSAGE).await;
    client.submit(MESSAGE).await;
    client.submit("Subject: no id\r\n\r\n.\r\n").await;
    assert_eq!(standins.smtp.duplicates()["1@test"], 2);
    assert_eq!(standins.smtp.effects()["unnamed:3"], 1);
    assert_eq!(standins.smtp.requests(), 3);
}

#[tokio::test]
async fn commands_may_be_pipelined() {
    let standins = standins().await;
    let mut client = Client::connect(&standins).await;
    let batch = "EHLO test\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";
    let reply = client.say(batch.trim_end()).await;
    assert!(reply.starts_with("250 "));
    for code in ["250", "250", "250", "354"] {
        assert!(client.reply().await.starts_with(code));
    }
    assert!(
        client
            .say("Message-ID: <2@test>\r\n\r\nhi\r\n.")
            .await
            .starts_with("250 ")
    );
    assert_eq!(standins.smtp.lookup("2@test").unwrap().rcpt_to.len(), 2);
}

#[tokio::test]
async fn bad_commands_are_refused_with_the_codes_of_the_standard() {
    let standins = Standins::start(Options {
        smtp_size_max: 50,
        ..Options::default()
    })
    .await
    .unwrap();
    let mut client = Client::connect(&standins).await;
    for (command, code) in [
        ("MAIL FROM:<a@b.example>", "503"),
        ("EHLO", "501"),
        ("EHLO test", "250"),
        ("AUTH PLAIN AGEAYg==", "502"),
        ("STARTTLS", "502"),
        ("RCPT TO:<a@b.example>", "503"),
        ("DATA", "503"),
        ("MAIL FROM:a@b.example", "501"),
        ("MAIL FROM:<a@b.example> SIZE=51", "552"),
        ("MAIL FROM:<a@b.example> SMTPUTF8", "555"),
        ("MAIL FROM:<a@b.example> SIZE=50", "250"),
        ("DATA", "554"),
        ("RCPT TO:<nobody>", "553"),
        ("RSET", "250"),
        ("NOOP", "250"),
        ("VRFY ada", "252"),
    ] {
        assert_eq!(client.code(command).await, code, "{command}");
    }
    assert_eq!(client.code(&"x".repeat(20_000)).await, "500");
    assert!(client.submit(MESSAGE).await.starts_with("552 "), "too big");
    assert!(standins.smtp.messages().is_empty());
}

#[tokio::test]
async fn credentials_are_asked_for_when_there_are_some() {
    let smtp_credentials = Some(("user".to_owned(), "secret".to_owned()));
    let standins = Standins::start(Options {
        smtp_credentials,
        ..Options::default()
    })
    .await
    .unwrap();
    let mut client = Client::connect(&standins).await;
    for (command, code) in [
        ("EHLO test", "250"),
        ("MAIL FROM:<a@b.example>", "530"),
        ("AUTH CRAM-MD5", "504"),
        ("AUTH PLAIN ???", "501"),
        ("AUTH PLAIN AHVzZXIAd3Jvbmc=", "535"),
        ("AUTH LOGIN", "334"),
        ("dXNlcg==", "334"),
        ("c2VjcmV0", "235"),
        ("AUTH PLAIN AHVzZXIAc2VjcmV0", "503"),
        ("MAIL FROM:<a@b.example>", "250"),
    ] {
        assert_eq!(client.code(command).await, code, "{command}");
    }
    let mut other = Client::connect(&standins).await;
    other.say("EHLO test").await;
    assert_eq!(other.code("AUTH PLAIN AHVzZXIAc2VjcmV0").await, "235");
}

#[tokio::test]
async fn a_status_fault_answers_at_the_end_of_data_and_keeps_nothing() {
    for code in [451, 550] {
        let standins = faulty(Fault::status(code)).await;
        let mut client = Client::connect(&standins).await;
        assert!(client.submit(MESSAGE).await.starts_with(&code.to_string()));
        assert!(standins.smtp.effects().is_empty());
        assert!(
            client.submit(MESSAGE).await.starts_with("250 "),
            "the session goes on"
        );
    }
    let standins = faulty(Fault::status(421)).await;
    let mut client = Client::connect(&standins).await;
    assert!(client.submit(MESSAGE).await.starts_with("421 "));
    assert_eq!(client.reply().await, "", "421 closes the channel");
}

#[tokio::test]
async fn a_fault_can_be_narrowed_to_a_message() {
    let standins = faulty(Fault::status(550).on_body("2@test")).await;
    let mut client = Client::connect(&standins).await;
    assert!(client.submit(MESSAGE).await.starts_with("250 "));
    assert!(
        client
            .submit(&MESSAGE.replace("1@test", "2@test"))
            .await
            .starts_with("550 ")
    );
}

#[tokio::test]
async fn accept_then_drop_keeps_the_message_and_says_nothing() {
    let standins = faulty(Fault::accept_then_drop()).await;
    let mut client = Client::connect(&standins).await;
    assert_eq!(client.submit(MESSAGE).await, "");
    assert_eq!(standins.smtp.effects()["1@test"], 1);
}

#[tokio::test]
async fn latency_delays_the_reply_and_refuse_closes_the_port() {
    let standins = faulty(Fault::latency(30)).await;
    let start = std::time::Instant::now();
    Client::connect(&standins).await.submit(MESSAGE).await;
    assert!(start.elapsed().as_millis() >= 30);
    standins
        .smtp
        .set_faults(vec![Fault::refuse()])
        .await
        .unwrap();
    let refused = TcpStream::connect(standins.smtp.address())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    standins.smtp.clear_faults().await.unwrap();
    assert!(
        Client::connect(&standins)
            .await
            .submit(MESSAGE)
            .await
            .starts_with("250 ")
    );
}
