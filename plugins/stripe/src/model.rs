//! What goes in and out, and Stripe's own shapes.

use std::collections::BTreeMap;

use cofferdam_sdk::prelude::*;

/// A payment to make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreatePaymentIntent {
    /// How much, in the currency's smallest unit: 4900 for 49.00 EUR.
    #[schemars(range(min = 1, max = 99_999_999))]
    pub amount: u64,
    /// Three letters, as in ISO 4217.
    #[schemars(length(min = 3, max = 3))]
    pub currency: String,
    /// What to charge: `pm_…`. Needed with `confirm`.
    #[serde(default)]
    pub payment_method: Option<String>,
    /// Whether to charge at once.
    #[serde(default)]
    pub confirm: bool,
    /// Whom to charge: `cus_…`.
    #[serde(default)]
    pub customer: Option<String>,
    /// A line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Where Stripe sends the receipt.
    #[serde(default)]
    pub receipt_email: Option<String>,
    /// At most 49 pairs of your own.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 49))]
    pub metadata: BTreeMap<String, String>,
}

/// Which payment intent to read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetPaymentIntent {
    /// Stripe's id: `pi_…`.
    #[schemars(length(min = 1))]
    pub id: String,
}

/// A payment intent, as far as a workflow needs it. The client secret is left out on purpose.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct PaymentIntent {
    /// Stripe's id: `pi_…`.
    pub id: String,
    /// Stripe's word: `succeeded`, `processing`, `requires_action`, `requires_confirmation`,
    /// `requires_payment_method`, `requires_capture`, `canceled`.
    pub status: String,
    /// How much, in the currency's smallest unit.
    pub amount: u64,
    /// How much of it was taken.
    #[serde(default)]
    pub amount_received: u64,
    /// Three letters.
    pub currency: String,
    /// The charge that was made: `ch_…`.
    #[serde(default)]
    pub latest_charge: Option<String>,
    /// The metadata, with this connector's `cofferdam_key`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl PaymentIntent {
    /// Whether nothing can be charged yet: no payment method was given, or it was declined.
    pub(crate) fn lacks_payment_method(&self) -> bool {
        self.status == "requires_payment_method"
    }
}

/// A payment to give back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateRefund {
    /// The payment intent: `pi_…`.
    #[schemars(length(min = 1))]
    pub payment_intent: String,
    /// How much, in the currency's smallest unit; all of it if there is none.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub amount: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<Reason>,
}

/// Why a payment is given back.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was made twice.
    Duplicate,
    /// It was not the card holder's.
    Fraudulent,
    /// The customer asked for it.
    RequestedByCustomer,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Fraudulent => "fraudulent",
            Self::RequestedByCustomer => "requested_by_customer",
        }
    }
}

/// A refund.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct Refund {
    /// Stripe's id: `re_…`.
    pub id: String,
    /// Stripe's word: `succeeded`, `pending`, `requires_action`, `failed`, `canceled`.
    #[serde(default)]
    pub status: Option<String>,
    /// How much, in the currency's smallest unit.
    pub amount: u64,
    /// Three letters.
    pub currency: String,
    /// The payment that was given back.
    #[serde(default)]
    pub payment_intent: Option<String>,
}

/// A page of intents, from the list or the search.
#[derive(Debug, Deserialize)]
pub(crate) struct List {
    pub(crate) data: Vec<PaymentIntent>,
}
