//! The binary tells where it listens and does not outlive its parent.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::Value;

fn standins() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam-standins"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn it_prints_one_line_of_urls_and_ends_with_stdin() {
    let mut child = standins().arg("--exit-on-stdin-eof").spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let urls: Value = serde_json::from_str(&line).unwrap();
    for name in ["control", "hubspot", "slack", "stripe", "smtp", "generic"] {
        let url = urls[name].as_str().unwrap();
        let address = url.split_once("://").unwrap().1;
        std::net::TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("{name} at {url}: {error}"));
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn it_ends_cleanly_on_sigterm_while_stdin_stays_open() {
    for extra in [&[][..], &["--exit-on-stdin-eof"]] {
        let mut child = standins().args(extra).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let sent = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let _stdin = child.stdin.take();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn it_listens_on_loopback_only() {
    let refused = standins()
        .args(["--control", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("127.0.0.1"));
}

#[test]
fn a_taken_port_is_told_with_the_service_that_wanted_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let failed = standins().args(["--smtp-port", &port]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("smtp cannot listen on"));
}
