//! What a careful person decides about a review: one who looks at the other system first.

use cofferdam::Decision;
use serde_json::json;

use crate::world::State;

impl State {
    /// Decides, after having made sure that nothing changes any more behind the operator's back.
    pub fn decide(&mut self, run: &str, task: &str) -> Decision {
        let reject = Decision::Reject {
            reason: "simulated".to_owned(),
        };
        if task.starts_with("undo:") {
            return reject;
        }
        let Some((identity, _)) = self.oracle.call_of(run, task) else {
            // Asked before any attempt was made.
            return if self.is_fair() || self.dice.percent(50) {
                reject
            } else {
                Decision::Retry
            };
        };
        let effected = self
            .services
            .effects
            .get(&identity)
            .cloned()
            .unwrap_or_default();
        self.services.seal(&effected.key);
        if effected.count > 0 {
            // It did happen: nobody must make it happen again.
            return if self.dice.percent(70) {
                let nonce = self.dice.roll() >> 12;
                self.services.approved.insert(nonce);
                Decision::Approve {
                    output: json!({"id": identity, "n": nonce}),
                }
            } else {
                reject
            };
        }
        if self.dice.percent(50) {
            Decision::Retry
        } else {
            reject
        }
    }
}
