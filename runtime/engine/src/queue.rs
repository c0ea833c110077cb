//! Which runs may be in memory, and whose turn is next.
//!
//! A run that has to wait is a row and nothing else. Two kinds of rows say what it waits for: first
//! its concurrency key, if it has one, then a place in memory. Places go to tenants by weight
//! ([`Fair`]), within a tenant by priority, within a priority in the order of arrival. A run
//! holds its key from its turn to its end, also while it is parked; it holds its place only while
//! it is in memory.
//!
//! | key of [`Table::Queue`] | says |
//! |---|---|
//! | `k` key, priority, number, run | the run waits for the key |
//! | `h` key, run | the run holds the key |
//! | `q` tenant, priority, number, run | the run waits for a place |
//!
//! Rows are written with the event that they follow from, so that a crash loses nobody's turn. What
//! tenants got so far is forgotten by a restart: fairness begins anew.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::fair::Fair;
use cofferdam_store::{Batch, KeyRange, Table};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Error;
use crate::config::Admission;
use crate::mutation::Mutation;
use crate::query;
use crate::rows::RunRow;
use crate::runner::Message;
use crate::runtime::Inner;

/// The highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 9;
/// That of runs that do not say.
pub const PRIORITY_DEFAULT: u8 = 5;

/// Numbers of rows that are written within one millisecond.
const SEQ_BITS: u32 = 20;
/// How many rows of a tenant are looked through for one whose turn it is.
const PAGE: usize = 64;
/// After this it looks again although nobody said that anything changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Counts who is in memory.
pub(crate) struct Gate {
    limits: Admission,
    state: Mutex<State>,
    changed: Notify,
    /// Told when a place is given back.
    freed: Notify,
}

#[derive(Default)]
struct State {
    active: usize,
    /// How many wait for a place for a run that is woken. They come before the queue.
    woken: usize,
    turn: Turn,
    by_tenant: HashMap<String, usize>,
    /// Tenants that may have rows.
    tenants: BTreeSet<String>,
    /// Concurrency keys that may have become free.
    keys: BTreeSet<String>,
    /// Runs that were given a place, while their rows may still be there.
    picked: HashSet<String>,
    fair: Fair,
    last_seq: u64,
}

/// Whose the next free place is, while both wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Turn {
    /// A run's that is woken.
    #[default]
    Woken,
    /// One's that stands in the queue.
    Queue,
}

/// A place in memory; given back when dropped.
pub(crate) struct Place {
    gate: Arc<Gate>,
    /// None until somebody has read whose run it is.
    tenant: Option<String>,
    run: String,
}

impl Place {
    /// Says whose run it is.
    pub fn belongs_to(&mut self, tenant: &str) {
        if self.tenant.is_none() {
            let mut state = self.gate.state.lock();
            *state.by_tenant.entry(tenant.to_owned()).or_default() += 1;
            self.tenant = Some(tenant.to_owned());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.active -= 1;
        state.picked.remove(&self.run);
        if let Some(tenant) = &self.tenant
            && let Some(count) = state.by_tenant.get_mut(tenant)
        {
            *count -= 1;
            if *count == 0 {
                state.by_tenant.remove(tenant);
            }
        }
        drop(state);
        self.gate.freed.notify_one();
        self.gate.changed.notify_one();
    }
}

/// One who waits for a place for a run that is woken.
struct Waits<'a>(&'a Gate);

impl<'a> Waits<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.state.lock().woken += 1;
        Self(gate)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.state.lock().woken -= 1;
        // Places that were kept free meanwhile are the queue's.
        self.0.changed.notify_one();
    }
}

impl State {
    /// Whether a free place is for a run that is woken: it steps back when it is the queue's turn and
    /// somebody may stand there.
    fn is_for_woken(&self) -> bool {
        self.turn == Turn::Woken || self.tenants.is_empty()
    }

    /// Whether a free place is for the queue.
    fn is_for_queue(&self) -> bool {
        self.turn == Turn::Queue || self.woken == 0
    }

    fn has_room_for(&self, tenant: &str, limits: &Admission) -> bool {
        let active = self.by_tenant.get(tenant).copied().unwrap_or(0);
        active < limits.tenant(tenant).runs_max
    }
}

impl Gate {
    pub fn new(limits: Admission) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            changed: Notify::new(),
            freed: Notify::new(),
        }
    }

    /// A place for a run that begins, if nobody waits for one.
    pub fn try_enter(self: &Arc<Self>, tenant: &str, run: &str) -> Option<Place> {
        let mut state = self.state.lock();
        let free = state.tenants.is_empty()
            && state.woken == 0
            && state.active < self.limits.runs_active_max
            && state.has_room_for(tenant, &self.limits);
        free.then(|| self.place(&mut state, tenant, run))
    }

    /// Waits for a place for a run that is woken. Cancel-safe.
    pub async fn place_for_woken(self: &Arc<Self>, run: &str) -> Place {
        let waits = Waits::new(self);
        look_when(&self.freed, || {
            let mut state = self.state.lock();
            let is_ours = state.is_for_woken() && state.active < self.limits.runs_active_max;
            is_ours.then(|| {
                state.active += 1;
                state.turn = Turn::Queue;
            })
        })
        .await;
        drop(waits);
        Place {
            gate: Arc::clone(self),
            tenant: None,
            run: run.to_owned(),
        }
    }

    /// A place for a run that people do something with, or that was under way when the store was
    /// closed: it does not wait for one.
    pub fn enter(self: &Arc<Self>, tenant: &str, run: &str) -> Place {
        self.place(&mut self.state.lock(), tenant, run)
    }

    fn place(self: &Arc<Self>, state: &mut State, tenant: &str, run: &str) -> Place {
        state.active += 1;
        *state.by_tenant.entry(tenant.to_owned()).or_default() += 1;
        Place {
            gate: Arc::clone(self),
            tenant: Some(tenant.to_owned()),
            run: run.to_owned(),
        }
    }

    /// How many more runs may be woken.
    pub fn room(&self) -> usize {
        let active = self.state.lock().active;
        self.limits.runs_active_max.saturating_sub(active)
    }

    /// A number for a row that is written now: higher than all before, over restarts too unless the
    /// clock was set back.
    pub fn next_seq(&self, now_ms: u64) -> u64 {
        let mut state = self.state.lock();
        state.last_seq = (now_ms << SEQ_BITS).max(state.last_seq + 1);
        state.last_seq
    }

    /// Rows of runs of this tenant were written.
    pub fn note_tenant(&self, tenant: &str) {
        self.state.lock().tenants.insert(tenant.to_owned());
        self.changed.notify_one();
    }

    /// A run that has no place was let go of: it may stand in the line now.
    pub fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Rows of this run were written, or its key is free: somebody's turn may have come.
    pub fn note(&self, row: &RunRow) {
        let mut state = self.state.lock();
        match &row.concurrency_key {
            Some(key) => state.keys.insert(key.clone()),
            None => state.tenants.insert(row.tenant.clone()),
        };
        drop(state);
        self.changed.notify_one();
    }
}

/// Looks at once, and again whenever something is told, until it has found something. Cancel-safe.
async fn look_when<T>(told: &Notify, mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        let mut next = pin!(told.notified());
        // Before it looks: two places can become free while two look, and each is told of one.
        next.as_mut().enable();
        if let Some(found) = look() {
            return found;
        }
        next.await;
    }
}

/// The row that a run waits by.
pub(crate) fn waits(batch: Batch, row: &RunRow) -> Batch {
    let key = match &row.concurrency_key {
        Some(key) => place_key(b'k', key, row),
        None => place_key(b'q', &row.tenant, row),
    };
    batch.put(Table::Queue, key, Vec::new())
}

/// The run's turn has come.
pub(crate) fn admitted(batch: Batch, row: &RunRow) -> Batch {
    batch.delete(Table::Queue, place_key(b'q', &row.tenant, row))
}

/// The run has ended: it waits for nothing and holds nothing.
pub(crate) fn ended(mut batch: Batch, row: &RunRow) -> Batch {
    if row.queued_ms.is_some() {
        batch = admitted(batch, row);
        if let Some(key) = &row.concurrency_key {
            batch = batch.delete(Table::Queue, place_key(b'k', key, row));
        }
    }
    match &row.concurrency_key {
        Some(key) => batch.delete(Table::Queue, holder_key(key, &row.run)),
        None => batch,
    }
}

/// What the rows of this kind begin with; names do not contain a zero byte.
fn prefix(kind: u8, name: &str) -> Vec<u8> {
    [&[kind][..], name.as_bytes(), &[0]].concat()
}

fn place_key(kind: u8, name: &str, row: &RunRow) -> Vec<u8> {
    let mut key = prefix(kind, name);
    key.push(PRIORITY_MAX.saturating_sub(row.priority));
    key.extend_from_slice(&row.queue_seq.to_be_bytes());
    key.extend_from_slice(row.run.as_bytes());
    key
}

fn holder_key(key: &str, run: &str) -> Vec<u8> {
    [&prefix(b'h', key)[..], run.as_bytes()].concat()
}

/// The name and the run in a key of kind `k` or `q`.
fn parse_place(key: &[u8]) -> Option<(&str, &str)> {
    let end = key.iter().position(|b| *b == 0)?;
    let name = std::str::from_utf8(key.get(1..end)?).ok()?;
    // Priority and number.
    let run = key.get(end + 1 + 1 + size_of::<u64>()..)?;
    Some((name, std::str::from_utf8(run).ok()?))
}

/// Lets runs in, until the runtime shuts down.
pub(crate) async fn admit(inner: Arc<Inner>) {
    loop {
        let done = async {
            promote(&inner).await?;
            let_in(&inner)
        };
        if let Err(error) = done.await {
            tracing::error!(%error, "the queue cannot be read; it is tried again");
        }
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.gate.changed.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What waits when the store is opened.
pub(crate) fn load(inner: &Inner) -> Result<(), Error> {
    let tenants = names(inner, b'q')?;
    let keys = names(inner, b'k')?;
    let mut state = inner.gate.state.lock();
    state.tenants = tenants;
    state.keys = keys;
    Ok(())
}

/// Every name that has rows of a kind, by leaping from one to the next.
fn names(inner: &Inner, kind: u8) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    let mut range = KeyRange::prefix([kind]);
    loop {
        let rows = inner.store.scan(Table::Queue, range.clone(), 1)?;
        let Some((key, _)) = rows.first() else {
            return Ok(names);
        };
        match parse_place(key) {
            Some((name, _)) => {
                range.start = KeyRange::prefix(prefix(kind, name)).end.unwrap_or_default();
                names.insert(name.to_owned());
            }
            None => range = range.after(key),
        }
    }
}

/// Gives keys that are free to the runs that wait for them.
async fn promote(inner: &Arc<Inner>) -> Result<(), Error> {
    while let Some(key) = { inner.gate.state.lock().keys.first().cloned() } {
        match promote_one(inner, &key).await {
            Ok(false) => {
                inner.gate.state.lock().keys.remove(&key);
            }
            // Or somebody did something with the run meanwhile.
            Ok(true)
            | Err(Error::Store {
                source: cofferdam_store::Error::Stale { .. },
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// False if there is nothing to give, or nobody to give it to.
async fn promote_one(inner: &Arc<Inner>, key: &str) -> Result<bool, Error> {
    let most = inner.gate.limits.key(key);
    let holders = KeyRange::prefix(prefix(b'h', key));
    let mut holders = inner.store.scan(Table::Queue, holders, most)?;
    if inner.armed.has(Mutation::LoseKey) {
        let run = |row: &[u8]| String::from_utf8_lossy(&row[key.len() + 2..]).into_owned();
        holders.retain(|(row, _)| inner.is_held(&run(row)));
    }
    if holders.len() >= most {
        return Ok(false);
    }
    let waiting = KeyRange::prefix(prefix(b'k', key));
    let rows = inner.store.scan(Table::Queue, waiting, 1)?;
    let Some((place, _)) = rows.first() else {
        return Ok(false);
    };
    let mut batch = Batch::new().delete(Table::Queue, place.clone());
    if let Some((_, run)) = parse_place(place) {
        let head = inner.store.head(run)?;
        if let Some(row) = query::row(&*inner.store, run)?
            && row.queued_ms.is_some()
        {
            let next = place_key(b'q', &row.tenant, &row);
            batch = batch
                .guard(run, head.epoch, head.next_seq)
                .put(Table::Queue, holder_key(key, run), Vec::new())
                .put(Table::Queue, next, Vec::new());
            inner.store.commit(batch).await?;
            inner.gate.state.lock().tenants.insert(row.tenant);
            return Ok(true);
        }
    }
    inner.store.commit(batch).await?;
    Ok(true)
}

/// Gives places to tenants in turn, and every other one to runs that are woken.
fn let_in(inner: &Arc<Inner>) -> Result<(), Error> {
    let served = let_in_some(inner);
    // While memory is full, it stays the queue's turn.
    if !matches!(served, Ok(false)) {
        inner.gate.state.lock().turn = Turn::Woken;
        inner.gate.freed.notify_waiters();
    }
    served.map(|_| ())
}

/// Whether it stopped for another reason than that memory is full.
fn let_in_some(inner: &Arc<Inner>) -> Result<bool, Error> {
    let gate = &inner.gate;
    // Tenants whose runs were all given a place a moment ago.
    let mut passed_over = BTreeSet::new();
    // A run that could not take its place has its row still.
    let mut given = HashSet::new();
    while !inner.closing.is_cancelled() {
        let tenant = {
            let mut state = gate.state.lock();
            let beyond = usize::from(inner.armed.has(Mutation::Crowd));
            if state.active >= gate.limits.runs_active_max + beyond {
                return Ok(false);
            }
            if !state.is_for_queue() {
                return Ok(true);
            }
            let waiting: Vec<String> = state
                .tenants
                .iter()
                .filter(|t| !passed_over.contains(*t) && state.has_room_for(t, &gate.limits))
                .cloned()
                .collect();
            let weigh = |tenant| (tenant, gate.limits.tenant(tenant).weight);
            let next = state
                .fair
                .next(waiting.iter().map(String::as_str).map(weigh));
            let Some(next) = next else { return Ok(true) };
            next
        };
        match first_in_line(inner, &tenant, &given)? {
            Line::Empty => {
                gate.state.lock().tenants.remove(&tenant);
            }
            Line::Busy => {
                passed_over.insert(tenant);
            }
            Line::Next(run) => {
                let place = {
                    let mut state = gate.state.lock();
                    state.picked.insert(run.clone());
                    state.turn = Turn::Woken;
                    gate.place(&mut state, &tenant, &run)
                };
                inner.let_in(&run, place, Some(Message::Admitted));
                given.insert(run);
            }
        }
    }
    Ok(true)
}

enum Line {
    Empty,
    /// Those who stand there have a place, or cannot go on.
    Busy,
    Next(String),
}

fn first_in_line(inner: &Inner, tenant: &str, given: &HashSet<String>) -> Result<Line, Error> {
    let line = KeyRange::prefix(prefix(b'q', tenant));
    let mut range = line.clone();
    let mut is_empty = true;
    loop {
        let rows = inner.store.scan(Table::Queue, range, PAGE)?;
        let Some((last, _)) = rows.last() else {
            return Ok(if is_empty { Line::Empty } else { Line::Busy });
        };
        is_empty = false;
        for (key, _) in &rows {
            let Some((_, run)) = parse_place(key) else {
                continue;
            };
            let picked = given.contains(run) || inner.gate.state.lock().picked.contains(run);
            if inner.armed.has(Mutation::LateTurns) && is_young(inner, run)? {
                return Ok(Line::Busy);
            }
            // One that is held is on its way into the line: it is let go of soon, which is told.
            if !picked && !inner.is_stopped(run) && !inner.is_held(run) {
                return Ok(Line::Next(run.to_owned()));
            }
        }
        range = line.clone().after(last);
    }
}

/// Whether the run has stood in the queue for less than two minutes.
fn is_young(inner: &Inner, run: &str) -> Result<bool, Error> {
    let row = query::row(&*inner.store, run)?;
    let since_ms = row.and_then(|row| row.queued_ms).unwrap_or_default();
    Ok(inner.clock.now_ms() < since_ms + 120_000)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    /// Goes on as far as it can.
    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        future.now_or_never()
    }

    #[test]
    fn two_who_look_while_two_places_become_free_both_hear_of_it() {
        let (told, places) = (Notify::new(), Cell::new(0));
        let take = || (places.get() > 0).then(|| places.set(places.get() - 1));
        let mut second = pin!(look_when(&told, {
            let mut looks = 0;
            let (told, places) = (&told, &places);
            move || {
                looks += 1;
                if looks > 1 {
                    return take();
                }
                // Both have seen that there is no place, and neither waits yet.
                places.set(2);
                told.notify_one();
                told.notify_one();
                None
            }
        }));
        let mut has_second = false;
        let first = look_when(&told, || {
            if has_second {
                return take();
            }
            has_second = poll(second.as_mut()).is_some();
            None
        });
        assert!(first.now_or_never().is_some());
        assert!(has_second);
    }

    #[test]
    fn a_run_that_is_woken_steps_back_when_it_is_the_queues_turn() {
        let limits = Admission {
            runs_active_max: 1,
            ..Admission::default()
        };
        let gate = Arc::new(Gate::new(limits));
        let held = gate.enter("", "held");
        gate.note_tenant("acme");
        let mut first = pin!(gate.place_for_woken("first"));
        let mut second = pin!(gate.place_for_woken("second"));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        drop(held);
        let place = poll(first.as_mut()).expect("it came before the queue");
        drop(place);
        assert!(poll(second.as_mut()).is_none(), "it is the queue's turn");
        assert!(gate.state.lock().is_for_queue());
        // The queue had its turn.
        gate.state.lock().turn = Turn::Woken;
        gate.freed.notify_waiters();
        drop(poll(second.as_mut()).expect("its turn"));
        // Where nobody stands in the queue, nobody steps back.
        gate.state.lock().tenants.clear();
        for _ in 0..2 {
            let mut alone = pin!(gate.place_for_woken("alone"));
            drop(poll(alone.as_mut()).expect("a place"));
        }
    }

    #[test]
    fn places_sort_by_priority_and_then_by_arrival() {
        let row = |run: &str, priority, seq| {
            let text = format!(
                r#"{{"run":"{run}","workflow":"","definition":"","status":"queued","begunMs":0,"priority":{priority},"queueSeq":{seq}}}"#
            );
            serde_json::from_str::<RunRow>(&text).expect("a row")
        };
        let place = |run, priority, seq| place_key(b'q', "acme", &row(run, priority, seq));
        let mut places = [
            place("c", 5, 2),
            place("b", 5, 1),
            place("a", 9, 3),
            place("d", 0, 0),
        ];
        places.sort();
        let runs: Vec<_> = places.iter().map(|p| parse_place(p).unwrap()).collect();
        assert_eq!(
            runs,
            [("acme", "a"), ("acme", "b"), ("acme", "c"), ("acme", "d")]
        );
    }
}
