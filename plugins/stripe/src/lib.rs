//! Payments and refunds with Stripe.
//!
//! Settings: `base_url`, default `https://api.stripe.com`; `api_version`, sent as
//! `Stripe-Version` if it is set. Secret: `STRIPE_KEY`, a restricted key that may write payment
//! intents and refunds and read the balance.
//!
//! # What happens twice
//! Every write carries the call's idempotency key, under which Stripe answers a repeated request
//! as it answered the first, for at least 24 hours: so both writes are idempotent. Payment
//! intents also carry the key in their metadata (`cofferdam_key`), by which a lookup finds them
//! later. Stripe's search is eventually consistent (a new intent is found after about a minute,
//! longer in an outage), so a lookup that finds nothing reads the list of the newest 100 intents
//! too, which is consistent. A refund needs no lookup within the 24 hours, and afterwards a
//! second full refund is refused as `charge_already_refunded`.

mod form;
mod model;
mod refusal;
#[cfg(test)]
mod tests;

use cofferdam_sdk::prelude::*;

use form::Form;
pub use model::*;

/// The connector and its settings.
#[derive(Debug, Deserialize)]
pub struct Stripe {
    #[serde(default = "vendor")]
    base_url: String,
    #[serde(default)]
    api_version: Option<String>,
}

fn vendor() -> String {
    "https://api.stripe.com".to_owned()
}

/// Where an intent's metadata has the idempotency key.
const KEY: &str = "cofferdam_key";
/// Stripe's longest page.
const PAGE: u32 = 100;

#[connector(name = "stripe", description = "Payments and refunds with Stripe")]
impl Stripe {
    /// Creates a payment intent and, with `confirm`, charges the payment method at once.
    #[action(
        effect = idempotent,
        compensated_by = "refund",
        lookup = find_payment_intent,
        example = r#"{"amount": 4900, "currency": "eur", "paymentMethod": "pm_card_visa", "confirm": true, "receiptEmail": "ada@example.com"}"#
    )]
    fn create_payment_intent(
        &self,
        call: &Call,
        input: CreatePaymentIntent,
    ) -> Result<PaymentIntent, Failure> {
        if input.metadata.contains_key(KEY) {
            let message = format!("the metadata key `{KEY}` is this connector's own");
            return Err(Failure::invalid_input("stripe.metadata", message));
        }
        let mut form = Form::default();
        form.add("amount", input.amount);
        form.add("currency", input.currency.to_lowercase());
        form.add_some("payment_method", input.payment_method);
        form.add_some("customer", input.customer);
        form.add_some("description", input.description);
        form.add_some("receipt_email", input.receipt_email);
        if input.confirm {
            form.add("confirm", "true");
            // Nobody is there to be sent to another page.
            form.add("automatic_payment_methods[enabled]", "true");
            form.add("automatic_payment_methods[allow_redirects]", "never");
        }
        for (name, value) in &input.metadata {
            form.add(&format!("metadata[{name}]"), value);
        }
        form.add(&format!("metadata[{KEY}]"), &call.idempotency_key);
        self.write(call, &["payment_intents"], &form)?.json()
    }

    /// Reads a payment intent.
    #[action(effect = read, example = r#"{"id": "pi_123"}"#)]
    fn get_payment_intent(&self, input: GetPaymentIntent) -> Result<PaymentIntent, Failure> {
        self.send(http::Request::get(
            self.url(&["payment_intents", &input.id])?,
        ))?
        .json()
    }

    /// Refunds a payment, or a part of it.
    #[action(effect = idempotent, example = r#"{"paymentIntent": "pi_123"}"#)]
    fn refund(&self, call: &Call, input: CreateRefund) -> Result<Refund, Failure> {
        let mut form = Form::default();
        form.add("payment_intent", input.payment_intent);
        form.add_some("amount", input.amount);
        form.add_some("reason", input.reason.map(Reason::as_str));
        form.add(&format!("metadata[{KEY}]"), &call.idempotency_key);
        self.write(call, &["refunds"], &form)?.json()
    }

    fn check(&self) -> Result<Health, Failure> {
        self.send(http::Request::get(self.url(&["balance"])?))?;
        Ok(Health::healthy("Stripe answers and takes the key"))
    }

    /// The intent that was made under a key. One without a payment method does not count: it may
    /// be what a declined call left behind, and no money moves if the call is repeated.
    fn find_payment_intent(&self, key: &str) -> Result<Option<PaymentIntent>, Failure> {
        let escaped = key.replace('\\', "\\\\").replace('\'', "\\'");
        let search = http::Request::get(self.url(&["payment_intents", "search"])?)
            .query("query", format_args!("metadata['{KEY}']:'{escaped}'"));
        let newest = http::Request::get(self.url(&["payment_intents"])?).query("limit", PAGE);
        for request in [search, newest] {
            let list: List = self.send(request)?.json()?;
            let found = list
                .data
                .into_iter()
                .find(|intent| intent.metadata.get(KEY).is_some_and(|found| found == key));
            if let Some(intent) = found {
                return Ok(Some(intent).filter(|intent| !intent.lacks_payment_method()));
            }
        }
        Ok(None)
    }

    fn url(&self, segments: &[&str]) -> Result<String, Failure> {
        http::url(&self.base_url, &[&["v1"], segments].concat())
    }

    fn write(&self, call: &Call, path: &[&str], form: &Form) -> Result<http::Response, Failure> {
        let request = http::Request::post(self.url(path)?)
            .header("idempotency-key", &call.idempotency_key)
            .form(form.fields());
        self.send(request)
    }

    fn send(&self, mut request: http::Request) -> Result<http::Response, Failure> {
        if let Some(version) = &self.api_version {
            request = request.header("stripe-version", version);
        }
        let response = request.bearer(secrets::placeholder("STRIPE_KEY")?).send()?;
        if response.is_success() {
            Ok(response)
        } else {
            Err(refusal::failure(&response))
        }
    }
}
