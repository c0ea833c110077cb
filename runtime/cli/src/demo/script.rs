//! What goes wrong, and when: told by how many leads have arrived, so that each showing goes wrong
//! in the same places.

use serde_json::{Value, json};

/// One thing that goes wrong, or right again.
pub struct Step {
    /// Due when so many leads have arrived.
    pub arrived: usize,
    /// What is told of it.
    pub says: &'static str,
    /// What is done.
    pub what: What,
}

/// What is done.
pub enum What {
    /// A service gets these faults instead of those it has.
    Faults(&'static str, Value),
    /// The CRM is well again.
    Recover(&'static str),
    /// The worker is killed (SIGKILL) and started again.
    Kill,
}

/// The services that stand for the CRM and the chat.
const CRM: &str = "hubspot";
const CHAT: &str = "slack";

/// The script for so many leads, in order.
pub fn script(leads: usize) -> Vec<Step> {
    let at = |percent: usize| (leads * percent).div_ceil(100);
    let step = |percent, says, what| Step {
        arrived: at(percent),
        says,
        what,
    };
    vec![
        step(
            0,
            "the chat is down, and stays down",
            What::Faults(CHAT, json!([{"kind": "refuse"}])),
        ),
        step(
            30,
            "the CRM goes down: it refuses connections",
            What::Faults(CRM, json!([{"kind": "refuse"}])),
        ),
        step(
            40,
            "the CRM answers 503",
            What::Faults(CRM, json!([{"kind": "status", "code": 503}])),
        ),
        step(
            48,
            "the CRM works, but slowly",
            What::Faults(CRM, json!([{"kind": "latency", "ms": 300}])),
        ),
        step(
            55,
            "the worker is killed (SIGKILL) and started again",
            What::Kill,
        ),
        step(
            60,
            "the CRM goes down once more",
            What::Faults(CRM, json!([{"kind": "refuse"}])),
        ),
        step(75, "the CRM is well again", What::Recover(CRM)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_before_the_last_lead_and_in_order() {
        for leads in [1, 7, 100] {
            let script = script(leads);
            assert!(script.is_sorted_by_key(|step| step.arrived));
            assert!(script.iter().all(|step| step.arrived <= leads));
        }
    }
}
