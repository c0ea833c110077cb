//! Encrypted mail: credentials and messages go to a server that is vouched for, and in no other way.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Letter, Mailer, smtp};
use crate::connection::Settings;
use crate::egress::Egress;
use crate::egress::tests::authority::{Authority, Vouched};
use crate::limits::Limits;
use crate::scope::Scope;
use crate::spec::{Grants, SmtpGrant, SmtpTls};

/// How a server behaves before it is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// From the first byte.
    Implicit,
    /// As it should.
    StartTls,
    /// It does not offer `STARTTLS`, as if somebody on the way had taken that out.
    Stripped,
    /// It offers it, and then will not.
    Refusing,
    /// Behind the reply to `STARTTLS` comes one more, which would be taken for encrypted.
    Injecting,
}

/// What TLS begins with, and no command.
const TLS_HANDSHAKE: u8 = 0x16;

type Received = Arc<Mutex<Vec<String>>>;

/// A server; every line that it got, those that came encrypted behind `tls:`.
async fn serve(vouched: &Vouched, manner: Manner) -> (u16, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Received::default();
    let (sink, acceptor) = (Arc::clone(&received), vouched.acceptor());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Some(stream) = plain(stream, manner, &sink).await else {
                continue;
            };
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = talk(stream, manner == Manner::Implicit, &sink).await;
            }
        }
    });
    (port, received)
}

/// What is said before encryption; `None` if it does not come to that.
async fn plain(mut stream: TcpStream, manner: Manner, sink: &Received) -> Option<TcpStream> {
    if manner == Manner::Implicit {
        return Some(stream);
    }
    stream.write_all(b"220-fake\r\n220 ESMTP\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        // One byte at a time: what follows belongs to TLS.
        while !line.ends_with('\n') {
            let mut byte = [0];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte)
                .await
                .ok()?;
            // No command but a TLS greeting, whose random bytes may end a line.
            if line.is_empty() && byte[0] == TLS_HANDSHAKE {
                return None;
            }
            line.push(char::from(byte[0]));
        }
        sink.lock().push(line.trim().to_owned());
        let reply: &[u8] = match (line.trim(), manner) {
            ("STARTTLS", Manner::Refusing) => b"454 not now\r\n",
            ("STARTTLS", Manner::Injecting) => b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n",
            ("STARTTLS", _) => b"220 go\r\n",
            (_, Manner::Stripped) => b"250-fake\r\n250 AUTH PLAIN\r\n",
            _ => b"250-fake\r\n250-starttls\r\n250 AUTH PLAIN\r\n",
        };
        stream.write_all(reply).await.ok()?;
        if line.trim() == "STARTTLS" && reply.starts_with(b"220") {
            return Some(stream);
        }
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    greets: bool,
    sink: &Received,
) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    if greets {
        write.write_all(b"220 fake ESMTP\r\n").await?;
    }
    let mut letter = false;
    while let Some(line) = lines.next_line().await? {
        sink.lock().push(format!("tls:{line}"));
        let reply: &[u8] = match line.split([' ', ':']).next().unwrap_or_default() {
            "." if letter => {
                letter = false;
                b"250 queued\r\n"
            }
            _ if letter => continue,
            "EHLO" => b"250-fake\r\n250 AUTH PLAIN\r\n",
            "AUTH" => b"235 welcome\r\n",
            "DATA" => {
                letter = true;
                b"354 go on\r\n"
            }
            _ => b"250 ok\r\n",
        };
        write.write_all(reply).await?;
    }
    Ok(())
}

async fn send(port: u16, tls: SmtpTls, authorities: Option<String>) -> Result<String, String> {
    let grants = Grants {
        tls_ca: authorities,
        ..Grants::default()
    };
    let egress = Egress::new("test", &grants, None).unwrap();
    let grant = SmtpGrant {
        host: "127.0.0.1".to_owned(),
        port,
        tls,
        username: Some("user".to_owned()),
        password: Some("hunter22".to_owned()),
    };
    let mailer = Mailer::new("test", &grant, &egress).unwrap();
    let mut settings = Settings::nothing("test").unwrap();
    settings.egress = egress;
    settings.limits = Limits::default();
    let scope = Scope::new(Arc::new(settings), String::new(), Duration::from_secs(20));
    let envelope = smtp::Envelope {
        sender: "a@example.com".to_owned(),
        recipients: vec!["b@example.com".to_owned()],
    };
    let letter = Letter::new(&envelope, b"Subject: hi\r\n\r\nhello\r\n".to_vec()).unwrap();
    let sent = mailer.send(&scope, &letter).await;
    sent.map_err(|failure| format!("{}: {}", failure.code, failure.message))
}

#[tokio::test]
async fn mail_goes_encrypted_to_a_server_that_is_vouched_for() {
    let authority = Authority::new();
    let here = || authority.vouch("127.0.0.1");
    for (manner, tls) in [
        (Manner::StartTls, SmtpTls::StartTls),
        (Manner::Implicit, SmtpTls::Implicit),
    ] {
        let (port, received) = serve(&here(), manner).await;
        let sent = send(port, tls, Some(authority.pem())).await;
        assert_eq!(sent.as_deref(), Ok("250 queued"), "{manner:?}");
        let received = received.lock();
        for line in received.iter().filter(|line| !line.starts_with("tls:")) {
            assert!(
                line.starts_with("EHLO") || line == "STARTTLS",
                "in the clear: {line}"
            );
        }
        for word in ["tls:EHLO", "tls:AUTH PLAIN", "tls:MAIL", "tls:hello"] {
            assert!(
                received.iter().any(|line| line.starts_with(word)),
                "{word}: {received:?}"
            );
        }
    }
}

#[tokio::test]
async fn neither_credentials_nor_mail_go_anywhere_else() {
    let authority = Authority::new();
    let trusted = || Some(authority.pem());
    let (here, other) = (
        authority.vouch("127.0.0.1"),
        authority.vouch("mail.example.com"),
    );
    let expired = authority.vouch_until("127.0.0.1", 2020);
    for (vouched, manner, tls, authorities) in [
        (&here, Manner::StartTls, SmtpTls::StartTls, None),
        (&here, Manner::Implicit, SmtpTls::Implicit, None),
        (&other, Manner::StartTls, SmtpTls::StartTls, trusted()),
        (&other, Manner::Implicit, SmtpTls::Implicit, trusted()),
        (&expired, Manner::StartTls, SmtpTls::StartTls, trusted()),
        (&here, Manner::Stripped, SmtpTls::StartTls, trusted()),
        (&here, Manner::Refusing, SmtpTls::StartTls, trusted()),
        (&here, Manner::Injecting, SmtpTls::StartTls, trusted()),
        (&here, Manner::StartTls, SmtpTls::Implicit, trusted()),
    ] {
        let (port, received) = serve(vouched, manner).await;
        let failed = send(port, tls, authorities).await.unwrap_err();
        assert!(failed.starts_with("smtp.tls: "), "{manner:?}: {failed}");
        for line in received.lock().iter() {
            assert!(
                line.starts_with("EHLO") || line == "STARTTLS",
                "{manner:?}: {line}"
            );
        }
    }
}
