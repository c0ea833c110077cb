//! Encrypted lines: whoever is not vouched for, for this very name and this very day, gets nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::authority::{Authority, Vouched};
use super::network::{Fake, scope, send, told};
use crate::Error;
use crate::egress::Egress;
use crate::spec::Grants;

/// A server that answers every request; it tells the requests that reached it.
async fn serve(vouched: &Vouched) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = vouched.acceptor();
    let (sink, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let _ = sink.send(String::from_utf8_lossy(&head[..read]).into_owned());
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            let _ = stream.shutdown().await;
        }
    });
    (address, requests)
}

#[tokio::test]
async fn only_a_server_that_is_vouched_for_by_name_and_day_gets_the_request() {
    let (own, foreign) = (Authority::new(), Authority::new());
    let name = "secure.example.com";
    for (what, vouched, authorities, url, arrives) in [
        ("trusted", own.vouch(name), Some(own.pem()), name, true),
        ("unknown authority", own.vouch(name), None, name, false),
        (
            "foreign authority",
            own.vouch(name),
            Some(foreign.pem()),
            name,
            false,
        ),
        (
            "two, one of them right",
            own.vouch(name),
            Some(foreign.pem() + &own.pem()),
            name,
            true,
        ),
        (
            "another name",
            own.vouch("other.example.com"),
            Some(own.pem()),
            name,
            false,
        ),
        (
            "a name below",
            own.vouch("example.com"),
            Some(own.pem()),
            name,
            false,
        ),
        (
            "a star above",
            own.vouch("*.example.com"),
            Some(own.pem()),
            name,
            true,
        ),
        (
            "expired",
            own.vouch_until(name, 2020),
            Some(own.pem()),
            name,
            false,
        ),
        (
            "an address",
            own.vouch("93.184.216.34"),
            Some(own.pem()),
            "93.184.216.34",
            true,
        ),
        (
            "a name, asked by address",
            own.vouch(name),
            Some(own.pem()),
            "93.184.216.34",
            false,
        ),
    ] {
        let (server, mut requests) = serve(&vouched).await;
        let mut network = Fake::default().knows(name, &["93.184.216.34"]);
        network.server = Some(server);
        let grants = Grants {
            http: vec![format!("https://{url}")],
            tls_ca: authorities,
            ..Grants::default()
        };
        let scope = scope(&grants, &Arc::new(network));
        let request = Request::builder().uri(format!("https://{url}/"));
        let came = send(&scope, request.body("").unwrap()).await;
        assert_eq!(came.is_ok(), arrives, "{what}: {}", told(&scope));
        assert_eq!(requests.try_recv().is_ok(), arrives, "{what}");
        if !arrives {
            assert_eq!(scope.effect(), cofferdam_core::failure::EffectState::None);
        }
    }
}

#[test]
fn authorities_that_make_no_sense_are_refused_with_what_to_write() {
    let good = Authority::new().pem();
    for text in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        &good[..good.len() / 2],
    ] {
        let grants = Grants {
            tls_ca: Some(text.to_owned()),
            ..Grants::default()
        };
        let error = Egress::new("connection `x`", &grants, None).err().unwrap();
        assert!(matches!(error, Error::BadGrant { .. }), "{error}");
        let told = error.to_string();
        assert!(
            told.contains("grants.tls-ca") && told.contains("BEGIN CERTIFICATE"),
            "{told}"
        );
    }
}
