//! Checkpoints of long runs: what taking up a run costs does not grow with its history.
//!
//! A runner writes where its run is into [`Table::Checkpoint`], in the batch of the records up to
//! there, when enough was written since the last time ([`Policy`]). Who takes the run up again
//! tells it only the records after that.
//!
//! The journal stays the truth: a checkpoint that cannot be read, or that does not fit, is passed over
//! with a warning, and the run is folded from its first record. What people ask for is always
//! folded from there ([`crate::query::fold`]): the machine of a run that goes on forgets what
//! only they could want ([`Run::slim`]).
//!
//! Where `[store] records-max` says so, the oldest records of a longer run go ([`Tail`]), and the
//! checkpoint is the truth: nothing goes before the checkpoint that stands for it was read back from the
//! store and gave the same bytes again.

use std::borrow::Cow;

use cofferdam_core::run::{Checkpoint, Illegal, Run};
use cofferdam_store::{Batch, JournalStore, Table};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::definition::Definition;
use crate::query::{self, Broken};
use crate::rows::{decode, encode};

/// With fewer records since the last checkpoint none is written: to fold so many takes about as
/// long as to read one.
const RECORDS_MIN: u64 = 500;
/// A larger checkpoint is not written, in bytes; below what a value of the store may have. The run
/// is folded from the one before, or from its first record.
const BYTES_MAX: usize = 12 << 20;

/// When checkpoints are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    records_min: u64,
    /// Whether one is written although the records since the last are fewer bytes than it has.
    whatever_size: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            records_min: RECORDS_MIN,
            whatever_size: false,
        }
    }
}

impl Policy {
    /// After so many records, whatever it costs. For tests and simulations.
    pub fn every(records: u64) -> Self {
        Self {
            records_min: records.max(1),
            whatever_size: true,
        }
    }

    /// Whether it is time for one. The bytes of checkpoints are never more than those of records, but
    /// for the last of each run: so a record costs the same however many there are.
    pub fn is_due(self, since: Since, run: &Run) -> bool {
        since.records >= self.records_min
            && (self.whatever_size || since.bytes >= since.last_bytes.max(run.weight_bytes()))
            && !run.status().is_final()
    }
}

/// What was written of a run since its last checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    records: u64,
    bytes: usize,
    last_bytes: usize,
}

impl Since {
    /// A record was written.
    pub fn wrote(&mut self, record: &[u8]) {
        self.records += 1;
        self.bytes = self.bytes.saturating_add(record.len());
    }

    /// The last checkpoint does not count any more: another one is due.
    pub fn void(&mut self, records: u64) {
        *self = Self {
            records,
            bytes: usize::MAX,
            last_bytes: 0,
        };
    }
}

/// A row of [`Table::Checkpoint`], keyed by the run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'r> {
    /// The number of the first record that is not in it.
    seq: u64,
    /// Hash of the definition that the run pinned.
    definition: Cow<'r, str>,
    run: Checkpoint<'r>,
}

/// Records that are removed in one batch: faster than they are added.
const PRUNED_AT_ONCE: u64 = 2_000;

/// The end of a run's journal that is kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tail {
    /// The first record that is in the store, once somebody has looked.
    first: Option<u64>,
    /// The number of the first record that a durable checkpoint does not have.
    stands: Option<u64>,
    /// Whether that checkpoint was read back.
    is_proven: bool,
}

impl Tail {
    /// A checkpoint of the records before this one is durable.
    pub fn stand(&mut self, seq: u64) {
        self.stands = Some(seq);
        self.is_proven = false;
    }

    /// Adds to a batch the removal of records that the checkpoint stands for, if the run has more
    /// than `most`. The last of them stays, so that there always is one. The definition is asked for
    /// once there is a checkpoint, and so is in the store with the run.
    ///
    /// # Errors
    /// [`Error::Store`], and those of `definition`.
    pub fn prune(
        &mut self,
        store: &dyn JournalStore,
        batch: Batch,
        run: &str,
        definition: impl FnOnce() -> Result<Definition, Error>,
        (next, most): (u64, u64),
    ) -> Result<Batch, Error> {
        let Some(seq) = self.stands.filter(|_| next > most) else {
            return Ok(batch);
        };
        let first = match self.first {
            Some(first) => first,
            None => store
                .journal(run, 0, 1)?
                .first()
                .map_or(next, |(seq, _)| *seq),
        };
        self.first = Some(first);
        let end = first
            .saturating_add(PRUNED_AT_ONCE)
            .min(seq.saturating_sub(1));
        if next.saturating_sub(first) <= most || end <= first {
            return Ok(batch);
        }
        if !self.is_proven && !is_proven(store, run, &definition()?, seq)? {
            tracing::warn!(
                run,
                seq,
                "a checkpoint does not stand for its records, which are kept"
            );
            self.stands = None;
            return Ok(batch);
        }
        self.is_proven = true;
        self.first = Some(end);
        Ok(batch.prune(run, first..end)?)
    }
}

/// Whether the checkpoint in the store gives back the run that it was made of.
fn is_proven(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
    seq: u64,
) -> Result<bool, Error> {
    let Some(bytes) = store.get(Table::Checkpoint, run.as_bytes())? else {
        return Ok(false);
    };
    let Ok(row) = decode::<Row<'static>>("checkpoint", run, &bytes) else {
        return Ok(false);
    };
    let (found, hash) = (row.seq, row.definition.into_owned());
    let (workflow, bindings) = (definition.workflow(), definition.bindings());
    let Ok(machine) = Run::restore(run, workflow, bindings, row.run) else {
        return Ok(false);
    };
    let again = encode(&Row {
        seq: found,
        definition: hash.as_str().into(),
        run: machine.save(),
    })?;
    Ok(found == seq && hash == definition.hash() && again == bytes)
}

/// Adds a checkpoint to the batch of the records before `seq`, unless it is too large; whether it did.
///
/// # Errors
/// [`Error::Encode`].
pub(crate) fn write(
    batch: Batch,
    run: &Run,
    seq: u64,
    definition: &str,
    since: &mut Since,
) -> Result<(Batch, bool), Error> {
    let row = Row {
        seq,
        definition: definition.into(),
        run: run.save(),
    };
    let bytes = encode(&row)?;
    *since = Since {
        last_bytes: bytes.len(),
        ..Since::default()
    };
    if bytes.len() > BYTES_MAX {
        tracing::debug!(
            run = run.id(),
            bytes = bytes.len(),
            "a checkpoint would be too large"
        );
        return Ok((batch, false));
    }
    Ok((batch.put(Table::Checkpoint, run.id(), bytes), true))
}

/// A run that goes on.
pub(crate) struct Resumed {
    pub run: Run,
    /// What was written since its checkpoint.
    pub since: Since,
    /// The number of the first record that its checkpoint does not have, if it was read from one.
    pub stands: Option<u64>,
}

/// Reads a run that is to go on: from its checkpoint if there is one, else from its first record.
///
/// # Errors
/// [`Error::Store`], [`Error::Journal`], [`Error::Row`]; [`Error::Checkpoint`] if its first records were
/// removed and its checkpoint cannot be used.
pub(crate) fn resume(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
) -> Result<Resumed, Error> {
    match resume_once(store, run, definition) {
        // Who drives the run may have written another one meanwhile, and removed records before that.
        Err(Error::Checkpoint { .. }) => resume_once(store, run, definition),
        read => read,
    }
}

fn resume_once(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
) -> Result<Resumed, Error> {
    let why = match from_checkpoint(store, run, definition) {
        Ok(Some(resumed)) => return Ok(resumed),
        Ok(None) => "it has none".to_owned(),
        Err(Unfit::Store(error)) => return Err(error),
        Err(Unfit::Passed(why)) => {
            tracing::warn!(
                run,
                why,
                "a checkpoint is passed over, and the run is read from its first record"
            );
            why
        }
    };
    match whole(store, run, definition) {
        Err(Error::Pruned { run, first }) => Err(Error::Checkpoint { run, first, why }),
        read => read,
    }
}

/// Why a checkpoint is not used.
enum Unfit {
    /// It cannot be, whatever it holds.
    Store(Error),
    /// It is not what it should be.
    Passed(String),
}

impl From<cofferdam_store::Error> for Unfit {
    fn from(error: cofferdam_store::Error) -> Self {
        match error {
            cofferdam_store::Error::Corrupt { .. } => Self::Passed(error.to_string()),
            error => Self::Store(error.into()),
        }
    }
}

fn from_checkpoint(
    store: &dyn JournalStore,
    run: &str,
    definition: &Definition,
) -> Result<Option<Resumed>, Unfit> {
    let Some(bytes) = store.get(Table::Checkpoint, run.as_bytes())? else {
        return Ok(None);
    };
    let passed = |why: &dyn std::fmt::Display| Unfit::Passed(why.to_string());
    let row: Row<'static> = decode("checkpoint", run, &bytes).map_err(|e| passed(&e))?;
    if row.definition != definition.hash() {
        return Err(passed(&"it is of another definition"));
    }
    if row.seq > store.head(run)?.next_seq {
        return Err(passed(&"it is of records that are not there"));
    }
    let (workflow, bindings) = (definition.workflow(), definition.bindings());
    let machine = Run::restore(run, workflow, bindings, row.run).map_err(|e| passed(&e))?;
    let mut since = Since {
        last_bytes: bytes.len(),
        ..Since::default()
    };
    match query::fold_from(store, machine, row.seq, |record| since.wrote(record)) {
        Ok(machine) => Ok(Some(Resumed {
            run: machine,
            since,
            stands: Some(row.seq),
        })),
        Err(Broken::Read(error)) => Err(Unfit::Store(error)),
        Err(Broken::Pruned { first }) => Err(passed(&format!(
            "the records between it and record {first} are gone"
        ))),
        Err(Broken::Illegal { seq, illegal }) => Err(Unfit::Passed(format!(
            "record {seq} does not fit it: {illegal}"
        ))),
    }
}

/// Reads a run that is to go on from its first record.
fn whole(store: &dyn JournalStore, run: &str, definition: &Definition) -> Result<Resumed, Error> {
    let fresh = || Run::new(run, definition.workflow(), definition.bindings());
    let mut since = Since::default();
    match query::fold_from(store, fresh().slim(), 0, |record| since.wrote(record)) {
        Ok(run) => Ok(Resumed {
            run,
            since,
            stands: None,
        }),
        // It was redriven: what was known until then was asked for again.
        Err(Broken::Illegal {
            illegal: Illegal::Slim,
            ..
        }) => {
            let mut since = Since::default();
            let folded = query::fold_from(store, fresh(), 0, |record| since.wrote(record));
            Ok(Resumed {
                run: folded.map_err(|b| b.of(run))?.slim(),
                since,
                stands: None,
            })
        }
        Err(broken) => Err(broken.of(run)),
    }
}
