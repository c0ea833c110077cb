//! What stands in for an answer: an earlier one, a value, or the answer of another action, in the
//! order in which the workflow names them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::InnerCall;
use super::environment::Around;
use super::frame::{CallWork, Frame, Op, Recall, Slot, Work};
use super::ledger;
use super::{Illegal, Run, Step};
use crate::call::Phase;
use crate::descriptor::Effect as Repeat;
use crate::provenance::Provenance;
use crate::workflow::{Fallback, Kind, Policy, Task};

/// An earlier answer to the same input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The output.
    pub output: Value,
    /// When it was given, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Run {
    /// Uses the fallback with this index, or goes on without.
    pub(super) fn next_fallback(&mut self, key: &str, index: usize, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            task,
            input,
            ..
        }) = self.frames.get(key)
        else {
            return;
        };
        let Phase::Exhausted { failure, .. } = work.state.phase.clone() else {
            return;
        };
        let fallback = task
            .as_ref()
            .and_then(|task| self.fallback(task, work, index));
        let (input, with, call_key) =
            (Arc::clone(input), Arc::clone(&work.input), work.key.clone());
        // What may have happened here must not be made to happen elsewhere as well.
        let may_ask_elsewhere = !work.state.tainted || work.effect.is_none();
        let around = Around::new(self, key);
        match fallback {
            None => self.out_of_options(key, failure, step),
            Some(Fallback::Cache { max_age_ms }) => {
                self.recall(key, Recall { index, max_age_ms }, step);
            }
            Some(Fallback::Value(template)) => match self.evaluate(&template, &input, &around) {
                Ok(value) => self.succeed(key, Arc::new(value), Provenance::Default, step),
                Err(error) => step.ops.push(Op::Raise {
                    key: key.to_owned(),
                    error,
                }),
            },
            Some(Fallback::Call { .. }) if !may_ask_elsewhere => {
                self.next_fallback(key, index + 1, step);
            }
            Some(Fallback::Call {
                connection,
                action,
                with: template,
                compensate: _,
            }) => {
                let reference = around.reference().to_owned();
                let input = match template.map(|t| self.evaluate(&t, &input, &around)) {
                    None => with,
                    Some(Ok(value)) => Arc::new(value),
                    Some(Err(error)) => {
                        step.ops.push(Op::Raise {
                            key: key.to_owned(),
                            error,
                        });
                        return;
                    }
                };
                let inner = InnerCall {
                    key: format!("{key}/~fallback[{index}]"),
                    parent: Some(key.to_owned()),
                    slot: Slot::Fallback(index),
                    reference: &reference,
                    connection: &connection,
                    action: &action,
                    input,
                    call_key: self.fallback_key(&call_key, index),
                };
                self.start_inner_call(inner, step);
            }
        }
    }

    /// The fallback whose own call may have had its effect, asked for by a task that is gone.
    pub(super) fn fallback_begun(&self, policy: &Policy, work: &CallWork) -> Option<usize> {
        if self.bindings.semantics < 2 {
            return None;
        }
        policy
            .fallback
            .iter()
            .enumerate()
            .position(|(index, fallback)| {
                let Fallback::Call {
                    connection, action, ..
                } = fallback
                else {
                    return false;
                };
                let key = self.fallback_key(&work.key, index);
                let known = self.ledger.get(&ledger::id(connection, action, &key));
                known.is_some_and(ledger::Entry::may_have_happened)
            })
    }

    /// The key of what a fallback calls.
    fn fallback_key(&self, call_key: &str, index: usize) -> String {
        self.call_key("", Some(&Value::String(format!("{call_key}~{index}"))))
    }

    pub(super) fn fallback_answered(
        &mut self,
        key: &str,
        index: usize,
        output: Arc<Value>,
        step: &mut Step,
    ) {
        let task = self.frames.get(key).and_then(|f| f.task.clone());
        let Some(Kind::Call(call)) = task.as_ref().map(|t| &t.kind) else {
            return;
        };
        let Some(Fallback::Call { connection, .. }) = call.policy.fallback.get(index) else {
            return;
        };
        let inner = self.reports.get(&format!("{key}/~fallback[{index}]"));
        let provenance = match inner.and_then(|r| r.provenance.clone()) {
            // The connection that the fallback names may have failed over itself.
            Some(backup @ Provenance::Backup(_)) if self.bindings.semantics >= 2 => backup,
            _ => Provenance::Backup(connection.clone()),
        };
        self.succeed(key, output, provenance, step);
    }

    /// The fallback with this index. A task that names none has the connection's earlier answers,
    /// if those are kept.
    pub(super) fn fallback(&self, task: &Task, work: &CallWork, index: usize) -> Option<Fallback> {
        let Kind::Call(call) = &task.kind else {
            return None;
        };
        if !call.policy.fallback.is_empty() {
            return call.policy.fallback.get(index).cloned();
        }
        let max_age_ms = self.cache_max_age_ms(&work.plan.connections[0], work.plan.effect)?;
        (index == 0).then_some(Fallback::Cache { max_age_ms })
    }

    fn cache_max_age_ms(&self, connection: &str, effect: Repeat) -> Option<u64> {
        let binding = self.bindings.connections.get(connection)?;
        binding.cache_max_age_ms.filter(|_| effect == Repeat::Read)
    }

    /// How long answers of this task can be of use: to itself, or to others that read the same.
    pub(super) fn keep_ms(&self, connection: &str, effect: Repeat, policy: &Policy) -> Option<u64> {
        let own = policy.fallback.iter().filter_map(|f| match f {
            Fallback::Cache { max_age_ms } => Some(*max_age_ms),
            Fallback::Value(_) | Fallback::Call { .. } => None,
        });
        own.chain(self.cache_max_age_ms(connection, effect)).max()
    }

    fn recall(&mut self, key: &str, recall: Recall, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        self.tickets += 1;
        work.ticket = self.tickets;
        work.recall = Some(recall);
        self.open.insert(work.ticket, key.to_owned());
        step.effects.extend(work.outstanding(key));
    }

    /// What is kept of earlier answers was looked through.
    pub(super) fn recalled(
        &mut self,
        ticket: u64,
        found: Option<Kept>,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let key = self.open.get(&ticket).ok_or(Illegal::Ticket(ticket))?;
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(key)
        else {
            return Err(Illegal::Ticket(ticket));
        };
        let recall = work.recall.take().ok_or(Illegal::Ticket(ticket))?;
        let key = key.clone();
        self.open.remove(&ticket);
        let fresh = found.filter(|kept| {
            let age_ms = step.now_ms.saturating_sub(kept.at_ms);
            age_ms <= recall.max_age_ms
        });
        match fresh {
            None => self.next_fallback(&key, recall.index + 1, step),
            Some(Kept { output, at_ms }) => {
                let age_s = step.now_ms.saturating_sub(at_ms) / 1_000;
                self.succeed(&key, Arc::new(output), Provenance::Stale { age_s }, step);
            }
        }
        Ok(())
    }
}
