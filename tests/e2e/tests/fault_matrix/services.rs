//! Which action of which connector stands for each effect, and what each fault does to it.

use cofferdam_standins::{Fault, Options, Standins};
use serde_json::{Value, json};

/// What `Retry-After` asks for, in seconds: the shortest that the header can say.
const RETRY_AFTER_S: u64 = 1;

/// An action of a real connector and the stand-in that it talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    /// `read`: a search of HubSpot's contacts.
    HubSpot,
    /// `idempotent`: a payment with Stripe, keyed, which can be looked up.
    Stripe,
    /// `once`: a message in Slack.
    Slack,
}

impl Service {
    /// The one whose action has this effect.
    pub(crate) fn of(effect: &str) -> Self {
        match effect {
            "read" => Self::HubSpot,
            "idempotent" => Self::Stripe,
            _ => Self::Slack,
        }
    }

    pub(crate) fn changes_something(self) -> bool {
        !matches!(self, Self::HubSpot)
    }

    pub(crate) fn plugin(self) -> &'static str {
        match self {
            Self::HubSpot => "hubspot",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
        }
    }

    /// The name of its secret, and the secret.
    pub(crate) fn secret(self) -> (&'static str, String) {
        let options = Options::default();
        match self {
            Self::HubSpot => ("HUBSPOT_TOKEN", options.hubspot_token),
            Self::Stripe => ("STRIPE_KEY", options.stripe_key),
            Self::Slack => ("SLACK_TOKEN", options.slack_token),
        }
    }

    pub(crate) fn action(self) -> (&'static str, Value) {
        match self {
            Self::HubSpot => ("search-contacts", json!({"query": "ada"})),
            Self::Stripe => (
                "create-payment-intent",
                json!({
                    "amount": 4900, "currency": "eur", "paymentMethod": "pm_card_visa", "confirm": true,
                }),
            ),
            Self::Slack => (
                "post-message",
                json!({"channel": "#leads", "text": "A new lead: Ada"}),
            ),
        }
    }

    /// What an action of this kind gives, for a person who saw that it happened.
    pub(crate) fn output(self) -> Value {
        match self {
            Self::HubSpot => json!({"contacts": [], "total": 0}),
            Self::Stripe => {
                json!({"id": "pi_1", "status": "succeeded", "amount": 4900, "currency": "eur"})
            }
            Self::Slack => json!({"channel": "C0000000005", "ts": "1.2"}),
        }
    }

    pub(crate) fn url(self, standins: &Standins) -> String {
        match self {
            Self::HubSpot => standins.hubspot.url(),
            Self::Stripe => standins.stripe.url(),
            Self::Slack => standins.slack.url(),
        }
    }

    pub(crate) async fn set_faults(
        self,
        standins: &Standins,
        faults: Vec<Fault>,
    ) -> Result<(), cofferdam_standins::Error> {
        match self {
            Self::HubSpot => standins.hubspot.set_faults(faults).await,
            Self::Stripe => standins.stripe.set_faults(faults).await,
            Self::Slack => standins.slack.set_faults(faults).await,
        }
    }

    /// How often something was changed.
    pub(crate) fn applied(self, standins: &Standins) -> u64 {
        let effects = match self {
            Self::HubSpot => standins.hubspot.effects(),
            Self::Stripe => standins.stripe.effects(),
            Self::Slack => standins.slack.effects(),
        };
        effects.values().sum()
    }

    /// A field that the connector needs of the action's answer, as a JSON pointer.
    fn needed(self) -> &'static str {
        match self {
            Self::HubSpot => "/results",
            Self::Stripe => "/status",
            Self::Slack => "/ts",
        }
    }

    /// Text that only the request of the action has in its body: a lookup or a probe has it not.
    fn mark(self) -> &'static str {
        match self {
            Self::HubSpot => "ada",
            Self::Stripe => "amount=4900",
            Self::Slack => "A new lead",
        }
    }

    /// What makes the stand-in show this fault of the table.
    pub(crate) fn fault(self, name: &str) -> Fault {
        match name {
            "400" | "401" | "403" | "404" | "409" | "500" | "503" => {
                Fault::status(name.parse().unwrap())
            }
            "429 with Retry-After" => Fault::rate_limited(RETRY_AFTER_S),
            "timeout" => Fault::hang(),
            "refused" => Fault::refuse(),
            "reset" => Fault::reset(),
            "malformed" => Fault::malformed().on_body(self.mark()),
            "truncated" => Fault::truncated(),
            "missing field" => Fault::missing_field(self.needed()),
            "wrong type" => Fault::wrong_type(self.needed()),
            "lost acknowledgement" => Fault::accept_then_drop(),
            other => panic!("{other} is no fault of the table"),
        }
    }
}
