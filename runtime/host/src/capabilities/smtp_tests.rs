//! Mail against a server that answers as it is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::connection::Settings;
use crate::spec::Grants;

/// What the server answers to a command, by its first word; `drop` ends the line, `hang` waits.
type Script = &'static [(&'static str, &'static str)];

const FINE: Script = &[];

struct Server {
    port: u16,
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script, Arc::clone(&sink)));
            }
        });
        Self { port, received }
    }
}

async fn serve(mut stream: TcpStream, script: Script, sink: Arc<Mutex<Vec<String>>>) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    let answer = |word: &str, otherwise: &'static str| {
        script
            .iter()
            .find(|(w, _)| *w == word)
            .map_or(otherwise, |(_, answer)| *answer)
    };
    let _ = write
        .write_all(format!("{}\r\n", answer("hello", "220 fake ESMTP")).as_bytes())
        .await;
    let mut letter: Option<String> = None;
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = match &mut letter {
            Some(text) if line == "." => {
                sink.lock().push(std::mem::take(text));
                letter = None;
                answer(".", "250 2.0.0 queued as 42")
            }
            Some(text) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            None => match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => answer("EHLO", "250-fake\r\n250 8BITMIME"),
                "MAIL" => answer("MAIL", "250 ok"),
                "RCPT" => answer("RCPT", "250 ok"),
                "DATA" => {
                    let reply = answer("DATA", "354 go on");
                    letter = reply.starts_with("354").then(String::new);
                    reply
                }
                _ => "250 ok",
            },
        };
        match reply {
            "drop" => return,
            "hang" => std::future::pending().await,
            reply => {
                let _ = write.write_all(format!("{reply}\r\n").as_bytes()).await;
            }
        }
    }
}

async fn send(script: Script, timeout: Duration) -> (Result<String, Failure>, Server) {
    let server = Server::start(script).await;
    let result = send_to(&mailer("127.0.0.1", server.port), timeout).await;
    (result, server)
}

fn mailer(host: &str, port: u16) -> Mailer {
    let egress = Egress::new("test", &Grants::default(), None).unwrap();
    let grant = SmtpGrant {
        host: host.to_owned(),
        port,
        tls: SmtpTls::None,
        username: None,
        password: None,
    };
    Mailer::new("test", &grant, &egress).unwrap()
}

async fn send_to(mailer: &Mailer, timeout: Duration) -> Result<String, Failure> {
    let settings = Arc::new(Settings::nothing("test").unwrap());
    let scope = Scope::new(settings, String::new(), timeout);
    mailer.send(&scope, &letter()).await
}

fn letter() -> Letter {
    let envelope = smtp::Envelope {
        sender: "a@example.com".to_owned(),
        recipients: vec!["b@example.com".to_owned(), "c@example.com".to_owned()],
    };
    let message = b"Subject: hi\r\n\r\n.dot\r\n".to_vec();
    Letter::new(&envelope, message).unwrap()
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn after_the_verdict_no_message_is_sent() {
    let server = Server::start(FINE).await;
    let mailer = mailer("localhost", server.port);
    let settings = Arc::new(Settings::nothing("test").unwrap());
    let scope = Scope::new(settings, String::new(), LONG);
    assert_eq!(scope.close(), EffectState::None);
    let failed = mailer.send(&scope, &letter()).await.unwrap_err();
    assert_eq!(
        (failed.class, failed.code.as_str(), failed.effect),
        (Class::Timeout, "smtp.timeout", EffectState::None)
    );
    // The line was dropped; the server takes the next message as the first.
    send_to(&mailer, LONG).await.unwrap();
    assert_eq!(server.received.lock().len(), 1);
}

#[tokio::test]
async fn a_message_arrives_and_the_line_is_used_again() {
    let server = Server::start(FINE).await;
    let mailer = mailer("localhost", server.port);
    for _ in 0..2 {
        assert_eq!(
            send_to(&mailer, LONG).await.unwrap(),
            "250 2.0.0 queued as 42"
        );
    }
    assert_eq!(server.received.lock().len(), 2);
    assert!(
        server.received.lock()[0].contains("..dot"),
        "dots are stuffed"
    );
    assert_eq!(mailer.idle.lock().len(), 1);
}

#[tokio::test]
async fn a_reply_decides_class_and_effect() {
    use Class::{InvalidInput, RateLimited, Refused, Unauthenticated, Unavailable};
    use EffectState::{None as Nothing, Unknown};
    let cases: &[(Script, Class, EffectState)] = &[
        (&[("hello", "421 too busy")], Unavailable, Nothing),
        (&[("MAIL", "450 later")], RateLimited, Nothing),
        (
            &[("MAIL", "530 authenticate first")],
            Unauthenticated,
            Nothing,
        ),
        (&[("RCPT", "451 local error")], Unavailable, Nothing),
        (&[("RCPT", "452 too many")], RateLimited, Nothing),
        (&[("RCPT", "550 no such user")], Refused, Nothing),
        (&[("RCPT", "553 bad name")], Refused, Nothing),
        (&[("DATA", "554 no")], Refused, Nothing),
        (&[("DATA", "drop")], Unavailable, Nothing),
        (&[(".", "552 too large")], InvalidInput, Nothing),
        (&[(".", "451 later")], Unavailable, Nothing),
        (&[(".", "drop")], Unavailable, Unknown),
    ];
    for (script, class, effect) in cases {
        let failure = send(script, LONG).await.0.unwrap_err();
        assert_eq!(
            (failure.class, failure.effect),
            (*class, *effect),
            "{script:?}: {failure}"
        );
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_at_the_deadline() {
    let short = Duration::from_millis(150);
    let failure = send(&[("MAIL", "hang")], short).await.0.unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Timeout, EffectState::None)
    );
    let failure = send(&[(".", "hang")], short).await.0.unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Timeout, EffectState::Unknown)
    );
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_and_took_nothing() {
    // Held, so that nobody else listens there meanwhile.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    let failure = send_to(&mailer("127.0.0.1", port), LONG).await.unwrap_err();
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Unavailable, EffectState::None)
    );
}

#[test]
fn addresses_that_hide_commands_are_refused() {
    for recipient in ["b@example.com>\r\nDATA", "b", "", "<b@example.com>"] {
        let envelope = smtp::Envelope {
            sender: "a@example.com".to_owned(),
            recipients: vec![recipient.to_owned()],
        };
        assert!(Letter::new(&envelope, Vec::new()).is_err(), "{recipient}");
    }
}
