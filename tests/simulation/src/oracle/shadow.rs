//! A run, folded from what is durable of its journal and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cofferdam::{Class, Effect as Repeat, Status};
use cofferdam_core::call::{Decision, Lookup};
use cofferdam_core::run::{Attempt, Bindings, Effect, Event, Kept, Run};
use serde_json::Value;

use super::outputs::Answers;
use super::{Facts, name_of, text};
use crate::flow::{self, Promise};

/// Nobody waits longer for an answer than this.
const ANSWER_MS_MAX: u64 = 10_000;

/// A run as its durable journal tells it.
pub(super) struct Shadow {
    pub run: Run,
    pub bindings: Arc<Bindings>,
    pub answers: Answers,
    pub next_seq: u64,
    /// Attempts that began and have not ended.
    pub under_way: BTreeMap<u64, Attempt>,
    /// Every call task that ever made an attempt: the effect's identity, and the action.
    pub calls: BTreeMap<String, (String, String)>,
    /// Attempts since the task came to its connection: that connection, and how many.
    pub spent: BTreeMap<String, (String, u32)>,
    /// What its row says of it.
    pub concurrency_key: Option<String>,
    pub key: Option<String>,
    pub tenant: String,
    /// Which run of its world it is, counted from one.
    pub born: u64,
    /// Whether its turn has come, and it has not ended since.
    pub has_turn: bool,
    /// Whether somebody has to see to it, so that it stays.
    pub is_kept: bool,
    /// When it last got a place.
    pub let_in_ms: Option<u64>,
    /// Somebody has stopped it.
    pub cancelled: bool,
    pub redriven: u32,
    /// Tasks that another run had finished, and that this one does not do again.
    pub taken: BTreeSet<String>,
    /// Second attempts that the machine asked for: asked once, and not again after a restart.
    pub hedges: BTreeMap<u64, Attempt>,
    /// By task that listens: the numbers that events may and must have.
    pub listening: BTreeMap<String, Listening>,
    /// What its row says of its time.
    pub told: super::time::Told,
}

/// Since when a task listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    /// Events with a lower number were published before.
    pub may: u64,
    /// Events from this number on are for it, if it takes them.
    pub must: u64,
}

/// What follows from an event for others than the run.
pub(super) enum Told {
    /// A call was left to its connection.
    Deferred(super::outbox::Deferral),
    /// A run of its own has to be there.
    Begun(String),
}

impl Shadow {
    pub fn take(&mut self, event: Event, at: u64, facts: &Facts<'_>) -> Result<Vec<Told>, String> {
        let mut told = Vec::new();
        match &event {
            Event::Begun { .. } | Event::Admitted => {
                self.has_turn = true;
                self.let_in_ms = Some(at);
            }
            Event::Started { ticket, .. } => self.begins(*ticket, facts.promises)?,
            Event::Succeeded { ticket, output } => {
                if let Some(attempt) = self.under_way.remove(ticket) {
                    let given = facts.check_given(output, &text(&attempt.input, "id"))?;
                    if (&given.connection, &given.key) != (&attempt.connection, &attempt.key) {
                        return Err(format!("{output} was given to another call: {given:?}"));
                    }
                    self.answers.were_given(output);
                }
            }
            Event::Failed {
                ticket, failure, ..
            } => {
                if let Some(attempt) = self.under_way.remove(ticket)
                    && failure.class == Class::RateLimited
                {
                    // It is parked for as long as the other side asks to be left alone.
                    self.spent.remove(&attempt.task);
                }
            }
            Event::Lost { ticket } => {
                // Nobody saw the end of it: it is no failed attempt.
                if let Some(attempt) = self.under_way.remove(ticket)
                    && !attempt.is_hedge
                    && let Some((_, count)) = self.spent.get_mut(&attempt.task)
                {
                    *count = count.saturating_sub(1);
                }
            }
            Event::LookedUp {
                ticket,
                answer: Lookup::Found { output },
                ..
            } => self.judge_found(*ticket, output, facts)?,
            Event::Recovered { task } => drop(self.spent.remove(task)),
            Event::Decided { task, decision } if *decision == Decision::Retry => {
                // Its fallbacks begin anew as well.
                self.spent.retain(|of, _| !of.starts_with(task.as_str()));
            }
            Event::Cancelled { .. } => self.cancelled = true,
            Event::Redriven { taken, .. } => {
                self.redriven += 1;
                self.has_turn = false;
                self.spent.clear();
                self.judge_redriven(taken.keys())?;
            }
            Event::Forked { taken, .. } => self.taken = taken.keys().cloned().collect(),
            Event::Deferred { ticket } => told.push(Told::Deferred(self.deferral(*ticket)?)),
            Event::Recalled {
                ticket,
                found: Some(found),
            } => self.judge_recalled(*ticket, found, at, facts)?,
            Event::Heard { task, seq, .. } => self.judge_heard(&event, task, *seq, at, facts)?,
            // The machine itself judges the others.
            _ => {}
        }
        let name = event.name();
        let stepped = self.run.step(event, at);
        let effects = stepped.map_err(|illegal| format!("{name} does not fit: {illegal}"))?;
        for effect in effects {
            match effect {
                Effect::Attempt(attempt) if attempt.is_hedge => {
                    self.hedges.insert(attempt.ticket, attempt);
                }
                Effect::Begin { run, .. } => told.push(Told::Begun(run)),
                Effect::Listen { task, .. } => {
                    let (may, must) = (facts.seq_before + 1, facts.seq_after + 1);
                    self.listening.insert(task, Listening { may, must });
                }
                Effect::ListenClosed { task, .. } => drop(self.listening.remove(&task)),
                _ => {}
            }
        }
        if self.run.status().is_final() {
            self.has_turn = false;
        }
        Ok(told)
    }

    /// An attempt begins: it is one that the machine asked for, and the policy lets it.
    fn begins(&mut self, ticket: u64, promises: &BTreeMap<String, Promise>) -> Result<(), String> {
        let wanted = self
            .run
            .outstanding()
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Attempt(attempt) if attempt.ticket == ticket => Some(attempt),
                _ => None,
            })
            .or_else(|| self.hedges.remove(&ticket));
        let Some(attempt) = wanted else {
            return Err(format!("an attempt {ticket} begins that nobody asked for"));
        };
        let identity = text(&attempt.input, "id");
        let promise = promises
            .get(name_of(&identity))
            .cloned()
            .unwrap_or_default();
        let task = attempt.task.clone();
        if self.taken.contains(&task) && !promise.tried_again {
            return Err(format!("`{task}` begins, and was finished before"));
        }
        if attempt.is_hedge {
            self.judge_hedge(&attempt, &promise)?;
        } else {
            let most = self.attempts_max(&attempt, &identity, &promise);
            let connection = attempt.connection.clone();
            let spent = self.spent.entry(task.clone());
            let spent = spent.or_insert_with(|| (connection.clone(), 0));
            if spent.0 != connection {
                *spent = (connection, 0);
            }
            spent.1 += 1;
            if spent.1 > most && !promise.tried_again {
                return Err(format!("`{task}` makes attempt {} of {most}", spent.1));
            }
        }
        let call = (identity, attempt.action.clone());
        self.calls.insert(task, call);
        self.under_way.insert(ticket, attempt);
        Ok(())
    }

    /// A second attempt stands beside exactly one other, of a call that may be repeated.
    fn judge_hedge(&self, attempt: &Attempt, promise: &Promise) -> Result<(), String> {
        let task = &attempt.task;
        if attempt.effect == Repeat::Once || !promise.hedged {
            return Err(format!("`{task}` gets a second attempt, and must not"));
        }
        let beside = self.under_way.values().filter(|a| a.task == *task);
        if promise.tried_again || beside.count() == 1 {
            return Ok(());
        }
        Err(format!(
            "`{task}` gets a second attempt, and not beside one"
        ))
    }

    fn attempts_max(&self, attempt: &Attempt, identity: &str, promise: &Promise) -> u32 {
        let of = |connection: &str| {
            let binding = self.bindings.connections.get(connection);
            binding.map_or(0, |binding| binding.attempts_max)
        };
        if identity.ends_with("|undo") {
            // It goes to the connection that had the effect, or to a backup of that.
            let all = self.bindings.connections.values();
            return all.map(|binding| binding.attempts_max).max().unwrap_or(0);
        }
        if identity.contains("~other") {
            return of(flow::OTHER);
        }
        let is_delivery = self.run.id().starts_with(super::outbox::DELIVERY);
        match promise.attempts_max.filter(|_| !is_delivery) {
            Some(most) => most,
            None if attempt.effect == Repeat::Once => 1,
            // The probe names its connection itself, as a schedule's workflow and a delivery do.
            None if promise.connection.is_empty() || is_delivery => of(&attempt.connection),
            None => of(&promise.connection),
        }
    }

    /// Who goes on after a fault carries all that was finished.
    fn judge_redriven<'a>(&self, taken: impl Iterator<Item = &'a String>) -> Result<(), String> {
        let Some(finished) = self.run.finished() else {
            return Ok(());
        };
        let taken: BTreeSet<&String> = taken.collect();
        match finished.keys().find(|task| !taken.contains(task)) {
            None => Ok(()),
            Some(task) => Err(format!("`{task}` was finished, and is to be done again")),
        }
    }

    /// Who asked what became of a call is told the answer to that call.
    fn judge_found(
        &mut self,
        ticket: u64,
        output: &Value,
        facts: &Facts<'_>,
    ) -> Result<(), String> {
        let mut all = self.run.outstanding().into_iter();
        let asked = all.find_map(|effect| match effect {
            Effect::Lookup {
                ticket: of,
                connection,
                key,
                ..
            } if of == ticket => Some((connection, key)),
            _ => None,
        });
        if self.run.suspension().is_some() {
            // It does not say what it asks.
            self.answers.were_given(output);
            return Ok(());
        }
        let Some((connection, key)) = asked else {
            return Err(format!("{output} was found, and nobody looked for it"));
        };
        let given = facts.check_given(output, &text(output, "id"))?;
        if (&given.connection, &given.key) != (&connection, &key) {
            return Err(format!("{output} was found by `{key}`: {given:?}"));
        }
        self.answers.were_given(output);
        Ok(())
    }

    /// An earlier answer is one that was given to the same question, and not too old.
    fn judge_recalled(
        &mut self,
        ticket: u64,
        found: &Kept,
        at: u64,
        facts: &Facts<'_>,
    ) -> Result<(), String> {
        let (output, at_ms) = (&found.output, found.at_ms);
        let asked = self
            .run
            .outstanding()
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Recall {
                    ticket: of,
                    input,
                    max_age_ms,
                    ..
                } if of == ticket => Some((input, max_age_ms)),
                _ => None,
            });
        let Some((input, max_age_ms)) = asked else {
            return Err("an earlier answer is used that nobody asked for".to_owned());
        };
        let given = facts.check_given(output, &text(&input, "id"))?;
        let known_ms = at_ms.saturating_sub(given.at_ms);
        if at_ms < given.at_ms || known_ms > ANSWER_MS_MAX {
            return Err(format!(
                "{output} was given at {}, not at {at_ms}",
                given.at_ms
            ));
        }
        self.answers.were_kept(output);
        let age_ms = at.saturating_sub(at_ms);
        if age_ms > max_age_ms {
            return Err(format!(
                "an answer is {age_ms} ms old, and may be {max_age_ms}"
            ));
        }
        Ok(())
    }

    /// Where it is.
    pub fn status(&self) -> Status {
        self.run.status()
    }
}
