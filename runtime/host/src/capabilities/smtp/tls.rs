//! Encrypted lines to mail servers: from the first byte, or after `STARTTLS`.
//!
//! `STARTTLS` is spoken here and not by the SMTP library, so that both ways trust the same
//! certificates, and so that a reply that somebody on the way put behind the one to `STARTTLS` is
//! not taken for one that came encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cofferdam_core::failure::{Class, Failure};
use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::egress::allow::HostName;

/// A reply before encryption: a greeting, or the list of what a server offers.
const REPLY_BYTES_MAX: usize = 8 << 10;
/// The SMTP library waits for a greeting, and the server has sent its own before.
const GREETING: &[u8] = b"220 ready\r\n";

/// A line that is encrypted from the first byte.
pub(super) async fn implicit(
    config: &Arc<rustls::ClientConfig>,
    host: &HostName,
    stream: TcpStream,
) -> Result<TlsLine, Failure> {
    encrypt(config, host, stream, &[]).await
}

/// A line that is encrypted after `STARTTLS`. Nothing that tells who is calling is sent before.
pub(super) async fn starttls(
    config: &Arc<rustls::ClientConfig>,
    host: &HostName,
    mut stream: TcpStream,
    hello: &ClientId,
) -> Result<TlsLine, Failure> {
    let refuse = |text: &str| {
        let text = format!("no TLS with the mail server: {text}");
        Failure::new(Class::Unavailable, "smtp.tls", text)
    };
    let spoken = async {
        let greeting = reply(&mut stream).await?;
        let offer = ask(&mut stream, &format!("EHLO {hello}\r\n")).await?;
        let offers = offer.lines().any(|line| {
            let keyword = line.get(4..).unwrap_or_default().trim();
            keyword.eq_ignore_ascii_case("STARTTLS")
        });
        if !greeting.starts_with("220") || !offer.starts_with("250") || !offers {
            return Ok(false);
        }
        let answer = ask(&mut stream, "STARTTLS\r\n").await?;
        Ok::<_, io::Error>(answer.starts_with("220"))
    };
    match spoken.await {
        Ok(true) => encrypt(config, host, stream, GREETING).await,
        Ok(false) => Err(refuse(
            "it offers no STARTTLS; write `tls = \"implicit\"` if it wants TLS from the first byte",
        )),
        Err(error) => Err(refuse(&error.to_string())),
    }
}

async fn encrypt(
    config: &Arc<rustls::ClientConfig>,
    host: &HostName,
    stream: TcpStream,
    greeting: &'static [u8],
) -> Result<TlsLine, Failure> {
    let name = match host {
        HostName::Name(name) => ServerName::try_from(name.clone())
            .map_err(|error| Failure::new(Class::Internal, "smtp.tls", error.to_string()))?,
        HostName::Address(address) => ServerName::from(*address),
    };
    let connected = async {
        let peer = stream.peer_addr()?;
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = Box::new(connector.connect(name, stream).await?);
        Ok::<_, io::Error>(TlsLine {
            stream,
            peer,
            greeting,
        })
    };
    connected.await.map_err(|error| {
        let text = format!("no trusted TLS with the mail server: {error}");
        Failure::new(Class::Unavailable, "smtp.tls", text)
    })
}

async fn ask(stream: &mut TcpStream, command: &str) -> io::Result<String> {
    stream.write_all(command.as_bytes()).await?;
    reply(stream).await
}

/// One reply of one or more lines, and nothing behind it.
async fn reply(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = end_of_reply(&bytes) {
            if end < bytes.len() {
                return Err(io::Error::other("it said more than it was asked"));
            }
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        if bytes.len() > REPLY_BYTES_MAX {
            return Err(io::Error::other("its reply has no end"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Behind the first line whose code is followed by something else than a hyphen.
fn end_of_reply(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.ends_with(b"\n") && line.get(3) != Some(&b'-') {
            return Some(end);
        }
    }
    None
}

/// An encrypted line, in the shape that the SMTP library takes.
#[derive(Debug)]
pub(super) struct TlsLine {
    stream: Box<TlsStream<TcpStream>>,
    peer: SocketAddr,
    /// Read before the stream.
    greeting: &'static [u8],
}

impl AsyncTokioStream for TlsLine {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl AsyncRead for TlsLine {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.greeting.is_empty() {
            let bytes = self.greeting.len().min(buffer.remaining());
            let (now, later) = self.greeting.split_at(bytes);
            buffer.put_slice(now);
            self.greeting = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsLine {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
