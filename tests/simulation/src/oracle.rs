//! What must hold, whatever happens: judged from outside, by what is on the disk and what the
//! services saw.

mod bus;
mod ends;
mod line;
mod outbox;
mod outputs;
mod pace;
mod queue;
mod retention;
mod schedules;
mod shadow;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cofferdam::config::Admission;
use cofferdam::{Call, Effect as Repeat, OnConflict, Status};
use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::run::{Bindings, Event, Run};
use cofferdam_core::workflow::{Sources, Workflow};
use cofferdam_store::{Batch, JournalStore, MemoryStore, Table, Write};
use serde_json::Value;

use crate::flow::Promise;
use crate::purge::Purge;
use crate::services::{Given, Request};
use crate::world::State;
use outputs::Answers;
use shadow::{Shadow, Told};

/// What the oracle knows.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Runs as their durable journals tell them.
    runs: BTreeMap<String, Shadow>,
    definitions: BTreeMap<String, (Arc<Workflow>, Arc<Bindings>)>,
    /// By the name of the call task.
    pub promises: BTreeMap<String, Promise>,
    /// What workflows say, wherever the engine has them from.
    pub texts: outputs::Texts,
    /// By the name of the task that waits: how long.
    pub waits: BTreeMap<String, u64>,
    /// Runs whose start was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Runs and tasks that a person was asked about.
    pub reviewed: BTreeSet<(String, String)>,
    /// The tenants of the runs that clients begin, by id.
    pub starts: BTreeMap<String, String>,
    /// What is configured of who may be in memory.
    pub admission: Admission,
    /// What a start by key does that finds a run.
    pub on_conflict: OnConflict,
    /// How many runs have become durable, those that are gone among them.
    born: u64,
    /// The run that a start by key gave.
    pub by_key: Option<String>,
    /// Runs that somebody was told are stopped.
    pub cancelled: BTreeSet<String>,
    /// Runs are being removed.
    pub removes: bool,
    /// Nothing new is asked for any more.
    pub ends: bool,
    /// How many runs schedules had begun when they were paused.
    pub scheduled: BTreeMap<String, usize>,
    deferrals: Vec<outbox::Deferral>,
    schedules: BTreeMap<String, schedules::Known>,
    /// Schedules that are paused.
    paused: BTreeSet<String>,
    pub timing: time::Timing,
    pub pace: pace::Pace,
    pub lines: line::Lines,
    /// How long runs that have ended are kept, if they are not kept for ever.
    pub kept_ms: Option<u64>,
    /// Runs that are not there any more.
    pub gone: BTreeSet<String>,
    /// What is removed at the end.
    pub purge: Option<Purge>,
    pub bus: bus::Book,
}

/// What a batch has changed.
struct Touched {
    runs: BTreeSet<String>,
    tables: BTreeSet<Table>,
    /// Keys of reviews that were written.
    reviews: Vec<Vec<u8>>,
}

impl Touched {
    fn by(batch: &Batch) -> Self {
        let mut touched = Self {
            runs: BTreeSet::new(),
            tables: BTreeSet::new(),
            reviews: Vec::new(),
        };
        for write in &batch.writes {
            match write {
                Write::Append { run, .. } => drop(touched.runs.insert(run.clone())),
                Write::Put { table, key, .. }
                | Write::PutNew { table, key, .. }
                | Write::Delete { table, key }
                | Write::DeleteUnreferenced { table, key, .. } => {
                    touched.tables.insert(*table);
                    if *table == Table::Run {
                        let run = String::from_utf8_lossy(key).into_owned();
                        touched.runs.insert(run);
                    }
                    if *table == Table::Review {
                        touched.reviews.push(key.clone());
                    }
                }
                Write::Claim { .. } | Write::Place { .. } | Write::Forget { .. } => {}
            }
        }
        touched
    }

    fn has(&self, table: Table) -> bool {
        self.tables.contains(&table)
    }
}

/// What is known besides a run's journal.
struct Facts<'a> {
    promises: &'a BTreeMap<String, Promise>,
    given: &'a BTreeMap<u64, Given>,
    events: &'a BTreeMap<u64, CloudEvent>,
    /// The number of the last event before this write, and with it.
    seq_before: u64,
    seq_after: u64,
}

impl Facts<'_> {
    /// An output is one that somebody has answered, to this question.
    fn check_given(&self, output: &Value, asked: &str) -> Result<&Given, String> {
        let given = output["n"].as_u64().and_then(|n| self.given.get(&n));
        let given = given.ok_or_else(|| format!("nobody has answered {output}"))?;
        if given.identity != asked || output["id"] != asked {
            return Err(format!("{output} is no answer to `{asked}`"));
        }
        Ok(given)
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The run in an identity.
fn run_of(identity: &str) -> &str {
    identity.split('|').next().unwrap_or_default()
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
        let run = run_of(identity).to_owned();
        self.judge_pace(connection);
        self.judge_memory(&run);
        let shadow = self.oracle.runs.get(&run);
        let is_suspended = shadow.is_some_and(|shadow| shadow.run.suspension().is_some());
        if is_suspended && !self.oracle.is_left(&request.key) {
            self.violated(format!("`{identity}` leaves and {run} is suspended"));
            return;
        }
        let others = self.services.waiting.values();
        let same = others.clone().filter(|r| r.identity == *identity).count();
        let promise = self.oracle.promises.get(name_of(identity));
        let hedged = promise.is_some_and(|promise| promise.hedged);
        let is_lone = promise.is_some_and(|promise| promise.hedged && !promise.tried_again);
        // Others may ask the same of their own accord.
        let mut beside = others.clone().filter(|r| r.key == request.key);
        let is_second = is_lone && beside.any(|r| r.identity == *identity);
        self.count_hedges(connection.clone(), is_second);
        if effect == Repeat::Read {
            return;
        }
        let beside = usize::from(hedged && effect == Repeat::Idempotent);
        if same > beside {
            self.violated(format!("`{identity}` is called {} times at once", same + 1));
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
            let mut others = self.services.waiting.values();
            if others.any(|r| r.identity == *of) {
                self.violated(format!("`{of}` is undone while its call is under way"));
                return;
            }
            self.services.undo_sent.insert(of.clone());
        }
        // A call that was left to its connection is made by another run than the one it is for.
        let mut begun = self.oracle.runs.values().flat_map(|s| s.under_way.values());
        if !begun.any(|a| a.key == call.idempotency_key && a.attempt == call.attempt) {
            self.violated(format!("`{identity}` leaves and its intent is not durable"));
        }
    }

    /// Folds what has just become durable.
    pub fn judge_durable(&mut self, batch: &Batch) {
        self.judge_time();
        if let Err(wrong) = self.fold_all(&Touched::by(batch)) {
            self.violated(wrong);
        }
    }

    fn fold_all(&mut self, touched: &Touched) -> Result<(), String> {
        let store = self.disk.durable.clone();
        let seq_before = self.oracle.bus.last_seq();
        self.fold_events(touched)?;
        let now_ms = self.now_ms();
        self.note_reviews(touched);
        for run in &touched.runs {
            let row = store.get(Table::Run, run.as_bytes());
            let Some(row) = row.map_err(|e| e.to_string())? else {
                self.judge_removal(run)?;
                continue;
            };
            let changed = self
                .fold(&store, run, seq_before)
                .map_err(|wrong| format!("run {run}: {wrong}"))?;
            let is_kept = changed && self.is_kept(run);
            if let Some(shadow) = self.oracle.runs.get_mut(run) {
                shadow.look_at_row(&row, changed, now_ms);
                shadow.is_kept = if changed { is_kept } else { shadow.is_kept };
            }
        }
        if touched.tables.iter().eq([&Table::Review]) {
            self.note_seen_to(touched);
        }
        if touched.has(Table::Queue) {
            self.fold_lines()?;
        }
        if touched.has(Table::Schedule) {
            self.fold_schedules()?;
        }
        self.note_time();
        Ok(())
    }

    /// Whether there was anything to fold.
    fn fold(&mut self, store: &MemoryStore, run: &str, seq_before: u64) -> Result<bool, String> {
        let told = |error: cofferdam_store::Error| error.to_string();
        if !self.oracle.runs.contains_key(run) {
            let mut shadow = self.oracle.shadow(store, run, self.swarm.verbs)?;
            self.oracle.born += 1;
            shadow.born = self.oracle.born;
            self.oracle.gone.remove(run);
            if let Some(key) = &shadow.key {
                self.judge_key(run, key)?;
            }
            self.oracle.runs.insert(run.to_owned(), shadow);
        }
        let Some(shadow) = self.oracle.runs.get_mut(run) else {
            return Ok(false);
        };
        if store.head(run).map_err(told)?.next_seq == shadow.next_seq {
            return Ok(false);
        }
        let records = store
            .journal(run, shadow.next_seq, usize::MAX)
            .map_err(told)?;
        for (seq, record) in records {
            let record: Value = serde_json::from_slice(&record).map_err(|e| e.to_string())?;
            let at = record["at"].as_u64().unwrap_or_default();
            let event: Event =
                serde_json::from_value(record["event"].clone()).map_err(|e| e.to_string())?;
            self.judge_delivery(&event, run)?;
            let is_turn = matches!(event, Event::Begun { .. } | Event::Admitted);
            let facts = Facts {
                promises: &self.oracle.promises,
                given: &self.services.given,
                events: &self.oracle.bus.events,
                seq_before,
                seq_after: self.oracle.bus.last_seq(),
            };
            let Some(shadow) = self.oracle.runs.get_mut(run) else {
                return Ok(false);
            };
            if seq != shadow.next_seq {
                return Err(format!("record {seq} follows {}", shadow.next_seq));
            }
            shadow.next_seq += 1;
            let consequences = shadow.take(event, at, &facts)?;
            if is_turn && let Some(shadow) = self.oracle.runs.get(run) {
                self.judge_turn(shadow)?;
            }
            for told in consequences {
                self.judge_told(store, told)?;
            }
        }
        Ok(true)
    }

    /// What a record says of others is there in the same write.
    fn judge_told(&mut self, store: &MemoryStore, told: Told) -> Result<(), String> {
        match told {
            Told::Deferred(deferral) => self.judge_deferral(deferral),
            Told::Begun(other) => match store.get(Table::Run, other.as_bytes()) {
                Ok(Some(_)) => Ok(()),
                _ => Err(format!("it has begun {other}, which is not there")),
            },
        }
    }
}

impl Oracle {
    fn shadow(&mut self, store: &MemoryStore, run: &str, records: bool) -> Result<Shadow, String> {
        let get = |table, key: &[u8]| -> Result<Value, String> {
            let bytes = store.get(table, key).map_err(|e| e.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("a row of {table} is missing"))?;
            serde_json::from_slice(&bytes).map_err(|e| e.to_string())
        };
        let row = get(Table::Run, run.as_bytes())?;
        let hash = text(&row, "definition");
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
        let mut machine = Run::new(run, workflow, Arc::clone(&bindings));
        if records {
            machine = machine.recording(None);
        }
        let named = |key: &str| row[key].as_str().map(ToOwned::to_owned);
        Ok(Shadow {
            run: machine,
            bindings,
            answers: Answers::default(),
            next_seq: 0,
            under_way: BTreeMap::new(),
            calls: BTreeMap::new(),
            spent: BTreeMap::new(),
            concurrency_key: named("concurrencyKey"),
            key: named("key"),
            tenant: text(&row, "tenant"),
            born: 0,
            has_turn: false,
            let_in_ms: None,
            is_kept: false,
            cancelled: false,
            redriven: 0,
            taken: BTreeSet::new(),
            hedges: BTreeMap::new(),
            listening: BTreeMap::new(),
            told: time::Told::default(),
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
        let all = self.runs.values();
        let mut going = all.filter(|shadow| shadow.run.suspension().is_none());
        going.find_map(|shadow| {
            let mut reports = shadow.run.reports();
            let parked = reports.find(|r| r.waits_for == Some(cofferdam::WaitsFor::Connection))?;
            Some(format!("{} of {}", parked.task, shadow.run.id()))
        })
    }

    /// An event that somebody waits for and has not heard, of those with a lower number.
    pub fn unheard(&self, before: u64, at_ms: u64) -> Option<String> {
        let mut all = self.runs.values();
        all.find_map(|shadow| shadow.unheard(before, &self.bus.events, at_ms))
    }

    /// Whether anybody listens.
    pub fn is_listening(&self) -> bool {
        let mut all = self.runs.values();
        all.any(|shadow| !shadow.listening.is_empty())
    }

    /// The identity and the action of a call task.
    pub fn call_of(&self, run: &str, task: &str) -> Option<(String, String)> {
        self.runs.get(run)?.calls.get(task).cloned()
    }

    /// Where a run is by what is durable of it.
    pub fn status(&self, run: &str) -> Option<Status> {
        self.runs.get(run).map(|shadow| shadow.run.status())
    }

    /// Whether a run begins nothing until somebody resumes it.
    pub fn is_suspended(&self, run: &str) -> bool {
        let shadow = self.runs.get(run);
        shadow.is_some_and(|shadow| shadow.run.suspension().is_some())
    }

    /// Runs that begin nothing until somebody resumes them.
    pub fn suspended(&self) -> Vec<String> {
        let runs = self.runs.keys();
        runs.filter(|run| self.is_suspended(run)).cloned().collect()
    }

    /// Whether the run was stopped, and how often it was redriven.
    pub fn acted_on(&self, run: &str) -> (bool, u32) {
        let shadow = self.runs.get(run);
        shadow.map_or((false, 0), |shadow| (shadow.cancelled, shadow.redriven))
    }

    /// Every run that is durable.
    pub fn all_runs(&self) -> Vec<String> {
        self.runs.keys().cloned().collect()
    }

    /// Whether a call with this key was left to its connection.
    fn is_left(&self, key: &str) -> bool {
        self.deferrals.iter().any(|deferral| deferral.has_key(key))
    }

    /// Whether a person was asked about any of its tasks.
    fn was_reviewed(&self, run: &str) -> bool {
        self.reviewed.iter().any(|(of, _)| of == run)
    }
}

fn rows(store: &MemoryStore, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let all = cofferdam_store::KeyRange::all();
    store.scan(table, all, usize::MAX).unwrap_or_default()
}
