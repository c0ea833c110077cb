//! Servers that repeat every credential they get, in every way they can think of.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::search;

type Received = Arc<Mutex<Vec<String>>>;

/// Servers for HTTP, PostgreSQL and SMTP; they end with the test's runtime.
pub(crate) struct Echo {
    pub(crate) http_port: u16,
    pub(crate) sql_port: u16,
    pub(crate) mail_port: u16,
    received: Received,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let received = Received::default();
        let http = listen().await;
        let sql = listen().await;
        let mail = listen().await;
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let echo = Self {
            http_port: port(&http),
            sql_port: port(&sql),
            mail_port: port(&mail),
            received: Arc::clone(&received),
        };
        let sink = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                tokio::spawn(serve_http(stream, Arc::clone(&sink)));
            }
        });
        let sink = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = sql.accept().await {
                tokio::spawn(serve_sql(stream, Arc::clone(&sink)));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = mail.accept().await {
                tokio::spawn(serve_mail(stream, Arc::clone(&received)));
            }
        });
        echo
    }

    /// What came, with credentials decoded.
    pub(crate) fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A credential in every form, one behind the other.
fn forms(text: &str) -> String {
    let mut forms = vec![
        text.to_owned(),
        search::json(text),
        search::hex(text, false),
        search::hex(text, true),
        search::url(text, "", true),
        search::url(text, "-._~", false),
        text.replace(' ', "+"),
    ];
    for before in ["", "x", "xy"] {
        forms.push(STANDARD.encode(format!("{before}{text}")));
        forms.push(URL_SAFE.encode(format!("{before}{text}!")));
    }
    forms.join(" ")
}

async fn serve_http(mut stream: TcpStream, sink: Received) -> Option<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await.ok()? {
            0 => return None,
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let credential = credential(&head);
    sink.lock().unwrap().push(format!("{head}\n{credential}"));
    let path = head.split(' ').nth(1).unwrap_or_default();
    let forms = forms(&credential);
    if path.starts_with("/drop") {
        return None;
    }
    if path.starts_with("/garbage") {
        let text = format!("HTTP/1.1 2xx {credential}\r\n{forms}\r\n\r\n");
        return stream.write_all(text.as_bytes()).await.ok();
    }
    let status = match path {
        "/500" => "500 Broken",
        "/401" => "401 Unauthorized",
        _ => "200 OK",
    };
    let body = format!(
        "you sent {forms}, and your head was {head:?} or {}",
        forms_of(&head)
    );
    let text = format!(
        "HTTP/1.1 {status} {credential}\r\ncontent-length: {}\r\nwww-authenticate: {forms}\r\n\
         x-{}: 1\r\n\r\n",
        body.len(),
        search::hex(&credential, false),
    );
    stream.write_all(text.as_bytes()).await.ok()?;
    // Cut in the middle of a credential, as networks do.
    for piece in body.as_bytes().chunks(17) {
        stream.write_all(piece).await.ok()?;
        stream.flush().await.ok()?;
    }
    Some(())
}

fn forms_of(head: &str) -> String {
    format!("{} {}", STANDARD.encode(head), search::hex(head, false))
}

/// What a head authenticates with, decoded.
fn credential(head: &str) -> String {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        ["authorization", "x-a"].contains(&name).then_some(value)
    });
    let value = value.unwrap_or_default();
    if let Some(basic) = value.strip_prefix("Basic ") {
        let decoded = STANDARD.decode(basic).unwrap_or_default();
        return String::from_utf8_lossy(&decoded).into_owned();
    }
    value.strip_prefix("Bearer ").unwrap_or(value).to_owned()
}

/// Asks for the password in the clear, and refuses it with the password in the message.
async fn serve_sql(mut stream: TcpStream, sink: Received) -> Option<()> {
    let length = stream.read_u32().await.ok()?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.ok()?;
    stream.write_all(b"R\0\0\0\x08\0\0\0\x03").await.ok()?;
    let _kind = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut password = vec![0; length as usize - 4];
    stream.read_exact(&mut password).await.ok()?;
    let password = String::from_utf8_lossy(&password)
        .trim_end_matches('\0')
        .to_owned();
    sink.lock().unwrap().push(password.clone());
    let forms = forms(&password);
    let body = format!("SFATAL\0C28P01\0Mnot {forms}\0D{forms}\0H{forms}\0\0");
    stream.write_u8(b'E').await.ok()?;
    stream.write_u32(body.len() as u32 + 4).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()
}

/// Refuses every credential, and says it back.
async fn serve_mail(mut stream: TcpStream, sink: Received) -> Option<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 echo ESMTP\r\n").await.ok()?;
    while let Some(line) = lines.next_line().await.ok()? {
        let reply = match line.split(' ').collect::<Vec<_>>()[..] {
            ["EHLO", ..] => "250-echo\r\n250 AUTH PLAIN\r\n".to_owned(),
            ["AUTH", "PLAIN", encoded] => {
                let decoded = STANDARD.decode(encoded).unwrap_or_default();
                let decoded = String::from_utf8_lossy(&decoded).replace('\0', " ");
                sink.lock().unwrap().push(decoded.clone());
                format!("535-not {encoded}\r\n535 {}\r\n", forms(&decoded))
            }
            _ => "250 ok\r\n".to_owned(),
        };
        write.write_all(reply.as_bytes()).await.ok()?;
    }
    Some(())
}
