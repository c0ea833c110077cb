//! A call that waits for a person: for how long, who is asked next, and what the person can say.

use serde_json::Value;

use super::{Decision, Phase, Plan, State};
use crate::descriptor;
use crate::failure::Failure;
use crate::workflow::OnDeadline;

impl State {
    /// A person must decide. `held` is the output that is to be looked at, if there is one.
    pub(crate) fn ask(&mut self, failure: Failure, held: Option<Value>, now_ms: u64, plan: &Plan) {
        self.phase = Phase::Review { failure };
        self.watch_review(now_ms, plan);
        self.held = held;
    }

    /// Whom the review has gone to, if anybody in particular.
    pub fn reviewer<'a>(&self, plan: &'a Plan) -> Option<&'a str> {
        let index = self.escalations.checked_sub(1)?;
        plan.review.escalate_to.get(index).map(String::as_str)
    }

    /// Begins to count the time of a review that has just begun.
    pub(super) fn watch_review(&mut self, now_ms: u64, plan: &Plan) {
        self.held = None;
        self.escalations = 0;
        let is_review = matches!(self.phase, Phase::Review { .. });
        let deadline_ms = plan.review.deadline_ms.filter(|_| is_review);
        self.review_due_ms = deadline_ms.map(|ms| now_ms.saturating_add(ms));
    }

    /// Nobody decided in time. Who is named last has all the time there is.
    pub(super) fn overdue(&mut self, mut failure: Failure, now_ms: u64, plan: &Plan) -> Phase {
        match plan.review.on_deadline {
            OnDeadline::Reject => {
                self.leave_review();
                failure.message = format!("{} (nobody decided in time)", failure.message);
                Phase::Exhausted {
                    failure,
                    fallback: false,
                }
            }
            OnDeadline::Escalate => {
                self.escalations += 1;
                let is_last = self.escalations >= plan.review.escalate_to.len();
                let deadline_ms = plan.review.deadline_ms.filter(|_| !is_last);
                self.review_due_ms = deadline_ms.map(|ms| now_ms.saturating_add(ms));
                Phase::Review { failure }
            }
        }
    }

    /// What a person decided; none if that cannot be decided here.
    pub(super) fn decided(
        &mut self,
        decision: Decision,
        mut failure: Failure,
        now_ms: u64,
        plan: &Plan,
    ) -> Option<Phase> {
        let phase = match decision {
            Decision::Approve { output } | Decision::Answer { output } => Phase::Succeeded {
                output,
                manual: true,
            },
            Decision::Accept => {
                let output = self.held.take()?;
                self.accepted = true;
                Phase::Succeeded {
                    output,
                    manual: false,
                }
            }
            // It is known to have happened: again would be twice.
            Decision::Retry if self.held.is_some() && plan.effect == descriptor::Effect::Once => {
                return None;
            }
            Decision::Retry => {
                // What is looked at has happened; nowhere else must it happen as well.
                self.tainted = self.held.is_some();
                self.lost = 0;
                self.parked_since_ms = None;
                self.unpark(now_ms, plan);
                Phase::Ready
            }
            Decision::Reject { reason } => {
                failure.message = format!("{} (rejected in review: {reason})", failure.message);
                Phase::Exhausted {
                    failure,
                    fallback: false,
                }
            }
        };
        self.leave_review();
        Some(phase)
    }

    fn leave_review(&mut self) {
        self.held = None;
        self.review_due_ms = None;
        self.escalations = 0;
    }
}
