//! The end of runs that have ended: what is purged is gone as a whole, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam::{PurgeFilter, Runtime, Status};
use cofferdam_store::{JournalStore, KeyRange, Table};
use serde_json::Value;

use crate::mutation::Mutation;
use crate::world::{State, World};

/// What is to be removed, decided once, however often it takes.
#[derive(Debug, Clone)]
pub(crate) struct Purge {
    filter: PurgeFilter,
    /// The runs that it means.
    meant: BTreeSet<String>,
    /// What was there before.
    before: Rows,
    is_done: bool,
}

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Tables of which nothing moves any more but what is removed.
const STILL: [Table; 9] = [
    Table::Run,
    Table::RunByStatus,
    Table::DeadLetter,
    Table::Review,
    Table::Checkpoint,
    Table::Event,
    Table::Definition,
    Table::Schedule,
    Table::Outbox,
];

/// Removes some runs, and judges what is left; crashes on the way now and then.
pub(crate) async fn purge(world: &World, runtime: &Runtime) {
    let is_over = world.lock().is_violated();
    if is_over || !world.lock().swarm.purge || world.lock().is_purged() {
        return;
    }
    let purge = world.lock().plan_purge();
    let mut filter = purge.filter.clone();
    {
        let mut state = world.lock();
        // Those that are gone already cannot be named again.
        let durable = &state.disk.durable;
        filter.runs.retain(|run| has_row(durable, run));
        if filter.runs.is_empty() && !purge.filter.runs.is_empty() {
            let judged = state.judge_purged(&purge);
            state.is_purged_now();
            if let Err(wrong) = judged {
                state.violated(wrong);
            }
            return;
        }
        if state.is_mutated(Mutation::PurgeMore) {
            filter = PurgeFilter::default();
        }
        let at = state.dice.range(1..=12);
        if state.dice.percent(30) {
            state.dies_after(at);
        }
    }
    let dry = PurgeFilter {
        dry_run: true,
        ..filter.clone()
    };
    let foreseen = all(runtime, &dry).await;
    let removed = all(runtime, &filter).await;
    let mut state = world.lock();
    if state.dead {
        return;
    }
    state.is_purged_now();
    let wrong = match (foreseen, removed) {
        (Ok(foreseen), Ok(removed)) if foreseen != removed => Some(format!(
            "{removed:?} are removed, and {foreseen:?} were to be"
        )),
        (Ok(_), Ok(_)) => state.judge_purged(&purge).err(),
        (Err(error), _) | (_, Err(error)) => Some(format!("runs cannot be purged: {error}")),
    };
    if let Some(wrong) = wrong {
        state.violated(wrong);
    }
}

async fn all(
    runtime: &Runtime,
    filter: &PurgeFilter,
) -> Result<BTreeSet<String>, cofferdam::Error> {
    let (mut runs, mut after) = (BTreeSet::new(), None);
    loop {
        let page = runtime.purge(filter, after.as_deref()).await?;
        runs.extend(page.runs);
        after = page.next;
        if after.is_none() {
            return Ok(runs);
        }
    }
}

fn has_row(store: &impl JournalStore, run: &str) -> bool {
    matches!(store.get(Table::Run, run.as_bytes()), Ok(Some(_)))
}

impl State {
    fn is_purged(&self) -> bool {
        self.oracle
            .purge
            .as_ref()
            .is_some_and(|purge| purge.is_done)
    }

    fn is_purged_now(&mut self) {
        if let Some(purge) = &mut self.oracle.purge {
            purge.is_done = true;
        }
    }

    fn plan_purge(&mut self) -> Purge {
        if let Some(purge) = &self.oracle.purge {
            return purge.clone();
        }
        let now_ms = self.now_ms();
        let mut runs = self.oracle.all_runs();
        runs.retain(|run| !self.oracle.gone.contains(run));
        let mut filter = PurgeFilter::default();
        if self.dice.percent(20) {
            let some = runs.iter().filter(|_| self.dice.percent(40));
            filter.runs = some.cloned().collect();
        }
        if self.dice.percent(40) {
            let ends = [Status::Completed, Status::Faulted, Status::Cancelled];
            filter.status = Some(*self.dice.pick(&ends));
        }
        if self.dice.percent(40) {
            filter.tenant = Some((*self.dice.pick(&["", "acme", "zeta"])).to_owned());
        }
        if self.dice.percent(40) {
            filter.ended_before_ms = Some(self.dice.range(60_000..=300_000));
        }
        let ages = runs.iter().filter_map(|run| self.oracle.ended_ms(run));
        let ages: Vec<u64> = ages.map(|at| now_ms.saturating_sub(at)).collect();
        // None of them grows old enough before it is done.
        let is_clear = |ms: &u64| !ages.iter().any(|age| (ms - 60_000..*ms).contains(age));
        filter.ended_before_ms = filter.ended_before_ms.filter(is_clear);
        let mut meant = BTreeSet::new();
        for run in runs {
            let row = self.disk.durable.get(Table::Run, run.as_bytes());
            let row = row.ok().flatten().unwrap_or_default();
            let row: Value = serde_json::from_slice(&row).unwrap_or_default();
            let of = row["tenant"].as_str().unwrap_or_default();
            let age_ms = row["endedMs"].as_u64().map(|at| now_ms.saturating_sub(at));
            let is_named = filter.runs.is_empty() || filter.runs.contains(&run);
            let has_status = filter.status.is_none() || filter.status == self.oracle.status(&run);
            let is_theirs = filter.tenant.as_deref().is_none_or(|tenant| tenant == of);
            let is_old = filter.ended_before_ms.is_none_or(|ms| age_ms >= Some(ms));
            if is_named && has_status && is_theirs && is_old {
                meant.insert(run);
            }
        }
        let purge = Purge {
            filter,
            meant,
            before: self.rows_that_stand_still(),
            is_done: false,
        };
        self.note(
            "",
            &format!("operator: purges {:?}: {:?}", purge.filter, purge.meant),
        );
        self.oracle.purge = Some(purge.clone());
        purge
    }

    fn rows_that_stand_still(&self) -> Rows {
        let rows = |table| {
            let all = self.disk.durable.scan(table, KeyRange::all(), usize::MAX);
            let all = all.unwrap_or_default().into_iter();
            all.map(move |(key, row)| ((table, key), row))
        };
        STILL.into_iter().flat_map(rows).collect()
    }

    fn judge_purged(&self, purge: &Purge) -> Result<(), String> {
        let after = self.rows_that_stand_still();
        for (at @ (table, key), row) in &purge.before {
            let kept = after.get(at) == Some(row);
            let owner = owner(*table, key);
            let goes = owner.is_some_and(|run| purge.meant.contains(&run));
            if kept == goes {
                let key = key.escape_ascii();
                return Err(format!("a row of {table}, {key}, is kept: {kept}"));
            }
        }
        if let Some((table, key)) = after.keys().find(|at| !purge.before.contains_key(*at)) {
            return Err(format!("a row of {table} comes: {}", key.escape_ascii()));
        }
        let store = &self.disk.durable;
        for run in self.oracle.all_runs() {
            let goes = purge.meant.contains(&run) || self.oracle.gone.contains(&run);
            let head = store.head(&run).map_err(|e| e.to_string())?;
            let is_gone = head.next_seq == 0;
            let records = store.journal(&run, 0, 1).map_or(0, |records| records.len());
            if is_gone != goes || (records == 0) != goes {
                return Err(format!("{run} is to go: {goes}, and is at {head:?}"));
            }
        }
        let report = store.verify().map_err(|e| e.to_string())?;
        if !report.is_clean() {
            return Err(format!("the store is not whole: {:?}", report.problems));
        }
        Ok(())
    }
}

/// The run that a row goes with.
fn owner(table: Table, key: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(key).into_owned();
    match table {
        Table::Run | Table::Checkpoint => Some(text),
        // Those of events begin with a zero byte.
        Table::DeadLetter => (key.first() != Some(&0)).then_some(text),
        Table::RunByStatus => text.split('\0').nth(1).map(ToOwned::to_owned),
        Table::Review => text.split('\0').next().map(ToOwned::to_owned),
        _ => None,
    }
}
