//! One SMTP session, from greeting to QUIT.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::{Message, Smtp};
use crate::fault::FaultKind;
use crate::service::Core;

/// Longest command line. RFC 5321 asks for 512 octets; AUTH needs up to 12288 (RFC 4954).
const COMMAND_BYTES_MAX: usize = 12_288;

/// Longest line of a message. RFC 5321 asks for 1000 octets; long lines do occur.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Most recipients of a message: what RFC 5321 asks for at least.
const RECIPIENTS_MAX: usize = 100;

const GREETING: &str = "220 standin.example ESMTP ready\r\n";
const BAD_SEQUENCE: &str = "503 5.5.1 Bad sequence of commands\r\n";
const BAD_SYNTAX: &str = "501 5.5.4 Syntax error in parameters or arguments\r\n";

/// Serves one connection.
pub(super) async fn serve(stream: TcpStream, core: Arc<Core>, backend: Arc<Smtp>) {
    let _ = stream.set_nodelay(true);
    let mut session = Session {
        stream: BufReader::new(stream),
        core,
        backend,
        greeted: false,
        authenticated: false,
        envelope: None,
    };
    // The peer is gone, or we hung up on it: there is nobody left to tell.
    let _ = session.run().await;
}

struct Session {
    stream: BufReader<TcpStream>,
    core: Arc<Core>,
    backend: Arc<Smtp>,
    greeted: bool,
    authenticated: bool,
    envelope: Option<Envelope>,
}

struct Envelope {
    mail_from: String,
    rcpt_to: Vec<String>,
}

/// How a command leaves the session.
enum Next {
    Go,
    Hangup,
}

impl Session {
    async fn run(&mut self) -> io::Result<()> {
        self.say(GREETING).await?;
        loop {
            let Some(line) = self.line(COMMAND_BYTES_MAX).await? else {
                return Ok(());
            };
            let Ok(line) = line else {
                self.say("500 5.5.2 Line too long\r\n").await?;
                continue;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            if matches!(self.command(line.trim_end()).await?, Next::Hangup) {
                return Ok(());
            }
        }
    }

    async fn command(&mut self, line: &str) -> io::Result<Next> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let reply = match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" if rest.is_empty() => BAD_SYNTAX.to_owned(),
            "EHLO" => {
                (self.greeted, self.envelope) = (true, None);
                self.capabilities()
            }
            "HELO" => {
                (self.greeted, self.envelope) = (true, None);
                "250 standin.example\r\n".to_owned()
            }
            "AUTH" => return self.auth(rest).await.map(|()| Next::Go),
            "MAIL" => self.mail(rest),
            "RCPT" => self.rcpt(rest),
            "DATA" => return self.data().await,
            "RSET" => {
                self.envelope = None;
                "250 2.0.0 Ok\r\n".to_owned()
            }
            "NOOP" => "250 2.0.0 Ok\r\n".to_owned(),
            "VRFY" => "252 2.1.5 Cannot verify, but will accept\r\n".to_owned(),
            "QUIT" => {
                self.say("221 2.0.0 Bye\r\n").await?;
                return Ok(Next::Hangup);
            }
            _ => "502 5.5.1 Command not implemented\r\n".to_owned(),
        };
        self.say(&reply).await?;
        Ok(Next::Go)
    }

    fn capabilities(&self) -> String {
        let auth = if self.backend.credentials.is_some() {
            "250-AUTH PLAIN LOGIN\r\n"
        } else {
            ""
        };
        let size = self.backend.size_max;
        format!(
            "250-standin.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE {size}\r\n{auth}250 ENHANCEDSTATUSCODES\r\n"
        )
    }

    /// AUTH PLAIN, with or without an initial response, and AUTH LOGIN.
    async fn auth(&mut self, rest: &str) -> io::Result<()> {
        let Some(expected) = self.backend.credentials.clone() else {
            return self.say("502 5.5.1 Command not implemented\r\n").await;
        };
        if !self.greeted || self.authenticated || self.envelope.is_some() {
            return self.say(BAD_SEQUENCE).await;
        }
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let given = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let answer = self.challenge("334 \r\n", initial).await?;
                answer.and_then(|answer| {
                    let mut parts = answer.split('\0').skip(1).map(str::to_owned);
                    Some((parts.next()?, parts.next()?))
                })
            }
            "LOGIN" => {
                let user = self.challenge("334 VXNlcm5hbWU6\r\n", initial).await?;
                let password = self.challenge("334 UGFzc3dvcmQ6\r\n", "").await?;
                user.zip(password)
            }
            _ => {
                return self
                    .say("504 5.5.4 Unrecognized authentication type\r\n")
                    .await;
            }
        };
        self.authenticated = given == Some(expected);
        let reply = match (self.authenticated, given.is_some()) {
            (true, _) => "235 2.7.0 Authentication successful\r\n",
            (false, true) => "535 5.7.8 Authentication credentials invalid\r\n",
            (false, false) => "501 5.5.2 Cannot decode the response\r\n",
        };
        self.say(reply).await
    }

    /// The decoded answer to a challenge; `None` if it cannot be decoded.
    async fn challenge(&mut self, challenge: &str, initial: &str) -> io::Result<Option<String>> {
        let encoded = if initial.is_empty() {
            self.say(challenge).await?;
            let line = self
                .line(COMMAND_BYTES_MAX)
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            String::from_utf8_lossy(&line.unwrap_or_default())
                .trim()
                .to_owned()
        } else {
            initial.to_owned()
        };
        Ok(STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok()))
    }

    fn mail(&mut self, rest: &str) -> String {
        if !self.greeted || self.envelope.is_some() {
            return BAD_SEQUENCE.to_owned();
        }
        if self.backend.credentials.is_some() && !self.authenticated {
            return "530 5.7.0 Authentication required\r\n".to_owned();
        }
        let Some((mail_from, parameters)) = path(rest, "FROM:") else {
            return BAD_SYNTAX.to_owned();
        };
        for parameter in parameters.split_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match (name.to_ascii_uppercase().as_str(), value.parse::<usize>()) {
                ("SIZE", Ok(size)) if size > self.backend.size_max => return too_big(),
                ("SIZE", Ok(_)) | ("BODY" | "AUTH", _) => {}
                ("SIZE", Err(_)) => return BAD_SYNTAX.to_owned(),
                _ => return "555 5.5.4 Unsupported parameter\r\n".to_owned(),
            }
        }
        self.core.count_request();
        self.envelope = Some(Envelope {
            mail_from,
            rcpt_to: Vec::new(),
        });
        "250 2.1.0 Ok\r\n".to_owned()
    }

    fn rcpt(&mut self, rest: &str) -> String {
        let Some(envelope) = &mut self.envelope else {
            return BAD_SEQUENCE.to_owned();
        };
        match path(rest, "TO:") {
            Some((address, _)) if address.contains('@') => {
                if envelope.rcpt_to.len() == RECIPIENTS_MAX {
                    return "452 4.5.3 Too many recipients\r\n".to_owned();
                }
                envelope.rcpt_to.push(address);
                "250 2.1.5 Ok\r\n".to_owned()
            }
            Some(_) => "553 5.1.3 Mailbox name not allowed\r\n".to_owned(),
            None => BAD_SYNTAX.to_owned(),
        }
    }

    async fn data(&mut self) -> io::Result<Next> {
        let Some(envelope) = self.envelope.take() else {
            self.say(BAD_SEQUENCE).await?;
            return Ok(Next::Go);
        };
        if envelope.rcpt_to.is_empty() {
            self.envelope = Some(envelope);
            self.say("554 5.5.1 No valid recipients\r\n").await?;
            return Ok(Next::Go);
        }
        self.say("354 End data with <CR><LF>.<CR><LF>\r\n").await?;
        let Some(content) = self.content().await? else {
            self.say(&too_big()).await?;
            return Ok(Next::Go);
        };
        let strike = self.core.strike("", &content);
        if !strike.latency.is_zero() {
            tokio::time::sleep(strike.latency).await;
        }
        if let Some(FaultKind::Status { code, .. }) = strike.ending {
            let class = if code < 500 { 4 } else { 5 };
            self.say(&format!("{code} {class}.3.0 Told to answer so\r\n"))
                .await?;
            // 421 announces that the server closes the channel (RFC 5321, 3.8).
            return Ok(if code == 421 { Next::Hangup } else { Next::Go });
        }
        let number = self.backend.accept(Message::read(
            envelope.mail_from,
            envelope.rcpt_to,
            &content,
        ));
        match strike.ending {
            Some(FaultKind::AcceptThenDrop) => return Ok(Next::Hangup),
            Some(FaultKind::Reset) => {
                self.say("250 2.0.0").await?;
                self.stream.get_ref().set_zero_linger()?;
                return Ok(Next::Hangup);
            }
            _ => {
                self.say(&format!("250 2.0.0 Ok: queued as {number}\r\n"))
                    .await?;
            }
        }
        Ok(Next::Go)
    }

    /// The message up to the lone dot, dots unstuffed; `None` if it was too big, once it is over.
    async fn content(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        let mut fits = true;
        loop {
            let line = self
                .line(LINE_BYTES_MAX)
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let Ok(line) = line else {
                fits = false;
                continue;
            };
            if line == b".\r\n" {
                return Ok(fits.then_some(content));
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            fits &= content.len() + line.len() <= self.backend.size_max;
            if fits {
                content.extend_from_slice(line);
            }
        }
    }

    /// The next line with its end; `None` at the end of the stream, `Err` if it was too long (it
    /// has then been skipped).
    async fn line(&mut self, bytes_max: usize) -> io::Result<Option<Result<Vec<u8>, ()>>> {
        let mut too_long = false;
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream)
                .take(bytes_max as u64)
                .read_until(b'\n', &mut line)
                .await?;
            if read == 0 {
                return Ok(None);
            }
            match (line.ends_with(b"\n"), too_long) {
                (true, false) => return Ok(Some(Ok(line))),
                (true, true) => return Ok(Some(Err(()))),
                (false, _) => too_long = true,
            }
        }
    }

    async fn say(&mut self, reply: &str) -> io::Result<()> {
        self.stream.write_all(reply.as_bytes()).await?;
        self.stream.flush().await
    }
}

/// The address of `FROM:<…>` or `TO:<…>` and the parameters behind it.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(String, &'a str)> {
    let start = rest
        .get(..keyword.len())
        .filter(|start| start.eq_ignore_ascii_case(keyword))?;
    let inner = rest[start.len()..].trim_start().strip_prefix('<')?;
    let (address, parameters) = inner.split_once('>')?;
    Some((address.to_owned(), parameters))
}

fn too_big() -> String {
    "552 5.3.4 Message size exceeds fixed limit\r\n".to_owned()
}
