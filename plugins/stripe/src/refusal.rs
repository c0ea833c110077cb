//! Stripe's errors as failures.

use cofferdam_sdk::prelude::*;

#[derive(Debug, Deserialize)]
struct Envelope {
    error: VendorError,
}

#[derive(Debug, Deserialize)]
struct VendorError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    param: Option<String>,
}

/// The failure that an answer without success stands for: the class of its status, unless
/// Stripe's own words say more.
pub(crate) fn failure(response: &http::Response) -> Failure {
    let failure = response.failure();
    let Ok(Envelope { error }) = response.json::<Envelope>() else {
        return failure;
    };
    let word = error
        .decline_code
        .as_ref()
        .or(error.code.as_ref())
        .unwrap_or(&error.kind);
    let code = format!("stripe.{word}");
    let message = error
        .message
        .clone()
        .unwrap_or_else(|| failure.message.clone());
    let details = json!({
        "status": response.status(),
        "type": error.kind,
        "code": error.code,
        "declineCode": error.decline_code,
        "param": error.param,
    });
    let failure = failure.reworded(code, message).details(details);
    match (error.kind.as_str(), error.code.as_deref()) {
        // The first request with this key is still at work: what comes of it is open, and the
        // same request later is answered with it.
        (_, Some("idempotency_key_in_use")) => failure
            .class(Class::Unavailable)
            .effect(EffectState::Unknown),
        // The key was used with other parameters.
        ("idempotency_error", _) => failure.class(Class::Conflict),
        ("card_error", _) => failure.class(Class::Refused),
        (_, Some("charge_already_refunded" | "payment_intent_unexpected_state")) => {
            failure.class(Class::Conflict)
        }
        (_, Some("rate_limit" | "lock_timeout")) => failure.class(Class::RateLimited),
        _ => failure,
    }
}
