use cofferdam_sdk::http::TransportError;
use cofferdam_sdk::prelude::*;
use cofferdam_sdk::testing::{Exchange, Recorded};

use crate::Stripe;

const INTENTS: &str = "https://api.stripe.com/v1/payment_intents";
const SEARCH: &str = "https://api.stripe.com/v1/payment_intents/search?query=metadata%5B%27cofferdam_key%27%5D%3A%27key-1%27";

fn host() -> Recorded {
    Recorded::new().secret("STRIPE_KEY")
}

fn intent(status: &str) -> Value {
    json!({
        "id": "pi_1", "object": "payment_intent", "status": status, "amount": 4900,
        "amount_received": 4900, "currency": "eur", "latest_charge": "ch_1",
        "client_secret": "pi_1_secret_x", "metadata": {"lead": "42", "cofferdam_key": "key-1"}
    })
}

fn payment() -> Value {
    json!({
        "amount": 4900, "currency": "EUR", "paymentMethod": "pm_card_visa", "confirm": true,
        "receiptEmail": "ada@example.com", "metadata": {"lead": "42"}
    })
}

fn refused(exchange: Exchange) -> Failure {
    host()
        .exchange(exchange)
        .invoke::<Stripe>("create-payment-intent", payment())
        .unwrap_err()
}

#[test]
fn a_payment_carries_the_calls_key_twice() {
    let host = host().exchange(
        Exchange::post(INTENTS)
            .with_header("authorization", "Bearer secret:STRIPE_KEY")
            .with_header("idempotency-key", "key-1")
            .with_form(&[
                ("amount", "4900"),
                ("currency", "eur"),
                ("payment_method", "pm_card_visa"),
                ("confirm", "true"),
                ("automatic_payment_methods[allow_redirects]", "never"),
                ("receipt_email", "ada@example.com"),
                ("metadata[lead]", "42"),
                ("metadata[cofferdam_key]", "key-1"),
            ])
            .reply(200, &intent("succeeded")),
    );
    let output = host
        .invoke::<Stripe>("create-payment-intent", payment())
        .unwrap();
    assert_eq!(output["id"], "pi_1");
    assert_eq!(output["amountReceived"], 4900);
    assert!(!output.to_string().contains("secret"), "{output}");
}

#[test]
fn the_connectors_own_metadata_cannot_be_set() {
    let mut input = payment();
    input["metadata"]["cofferdam_key"] = json!("x");
    let failure = host()
        .invoke::<Stripe>("create-payment-intent", input)
        .unwrap_err();
    assert_eq!(failure.class, Class::InvalidInput);
}

#[test]
fn stripes_errors_have_classes() {
    for (status, error, class, code, effect) in [
        (
            402,
            json!({"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}),
            Class::Refused,
            "stripe.insufficient_funds",
            EffectState::None,
        ),
        (
            400,
            json!({"type": "idempotency_error"}),
            Class::Conflict,
            "stripe.idempotency_error",
            EffectState::None,
        ),
        (
            409,
            json!({"type": "idempotency_error", "code": "idempotency_key_in_use"}),
            Class::Unavailable,
            "stripe.idempotency_key_in_use",
            EffectState::Unknown,
        ),
        (
            429,
            json!({"type": "invalid_request_error", "code": "rate_limit"}),
            Class::RateLimited,
            "stripe.rate_limit",
            EffectState::None,
        ),
        (
            400,
            json!({"type": "invalid_request_error", "code": "parameter_missing", "param": "amount"}),
            Class::InvalidInput,
            "stripe.parameter_missing",
            EffectState::None,
        ),
        (
            401,
            json!({"type": "invalid_request_error"}),
            Class::Unauthenticated,
            "stripe.invalid_request_error",
            EffectState::None,
        ),
        (
            500,
            json!({"type": "api_error"}),
            Class::Unavailable,
            "stripe.api_error",
            EffectState::Unknown,
        ),
    ] {
        let failure = refused(Exchange::post(INTENTS).reply(status, &json!({"error": error})));
        assert_eq!((failure.class, failure.effect), (class, effect), "{error}");
        assert_eq!(failure.code, code);
    }
}

#[test]
fn an_answer_that_is_lost_leaves_the_effect_open() {
    let failure = refused(Exchange::post(INTENTS).fail(TransportError::Broken("reset".into())));
    assert_eq!(
        (failure.class, failure.effect),
        (Class::Unavailable, EffectState::Unknown)
    );
}

#[test]
fn a_lookup_finds_the_payment_by_its_key() {
    let host =
        host().exchange(Exchange::get(SEARCH).reply(200, &json!({"data": [intent("succeeded")]})));
    let found = host
        .lookup::<Stripe>("create-payment-intent", "key-1")
        .unwrap()
        .unwrap();
    assert_eq!(found["id"], "pi_1");
}

#[test]
fn a_lookup_does_not_trust_the_search_alone() {
    let host = host()
        .exchange(Exchange::get(SEARCH).reply(200, &json!({"data": []})))
        .exchange(
            Exchange::get(&format!("{INTENTS}?limit=100"))
                .reply(200, &json!({"data": [intent("succeeded")]})),
        );
    assert!(
        host.lookup::<Stripe>("create-payment-intent", "key-1")
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_lookup_counts_neither_strangers_nor_declined_payments() {
    let declined = intent("requires_payment_method");
    let mut stranger = intent("succeeded");
    stranger["metadata"] = json!({});
    let mine = host().exchange(Exchange::get(SEARCH).reply(200, &json!({"data": [declined]})));
    assert_eq!(
        mine.lookup::<Stripe>("create-payment-intent", "key-1")
            .unwrap(),
        None
    );
    let others = host()
        .exchange(Exchange::get(SEARCH).reply(200, &json!({"data": []})))
        .exchange(
            Exchange::get(&format!("{INTENTS}?limit=100")).reply(200, &json!({"data": [stranger]})),
        );
    assert_eq!(
        others
            .lookup::<Stripe>("create-payment-intent", "key-1")
            .unwrap(),
        None
    );
}

#[test]
fn a_lookup_that_cannot_know_fails() {
    let host = host().exchange(Exchange::get(SEARCH).reply_text(503, ""));
    let failure = host
        .lookup::<Stripe>("create-payment-intent", "key-1")
        .unwrap_err();
    assert_eq!(failure.class, Class::Unavailable);
    let failure = Recorded::new()
        .lookup::<Stripe>("refund", "key-1")
        .unwrap_err();
    assert_eq!(failure.class, Class::Unsupported);
}

#[test]
fn a_refund_carries_the_calls_key() {
    let host = host().exchange(
        Exchange::post("https://api.stripe.com/v1/refunds")
            .with_header("idempotency-key", "key-1")
            .with_form(&[
                ("payment_intent", "pi_1"),
                ("reason", "requested_by_customer"),
            ])
            .reply(
                200,
                &json!({
                    "id": "re_1", "status": "succeeded", "amount": 4900, "currency": "eur",
                    "payment_intent": "pi_1"
                }),
            ),
    );
    let input = json!({"paymentIntent": "pi_1", "reason": "requested_by_customer"});
    let refund = host.invoke::<Stripe>("refund", input).unwrap();
    assert_eq!(
        (refund["id"].as_str(), refund["paymentIntent"].as_str()),
        (Some("re_1"), Some("pi_1"))
    );
}

#[test]
fn a_second_refund_is_a_conflict() {
    let error =
        json!({"error": {"type": "invalid_request_error", "code": "charge_already_refunded"}});
    let host =
        host().exchange(Exchange::post("https://api.stripe.com/v1/refunds").reply(400, &error));
    let failure = host
        .invoke::<Stripe>("refund", json!({"paymentIntent": "pi_1"}))
        .unwrap_err();
    assert_eq!(failure.class, Class::Conflict);
}

#[test]
fn the_check_reads_the_balance_with_the_version_that_is_set() {
    let host = host().config("api_version", "2025-03-31.basil").exchange(
        Exchange::get("https://api.stripe.com/v1/balance")
            .with_header("stripe-version", "2025-03-31.basil")
            .reply(200, &json!({})),
    );
    assert!(host.check::<Stripe>().is_ok());
}
