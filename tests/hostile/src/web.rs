//! A server that treats its clients badly.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers at once.
    Prompt,
    /// Takes the request and never answers.
    Silent,
    /// Begins an answer and sends one byte of it every few milliseconds, for ever.
    Drip,
    /// Answers with the request's own head, credentials included.
    Echo,
}

/// Starts a server on a free port, for as long as the runtime lives; returns its `host:port`.
///
/// # Errors
/// If no port is to be had.
pub async fn start(manner: Manner) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let authority = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The client goes away when its call ends.
                let _ = serve(stream, manner).await;
            });
        }
    });
    Ok(authority)
}

async fn serve(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    const DRIP_INTERVAL: Duration = Duration::from_millis(5);
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    match manner {
        Manner::Prompt => answer(&mut stream, b"fine").await,
        Manner::Echo => answer(&mut stream, &head).await,
        Manner::Silent => loop {
            if stream.read(&mut buffer).await? == 0 {
                return Ok(());
            }
        },
        Manner::Drip => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b".").await?;
                tokio::time::sleep(DRIP_INTERVAL).await;
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await
}
