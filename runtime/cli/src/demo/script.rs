//! What goes wrong, and when: in a showing told by how many leads have arrived, so that each goes
//! wrong in the same places; in a drill by the time, too.

use std::time::Duration;

use serde_json::{Value, json};

/// One thing that goes wrong, or right again.
pub struct Step {
    /// When it is due.
    pub when: When,
    /// What is told of it.
    pub says: &'static str,
    /// What is done.
    pub what: What,
}

/// When a step is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// So many leads have arrived.
    Arrived(usize),
    /// So long after the step before.
    After(Duration),
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
pub const CRM: &str = "hubspot";
const CHAT: &str = "slack";

/// The script for so many leads, in order.
pub fn script(leads: usize) -> Vec<Step> {
    let at = |percent: usize| (leads * percent).div_ceil(100);
    let step = |percent, says, what| Step {
        when: When::Arrived(at(percent)),
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
            let arrived = script.iter().map(|step| match step.when {
                When::Arrived(arrived) => arrived,
                When::After(_) => panic!("a showing goes by leads"),
            });
            assert!(arrived.clone().is_sorted());
            assert!(arrived.max() <= Some(leads));
        }
    }
}
