//! What must hold, whatever happens: judged from outside, by what is on the disk and what the
//! services saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cofferdam::{Effect as Repeat, Provenance, RunView, Status};
use cofferdam_core::call::Decision;
use cofferdam_core::run::{Attempt, Bindings, Effect, Event, Run};
use cofferdam_core::workflow::{Sources, Workflow};
use cofferdam_store::{JournalStore, MemoryStore, Table};
use serde_json::Value;

use crate::flow::{self, Promise};
use crate::services::Request;
use crate::world::State;
use cofferdam::Call;

/// What the oracle knows.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Runs as their durable journals tell them.
    runs: BTreeMap<String, Shadow>,
    definitions: BTreeMap<String, (Arc<Workflow>, Arc<Bindings>)>,
    /// By the name of the call task.
    pub promises: BTreeMap<String, Promise>,
    /// Runs whose start was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Runs and tasks that a person was asked about.
    pub reviewed: BTreeSet<(String, String)>,
}

/// A run, folded from what is durable of its journal and nothing else.
struct Shadow {
    run: Run,
    bindings: Arc<Bindings>,
    next_seq: u64,
    /// Attempts that began and have not ended.
    under_way: BTreeMap<u64, Attempt>,
    /// Every call task that ever made an attempt: the effect's identity, and the action.
    calls: BTreeMap<String, (String, String)>,
    /// Attempts since the task came to its connection: that connection, and how many.
    spent: BTreeMap<String, (String, u32)>,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The name of the task in an identity, which is what the workflow calls it.
fn name_of(identity: &str) -> &str {
    let name = identity.split('|').nth(1).unwrap_or_default();
    name.trim_end_matches("~other")
}

impl State {
    /// A call is about to leave: what it depends on is durable, and nothing speaks against it.
    pub fn judge_call(&mut self, request: &Request, call: &Call, effect: Repeat) {
        let identity = &request.identity;
        let connection = &request.connection;
        let others = self.services.waiting.values();
        let busy = others.clone().filter(|r| r.connection == *connection);
        let most = self.services.concurrency_max.get(connection);
        if most.is_some_and(|most| busy.count() >= *most) {
            self.violated(format!(
                "more calls at once on `{connection}` than its bulkhead"
            ));
            return;
        }
        if effect == Repeat::Read {
            return;
        }
        if let Some(known) = self.services.effects.get(identity)
            && !known.key.is_empty()
            && known.key != request.key
        {
            let (was, is) = (known.key.clone(), &request.key);
            self.violated(format!("`{identity}` has key `{is}` and had `{was}`"));
            return;
        }
        if self.services.undo_sent.contains(identity) {
            self.violated(format!("`{identity}` was sent after its undoing"));
            return;
        }
        if let Some(of) = &request.of {
            if others.clone().any(|r| r.identity == *of) {
                self.violated(format!("`{of}` is undone while its call is under way"));
                return;
            }
            self.services.undo_sent.insert(of.clone());
        }
        let run = identity.split('|').next().unwrap_or_default();
        let shadow = self.oracle.runs.get(run);
        let intent = shadow.and_then(|shadow| {
            let mut all = shadow.under_way.values();
            all.find(|a| a.key == call.idempotency_key && a.attempt == call.attempt)
        });
        if intent.is_none() {
            self.violated(format!("`{identity}` leaves and its intent is not durable"));
        }
    }

    /// Folds what has become durable since the last time.
    pub fn judge_durable(&mut self) {
        let store = self.disk.durable.clone();
        for (key, _) in rows(&store, Table::Run) {
            let run = String::from_utf8_lossy(&key).into_owned();
            if let Err(wrong) = self.fold(&store, &run) {
                self.violated(format!("run {run}: {wrong}"));
                return;
            }
        }
    }

    fn fold(&mut self, store: &MemoryStore, run: &str) -> Result<(), String> {
        if !self.oracle.runs.contains_key(run) {
            let shadow = self.oracle.shadow(store, run)?;
            self.oracle.runs.insert(run.to_owned(), shadow);
        }
        let Some(shadow) = self.oracle.runs.get_mut(run) else {
            return Ok(());
        };
        let told = |error: cofferdam_store::Error| error.to_string();
        if store.head(run).map_err(told)?.next_seq == shadow.next_seq {
            return Ok(());
        }
        let records = store
            .journal(run, shadow.next_seq, usize::MAX)
            .map_err(told)?;
        for (seq, record) in records {
            if seq != shadow.next_seq {
                return Err(format!("record {seq} follows {}", shadow.next_seq));
            }
            shadow.next_seq += 1;
            let record: Value = serde_json::from_slice(&record).map_err(|e| e.to_string())?;
            let at = record["at"].as_u64().unwrap_or_default();
            let event: Event =
                serde_json::from_value(record["event"].clone()).map_err(|e| e.to_string())?;
            shadow.take(event, at, &self.oracle.promises, &self.services.given)?;
        }
        Ok(())
    }
}

impl Oracle {
    fn shadow(&mut self, store: &MemoryStore, run: &str) -> Result<Shadow, String> {
        let get = |table, key: &[u8]| -> Result<Value, String> {
            let bytes = store.get(table, key).map_err(|e| e.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("a row of {table} is missing"))?;
            serde_json::from_slice(&bytes).map_err(|e| e.to_string())
        };
        let hash = text(&get(Table::Run, run.as_bytes())?, "definition");
        if !self.definitions.contains_key(&hash) {
            let mut pinned = get(Table::Definition, hash.as_bytes())?;
            let sources: Sources =
                serde_json::from_value(pinned["sources"].take()).map_err(|e| e.to_string())?;
            let bindings: Bindings =
                serde_json::from_value(pinned["bindings"].take()).map_err(|e| e.to_string())?;
            let workflow = cofferdam_core::dsl::compile(&sources).map_err(|e| e.to_string())?;
            let definition = (Arc::new(workflow), Arc::new(bindings));
            self.definitions.insert(hash.clone(), definition);
        }
        let (workflow, bindings) = self.definitions[&hash].clone();
        Ok(Shadow {
            run: Run::new(run, workflow, Arc::clone(&bindings)),
            bindings,
            next_seq: 0,
            under_way: BTreeMap::new(),
            calls: BTreeMap::new(),
            spent: BTreeMap::new(),
        })
    }

    /// Whether a durable decision has taken the task out of review.
    pub fn waits_for_person(&self, run: &str, task: &str) -> bool {
        self.runs.get(run).is_some_and(|shadow| {
            let mut reports = shadow.run.reports();
            reports.any(|r| r.task == task && r.waits_for == Some(cofferdam::WaitsFor::Person))
        })
    }

    /// A task that waits for a connection, if there is one.
    pub fn parked(&self) -> Option<String> {
        self.runs.values().find_map(|shadow| {
            let mut reports = shadow.run.reports();
            let parked = reports.find(|r| r.waits_for == Some(cofferdam::WaitsFor::Connection))?;
            Some(format!("{} of {}", parked.task, shadow.run.id()))
        })
    }

    /// The identity and the action of a call task.
    pub fn call_of(&self, run: &str, task: &str) -> Option<(String, String)> {
        self.runs.get(run)?.calls.get(task).cloned()
    }

    /// Where a run is by what is durable of it.
    pub fn status(&self, run: &str) -> Option<Status> {
        self.runs.get(run).map(|shadow| shadow.run.status())
    }
}

impl Shadow {
    fn take(
        &mut self,
        event: Event,
        at: u64,
        promises: &BTreeMap<String, Promise>,
        given: &BTreeSet<u64>,
    ) -> Result<(), String> {
        match &event {
            Event::Started { ticket, .. } => self.begins(*ticket, promises)?,
            Event::Succeeded { ticket, output } => {
                self.under_way.remove(ticket);
                if output["n"].as_u64().is_none_or(|n| !given.contains(&n)) {
                    return Err(format!("nobody has answered {output}"));
                }
            }
            Event::Failed {
                ticket, failure, ..
            } => {
                if let Some(attempt) = self.under_way.remove(ticket)
                    && failure.class == cofferdam::Class::RateLimited
                {
                    // It is parked for as long as the other side asks to be left alone.
                    self.spent.remove(&attempt.task);
                }
            }
            Event::Lost { ticket } => {
                // Nobody saw the end of it: it is no failed attempt.
                if let Some(attempt) = self.under_way.remove(ticket)
                    && let Some((_, count)) = self.spent.get_mut(&attempt.task)
                {
                    *count = count.saturating_sub(1);
                }
            }
            Event::Recovered { task } => drop(self.spent.remove(task)),
            Event::Decided { task, decision } if *decision == Decision::Retry => {
                // Its fallbacks begin anew as well.
                self.spent.retain(|of, _| !of.starts_with(task.as_str()));
            }
            // The machine itself judges the others.
            _ => {}
        }
        let name = event.name();
        let stepped = self.run.step(event, at);
        stepped
            .map(drop)
            .map_err(|illegal| format!("{name} does not fit: {illegal}"))
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
            });
        let Some(attempt) = wanted else {
            return Err(format!("an attempt {ticket} begins that nobody asked for"));
        };
        let identity = text(&attempt.input, "id");
        let promise = promises
            .get(name_of(&identity))
            .cloned()
            .unwrap_or_default();
        let most = self.attempts_max(&attempt, &identity, &promise);
        let connection = attempt.connection.clone();
        let spent = self.spent.entry(attempt.task.clone());
        let spent = spent.or_insert_with(|| (connection.clone(), 0));
        if spent.0 != connection {
            *spent = (connection, 0);
        }
        spent.1 += 1;
        if spent.1 > most && !promise.tried_again {
            let task = &attempt.task;
            return Err(format!("`{task}` makes attempt {} of {most}", spent.1));
        }
        let call = (identity, attempt.action.clone());
        self.calls.insert(attempt.task.clone(), call);
        self.under_way.insert(ticket, attempt);
        Ok(())
    }
}

impl Shadow {
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
        match promise.attempts_max {
            Some(most) => most,
            None if attempt.effect == Repeat::Once => 1,
            // The probe names its connection itself.
            None if promise.connection.is_empty() => of(&attempt.connection),
            None => of(&promise.connection),
        }
    }
}

fn rows(store: &MemoryStore, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = cofferdam_store::KeyRange::all();
    store.scan(table, all, usize::MAX).unwrap_or_default()
}

/// A run that is not compensated has this many undoings.
fn is_effect(action: &str) -> bool {
    !matches!(action, "read" | "undo")
}

impl State {
    /// Judges a run that has ended.
    pub fn judge_end(&mut self, view: &RunView) -> Result<(), String> {
        let run = &view.run;
        let Some(shadow) = self.oracle.runs.get(run) else {
            return Err(format!("run {run} has ended and is not on the disk"));
        };
        if shadow.run.status() != view.status {
            let (told, durable) = (view.status, shadow.run.status());
            return Err(format!(
                "run {run} is told {told:?} and is {durable:?} on the disk"
            ));
        }
        for (task, (identity, action)) in &shadow.calls {
            let report = view.tasks.iter().find(|report| report.task == *task);
            let Some(report) = report else {
                // What it has forgotten went with its first records.
                if view.records_from.is_some() {
                    continue;
                }
                return Err(format!("run {run} does not tell of `{task}`"));
            };
            let lives = matches!(
                report.provenance,
                Some(Provenance::Live | Provenance::Backup(_))
            );
            let by_fallback = matches!(report.provenance, Some(Provenance::Backup(_)))
                && shadow
                    .calls
                    .keys()
                    .any(|k| k.starts_with(&format!("{task}/~fallback")));
            let happened = self.services.happened(identity);
            if is_effect(action) && lives && !by_fallback && !happened {
                return Err(format!("`{identity}` is told and never happened"));
            }
            let other = format!("{identity}~other");
            if happened && is_effect(action) && self.services.happened(&other) {
                return Err(format!("`{identity}` happened here and elsewhere"));
            }
            self.judge_undone(view, task, identity, action, happened)?;
        }
        if view.status == Status::Faulted {
            let letter = self.disk.durable.get(Table::DeadLetter, run.as_bytes());
            if !matches!(letter, Ok(Some(_))) {
                return Err(format!("run {run} has faulted and left no dead letter"));
            }
        }
        self.judge_events(view)
    }

    fn judge_undone(
        &self,
        view: &RunView,
        task: &str,
        identity: &str,
        action: &str,
        happened: bool,
    ) -> Result<(), String> {
        if !is_effect(action) {
            return Ok(());
        }
        if view.status == Status::Completed {
            let undone = self.services.undo_sent.contains(identity);
            return if undone {
                Err(format!("`{identity}` was undone and its run has completed"))
            } else {
                Ok(())
            };
        }
        let promise = self.oracle.promises.get(name_of(identity));
        if !promise.is_some_and(|p| p.compensated) || !happened || identity.contains("~other") {
            return Ok(());
        }
        let told = (view.run.clone(), format!("undo:{task}"));
        let row = format!("{}\0{}", told.0, told.1);
        let waits = self.disk.durable.get(Table::Review, row.as_bytes());
        if self.oracle.reviewed.contains(&told) || matches!(waits, Ok(Some(_))) {
            return Ok(());
        }
        let effected = self.services.effects.get(identity);
        for connection in effected.iter().flat_map(|e| e.outputs.keys()) {
            let undone = (identity.to_owned(), connection.clone());
            if !self.services.undone.contains(&undone) {
                return Err(format!(
                    "`{identity}` happened on `{connection}`, its run has faulted, and it was \
                     neither undone there nor told"
                ));
            }
        }
        Ok(())
    }

    fn judge_events(&self, view: &RunView) -> Result<(), String> {
        let mut published: BTreeMap<String, u32> = BTreeMap::new();
        for (_, row) in rows(&self.disk.durable, Table::Event) {
            let row: Value = serde_json::from_slice(&row).map_err(|e| e.to_string())?;
            if text(&row, "run") == view.run {
                *published.entry(text(&row, "task")).or_default() += 1;
            }
        }
        for report in view.tasks.iter().filter(|r| r.kind == "emit") {
            let count = published.get(&report.task).copied().unwrap_or_default();
            let wanted = u32::from(report.status == cofferdam::TaskStatus::Completed);
            // A task that is tried again publishes again.
            if count < wanted || (count > 1 && !report.task.contains("~try")) {
                return Err(format!("`{}` published {count} events", report.task));
            }
        }
        Ok(())
    }

    /// Judges what is left when every run has ended and everything is quiet.
    pub fn judge_rest(&self) -> Result<(), String> {
        for table in [Table::Timer, Table::Parked] {
            if let Some((key, _)) = rows(&self.disk.durable, table).first() {
                return Err(format!("a row is left in {table}: {}", key.escape_ascii()));
            }
        }
        for (key, _) in rows(&self.disk.durable, Table::RunByStatus) {
            let key = String::from_utf8_lossy(&key).into_owned();
            let mut parts = key.split('\0');
            let (status, run) = (parts.next(), parts.next().unwrap_or_default());
            let is = self.oracle.status(run).map(Status::as_str);
            if is != status {
                return Err(format!("run {run} is listed as {status:?} and is {is:?}"));
            }
        }
        let report = self.disk.durable.verify().map_err(|e| e.to_string())?;
        if !report.is_clean() {
            return Err(format!("the store is not whole: {:?}", report.problems));
        }
        Ok(())
    }
}
