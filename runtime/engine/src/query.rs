//! Reading what the store knows.

use cofferdam_core::run::{Run, Status};
use cofferdam_store::{JournalStore, KeyRange, Table};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::definition::Definition;
use crate::events::bus::EVENTS_PAGE;
use crate::events::keys::{self, EventLetter};
use crate::events::subscriber::{self, SubscriberState};
use crate::rows::{
    DeadLetter, EventRow, Record, Review, RunRow, decode, parked_prefix, review_key,
};
use crate::view::RunView;

/// How many rows are read in one go.
const PAGE: usize = 1_000;

/// Reads a store. Also works on a store that no runtime has opened.
pub struct Query<'a> {
    store: &'a dyn JournalStore,
}

impl<'a> Query<'a> {
    /// Reads this store.
    pub fn new(store: &'a dyn JournalStore) -> Self {
        Self { store }
    }

    pub(crate) fn store(&self) -> &'a dyn JournalStore {
        self.store
    }

    /// Runs, newest first, at most `limit`; all statuses if none is given.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn runs(&self, status: Option<Status>, limit: usize) -> Result<Vec<RunRow>, Error> {
        let mut rows: Vec<RunRow> = self.all("run", Table::Run)?;
        rows.retain(|row| status.is_none_or(|wanted| row.status == wanted));
        rows.sort_by(|a, b| (b.begun_ms, &b.run).cmp(&(a.begun_ms, &a.run)));
        rows.truncate(limit);
        Ok(rows)
    }

    /// One run, read from its journal.
    ///
    /// # Errors
    /// [`Error::NoRun`], [`Error::Store`], [`Error::Journal`].
    pub fn run(&self, run: &str) -> Result<RunView, Error> {
        view(self.store, run, |hash| definition(self.store, hash))
    }

    /// Runs that are out of options.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let range = KeyRange::from(keys::DEAD_RUNS);
        self.range("dead letter", Table::DeadLetter, &range)
    }

    /// Tasks that wait for a person.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn reviews(&self) -> Result<Vec<Review>, Error> {
        self.all("review", Table::Review)
    }

    /// The dead letter of a run.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`], [`Error::Store`], [`Error::Row`].
    pub fn dead_letter(&self, run: &str) -> Result<DeadLetter, Error> {
        match self.store.get(Table::DeadLetter, run.as_bytes())? {
            Some(bytes) => decode("dead letter", run, &bytes),
            None => Err(Error::NoDeadLetter {
                run: run.to_owned(),
            }),
        }
    }

    /// One task that waits for a person.
    ///
    /// # Errors
    /// [`Error::NoReview`], [`Error::Store`], [`Error::Row`].
    pub fn review(&self, run: &str, task: &str) -> Result<Review, Error> {
        match self.store.get(Table::Review, &review_key(run, task))? {
            Some(bytes) => decode("review", run, &bytes),
            None => Err(Error::NoReview {
                run: run.to_owned(),
                task: task.to_owned(),
            }),
        }
    }

    /// Events that were published and are still kept, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn events(&self) -> Result<Vec<EventRow>, Error> {
        let range = KeyRange::between(Vec::new(), keys::EVENTS_END);
        self.range("event", Table::Event, &range)
    }

    /// Events from a number on, or the last ones, oldest first: at most `limit`, and no more than
    /// about so many bytes.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn events_from(
        &self,
        from: Option<u64>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<EventRow>, Error> {
        let last = subscriber::last_seq(self.store)?;
        let from = from.unwrap_or_else(|| (last + 1).saturating_sub(limit as u64));
        let mut range = KeyRange::between(keys::event_key(from), keys::EVENTS_END);
        let (mut found, mut bytes_found) = (Vec::new(), 0);
        loop {
            let rows = self.store.scan(Table::Event, range.clone(), EVENTS_PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(found);
            };
            range = range.after(last);
            for (_, bytes) in &rows {
                bytes_found += bytes.len();
                if found.len() >= limit || bytes_found > bytes_max {
                    return Ok(found);
                }
                found.push(decode("event", "event", bytes)?);
            }
        }
    }

    /// Events that somebody they were for could do nothing with.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn dead_events(&self) -> Result<Vec<EventLetter>, Error> {
        let range = KeyRange::prefix(keys::dead_prefix());
        self.range("dead letter", Table::DeadLetter, &range)
    }

    /// How far each subscriber of events has come.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Row`].
    pub fn subscribers(&self) -> Result<Vec<SubscriberState>, Error> {
        subscriber::states(self.store)
    }

    /// How many tasks are parked on a connection at this moment. One that was woken counts until
    /// its next attempt has begun.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn parked(&self, connection: &str) -> Result<usize, Error> {
        let prefix = parked_prefix(connection);
        let mut range = KeyRange::prefix(prefix.clone());
        let mut parked = 0;
        loop {
            let rows = self.store.scan(Table::Parked, range, PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(parked);
            };
            parked += rows.len();
            range = KeyRange::prefix(prefix.clone()).after(last);
        }
    }

    fn all<T: DeserializeOwned>(&self, what: &'static str, table: Table) -> Result<Vec<T>, Error> {
        self.range(what, table, &KeyRange::all())
    }

    fn range<T: DeserializeOwned>(
        &self,
        what: &'static str,
        table: Table,
        whole: &KeyRange,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        let mut range = whole.clone();
        loop {
            let rows = self.store.scan(table, range, PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(found);
            };
            range = whole.clone().after(last);
            for (key, bytes) in &rows {
                found.push(decode(what, &String::from_utf8_lossy(key), bytes)?);
            }
        }
    }
}

pub(crate) fn row(store: &dyn JournalStore, run: &str) -> Result<Option<RunRow>, Error> {
    match store.get(Table::Run, run.as_bytes())? {
        None => Ok(None),
        Some(bytes) => decode("run", run, &bytes).map(Some),
    }
}

pub(crate) fn definition(store: &dyn JournalStore, hash: &str) -> Result<Definition, Error> {
    let bytes = store.get(Table::Definition, hash.as_bytes())?;
    let bytes = bytes.ok_or_else(|| Error::Journal {
        run: hash.to_owned(),
        seq: 0,
        reason: "its definition is not in the store".to_owned(),
    })?;
    Definition::from_pinned(hash, &bytes)
}

/// Rebuilds a run from its journal.
pub(crate) fn fold(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
) -> Result<Run, Error> {
    let machine = Run::new(run, definition.workflow(), definition.bindings());
    fold_into(store, machine)
}

/// The same into a run that has not begun.
pub(crate) fn fold_into(store: &dyn JournalStore, mut machine: Run) -> Result<Run, Error> {
    let run = &machine.id().to_owned();
    let mut next = 0;
    loop {
        let records = store.journal(run, next, PAGE)?;
        let Some((last, _)) = records.last() else {
            return Ok(machine);
        };
        next = last + 1;
        for (seq, bytes) in &records {
            let record: Record = decode("journal record", run, bytes)?;
            machine
                .step(record.event, record.at)
                .map_err(|illegal| Error::Journal {
                    run: run.to_owned(),
                    seq: *seq,
                    reason: illegal.to_string(),
                })?;
        }
    }
}

/// A run as its journal has it; `definition` gives what it pinned.
pub(crate) fn view(
    store: &dyn JournalStore,
    run: &str,
    definition: impl FnOnce(&str) -> Result<Definition, Error>,
) -> Result<RunView, Error> {
    let row = row(store, run)?.ok_or_else(|| Error::NoRun {
        run: run.to_owned(),
    })?;
    let machine = fold(store, run, &definition(&row.definition)?)?;
    Ok(RunView::new(&machine, &row))
}
