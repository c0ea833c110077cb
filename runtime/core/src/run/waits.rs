//! What a run waits for, and what will happen next: for people, and as data.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::frame::{CallWork, Frame, Slot, Work};
use super::{Phase, Run, Status};
use crate::call::{Next, Phase as CallPhase};
use crate::descriptor;
use crate::workflow::{Fallback, OnDeadline, OnExhausted};

/// One thing that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// The task; empty if the run as a whole waits.
    pub task: String,
    /// Who or what has to come.
    pub r#for: For,
    /// The connection, if it waits for one or because of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What led there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// How the connection is; told by the process that has the store open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What happens when it has come: "tries again".
    pub next: String,
    /// When that is, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// When it waits no longer, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// What happens if it has waited in vain: "uses the fallback value".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

/// Who or what has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum For {
    /// Its turn in the queue.
    Turn,
    /// Somebody who resumes it.
    Resumption,
    /// The next attempt.
    Retry,
    /// A connection that works again.
    Connection,
    /// A person's decision.
    Person,
    /// An instant that the workflow names.
    Timer,
}

impl Wait {
    /// One sentence. `instant` writes instants, which are milliseconds since the Unix epoch.
    pub fn sentence(&self, instant: impl Fn(u64) -> String) -> String {
        let mut text = match (self.r#for, &self.connection) {
            (For::Turn, _) => "waits for its turn".to_owned(),
            (For::Resumption, _) => "is suspended".to_owned(),
            (For::Retry, Some(connection)) => {
                format!("waits to ask connection `{connection}` again")
            }
            (For::Retry, None) => "waits to try again".to_owned(),
            (For::Connection, Some(connection)) => format!("waits for connection `{connection}`"),
            (For::Connection, None) => "waits for its connection".to_owned(),
            (For::Person, _) => "waits for a person's decision".to_owned(),
            (For::Timer, _) => "waits for an instant".to_owned(),
        };
        // Writing to a string cannot fail.
        if let Some(state) = &self.state {
            let _ = write!(text, ", {state}");
        }
        let _ = write!(text, ", since {}", instant(self.since_ms));
        if let Some(because) = &self.because {
            let _ = write!(text, " ({because})");
        }
        let _ = write!(text, "; {}", self.next);
        if let Some(at_ms) = self.at_ms {
            let _ = write!(text, " at {}", instant(at_ms));
        }
        match (self.until_ms, &self.then) {
            (Some(until_ms), Some(then)) => {
                let _ = write!(text, "; gives up at {} and then {then}", instant(until_ms));
            }
            (Some(until_ms), None) => {
                let _ = write!(text, "; gives up at {}", instant(until_ms));
            }
            (None, Some(then)) => {
                let _ = write!(text, "; if that is in vain it {then}");
            }
            (None, None) => {}
        }
        text
    }
}

impl Run {
    /// What the run waits for, in the order of the tasks' keys; empty while something is under way
    /// everywhere, and when it has ended.
    pub fn waits(&self) -> Vec<Wait> {
        if matches!(self.phase, Phase::Ended(_)) {
            return Vec::new();
        }
        if let Some(suspension) = self.suspension() {
            return vec![Wait {
                because: suspension.reason.clone(),
                ..whole(
                    For::Resumption,
                    suspension.since_ms,
                    "goes on when somebody resumes it",
                )
            }];
        }
        if self.status() == Status::Queued {
            return vec![whole(
                For::Turn,
                self.begun_ms,
                "begins when there is room for it",
            )];
        }
        self.frames
            .iter()
            .filter_map(|(key, frame)| self.wait_of(key, frame))
            .collect()
    }

    fn wait_of(&self, key: &str, frame: &Frame) -> Option<Wait> {
        let base = Wait {
            task: key.to_owned(),
            ..whole(For::Timer, frame.started_ms, "goes on")
        };
        let wait = match &frame.work {
            Work::Wait { due_ms } => Wait {
                at_ms: Some(*due_ms),
                ..base
            },
            Work::Try(work) => Wait {
                r#for: For::Retry,
                next: format!("tries the tasks again (attempt {})", work.attempts + 1),
                at_ms: Some(work.due_ms?),
                ..base
            },
            Work::Call(work) => self.wait_of_call(key, frame, work, base)?,
            Work::Block(_) | Work::For(_) | Work::Fork(_) => return None,
        };
        Some(self.with_timeouts(key, wait))
    }

    fn wait_of_call(&self, key: &str, frame: &Frame, work: &CallWork, base: Wait) -> Option<Wait> {
        let last_ended_ms = || self.reports.get(key)?.attempts.last()?.ended_ms;
        let base = Wait {
            connection: Some(work.state.connection(&work.plan).to_owned()),
            since_ms: last_ended_ms().unwrap_or(base.since_ms),
            ..base
        };
        match &work.state.phase {
            CallPhase::Backoff {
                due_ms,
                then,
                failure,
            } => {
                let next = match then {
                    Next::Attempt => format!("attempt {} begins", work.state.attempts + 1),
                    Next::Lookup { asked } => format!(
                        "it is asked again (question {}) what became of the call",
                        asked + 1
                    ),
                };
                Some(Wait {
                    r#for: For::Retry,
                    because: Some(failure.to_string()),
                    next,
                    at_ms: Some(*due_ms),
                    then: Some(self.in_vain(frame, work)),
                    ..base
                })
            }
            CallPhase::Parked {
                deadline_ms,
                failure,
            } => Some(Wait {
                r#for: For::Connection,
                since_ms: work.state.parked_since_ms.unwrap_or(base.since_ms),
                because: Some(failure.to_string()),
                next: "asked again when it works, which costs no attempt until then".to_owned(),
                until_ms: Some(*deadline_ms),
                then: Some(self.in_vain(frame, work)),
                ..base
            }),
            CallPhase::Review { failure } => Some(Wait {
                r#for: For::Person,
                because: Some(failure.to_string()),
                next: "goes on as they decide".to_owned(),
                until_ms: frame.work_due_ms(),
                then: frame.work_due_ms().map(|_| in_time(work)),
                ..base
            }),
            CallPhase::Ready
            | CallPhase::InFlight
            | CallPhase::LookingUp { .. }
            | CallPhase::Deferring { .. }
            | CallPhase::Deferred
            | CallPhase::Succeeded { .. }
            | CallPhase::Exhausted { .. } => None,
        }
    }

    /// What becomes of a call that is out of options.
    fn in_vain(&self, frame: &Frame, work: &CallWork) -> String {
        if matches!(frame.slot, Slot::Undo(_)) {
            return "goes to review, while the other tasks are undone".to_owned();
        }
        if matches!(frame.slot, Slot::Fallback(_)) {
            return "makes way for the next fallback".to_owned();
        }
        let task = frame.task.as_ref();
        match task.and_then(|task| self.fallback(task, work, 0)) {
            Some(Fallback::Cache { .. }) => {
                return "uses an earlier answer, if there is one that is fresh enough".to_owned();
            }
            Some(Fallback::Value(_)) => return "uses the fallback value".to_owned(),
            Some(Fallback::Call {
                connection, action, ..
            }) => return format!("asks `{connection}.{action}` instead"),
            None => {}
        }
        if !work.policy.critical {
            return "is passed over, and the run goes on without it".to_owned();
        }
        let default = match work.plan.effect {
            descriptor::Effect::Once => OnExhausted::Review,
            descriptor::Effect::Read | descriptor::Effect::Idempotent => OnExhausted::DeadLetter,
        };
        let on_exhausted = work.policy.on_exhausted.unwrap_or(default);
        if on_exhausted == OnExhausted::Review {
            return "goes to review".to_owned();
        }
        if self.is_tried(frame) {
            return "fails, which the `try` around it may handle".to_owned();
        }
        match on_exhausted {
            OnExhausted::Fault => "fails, and the run faults".to_owned(),
            OnExhausted::DeadLetter | OnExhausted::Review => {
                "fails, and the run faults and is kept as a dead letter".to_owned()
            }
        }
    }

    fn is_tried(&self, frame: &Frame) -> bool {
        let mut at = Some(frame);
        while let Some(frame) = at {
            if frame.slot == Slot::Tried {
                return true;
            }
            at = frame.parent.as_deref().and_then(|key| self.frames.get(key));
        }
        false
    }

    /// The time of the task, or of something around it, may be over before.
    fn with_timeouts(&self, key: &str, wait: Wait) -> Wait {
        let mut nearest: Option<u64> = None;
        let mut at = self.frames.get(key);
        while let Some(frame) = at {
            nearest = match (nearest, frame.deadline_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            at = frame.parent.as_deref().and_then(|key| self.frames.get(key));
        }
        let ends_ms = wait.until_ms.or(wait.at_ms).unwrap_or(u64::MAX);
        match nearest.filter(|deadline_ms| *deadline_ms < ends_ms) {
            Some(deadline_ms) => Wait {
                until_ms: Some(deadline_ms),
                then: Some("fails, because the time that its `timeout` gives is over".to_owned()),
                ..wait
            },
            None => wait,
        }
    }
}

/// What happens when nobody decides in time.
fn in_time(work: &CallWork) -> String {
    let escalates = work.plan.review.on_deadline == OnDeadline::Escalate;
    let next = if escalates {
        "asks the next person"
    } else {
        "is rejected"
    };
    next.to_owned()
}

fn whole(what: For, since_ms: u64, next: &str) -> Wait {
    Wait {
        task: String::new(),
        r#for: what,
        connection: None,
        since_ms,
        because: None,
        state: None,
        next: next.to_owned(),
        at_ms: None,
        until_ms: None,
        then: None,
    }
}
