//! Call tasks inside a run: what is fixed when they begin, and what is done with their end.

use std::sync::Arc;

use serde_json::Value;

use super::beside;
use super::environment::Around;
use super::frame::{CallPolicy, CallWork, Frame, Key, Op, Slot, Work};
use super::hedge::Role;
use super::ledger;
use super::report::{AttemptReport, TaskReport, TaskStatus, WaitsFor};
use super::saga::Undo;
use super::{Effect, Illegal, InFlight, Run, Step};
use crate::call::{self, Phase};
use crate::descriptor;
use crate::error::WorkflowError;
use crate::expr::Template;
use crate::failure::Failure;
use crate::provenance::Provenance;

use crate::workflow::{
    Call, HTTP_CONNECTION, Kind, OnExhausted, OnOutage, Policy, Target, Task, http_action,
};

/// An idempotency key is handed to other systems, which take no more.
const KEY_BYTES_MAX: usize = 128;

impl Run {
    pub(super) fn start_call(
        &mut self,
        key: &str,
        task: &Arc<Task>,
        call: &Call,
        input: &Arc<Value>,
        step: &mut Step,
    ) -> Result<(), WorkflowError> {
        let around = Around::new(self, key);
        let with = Arc::new(self.evaluate(&call.with, input, &around)?);
        let (connection, action) = match &call.target {
            Target::Action { connection, action } => (connection.clone(), action.clone()),
            Target::Http => {
                self.check_endpoint(&call.with, &with, &task.reference)?;
                let method = with.get("method").and_then(Value::as_str).unwrap_or("get");
                (HTTP_CONNECTION.to_owned(), http_action(method).to_owned())
            }
        };
        let custom = match &call.policy.idempotency_key {
            None => None,
            Some(expr) => Some(self.evaluate_expr(expr, input, &around)?),
        };
        let call_key = self.call_key(key, custom.as_ref());
        let plan = self.plan(&connection, &action, &call.policy, &task.reference)?;
        let policy = CallPolicy {
            critical: call.policy.critical.unwrap_or(true),
            on_exhausted: self.on_exhausted(&connection, &call.policy),
        };
        let timeout_ms = call.policy.start_to_close_ms;
        let timeout_ms = timeout_ms.unwrap_or(self.start_to_close_ms(&connection));
        let keep_ms = self.keep_ms(&connection, plan.effect, &call.policy);
        let mut work = self.call_work(plan, action, with, call_key, timeout_ms, policy, step);
        work.keep_ms = keep_ms;
        self.begin_call(key, work, step);
        Ok(())
    }

    /// What an expression makes of an endpoint is an address. Else data could say how the request
    /// is authorized, and use the connection's credentials as it likes.
    fn check_endpoint(
        &self,
        template: &Template,
        with: &Value,
        reference: &str,
    ) -> Result<(), WorkflowError> {
        let is_computed = matches!(
            template,
            Template::Object(parts) if matches!(parts.get("endpoint"), Some(Template::Expr(_)))
        );
        if self.bindings.semantics >= 2 && is_computed && !with["endpoint"].is_string() {
            return Err(WorkflowError::expression("an endpoint is text", reference));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of a call")]
    fn call_work(
        &self,
        mut plan: call::Plan,
        action: String,
        input: Arc<Value>,
        key: String,
        timeout_ms: u64,
        policy: CallPolicy,
        step: &Step,
    ) -> CallWork {
        let is_read = plan.effect == descriptor::Effect::Read;
        let effect = (!is_read).then(|| ledger::id(&plan.connections[0], &action, &key));
        let known = effect.as_ref().and_then(|id| self.ledger.get(id));
        let mut state = call::State::new(&plan, step.now_ms);
        let mut ticket = 0;
        if let Some(known) = known
            && known.may_have_happened()
        {
            // A task that is gone asked for the same effect.
            ticket = known.ticket.unwrap_or(0);
            if self.heeds_the_ledger() {
                beside::reach(&mut plan, &known.connection);
            }
            let last = known.ticket.is_none().then(call::lost);
            state =
                call::State::taking_over(&plan, &known.connection, last, known.maybe, step.now_ms);
            state.attempts = known.attempts;
        }
        CallWork {
            plan,
            state,
            action,
            input,
            key,
            timeout_ms,
            ticket,
            hedge_ticket: 0,
            recall: None,
            keep_ms: None,
            asked_after: 0,
            effect,
            policy,
            secrets: Arc::clone(&self.secrets),
        }
    }

    /// Begins a call, or takes the outcome of an effect that is known.
    fn begin_call(&mut self, key: &str, work: CallWork, step: &mut Step) {
        let known = work.effect.as_ref().and_then(|id| self.ledger.get(id));
        let outcome = known.and_then(|known| known.outcome.clone());
        if outcome.is_none() {
            self.hand_over(work.ticket, key);
        }
        self.set_work(key, Work::Call(Box::new(work)));
        if self.heeds_the_ledger() {
            self.adopt(key);
        }
        match outcome {
            Some((output, provenance)) => self.took_known(key, output, provenance, step),
            None => self.follow_call(key, step),
        }
    }

    /// A call that is no task of the workflow: a fallback, or the undoing of a task.
    pub(super) fn start_inner_call(&mut self, inner: InnerCall<'_>, step: &mut Step) {
        let InnerCall {
            key,
            parent,
            slot,
            reference,
            connection,
            action,
            input,
            call_key,
        } = inner;
        self.reports.insert(
            key.clone(),
            TaskReport::new(&key, reference, "call", step.now_ms),
        );
        let policy = Policy {
            on_outage: matches!(slot, Slot::Fallback(_)).then_some(OnOutage::Fallback),
            // What was done on one connection cannot be undone on another.
            failover: (matches!(slot, Slot::Undo(_)) && self.bindings.semantics >= 2)
                .then(Vec::new),
            ..Policy::default()
        };
        let scope = parent
            .as_deref()
            .map(|p| self.scope_of(p))
            .unwrap_or_default();
        let frame = Frame {
            task: None,
            parent,
            slot,
            raw_input: Arc::clone(&input),
            input: Arc::clone(&input),
            scope,
            started_ms: step.now_ms,
            deadline_ms: None,
            work: Work::Wait { due_ms: u64::MAX },
        };
        match self.plan(connection, action, &policy, reference) {
            Err(error) => {
                self.frames.insert(key.clone(), frame);
                step.ops.push(Op::Raise { key, error });
            }
            Ok(mut plan) => {
                // Somebody waits for what comes of it.
                plan.on_outage = plan.on_outage.never_deferred();
                let policy = CallPolicy {
                    critical: true,
                    on_exhausted: Some(OnExhausted::Fault),
                };
                let timeout_ms = self.start_to_close_ms(connection);
                let action = action.to_owned();
                let work = self.call_work(plan, action, input, call_key, timeout_ms, policy, step);
                self.frames.insert(key.clone(), frame);
                self.begin_call(&key, work, step);
            }
        }
    }

    fn plan(
        &self,
        connection: &str,
        action: &str,
        policy: &Policy,
        reference: &str,
    ) -> Result<call::Plan, WorkflowError> {
        let missing = |what: String| WorkflowError::configuration(what, reference);
        let Some(binding) = self.bindings.connections.get(connection) else {
            return Err(missing(format!("there is no connection `{connection}`")));
        };
        let Some(bound) = binding.actions.get(action) else {
            return Err(missing(format!(
                "connection `{connection}` has no action `{action}`"
            )));
        };
        let mut connections = vec![connection.to_owned()];
        let backups = policy.failover.as_ref().unwrap_or(&binding.backups);
        let offers = |name: &&String| {
            self.bindings
                .connections
                .get(*name)
                .is_some_and(|b| b.actions.contains_key(action))
        };
        connections.extend(backups.iter().filter(offers).cloned());
        let once = bound.effect == descriptor::Effect::Once;
        let attempts_max = if once { 1 } else { binding.attempts_max };
        let mut on_outage = policy.on_outage.unwrap_or(binding.on_outage);
        if bound.effect == descriptor::Effect::Read || policy.compensate.is_some() {
            on_outage = on_outage.never_deferred();
        }
        Ok(call::Plan {
            effect: bound.effect,
            lookup: bound.lookup,
            connections,
            attempts_max: policy.attempts_max.unwrap_or(attempts_max).max(1),
            backoff: binding.backoff,
            on_outage,
            on_unknown: policy.on_unknown.or(binding.on_unknown),
            schedule_to_close_ms: policy
                .schedule_to_close_ms
                .unwrap_or(binding.schedule_to_close_ms),
            schedule_to_start_ms: policy.schedule_to_start_ms.or(binding.schedule_to_start_ms),
            hedge_ms: policy.hedge_ms.or(binding.hedge_ms),
            retries: match &policy.retries {
                Some(rules) => rules.clone(),
                None if once => Vec::new(),
                None => binding.retries.clone(),
            },
            review: policy
                .review
                .clone()
                .unwrap_or_else(|| binding.review.clone()),
            semantics: self.bindings.semantics,
        })
    }

    fn on_exhausted(&self, connection: &str, policy: &Policy) -> Option<OnExhausted> {
        let binding = self.bindings.connections.get(connection);
        policy
            .on_exhausted
            .or_else(|| binding.and_then(|b| b.on_exhausted))
    }

    fn start_to_close_ms(&self, connection: &str) -> u64 {
        let binding = self.bindings.connections.get(connection);
        binding.map_or_else(
            || super::Binding::default().start_to_close_ms,
            |b| b.start_to_close_ms,
        )
    }

    /// The same for every attempt of a task, and for no other task.
    pub(super) fn call_key(&self, key: &str, custom: Option<&Value>) -> String {
        let wanted = match custom {
            None | Some(Value::Null) => format!("{}{key}", self.id),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let fits = (1..=KEY_BYTES_MAX).contains(&wanted.len())
            && wanted.bytes().all(|b| b.is_ascii_graphic());
        if fits { wanted } else { hashed(&wanted) }
    }

    /// An attempt begins: the intent.
    pub(super) fn started(
        &mut self,
        ticket: u64,
        digest: String,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let (key, role) = self.answered(ticket, &call::Event::Started, step)?;
        self.note_due(&key);
        let (owner, fallback) = self.undone_with(&key);
        let Some(Frame {
            work: Work::Call(work),
            ..
        }) = self.frames.get_mut(&key)
        else {
            return Ok(());
        };
        let connection = work.connection_of(role).to_owned();
        if let Some(id) = &work.effect {
            let entry = self.ledger.begun(id, ticket, &connection);
            if let Some(owner) = owner
                && !entry.in_saga
            {
                entry.in_saga = true;
                self.undos
                    .push(Undo::new(&key, &owner, fallback, &work.input, id));
            }
        }
        let report = self.reports.get_mut(&key);
        self.in_flight.insert(
            ticket,
            InFlight {
                task: key.clone(),
                beside: Vec::new(),
                effect: work.effect.clone(),
                report: report.as_ref().map_or(0, |r| r.attempts.len()),
            },
        );
        if let Some(report) = report {
            report.attempts.push(AttemptReport {
                connection,
                action: work.action.clone(),
                digest,
                started_ms: step.now_ms,
                ended_ms: None,
                failure: None,
                hedge: role == Role::Second,
                dropped: false,
            });
            if report.attempts.len() > 1 {
                self.note_change(&key, true);
            }
        }
        if role == Role::First {
            self.gather(&key, ticket);
        }
        self.note_effect(&key);
        Ok(())
    }

    /// An attempt ended, or nobody will ever see its end.
    pub(super) fn ended(
        &mut self,
        ticket: u64,
        event: &call::Event,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let Some(InFlight {
            task,
            beside,
            effect,
            report,
        }) = self.in_flight.get(&ticket).cloned()
        else {
            return Err(Illegal::Ticket(ticket));
        };
        let role = self.role_of(&task, ticket);
        if let Some(role) = role {
            self.apply(&task, &role.tell(event), step)?;
        } else if let Some(id) = &effect {
            self.ledger.learnt(id, event, Provenance::Live);
        }
        if let Some(id) = &effect {
            self.ledger.ended(id, ticket);
        }
        self.in_flight.remove(&ticket);
        if let Some(attempt) = self
            .reports
            .get_mut(&task)
            .and_then(|r| r.attempts.get_mut(report))
            && role.is_some()
        {
            attempt.ended_ms = (*event != call::Event::Lost).then_some(step.now_ms);
            if let call::Event::Failed(failure, _) = event {
                attempt.failure = Some(failure.clone());
            }
        }
        if role.is_some() {
            self.settle_race(&task, step);
            self.follow_call(&task, step);
        }
        // Tasks that wait for the same attempt: what they asked for has the same key.
        for task in beside {
            let waits = self.role_of(&task, ticket) == Some(Role::First);
            if waits && self.apply(&task, event, step).is_ok() {
                self.follow_call(&task, step);
            }
        }
        Ok(())
    }

    /// An answer to an open effect.
    pub(super) fn call_event(
        &mut self,
        ticket: u64,
        event: &call::Event,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let (key, _) = self.answered(ticket, event, step)?;
        self.follow_call(&key, step);
        self.share(&key, step);
        Ok(())
    }

    /// Takes an answer to an open effect; returns the task and which of its attempts it is about.
    fn answered(
        &mut self,
        ticket: u64,
        event: &call::Event,
        step: &mut Step,
    ) -> Result<(Key, Role), Illegal> {
        let key = self
            .open
            .get(&ticket)
            .cloned()
            .ok_or(Illegal::Ticket(ticket))?;
        let role = self.role_of(&key, ticket).ok_or(Illegal::Ticket(ticket))?;
        self.apply(&key, &role.tell(event), step)?;
        self.open.remove(&ticket);
        Ok((key, role))
    }

    pub(super) fn task_event(
        &mut self,
        key: &str,
        event: &call::Event,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        self.apply(key, event, step)?;
        self.follow_call(key, step);
        self.share(key, step);
        Ok(())
    }

    pub(super) fn call_due(&mut self, key: &str, step: &mut Step) {
        let was_review = self.is_in_review(key);
        // `due` is told only while the call waits for an instant: the pair is legal.
        if self.apply(key, &call::Event::Due, step).is_ok() {
            if was_review && !self.is_in_review(key) {
                let task = key.to_owned();
                step.effects.push(Effect::ReviewClosed { task });
            }
            self.withdraw_unasked(key);
            self.follow_call(key, step);
        }
    }

    fn is_in_review(&self, key: &str) -> bool {
        let work = self.frames.get(key).map(|f| &f.work);
        matches!(work, Some(Work::Call(work)) if matches!(work.state.phase, Phase::Review { .. }))
    }

    /// A call that gave up before it began does not wait for admission any more.
    fn withdraw_unasked(&mut self, key: &str) {
        if let Some(Work::Call(work)) = self.frames.get(key).map(|f| &f.work)
            && matches!(work.state.phase, Phase::Exhausted { .. })
        {
            self.open.remove(&work.ticket);
        }
    }

    /// The fallback that may have had its effect for a call which is about to be made again: what
    /// came of that one is found out instead.
    fn stood_in(&mut self, key: &str) -> Option<usize> {
        let frame = self.frames.get(key)?;
        let (Work::Call(work), Kind::Call(call)) = (&frame.work, &frame.task.as_ref()?.kind) else {
            return None;
        };
        if work.state.phase != Phase::Ready {
            return None;
        }
        let index = self.fallback_begun(&call.policy, work)?;
        if let Some(Work::Call(work)) = self.frames.get_mut(key).map(|f| &mut f.work) {
            work.state.phase = Phase::Exhausted {
                failure: call::lost(),
                fallback: true,
            };
        }
        Some(index)
    }

    /// Does what the phase that a call has come to asks for.
    pub(super) fn follow_call(&mut self, key: &str, step: &mut Step) {
        if self.heed(key, step) {
            return;
        }
        if let Some(index) = self.stood_in(key) {
            self.next_fallback(key, index, step);
            return;
        }
        self.note_due(key);
        self.note_asked(key);
        let Some(Frame {
            work: Work::Call(work),
            slot,
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        let report = self.reports.get_mut(key);
        match work.state.phase.clone() {
            Phase::Succeeded { output, manual } => self.answer(key, output, manual, step),
            Phase::Exhausted { failure, fallback } => {
                if fallback {
                    self.next_fallback(key, 0, step);
                } else {
                    self.out_of_options(key, failure, step);
                }
            }
            Phase::Deferred => self.complete_deferred(key, step),
            Phase::Ready | Phase::LookingUp { .. } | Phase::Deferring { .. } => {
                self.tickets += 1;
                work.ticket = self.tickets;
                self.open.insert(work.ticket, key.to_owned());
                step.effects.extend(work.outstanding(key));
                if let Some(report) = report {
                    report.status = TaskStatus::Running;
                    report.waiting = None;
                    report.waits_for = None;
                }
            }
            Phase::InFlight => self.ask_beside(key, step),
            Phase::Review { failure } if matches!(slot, Slot::Undo(_)) => {
                // An undoing that a person must see to does not hold up the others.
                let error = WorkflowError::from_failure(&failure, "");
                step.ops.push(Op::Raise {
                    key: key.to_owned(),
                    error,
                });
            }
            Phase::Backoff { .. } | Phase::Parked { .. } | Phase::Review { .. } => {
                step.effects.extend(work.outstanding(key));
                if let Some(report) = report {
                    report.status = TaskStatus::Waiting;
                    report.waiting = Some(waiting(work));
                    report.waits_for = Some(waits_for(work));
                }
            }
        }
    }

    pub(super) fn succeed(
        &mut self,
        key: &str,
        output: Arc<Value>,
        provenance: Provenance,
        step: &mut Step,
    ) {
        self.degraded |= provenance.is_degraded();
        if let Some(report) = self.reports.get_mut(key) {
            report.provenance = Some(provenance);
        }
        step.ops.push(Op::Complete {
            key: key.to_owned(),
            output,
            then: None,
        });
    }

    pub(super) fn out_of_options(&mut self, key: &str, failure: Failure, step: &mut Step) {
        let Some(Frame {
            work: Work::Call(work),
            slot,
            ..
        }) = self.frames.get_mut(key)
        else {
            return;
        };
        if !work.policy.critical {
            self.degraded = true;
            if let Some(report) = self.reports.get_mut(key) {
                report.provenance = Some(Provenance::Skipped);
                report.error = Some(WorkflowError::from_failure(&failure, ""));
            }
            step.ops.push(Op::Skip {
                key: key.to_owned(),
            });
            return;
        }
        let rejected = matches!(
            work.state.phase,
            Phase::Exhausted {
                fallback: false,
                ..
            }
        );
        let own_task = !matches!(slot, Slot::Fallback(_) | Slot::Undo(_));
        let default = match work.plan.effect {
            descriptor::Effect::Once => OnExhausted::Review,
            descriptor::Effect::Read | descriptor::Effect::Idempotent => OnExhausted::DeadLetter,
        };
        let on_exhausted = work.policy.on_exhausted;
        if on_exhausted.unwrap_or(default) == OnExhausted::Review && own_task && !rejected {
            work.state.ask(failure, None, step.now_ms, &work.plan);
            self.follow_call(key, step);
            return;
        }
        let reference = Around::new(self, key).reference().to_owned();
        let mut error = WorkflowError::from_failure(&failure, &reference);
        if let Some(details) = &mut error.cofferdam {
            details.on_exhausted = on_exhausted;
        }
        step.ops.push(Op::Raise {
            key: key.to_owned(),
            error,
        });
    }
}

/// A call that is no task of the workflow.
pub(super) struct InnerCall<'a> {
    pub key: Key,
    pub parent: Option<Key>,
    pub slot: Slot,
    pub reference: &'a str,
    pub connection: &'a str,
    pub action: &'a str,
    pub input: Arc<Value>,
    pub call_key: String,
}

/// How the output of a call that succeeds came to be.
pub(super) fn provenance(work: &CallWork) -> Provenance {
    match work.state.connection {
        0 => Provenance::Live,
        _ => Provenance::Backup(work.state.connection(&work.plan).to_owned()),
    }
}

fn hashed(text: &str) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write;
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::from("sha256-"), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

fn waits_for(work: &CallWork) -> WaitsFor {
    match &work.state.phase {
        Phase::Parked { .. } => WaitsFor::Connection,
        Phase::Review { .. } => WaitsFor::Person,
        Phase::Ready
        | Phase::InFlight
        | Phase::LookingUp { .. }
        | Phase::Deferring { .. }
        | Phase::Deferred
        | Phase::Backoff { .. }
        | Phase::Succeeded { .. }
        | Phase::Exhausted { .. } => WaitsFor::Timer,
    }
}

fn waiting(work: &CallWork) -> String {
    let connection = work.state.connection(&work.plan);
    match &work.state.phase {
        Phase::Backoff { failure, .. } => format!("tries again soon, after {failure}"),
        Phase::Parked { failure, .. } => {
            format!("parked until connection `{connection}` works again, after {failure}")
        }
        Phase::Review { failure } => match work.state.reviewer(&work.plan) {
            None => format!("a person must decide, after {failure}"),
            Some(reviewer) => format!("`{reviewer}` must decide, after {failure}"),
        },
        phase => phase.name().to_owned(),
    }
}
