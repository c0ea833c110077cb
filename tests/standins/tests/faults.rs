//! Every fault does to a caller what it says, and takes effect or not as it says.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use cofferdam_standins::{Error, Fault, Options, Standins};
use common::{Answer, Call, Failure, call, standins};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn put(standins: &Standins, key: &str) -> Call {
    call("PUT", format!("{}/kv/{key}", standins.generic.url()))
        .json(&json!({ "value": "some text to cut in two" }))
}

async fn under(standins: &Standins, fault: Fault) -> Result<Answer, Failure> {
    standins
        .generic
        .set_faults(vec![fault.times(1)])
        .await
        .unwrap();
    put(standins, "a").attempt().await
}

fn effects(standins: &Standins) -> u64 {
    standins.generic.effects().values().sum()
}

/// What arrives on a raw connection until it ends, and how it ends.
async fn raw(standins: &Standins) -> (Vec<u8>, Option<ErrorKind>) {
    let mut stream = TcpStream::connect(standins.generic.address())
        .await
        .unwrap();
    let request = "PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1234";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let end = stream
        .read_to_end(&mut seen)
        .await
        .err()
        .map(|error| error.kind());
    (seen, end)
}

#[tokio::test]
async fn latency_delays_the_answer_and_the_effect_still_happens() {
    let standins = standins().await;
    let start = Instant::now();
    assert_eq!(
        under(&standins, Fault::latency(80)).await.unwrap().status,
        200
    );
    assert!(start.elapsed() >= Duration::from_millis(80));
    assert_eq!(effects(&standins), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_during_latency_does_not_undo_the_effect() {
    let standins = standins().await;
    standins
        .generic
        .set_faults(vec![Fault::latency(50).times(1)])
        .await
        .unwrap();
    let request = tokio::spawn(put(&standins, "a").attempt());
    while !standins.generic.faults().is_empty() {
        tokio::task::yield_now().await;
    }
    request.abort();
    while effects(&standins) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        standins.generic.state()["kv"]["a"]["value"],
        "some text to cut in two"
    );
}

#[tokio::test]
async fn refuse_closes_the_port_and_clearing_opens_the_same_one() {
    let standins = standins().await;
    let mut kept = TcpStream::connect(standins.generic.address())
        .await
        .unwrap();
    for _ in 0..3 {
        let before = standins.generic.address();
        standins
            .generic
            .set_faults(vec![Fault::refuse()])
            .await
            .unwrap();
        let refused = TcpStream::connect(before).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        standins.generic.clear_faults().await.unwrap();
        assert_eq!(put(&standins, "a").send().await.status, 200);
        assert_eq!(standins.generic.address(), before);
    }
    // A connection from before the outage is cut, as when a process dies.
    assert!(matches!(kept.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(standins.generic.requests(), 3);
}

#[tokio::test]
async fn a_port_that_refuses_is_not_given_to_anybody_else() {
    let standins = standins().await;
    standins
        .slack
        .set_faults(vec![Fault::refuse()])
        .await
        .unwrap();
    assert!(
        tokio::net::TcpSocket::new_v4()
            .unwrap()
            .bind(standins.slack.address())
            .is_err()
    );
}

#[tokio::test]
async fn reset_breaks_off_with_a_reset_after_the_effect() {
    let standins = standins().await;
    standins
        .generic
        .set_faults(vec![Fault::reset().times(1)])
        .await
        .unwrap();
    let (_, end) = raw(&standins).await;
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    assert_eq!(effects(&standins), 1);
}

#[tokio::test]
async fn status_answers_without_the_effect() {
    let standins = standins().await;
    let answer = under(&standins, Fault::rate_limited(7)).await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    assert_eq!((effects(&standins), standins.generic.requests()), (0, 1));
    assert_eq!(put(&standins, "a").send().await.status, 200, "used up");
}

#[tokio::test]
async fn malformed_answers_200_with_broken_json_after_the_effect() {
    let standins = standins().await;
    let answer = under(&standins, Fault::malformed()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.bytes).is_err());
    assert_eq!(effects(&standins), 1);
}

#[tokio::test]
async fn truncated_sends_less_than_it_announced_and_closes() {
    let standins = standins().await;
    assert!(
        under(&standins, Fault::truncated()).await.is_err(),
        "the client notices"
    );
    standins
        .generic
        .set_faults(vec![Fault::truncated().times(1)])
        .await
        .unwrap();
    let (seen, end) = raw(&standins).await;
    let seen = String::from_utf8(seen).unwrap();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let announced: usize = head
        .split("Content-Length: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(!body.is_empty() && body.len() < announced);
    assert_eq!((end, effects(&standins)), (None, 2));
}

#[tokio::test]
async fn accept_then_drop_applies_the_effect_and_says_nothing() {
    let standins = standins().await;
    standins
        .generic
        .set_faults(vec![Fault::accept_then_drop().times(1)])
        .await
        .unwrap();
    assert_eq!(raw(&standins).await, (Vec::new(), None));
    assert_eq!(effects(&standins), 1);
}

#[tokio::test]
async fn a_payment_whose_answer_was_dropped_is_charged_once_when_it_is_retried() {
    let standins = standins().await;
    standins
        .stripe
        .set_faults(vec![Fault::accept_then_drop().times(1)])
        .await
        .unwrap();
    let pay = || {
        call(
            "POST",
            format!("{}/v1/payment_intents", standins.stripe.url()),
        )
        .bearer("sk_test_standin")
        .header("idempotency-key", "k1")
        .form("amount=500&currency=eur&payment_method=pm_card_visa&confirm=true&metadata[lead]=42")
    };
    assert!(pay().attempt().await.is_err());
    let retried = pay().send().await;
    assert_eq!(retried.header("idempotent-replayed"), Some("true"));
    assert_eq!(standins.stripe.charged_by("lead")["42"].charges, 1);
    assert_eq!(
        (standins.stripe.requests(), standins.stripe.effects()["k1"]),
        (2, 1)
    );
}

#[tokio::test]
async fn what_hangs_takes_effect_when_the_faults_are_replaced() {
    let standins = standins().await;
    standins
        .generic
        .set_faults(vec![Fault::hang().times(1)])
        .await
        .unwrap();
    let patient = tokio::spawn(put(&standins, "a").attempt());
    while !standins.generic.faults().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(put(&standins, "b").send().await.status, 200, "others go on");
    assert_eq!((effects(&standins), patient.is_finished()), (1, false));
    standins.generic.clear_faults().await.unwrap();
    assert_eq!(patient.await.unwrap().unwrap().status, 200);
    assert_eq!(effects(&standins), 2);
}

#[tokio::test]
async fn an_answer_lacks_a_field_or_has_one_of_another_type() {
    let standins = standins().await;
    let (object, text) = ("/value", "/value/value");
    let answer = under(&standins, Fault::missing_field(text)).await.unwrap();
    assert_eq!(answer.json(), json!({"key": "a", "value": {}}));
    let answer = under(&standins, Fault::wrong_type(text)).await.unwrap();
    assert_eq!(answer.json()["value"], json!({"value": []}));
    let answer = under(&standins, Fault::wrong_type(object)).await.unwrap();
    assert!(answer.json()["value"].is_string());
    let answer = under(&standins, Fault::missing_field("/x")).await.unwrap();
    assert_eq!(answer.json()["key"], "a", "sent as it is");
    assert_eq!(effects(&standins), 4);
}

#[tokio::test]
async fn slow_drip_sends_everything_a_little_at_a_time() {
    let standins = standins().await;
    let start = Instant::now();
    let answer = under(&standins, Fault::slow_drip(40, 10)).await.unwrap();
    assert_eq!(answer.json()["value"]["value"], "some text to cut in two");
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_fault_strikes_only_the_paths_and_bodies_it_names() {
    let standins = standins().await;
    let faults = vec![
        Fault::status(500).on_path("/kv/a"),
        Fault::status(503).on_body("ada@"),
    ];
    standins.generic.set_faults(faults).await.unwrap();
    assert_eq!(put(&standins, "a").send().await.status, 500);
    assert_eq!(put(&standins, "b").send().await.status, 200);
    let ada =
        call("PUT", format!("{}/kv/b", standins.generic.url())).json(&json!("ada@example.com"));
    assert_eq!(ada.send().await.status, 503);
}

#[tokio::test]
async fn a_fault_that_means_nothing_is_refused_and_the_old_ones_stay() {
    let standins = standins().await;
    standins
        .smtp
        .set_faults(vec![Fault::latency(1)])
        .await
        .unwrap();
    let error = standins
        .smtp
        .set_faults(vec![Fault::reset(), Fault::malformed()])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Fault(fault) if fault.field == "faults[1].kind"),
        "{error}"
    );
    assert_eq!(standins.smtp.faults(), [Fault::latency(1)]);
}

#[tokio::test]
async fn a_chunked_request_body_is_read_whole() {
    let standins = standins().await;
    let mut stream = TcpStream::connect(standins.generic.address())
        .await
        .unwrap();
    let request = "POST /echo?q=a%20b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\nTrailer: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.unwrap();
    assert!(
        seen.contains("\"body\":{\"a\":1}") && seen.contains("\"q\":\"a b\""),
        "{seen}"
    );
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_closed_on() {
    let standins = standins().await;
    for (sent, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (
            "PUT /kv/a HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(),
            "400",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
            "413",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            "400",
        ),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)),
            "431",
        ),
    ] {
        let mut stream = TcpStream::connect(standins.generic.address())
            .await
            .unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut seen = String::new();
        stream.read_to_string(&mut seen).await.unwrap();
        assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{seen}");
    }
}

#[tokio::test]
async fn the_generic_service_echoes_and_answers_with_any_status_and_size() {
    let standins = standins().await;
    let url = standins.generic.url();
    let echo = call("POST", format!("{url}/echo?a=1"))
        .header("x-test", "y")
        .json(&json!({ "b": 2 }))
        .send()
        .await
        .json();
    assert_eq!(
        (&echo["method"], &echo["query"]["a"], &echo["body"]["b"]),
        (&json!("POST"), &json!("1"), &json!(2))
    );
    assert_eq!(echo["headers"]["x-test"], "y");
    assert_eq!(
        call("GET", format!("{url}/status/418")).send().await.status,
        418
    );
    assert_eq!(
        call("GET", format!("{url}/status/99")).send().await.status,
        400
    );
    assert_eq!(
        call("GET", format!("{url}/bytes/70000"))
            .send()
            .await
            .bytes
            .len(),
        70_000
    );
    assert_eq!(
        call("GET", format!("{url}/kv/none")).send().await.status,
        404
    );
    put(&standins, "a").send().await;
    assert_eq!(
        call("GET", format!("{url}/kv/a")).send().await.json()["key"],
        "a"
    );
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_service() {
    let first = standins().await;
    let stripe_port = first.slack.address().port();
    let error = Standins::start(Options {
        stripe_port,
        ..Options::default()
    })
    .await
    .err()
    .expect("a taken port");
    assert!(
        matches!(
            error,
            Error::Listen {
                service: "stripe",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn nothing_listens_after_shutdown_and_orders_say_so() {
    let standins = standins().await;
    let (hubspot, control) = (standins.hubspot.clone(), standins.control_url());
    standins.shutdown().await;
    assert_eq!(
        TcpStream::connect(hubspot.address())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::ConnectionRefused
    );
    assert!(call("GET", control).attempt().await.is_err());
    assert!(matches!(
        hubspot.clear_faults().await,
        Err(Error::Stopped { service: "hubspot" })
    ));
}
