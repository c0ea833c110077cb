//! Runs that nobody asks for: workflows with a `schedule`.
//!
//! One task looks after all of them. What is due, and what was taken of events so far, is a row of
//! the store. A run begins in two steps: it is begun under an id that is made of the schedule and
//! the instant, or the event, that it is for; then the row is moved on. After a crash between the
//! two the same run is begun again, which changes nothing: no tick is lost, and none counts twice.
//!
//! Instants that passed while nothing was open are made up for by one run, for the last of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::cloud_event;
use cofferdam_core::consume::{Collector, Verdict, Watch, read};
use cofferdam_core::expr::{Expr, Vars};
use cofferdam_core::run::{TAKEN_MAX, instant};
use cofferdam_core::workflow::{Read, Schedule, Strategy, Until, Workflow};
use cofferdam_store::{Batch, KeyRange, Table};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::Definition;
use crate::events::bus::{Outgoing, delete_watches};
use crate::events::keys::{self, Letter, Owner};
use crate::mutation::Mutation;
use crate::payloads::{delete_row, unpack};
use crate::rows::{decode, encode};
use crate::runtime::{Inner, Runtime};
use crate::{Error, StartOptions, query};

/// How long it sleeps at most: a clock that was set forward is noticed after this.
const NAP_MAX: Duration = Duration::from_secs(5);
/// How many events are read in one go; each may have a megabyte.
const LETTERS_PAGE: usize = 16;
/// A run that is begun by events has at most so many bytes of them; with more it begins at once.
const TAKEN_BYTES_MAX: usize = 4 << 20;
/// How many schedules are read in one go.
const PAGE: usize = 1_000;

/// Rows of schedules and, behind them, the names of those that are paused.
const ROW: u8 = 0;
const PAUSED: u8 = 1;

/// A schedule, as the store knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRow {
    /// Its name in `[workflows]`.
    pub name: String,
    /// The workflow: `namespace/name:version`.
    pub workflow: String,
    /// In words: `cron 0 6 * * *`, `every 5m`, `after 1h`, `on events`.
    pub when: String,
    /// When it is next due; none if that depends on a run or on events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
    /// The last run that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Whether it waits for the end of that run.
    #[serde(default)]
    pub awaits_end: bool,
    /// Events that were taken, and no run was begun with yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<Value>,
    /// The number of the last event that it looked at.
    #[serde(default)]
    pub heard_seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collector: Option<Collector>,
    /// By what events are looked up for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    watches: Vec<Watch>,
    /// Whether it is paused.
    #[serde(default, skip_serializing)]
    pub paused: bool,
}

/// A schedule that this process looks after.
struct Planned {
    name: String,
    definition: Definition,
    input: Value,
    workflow: Arc<Workflow>,
}

impl Planned {
    fn schedule(&self) -> Option<&Schedule> {
        self.workflow.schedule.as_ref()
    }

    fn owner(&self) -> Owner {
        Owner::Schedule {
            name: self.name.clone(),
        }
    }
}

impl Runtime {
    /// Begins to look after the schedules of the workflows that the configuration names under
    /// `[workflows]`; the names of those that have one. Schedules that the store knows and the
    /// configuration does not name any more are forgotten. To be called once.
    ///
    /// # Errors
    /// As for [`Runtime::load_workflow`]; [`Error::Store`]. Nothing is looked after then.
    pub async fn run_schedules(&self) -> Result<Vec<String>, Error> {
        let mut planned = Vec::new();
        for configured in self.inner.config.workflows() {
            let definition = self.load_workflow(&configured.file)?;
            let workflow = definition.workflow();
            if workflow.schedule.is_some() {
                planned.push(Planned {
                    name: configured.name.clone(),
                    definition,
                    input: configured.input.clone(),
                    workflow,
                });
            }
        }
        register(&self.inner, &planned).await?;
        let names = planned.iter().map(|p| p.name.clone()).collect();
        let runtime = self.clone();
        self.spawn_until_closing(async move { look_after(&runtime, &planned).await });
        Ok(names)
    }

    /// Keeps a schedule from beginning runs. Instants that pass are made up for by one run when it
    /// is resumed; events wait for it.
    ///
    /// # Errors
    /// [`Error::NoSchedule`]; [`Error::Store`].
    pub async fn pause_schedule(&self, name: &str) -> Result<(), Error> {
        self.mark_schedule(name, |batch, key| {
            batch.put(Table::Schedule, key, Vec::new())
        })
        .await
    }

    /// Lets a paused schedule go on.
    ///
    /// # Errors
    /// [`Error::NoSchedule`]; [`Error::Store`].
    pub async fn resume_schedule(&self, name: &str) -> Result<(), Error> {
        self.mark_schedule(name, |batch, key| batch.delete(Table::Schedule, key))
            .await
    }

    async fn mark_schedule(
        &self,
        name: &str,
        mark: impl FnOnce(Batch, Vec<u8>) -> Batch,
    ) -> Result<(), Error> {
        if self.inner.schedule_row(name)?.is_none() {
            let name = name.to_owned();
            return Err(Error::NoSchedule { name });
        }
        let batch = mark(Batch::new(), key(PAUSED, name));
        self.inner.store.commit(batch).await?;
        self.inner.schedules_changed.notify_one();
        Ok(())
    }
}

impl query::Query<'_> {
    /// The schedules that the store knows, by name.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn schedules(&self) -> Result<Vec<ScheduleRow>, Error> {
        let store = self.store();
        let rows = store.scan(Table::Schedule, KeyRange::prefix(vec![ROW]), PAGE)?;
        rows.iter()
            .map(|(_, bytes)| {
                let mut row: ScheduleRow = decode("schedule", "schedule", bytes)?;
                let paused = store.get(Table::Schedule, &key(PAUSED, &row.name))?;
                row.paused = paused.is_some();
                Ok(row)
            })
            .collect()
    }
}

impl Inner {
    fn schedule_row(&self, name: &str) -> Result<Option<ScheduleRow>, Error> {
        match self.store.get(Table::Schedule, &key(ROW, name))? {
            None => Ok(None),
            Some(bytes) => decode("schedule", name, &bytes).map(Some),
        }
    }
}

fn key(kind: u8, name: &str) -> Vec<u8> {
    [&[kind][..], name.as_bytes()].concat()
}

/// Makes rows for new schedules, changes those that have changed, and forgets those that are gone.
async fn register(inner: &Arc<Inner>, planned: &[Planned]) -> Result<(), Error> {
    let known = query::Query::new(&*inner.store).schedules()?;
    for row in &known {
        if !planned.iter().any(|p| p.name == row.name) {
            let batch = forget(inner, row, Batch::new())
                .await?
                .delete(Table::Schedule, key(ROW, &row.name))
                .delete(Table::Schedule, key(PAUSED, &row.name));
            inner.store.commit(batch).await?;
            tracing::info!(schedule = row.name, "not configured any more; forgotten");
        }
    }
    for plan in planned {
        let before = known.iter().find(|row| row.name == plan.name);
        let when = in_words(plan);
        let workflow = plan.definition.name();
        if before.is_some_and(|row| row.when == when && row.workflow == workflow) {
            continue;
        }
        let mut batch = Batch::new();
        if let Some(row) = before {
            batch = forget(inner, row, batch).await?;
        }
        let mut row = ScheduleRow {
            name: plan.name.clone(),
            workflow,
            when,
            next_ms: first_ms(plan, inner.clock.now_ms()),
            run: before.and_then(|row| row.run.clone()),
            awaits_end: false,
            taken: Vec::new(),
            heard_seq: 0,
            collector: None,
            watches: Vec::new(),
            paused: false,
        };
        let mut outgoing = Vec::new();
        if let Some(Schedule::On { to, .. }) = plan.schedule() {
            let collector = collector(to);
            row.watches = collector.watches(to);
            let (owner, watches) = (plan.owner(), row.watches.clone());
            outgoing.push(Outgoing::Watch { owner, watches });
            row.collector = Some(collector);
        }
        let batch = batch.put(Table::Schedule, key(ROW, &plan.name), encode(&row)?);
        let handed = inner.bus.hand_over(&*inner.store, batch, outgoing)?;
        handed.settle(&inner.bus).await?;
    }
    Ok(())
}

/// What a schedule asks for is told by its own row: the watches of the strategy that it had. Its letters
/// go before it, so that one that is cut short is forgotten again.
async fn forget(inner: &Inner, row: &ScheduleRow, batch: Batch) -> Result<Batch, Error> {
    let owner = Owner::Schedule {
        name: row.name.clone(),
    };
    let letters = KeyRange::prefix(keys::letter_prefix(&owner));
    loop {
        let rows = inner
            .store
            .scan(Table::Subscription, letters.clone(), PAGE)?;
        if rows.is_empty() {
            return delete_watches(batch, &owner, &row.watches);
        }
        let mut gone = Batch::new();
        for (key, bytes) in rows {
            gone = delete_row(gone, Table::Subscription, key, &bytes);
            inner.letters.take(&owner);
        }
        inner.store.commit(gone).await?;
    }
}

/// In words, so that a change is noticed; the events of `on` by the text that they are compiled from.
fn in_words(plan: &Planned) -> String {
    let span = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    match plan.schedule() {
        None => String::new(),
        Some(Schedule::Cron(cron)) => format!("cron {}", cron.source()),
        Some(Schedule::Every(ms)) => format!("every {}", span(*ms)),
        Some(Schedule::After(ms)) => format!("after {}", span(*ms)),
        Some(Schedule::On { .. }) => format!("on events ({:.8})", plan.definition.hash()),
    }
}

/// When a schedule that begins at this instant is first due.
fn first_ms(plan: &Planned, now_ms: u64) -> Option<u64> {
    match plan.schedule()? {
        Schedule::Cron(cron) => cron.next_ms(now_ms),
        // Full seconds make ids that people can read.
        Schedule::Every(_) | Schedule::After(_) => Some(now_ms - now_ms % 1_000),
        Schedule::On { .. } => None,
    }
}

/// The last instant of a schedule that has come, and the next one after this moment.
fn last_and_next(schedule: &Schedule, due_ms: u64, now_ms: u64) -> (u64, Option<u64>) {
    match schedule {
        Schedule::Every(every_ms) => {
            let missed = now_ms.saturating_sub(due_ms) / every_ms;
            let last_ms = due_ms + missed * every_ms;
            (last_ms, Some(last_ms + every_ms))
        }
        Schedule::Cron(cron) => {
            let next_ms = cron.next_ms(now_ms);
            // Back from now in growing steps, the last one to where it was due, until an instant
            // lies between.
            let span_ms = now_ms.saturating_sub(due_ms);
            let mut last_ms = due_ms;
            let mut back_ms = 0;
            while back_ms < span_ms {
                back_ms = (back_ms * 2).max(60_000).min(span_ms);
                let found = cron.next_ms(now_ms - back_ms).filter(|ms| *ms <= now_ms);
                if let Some(mut found) = found {
                    while let Some(later) = cron.next_ms(found).filter(|ms| *ms <= now_ms) {
                        found = later;
                    }
                    last_ms = found;
                    break;
                }
            }
            (last_ms, next_ms)
        }
        Schedule::After(_) | Schedule::On { .. } => (due_ms, None),
    }
}

/// Expectations of a schedule see no run, so that they are known from the text.
fn collector(to: &Strategy) -> Collector {
    Collector::new(to, |template| {
        Ok::<_, ()>(
            template
                .evaluate(&Value::Null, &Vars::new())
                .unwrap_or_default(),
        )
    })
    .unwrap_or_default()
}

/// Runs until the runtime shuts down.
async fn look_after(runtime: &Runtime, planned: &[Planned]) {
    let inner = &runtime.inner;
    let mut awaited = HashSet::new();
    loop {
        let mut nap = NAP_MAX;
        for plan in planned {
            match act(runtime, plan, &mut awaited).await {
                Ok(Some(next_ms)) => {
                    let now_ms = inner.clock.now_ms();
                    nap = nap.min(Duration::from_millis(next_ms.saturating_sub(now_ms)));
                }
                Ok(None) => {}
                Err(Error::ShuttingDown) => return,
                Err(error) => tracing::error!(schedule = plan.name, %error, "it is tried again"),
            }
        }
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.schedules_changed.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Does what is due for one schedule; when it is due next.
async fn act(
    runtime: &Runtime,
    plan: &Planned,
    awaited: &mut HashSet<String>,
) -> Result<Option<u64>, Error> {
    let inner = &runtime.inner;
    let paused = inner.store.get(Table::Schedule, &key(PAUSED, &plan.name))?;
    let (Some(schedule), Some(mut row), None) =
        (plan.schedule(), inner.schedule_row(&plan.name)?, paused)
    else {
        return Ok(None);
    };
    if let Schedule::On { to, read } = schedule {
        take_events(runtime, plan, &mut row, to, *read).await?;
        return Ok(None);
    }
    if let (true, Schedule::After(delay_ms), Some(run)) = (row.awaits_end, schedule, &row.run) {
        let Some(ended_ms) = ended_ms(runtime, run, awaited)? else {
            return Ok(None);
        };
        row.awaits_end = false;
        row.next_ms = Some(ended_ms + delay_ms);
        write(inner, &row, Batch::new()).await?;
    }
    let Some(due_ms) = row.next_ms else {
        return Ok(None);
    };
    let now_ms = inner.clock.now_ms();
    if due_ms > now_ms {
        return Ok(Some(due_ms));
    }
    let (last_ms, next_ms) = last_and_next(schedule, due_ms, now_ms);
    let stamp = instant(last_ms).replace(['-', ':'], "");
    if inner.armed.has(Mutation::MoveScheduleFirst) {
        let moved = ScheduleRow {
            run: Some(format!("{}.{stamp}", plan.name)),
            next_ms,
            ..row.clone()
        };
        write(inner, &moved, Batch::new()).await?;
    }
    let run = begin(runtime, plan, &stamp, plan.input.clone()).await?;
    row.run = Some(run);
    row.next_ms = next_ms;
    row.awaits_end = matches!(schedule, Schedule::After(_));
    write(inner, &row, Batch::new()).await?;
    if row.awaits_end {
        inner.schedules_changed.notify_one();
    }
    Ok(next_ms)
}

/// When a run ended; none while it goes on, and then the schedules are looked at again at its end.
fn ended_ms(
    runtime: &Runtime,
    run: &str,
    awaited: &mut HashSet<String>,
) -> Result<Option<u64>, Error> {
    let row = query::row(&*runtime.inner.store, run)?;
    // A run that was removed has ended, whenever that was.
    let Some(row) = row else {
        return Ok(Some(runtime.inner.clock.now_ms()));
    };
    if row.status.is_final() {
        awaited.remove(run);
        return Ok(Some(row.ended_ms.unwrap_or(row.begun_ms)));
    }
    if awaited.insert(run.to_owned()) {
        let (waiting, run) = (runtime.clone(), run.to_owned());
        runtime.spawn_until_closing(async move {
            // Whatever comes of it, the row is looked at again; every nap does that too.
            let _ = waiting.wait(&run).await;
            waiting.inner.schedules_changed.notify_one();
        });
    }
    Ok(None)
}

/// Begins the run that belongs to this instant or event. If it was begun before, that is the one.
async fn begin(
    runtime: &Runtime,
    plan: &Planned,
    stamp: &str,
    input: Value,
) -> Result<String, Error> {
    let id = format!("{}.{stamp}", plan.name);
    let options = StartOptions {
        id: Some(id.clone()),
        ..StartOptions::default()
    };
    match runtime.start_with(&plan.definition, input, options).await {
        // Another version of the workflow has done it.
        Ok(_) | Err(Error::OtherRun { .. }) => Ok(id),
        Err(error) => Err(error),
    }
}

async fn write(inner: &Inner, row: &ScheduleRow, batch: Batch) -> Result<(), Error> {
    let batch = batch.put(Table::Schedule, key(ROW, &row.name), encode(row)?);
    Ok(inner.store.commit(batch).await?)
}

/// Takes events out of the letter box of a schedule, one after the other, and begins a run whenever
/// there are enough.
async fn take_events(
    runtime: &Runtime,
    plan: &Planned,
    row: &mut ScheduleRow,
    to: &Strategy,
    how: Read,
) -> Result<(), Error> {
    let inner = &runtime.inner;
    let owner = plan.owner();
    let evaluate = |expr: &Expr, value: &Value| expr.evaluate(value, &Vars::new()).ok();
    loop {
        let range = KeyRange::prefix(keys::letter_prefix(&owner));
        let letters = inner.store.scan(Table::Subscription, range, LETTERS_PAGE)?;
        if letters.is_empty() {
            return Ok(());
        }
        for (key, bytes) in letters {
            let letter: Letter = unpack(&*inner.store, "letter", &plan.name, &bytes)?;
            let mut collector = row.collector.take().unwrap_or_else(|| collector(to));
            let verdict = if letter.seq > row.heard_seq {
                collector.take(to, &letter.event, &evaluate)
            } else {
                Verdict::Ignored
            };
            if let Verdict::Taken { .. } = verdict {
                row.taken.push(read(&letter.event, how));
            }
            row.heard_seq = row.heard_seq.max(letter.seq);
            row.collector = Some(collector);
            if is_enough(to, verdict, &row.taken) && !row.taken.is_empty() {
                let input = Value::Array(row.taken.clone());
                let stamp = letter.seq.to_string();
                row.run = Some(begin(runtime, plan, &stamp, input).await?);
            }
            if is_enough(to, verdict, &row.taken) {
                row.taken.clear();
                row.collector = None;
            }
            let batch = delete_row(Batch::new(), Table::Subscription, key, &bytes);
            write(inner, row, batch).await?;
            inner.letters.take(&owner);
        }
    }
}

fn is_enough(to: &Strategy, verdict: Verdict, taken: &[Value]) -> bool {
    let is_full = || {
        let bytes: usize = taken.iter().map(cloud_event::size).sum();
        taken.len() >= TAKEN_MAX || bytes >= TAKEN_BYTES_MAX
    };
    match verdict {
        Verdict::Ignored | Verdict::Noted => false,
        Verdict::Ends | Verdict::Taken { complete: true } => true,
        Verdict::Taken { complete: false } => match to {
            Strategy::Any {
                until: Until::Holds(condition),
                ..
            } => {
                let all = Value::Array(taken.to_vec());
                condition.holds(&all, &Vars::new()).unwrap_or(false) || is_full()
            }
            Strategy::One(_) | Strategy::All(_) | Strategy::Any { .. } => is_full(),
        },
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::cron::Cron;

    use super::*;

    const MINUTE: u64 = 60_000;

    /// The last instant, and the next, in minutes, of a schedule that was due at 0.
    fn at(cron: &str, now: u64) -> (u64, u64) {
        let schedule = Schedule::Cron(Cron::parse(cron).expect("a cron expression"));
        let (last_ms, next_ms) = last_and_next(&schedule, 0, now * MINUTE);
        (last_ms / MINUTE, next_ms.expect("it goes on") / MINUTE)
    }

    #[test]
    fn what_was_missed_is_made_up_for_by_the_last_instant_that_has_come() {
        assert_eq!(at("* * * * *", 0), (0, 1));
        assert_eq!(at("* * * * *", 1), (1, 2));
        assert_eq!(at("* * * * *", 1_000), (1_000, 1_001));
        assert_eq!(at("0,10 * * * *", 50), (10, 60));
        assert_eq!(at("0,10 * * * *", 59), (10, 60));
        assert_eq!(at("0 0 * * *", 1_439), (0, 1_440));
        assert_eq!(at("0 0 1 * *", 60 * 24 * 40), (60 * 24 * 31, 60 * 24 * 59));
    }
}
