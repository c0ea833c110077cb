//! Reading what the store knows.

use cofferdam_core::cloud_event;
use cofferdam_core::run::{Illegal, Run, Status};
use cofferdam_store::{JournalStore, KeyRange, Table};
use serde::de::DeserializeOwned;

use crate::definition::Definition;
use crate::events::bus::EVENTS_PAGE;
use crate::events::keys::{self, EventLetter};
use crate::events::subscriber::{self, SubscriberState};
use crate::payloads::{self, is_packed, unpack, unpack_row};
use crate::rows::{
    DeadLetter, EventRow, Record, Review, RunRow, decode, parked_prefix, review_key,
};
use crate::view::RunView;
use crate::{Error, checkpoints};

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
        self.one("dead letter", Table::DeadLetter, run.as_bytes())?
            .ok_or_else(|| Error::NoDeadLetter {
                run: run.to_owned(),
            })
    }

    /// One task that waits for a person.
    ///
    /// # Errors
    /// [`Error::NoReview`], [`Error::Store`], [`Error::Row`].
    pub fn review(&self, run: &str, task: &str) -> Result<Review, Error> {
        self.one("review", Table::Review, &review_key(run, task))?
            .ok_or_else(|| Error::NoReview {
                run: run.to_owned(),
                task: task.to_owned(),
            })
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
            for (key, bytes) in &rows {
                let at = (Table::Event, key.as_slice());
                let row: Option<EventRow> = unpack_row(self.store, "event", at, bytes)?;
                let Some(row) = row else { continue };
                bytes_found += if is_packed(bytes) {
                    cloud_event::size(&row.event)
                } else {
                    bytes.len()
                };
                if found.len() >= limit || bytes_found > bytes_max {
                    return Ok(found);
                }
                found.push(row);
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

    /// Reads everything and reports what does not fit, payloads that are missing or that nothing
    /// refers to included. Of a store that is written to meanwhile it may report of payloads what
    /// is not so. Blocks.
    ///
    /// # Errors
    /// [`Error::Store`] where damage keeps the rest from being read.
    pub fn verify(&self) -> Result<cofferdam_store::Report, Error> {
        let mut report = self.store.verify()?;
        match payloads::check(self.store, &mut report) {
            // What keeps it from being read is in the report already.
            Err(_) if !report.is_clean() => Ok(report),
            checked => checked.map(|()| report),
        }
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

    fn one<T: DeserializeOwned>(
        &self,
        what: &'static str,
        table: Table,
        key: &[u8],
    ) -> Result<Option<T>, Error> {
        match self.store.get(table, key)? {
            Some(bytes) => unpack_row(self.store, what, (table, key), &bytes),
            None => Ok(None),
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
                found.extend(unpack_row(self.store, what, (table, key), bytes)?);
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

/// Rebuilds a run from its journal, or from its checkpoint if the first records were removed; and gives
/// the number of the first that is there, if it is not the first of all.
pub(crate) fn fold(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
) -> Result<(Run, Option<u64>), Error> {
    let machine = Run::new(run, definition.workflow(), definition.bindings());
    match fold_from(store, machine, 0, |_| {}) {
        Ok(machine) => Ok((machine, None)),
        Err(Broken::Pruned { first }) => {
            let resumed = checkpoints::resume(store, run, definition)?;
            Ok((resumed.run, Some(first)))
        }
        Err(broken) => Err(broken.of(run)),
    }
}

/// Tells all records to a run that has not begun.
///
/// # Errors
/// [`Error::Pruned`] if the first were removed; [`Error::Store`], [`Error::Journal`].
pub(crate) fn fold_into(store: &dyn JournalStore, machine: Run) -> Result<Run, Error> {
    let run = machine.id().to_owned();
    fold_from(store, machine, 0, |_| {}).map_err(|broken| broken.of(&run))
}

/// Why a run could not be folded.
pub(crate) enum Broken {
    /// A record cannot be read.
    Read(Error),
    /// A record does not fit where the run is.
    Illegal {
        /// The record.
        seq: u64,
        /// Why.
        illegal: Illegal,
    },
    /// Records are not there any more.
    Pruned {
        /// The first that is.
        first: u64,
    },
}

impl Broken {
    /// What to say of it.
    pub fn of(self, run: &str) -> Error {
        match self {
            Self::Read(error) => error,
            Self::Illegal { seq, illegal } => Error::Journal {
                run: run.to_owned(),
                seq,
                reason: illegal.to_string(),
            },
            Self::Pruned { first } => Error::Pruned {
                run: run.to_owned(),
                first,
            },
        }
    }
}

/// Tells a run its records from a number on, each of them to `told` as well.
pub(crate) fn fold_from(
    store: &dyn JournalStore,
    mut machine: Run,
    mut next: u64,
    mut told: impl FnMut(&[u8]),
) -> Result<Run, Broken> {
    let run = &machine.id().to_owned();
    loop {
        let records = store.journal(run, next, PAGE);
        let records = records.map_err(|source| Broken::Read(source.into()))?;
        let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) else {
            return Ok(machine);
        };
        if *first != next {
            return Err(missing(store, run, next, *first));
        }
        next = last + 1;
        for (seq, bytes) in &records {
            let key = format_args!("{run}, record {seq}");
            let record: Record =
                unpack(store, "journal record", key, bytes).map_err(Broken::Read)?;
            let stepped = machine.step(record.event, record.at);
            stepped.map_err(|illegal| Broken::Illegal { seq: *seq, illegal })?;
            told(bytes);
        }
    }
}

/// What it is that a record is not there, and that one follows: the oldest records are removed, also while
/// they are read, and none between others is.
fn missing(store: &dyn JournalStore, run: &str, seq: u64, first: u64) -> Broken {
    match store.journal(run, 0, 1) {
        Err(source) => Broken::Read(source.into()),
        Ok(records) if records.first().is_some_and(|(oldest, _)| *oldest < seq) => {
            Broken::Read(Error::Journal {
                run: run.to_owned(),
                seq,
                reason: format!("it is missing: record {first} follows"),
            })
        }
        Ok(_) => Broken::Pruned { first },
    }
}

/// A run as its journal has it; `definition` gives what it pinned.
pub(crate) fn view(
    store: &dyn JournalStore,
    run: &str,
    definition: impl FnOnce(&str) -> Result<Definition, Error>,
) -> Result<RunView, Error> {
    let none = || Error::NoRun {
        run: run.to_owned(),
    };
    let row = row(store, run)?.ok_or_else(none)?;
    let (machine, first) = match fold(store, run, &definition(&row.definition)?) {
        // It was removed while it was read.
        Err(_) if self::row(store, run)?.is_none() => return Err(none()),
        folded => folded?,
    };
    Ok(RunView {
        records_from: first,
        ..RunView::new(&machine, &row)
    })
}
