//! Stripe's stand-in answers as Stripe documents.

mod common;

use cofferdam_standins::{Fault, Standins};
use common::{Answer, Call, call, standins};
use serde_json::{Value, json};

const PAID: &str = "amount=500&currency=eur&payment_method=pm_card_visa&confirm=true&metadata[lead]=42&receipt_email=ada@example.com";

fn stripe(standins: &Standins, method: &str, path: &str) -> Call {
    call(method, format!("{}{path}", standins.stripe.url())).bearer("sk_test_standin")
}

async fn pay(standins: &Standins, key: &str, form: &str) -> Answer {
    stripe(standins, "POST", "/v1/payment_intents")
        .header("idempotency-key", key)
        .form(form)
        .send()
        .await
}

fn error(answer: &Answer) -> (u16, Value, Value) {
    let body = answer.json();
    (
        answer.status,
        body["error"]["type"].clone(),
        body["error"]["code"].clone(),
    )
}

#[tokio::test]
async fn a_key_is_taken_as_bearer_or_basic_and_nothing_else() {
    let standins = standins().await;
    let url = format!("{}/v1/balance", standins.stripe.url());
    assert_eq!(call("GET", &url).send().await.status, 401);
    let wrong = call("GET", &url)
        .bearer("sk_test_wrong_and_secret")
        .send()
        .await;
    assert_eq!(
        error(&wrong),
        (401, json!("invalid_request_error"), Value::Null)
    );
    assert!(
        !wrong.json().to_string().contains("secret"),
        "the key is masked"
    );
    let basic = call("GET", &url)
        .header("authorization", "Basic c2tfdGVzdF9zdGFuZGluOg==")
        .send()
        .await;
    assert_eq!(
        (basic.status, &basic.json()["object"]),
        (200, &json!("balance"))
    );
}

#[tokio::test]
async fn a_confirmed_intent_is_charged_and_found_again() {
    let standins = standins().await;
    let paid = pay(&standins, "k1", PAID).await;
    assert_eq!(
        (paid.status, &paid.json()["status"]),
        (200, &json!("succeeded"))
    );
    let id = paid.json()["id"].as_str().unwrap().to_owned();
    let read = stripe(&standins, "GET", &format!("/v1/payment_intents/{id}"))
        .send()
        .await
        .json();
    assert_eq!(
        (&read["amount_received"], &read["metadata"]["lead"]),
        (&json!(500), &json!("42"))
    );
    assert_eq!(standins.stripe.charged_by("lead")["42"].captured_minor, 500);
    assert_eq!(
        standins.stripe.charged_by_email()["ada@example.com"].charges,
        1
    );
    let balance = stripe(&standins, "GET", "/v1/balance").send().await.json();
    assert_eq!(balance["available"][0]["amount"], 500);
    let missing = stripe(&standins, "GET", "/v1/payment_intents/pi_none")
        .send()
        .await;
    assert_eq!(
        error(&missing),
        (
            404,
            json!("invalid_request_error"),
            json!("resource_missing")
        )
    );
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_replayed_and_charges_nothing() {
    let standins = standins().await;
    let first = pay(&standins, "k1", PAID).await;
    assert_eq!(first.header("idempotent-replayed"), None);
    let reordered = "currency=eur&amount=500&confirm=true&payment_method=pm_card_visa&receipt_email=ada@example.com&metadata%5Blead%5D=42";
    let second = pay(&standins, "k1", reordered).await;
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!((second.status, second.bytes), (first.status, first.bytes));
    assert_eq!(
        second.headers["original-request"],
        first.headers["request-id"]
    );
    assert_eq!(
        (standins.stripe.requests(), standins.stripe.effects()["k1"]),
        (2, 1)
    );
}

#[tokio::test]
async fn a_key_belongs_to_one_set_of_parameters_and_one_endpoint() {
    let standins = standins().await;
    pay(&standins, "k1", PAID).await;
    let other = pay(&standins, "k1", &PAID.replace("500", "900")).await;
    assert_eq!(
        error(&other),
        (400, json!("idempotency_error"), Value::Null)
    );
    let elsewhere = stripe(&standins, "POST", "/v1/refunds")
        .header("idempotency-key", "k1")
        .form(PAID)
        .send()
        .await;
    assert_eq!(error(&elsewhere).1, "idempotency_error");
    assert_eq!(standins.stripe.charged_by("lead")["42"].captured_minor, 500);
}

#[tokio::test]
async fn a_key_in_flight_is_a_conflict_until_its_request_is_answered() {
    let standins = standins().await;
    standins
        .stripe
        .set_faults(vec![Fault::latency(400).times(1)])
        .await
        .unwrap();
    let rival = async {
        // The first request has arrived once it has used up the latency.
        while !standins.stripe.faults().is_empty() {
            tokio::task::yield_now().await;
        }
        pay(&standins, "k1", PAID).await
    };
    let (first, rival) = tokio::join!(pay(&standins, "k1", PAID), rival);
    assert_eq!(
        error(&rival),
        (
            409,
            json!("idempotency_error"),
            json!("idempotency_key_in_use")
        )
    );
    assert_eq!(first.status, 200);
    assert_eq!(
        pay(&standins, "k1", PAID)
            .await
            .header("idempotent-replayed"),
        Some("true")
    );
}

#[tokio::test]
async fn a_declined_card_is_402_and_saved_under_its_key() {
    let standins = standins().await;
    let form = PAID.replace("pm_card_visa", "pm_card_chargeDeclined");
    let declined = pay(&standins, "k1", &form).await;
    assert_eq!(
        error(&declined),
        (402, json!("card_error"), json!("card_declined"))
    );
    assert_eq!(declined.json()["error"]["decline_code"], "generic_decline");
    let again = pay(&standins, "k1", &form).await;
    assert_eq!(
        (again.status, again.header("idempotent-replayed")),
        (402, Some("true"))
    );
    assert!(standins.stripe.effects().is_empty());
    assert!(standins.stripe.charged_by("lead").is_empty());
}

#[tokio::test]
async fn invalid_parameters_are_named_and_leave_the_key_free() {
    let standins = standins().await;
    for (form, code, param) in [
        ("currency=eur", "parameter_missing", "amount"),
        ("amount=500", "parameter_missing", "currency"),
        (
            "amount=5.5&currency=eur",
            "parameter_invalid_integer",
            "amount",
        ),
        (
            "amount=0&currency=eur",
            "parameter_invalid_integer",
            "amount",
        ),
        (
            "amount=500&currency=eur&colour=red",
            "parameter_unknown",
            "colour",
        ),
        (
            "amount=500&currency=eur&payment_method=card",
            "resource_missing",
            "payment_method",
        ),
    ] {
        let answer = pay(&standins, "k1", form).await;
        assert_eq!(
            error(&answer),
            (400, json!("invalid_request_error"), json!(code)),
            "{form}"
        );
        assert_eq!(answer.json()["error"]["param"], param);
    }
    assert_eq!(pay(&standins, "k1", PAID).await.status, 200);
}

#[tokio::test]
async fn a_search_by_metadata_pages_through_all_matches() {
    let standins = standins().await;
    for (key, lead) in [("k1", "42"), ("k2", "7"), ("k3", "42"), ("k4", "42")] {
        pay(&standins, key, &PAID.replace("=42", &format!("={lead}"))).await;
    }
    let query = "/v1/payment_intents/search?limit=2&query=metadata%5B%27lead%27%5D%3A%2742%27%20AND%20status:%27succeeded%27";
    let first = stripe(&standins, "GET", query).send().await.json();
    assert_eq!(
        (&first["object"], &first["has_more"]),
        (&json!("search_result"), &json!(true))
    );
    assert_eq!(first["data"].as_array().unwrap().len(), 2);
    let next = format!("{query}&page={}", first["next_page"].as_str().unwrap());
    let second = stripe(&standins, "GET", &next).send().await.json();
    assert_eq!(second["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&second["has_more"], &second["next_page"]),
        (&json!(false), &Value::Null)
    );
    let bad = stripe(&standins, "GET", "/v1/payment_intents/search?query=lead")
        .send()
        .await;
    assert_eq!(
        (bad.status, &bad.json()["error"]["param"]),
        (400, &json!("query"))
    );

    let list = stripe(&standins, "GET", "/v1/payment_intents?limit=3")
        .send()
        .await
        .json();
    let cursor = list["data"][2]["id"].as_str().unwrap();
    let rest = stripe(
        &standins,
        "GET",
        &format!("/v1/payment_intents?starting_after={cursor}"),
    )
    .send()
    .await
    .json();
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["has_more"]),
        (1, &json!(false))
    );
}

#[tokio::test]
async fn a_charge_is_refunded_once_and_no_further_than_it_goes() {
    let standins = standins().await;
    let id = pay(&standins, "k1", PAID).await.json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let refund = async |form: String| {
        stripe(&standins, "POST", "/v1/refunds")
            .form(&form)
            .send()
            .await
    };
    let part = refund(format!("payment_intent={id}&amount=200&metadata[why]=test")).await;
    assert_eq!(
        (part.status, &part.json()["status"]),
        (200, &json!("succeeded"))
    );
    let read = stripe(
        &standins,
        "GET",
        &format!("/v1/refunds/{}", part.json()["id"].as_str().unwrap()),
    )
    .send()
    .await;
    assert_eq!(read.json()["amount"], 200);
    let excess = refund(format!("payment_intent={id}&amount=301")).await;
    assert_eq!(excess.json()["error"]["param"], "amount");
    assert_eq!(
        refund(format!("payment_intent={id}")).await.json()["amount"],
        300
    );
    let again = refund(format!("payment_intent={id}")).await;
    assert_eq!(
        error(&again),
        (
            400,
            json!("invalid_request_error"),
            json!("charge_already_refunded")
        )
    );
    let charged = standins.stripe.charged_by("lead")["42"];
    assert_eq!((charged.captured_minor, charged.refunded_minor), (500, 500));
    assert_eq!(
        refund(String::new()).await.json()["error"]["code"],
        "parameter_missing"
    );
}

#[tokio::test]
async fn an_intent_goes_through_confirm_and_cancel_only_while_it_can() {
    let standins = standins().await;
    let open = pay(&standins, "k1", "amount=500&currency=eur").await.json();
    assert_eq!(open["status"], "requires_payment_method");
    let path = format!("/v1/payment_intents/{}", open["id"].as_str().unwrap());
    let confirm = |form: &str| stripe(&standins, "POST", &format!("{path}/confirm")).form(form);
    assert_eq!(
        confirm("").send().await.json()["error"]["code"],
        "payment_intent_unexpected_state"
    );
    assert_eq!(
        confirm("payment_method=pm_card_visa").send().await.json()["status"],
        "succeeded"
    );
    let cancel = stripe(&standins, "POST", &format!("{path}/cancel"))
        .form("")
        .send()
        .await;
    assert_eq!(error(&cancel).2, "payment_intent_unexpected_state");
}

#[tokio::test]
async fn a_rate_limit_is_429_in_stripes_shape_and_leaves_the_key_free() {
    let standins = standins().await;
    standins
        .stripe
        .set_faults(vec![Fault::rate_limited(1).times(1)])
        .await
        .unwrap();
    let limited = pay(&standins, "k1", PAID).await;
    assert_eq!(
        error(&limited),
        (429, json!("invalid_request_error"), json!("rate_limit"))
    );
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(
        pay(&standins, "k1", PAID)
            .await
            .header("idempotent-replayed"),
        None
    );
}
