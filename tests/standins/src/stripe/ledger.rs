//! Intents, charges and refunds: where the money of the stand-in moves.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Params, Refusal};

/// Largest amount: eight digits of the smallest unit.
const AMOUNT_MAX: u64 = 99_999_999;

/// What was taken from one customer, in the smallest unit of the currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Charged {
    /// Captured, refunds not taken off.
    pub captured_minor: u64,
    /// Given back.
    pub refunded_minor: u64,
    /// Number of captured charges.
    pub charges: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) amount: u64,
    pub(super) currency: String,
    pub(super) status: &'static str,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) receipt_email: Option<String>,
    pub(super) customer: Option<String>,
    description: Option<String>,
    payment_method: Option<String>,
    manual_capture: bool,
    charge: Option<String>,
    refunded: u64,
    created: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Refund {
    id: String,
    amount: u64,
    currency: String,
    charge: Option<String>,
    intent: String,
    reason: Option<String>,
    metadata: BTreeMap<String, String>,
    created: u64,
}

/// All objects by id. Ids are numbered, so their order is that of creation.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    intents: BTreeMap<String, Intent>,
    refunds: BTreeMap<String, Refund>,
    numbered: u64,
}

impl Ledger {
    pub(super) fn intents(&self) -> impl DoubleEndedIterator<Item = &Intent> {
        self.intents.values()
    }

    pub(super) fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.refunds.values()
    }

    pub(super) fn intent(&self, id: &str) -> Result<&Intent, Refusal> {
        self.intents
            .get(id)
            .ok_or_else(|| Refusal::no_such("payment_intent", "intent", id))
    }

    pub(super) fn refund(&self, id: &str) -> Result<&Refund, Refusal> {
        self.refunds
            .get(id)
            .ok_or_else(|| Refusal::no_such("refund", "id", id))
    }

    fn number(&mut self, prefix: &str) -> String {
        self.numbered += 1;
        format!("{prefix}_{:020}", self.numbered)
    }

    pub(super) fn create_intent(&mut self, params: &Params) -> Result<Value, Refusal> {
        params.only(&[
            "amount",
            "automatic_payment_methods",
            "capture_method",
            "confirm",
            "currency",
            "customer",
            "description",
            "off_session",
            "payment_method",
            "payment_method_types",
            "receipt_email",
            "return_url",
        ])?;
        let amount = params
            .amount("amount")?
            .ok_or_else(|| Refusal::missing("amount"))?;
        if amount > AMOUNT_MAX {
            let message = "Amount must be no more than 99999999.".to_owned();
            return Err(Refusal::invalid("amount_too_large", "amount", message));
        }
        let currency = params.required("currency")?.to_ascii_lowercase();
        if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_lowercase()) {
            return Err(Refusal::invalid(
                "parameter_invalid",
                "currency",
                format!("Invalid currency: {currency}."),
            ));
        }
        let payment_method = params
            .text("payment_method")
            .map(check_method)
            .transpose()?;
        let confirm = params.flag("confirm")?;
        if confirm && payment_method.is_none() {
            return Err(unconfirmable());
        }
        let manual_capture = match params.text("capture_method") {
            None | Some("automatic" | "automatic_async") => false,
            Some("manual") => true,
            Some(other) => {
                return Err(Refusal::invalid(
                    "parameter_invalid",
                    "capture_method",
                    format!("Invalid capture_method: {other}"),
                ));
            }
        };
        let intent = Intent {
            metadata: params.metadata()?,
            id: self.number("pi"),
            amount,
            currency,
            status: if payment_method.is_some() {
                "requires_confirmation"
            } else {
                "requires_payment_method"
            },
            receipt_email: params.text("receipt_email").map(str::to_owned),
            customer: params.text("customer").map(str::to_owned),
            description: params.text("description").map(str::to_owned),
            payment_method,
            manual_capture,
            charge: None,
            refunded: 0,
            created: seconds(),
        };
        self.keep(intent, confirm)
    }

    pub(super) fn confirm(&mut self, id: &str, params: &Params) -> Result<Value, Refusal> {
        params.only(&[
            "payment_method",
            "off_session",
            "receipt_email",
            "return_url",
        ])?;
        let mut intent = self.intent(id)?.clone();
        if !matches!(
            intent.status,
            "requires_payment_method" | "requires_confirmation"
        ) {
            let message = format!(
                "You cannot confirm this PaymentIntent because it has a status of {}.",
                intent.status
            );
            return Err(Refusal::state("payment_intent_unexpected_state", message));
        }
        if let Some(method) = params.text("payment_method") {
            intent.payment_method = Some(check_method(method)?);
        }
        if intent.payment_method.is_none() {
            return Err(unconfirmable());
        }
        self.keep(intent, true)
    }

    pub(super) fn cancel(&mut self, id: &str, params: &Params) -> Result<Value, Refusal> {
        params.only(&["cancellation_reason"])?;
        let mut intent = self.intent(id)?.clone();
        if matches!(intent.status, "succeeded" | "canceled") {
            let message = format!(
                "You cannot cancel this PaymentIntent because it has a status of {}.",
                intent.status
            );
            return Err(Refusal::state("payment_intent_unexpected_state", message));
        }
        intent.status = "canceled";
        self.keep(intent, false)
    }

    /// Stores an intent, after charging its card if it is to be confirmed. A declined intent is
    /// stored too, waiting for another card.
    fn keep(&mut self, mut intent: Intent, confirm: bool) -> Result<Value, Refusal> {
        let declined = if confirm {
            intent.payment_method.as_deref().and_then(decline)
        } else {
            None
        };
        if declined.is_some() {
            intent.status = "requires_payment_method";
            intent.payment_method = None;
        } else if confirm {
            intent.status = if intent.manual_capture {
                "requires_capture"
            } else {
                "succeeded"
            };
            intent.charge = Some(self.number("ch"));
        }
        let rendered = intent.render();
        self.intents.insert(intent.id.clone(), intent);
        match declined {
            Some((code, decline_code, message)) => {
                Err(Refusal::declined(code, decline_code, message, rendered))
            }
            None => Ok(rendered),
        }
    }

    pub(super) fn create_refund(&mut self, params: &Params) -> Result<Value, Refusal> {
        params.only(&["amount", "charge", "payment_intent", "reason"])?;
        let (id, metadata, wanted) = (
            self.refundable(params)?.id.clone(),
            params.metadata()?,
            params.amount("amount")?,
        );
        let number = self.number("re");
        let intent = self
            .intents
            .get_mut(&id)
            .ok_or_else(|| Refusal::no_such("payment_intent", "payment_intent", &id))?;
        let left = intent.amount - intent.refunded;
        if left == 0 {
            let charge = intent.charge.as_deref().unwrap_or_default();
            return Err(Refusal::state(
                "charge_already_refunded",
                format!("Charge {charge} has already been refunded."),
            ));
        }
        let amount = wanted.unwrap_or(left);
        if amount > left {
            let message = format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            );
            return Err(Refusal::invalid("amount_too_large", "amount", message));
        }
        intent.refunded += amount;
        let refund = Refund {
            id: number,
            amount,
            currency: intent.currency.clone(),
            charge: intent.charge.clone(),
            intent: id,
            reason: params.text("reason").map(str::to_owned),
            metadata,
            created: seconds(),
        };
        let rendered = refund.render();
        self.refunds.insert(refund.id.clone(), refund);
        Ok(rendered)
    }

    /// The captured intent that a refund names, directly or by its charge.
    fn refundable(&self, params: &Params) -> Result<&Intent, Refusal> {
        let found = match (params.text("payment_intent"), params.text("charge")) {
            (Some(id), _) => self
                .intents
                .get(id)
                .ok_or_else(|| Refusal::no_such("payment_intent", "payment_intent", id))?,
            (None, Some(charge)) => {
                let mut intents = self.intents.values();
                let found = intents.find(|intent| intent.charge.as_deref() == Some(charge));
                found.ok_or_else(|| Refusal::no_such("charge", "charge", charge))?
            }
            (None, None) => return Err(Refusal::missing("payment_intent")),
        };
        if found.status == "succeeded" {
            return Ok(found);
        }
        let message = format!(
            "This PaymentIntent ({}) does not have a successful charge to refund.",
            found.id
        );
        Err(Refusal::state("payment_intent_unexpected_state", message))
    }

    /// What is there, by currency.
    pub(super) fn balance(&self) -> Value {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for intent in self.intents.values() {
            *sums.entry(&intent.currency).or_default() += intent.captured() - intent.refunded;
        }
        let available: Vec<Value> = sums
            .into_iter()
            .map(|(currency, amount)| json!({ "amount": amount, "currency": currency, "source_types": { "card": amount } }))
            .collect();
        json!({ "object": "balance", "available": available, "livemode": false, "pending": [] })
    }

    /// Sums up captured money by whatever `name` makes of an intent.
    pub(super) fn charged_by(
        &self,
        name: impl Fn(&Intent) -> Option<String>,
    ) -> BTreeMap<String, Charged> {
        let mut sums: BTreeMap<String, Charged> = BTreeMap::new();
        for intent in self
            .intents
            .values()
            .filter(|intent| intent.status == "succeeded")
        {
            if let Some(name) = name(intent) {
                let sum = sums.entry(name).or_default();
                sum.captured_minor += intent.amount;
                sum.refunded_minor += intent.refunded;
                sum.charges += 1;
            }
        }
        sums
    }
}

impl Intent {
    fn captured(&self) -> u64 {
        if self.status == "succeeded" {
            self.amount
        } else {
            0
        }
    }

    pub(super) fn render(&self) -> Value {
        let fields = json!({
            "id": self.id, "object": "payment_intent", "amount": self.amount,
            "amount_capturable": if self.status == "requires_capture" { self.amount } else { 0 },
            "amount_received": self.captured(),
            "capture_method": if self.manual_capture { "manual" } else { "automatic" },
            "client_secret": format!("{}_secret_standin", self.id),
            "created": self.created, "currency": self.currency, "customer": self.customer,
            "description": self.description, "latest_charge": self.charge, "livemode": false,
            "metadata": self.metadata, "payment_method": self.payment_method, "payment_method_types": ["card"],
            "receipt_email": self.receipt_email, "status": self.status,
        });
        fields
    }
}

impl Refund {
    pub(super) fn render(&self) -> Value {
        let mut object = Map::new();
        object.insert("id".to_owned(), json!(self.id));
        let rest = json!({
            "object": "refund", "amount": self.amount, "charge": self.charge, "created": self.created,
            "currency": self.currency, "metadata": self.metadata, "payment_intent": self.intent,
            "reason": self.reason, "status": "succeeded",
        });
        object.extend(rest.as_object().cloned().unwrap_or_default());
        Value::Object(object)
    }
}

/// Test cards exist under names of one form; anything else is unknown.
fn check_method(method: &str) -> Result<String, Refusal> {
    if method.starts_with("pm_") {
        return Ok(method.to_owned());
    }
    let message = format!("No such PaymentMethod: '{method}'");
    Err(Refusal::invalid(
        "resource_missing",
        "payment_method",
        message,
    ))
}

/// How Stripe's test cards are declined: code, decline code, message.
fn decline(method: &str) -> Option<(&'static str, Option<&'static str>, &'static str)> {
    let declined = "Your card was declined.";
    match method {
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" => {
            Some(("card_declined", Some("generic_decline"), declined))
        }
        "pm_card_chargeDeclinedInsufficientFunds"
        | "pm_card_visa_chargeDeclinedInsufficientFunds" => Some((
            "card_declined",
            Some("insufficient_funds"),
            "Your card has insufficient funds.",
        )),
        "pm_card_chargeDeclinedExpiredCard" => {
            Some(("expired_card", None, "Your card has expired."))
        }
        "pm_card_chargeDeclinedIncorrectCvc" => Some((
            "incorrect_cvc",
            None,
            "Your card's security code is incorrect.",
        )),
        "pm_card_chargeDeclinedProcessingError" => Some((
            "processing_error",
            None,
            "An error occurred while processing your card.",
        )),
        _ => None,
    }
}

fn unconfirmable() -> Refusal {
    let message = "You cannot confirm this PaymentIntent because it's missing a payment method.";
    Refusal::state("payment_intent_unexpected_state", message)
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
