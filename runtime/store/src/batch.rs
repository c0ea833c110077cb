//! What is written at once.

use std::collections::BTreeSet;

use crate::table::{check_run, journal_key};
use crate::{Error, Table};

/// Longest key, in bytes. Keys sit in the inner nodes of the tree, many to a node; longer ones
/// would push these over the size that is written in line.
pub const KEY_LEN_MAX: usize = 1024;

/// Longest value and longest record, in bytes. Values live in memory while they wait and are
/// copied to the log, so that this is about bounded memory, not about the disk.
pub const VALUE_LEN_MAX: usize = 16 * 1024 * 1024;

/// Most guards and writes in one batch. A batch is applied in one go while readers wait.
pub const BATCH_WRITES_MAX: usize = 10_000;

/// Most bytes in one batch, keys and values counted.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest name of a run, in bytes: its length is one byte of a journal's keys.
pub const RUN_LEN_MAX: usize = 255;

/// How far a run has come: who may write to it and what the next record's number is.
///
/// A run of which the store knows nothing is at the default, epoch 0 and sequence number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Head {
    /// Grows with each [`Batch::claim`]; who holds an older one can no longer write.
    pub epoch: u64,
    /// The sequence number of the next record.
    pub next_seq: u64,
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { epoch, next_seq } = self;
        write!(f, "epoch {epoch}, sequence number {next_seq}")
    }
}

/// A condition of a batch: the run has exactly this epoch and next sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The run.
    pub run: String,
    /// The epoch that the writer holds.
    pub epoch: u64,
    /// The sequence number of the first record that the batch appends, or would.
    pub next_seq: u64,
}

impl Guard {
    /// The condition as a position.
    pub fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            next_seq: self.next_seq,
        }
    }
}

/// One change in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds a record to a run's journal and advances its next sequence number.
    Append {
        /// The run.
        run: String,
        /// The record's sequence number: the run's next one.
        seq: u64,
        /// The record.
        record: Vec<u8>,
    },
    /// Sets a key, whether or not it is there.
    Put {
        /// The table; any but [`Table::Journal`].
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Sets a key unless it is there.
    PutNew {
        /// The table; any but [`Table::Journal`].
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// The value, if it is not there.
        value: Vec<u8>,
    },
    /// Removes a key, whether or not it is there.
    Delete {
        /// The table.
        table: Table,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes a key unless there is a row, in the same table, whose key begins with a prefix.
    DeleteUnreferenced {
        /// The table; any but [`Table::Journal`].
        table: Table,
        /// The key.
        key: Vec<u8>,
        /// What the keys of rows begin with that keep it; the key itself does not.
        references: Vec<u8>,
    },
    /// Takes a run over: its epoch becomes this one, which must be higher than the one before.
    Claim {
        /// The run.
        run: String,
        /// The epoch after the batch.
        epoch: u64,
    },
    /// Sets where a run is that the store does not know, as it was in another store.
    Place {
        /// The run.
        run: String,
        /// Where it is before the appends that follow.
        head: Head,
    },
    /// Removes the run's [`Head`], as the last step of removing the run.
    Forget {
        /// The run.
        run: String,
    },
}

/// Writes that are applied together or not at all, under conditions.
///
/// The guards are checked against the state before the batch; then the writes take effect in
/// order, so that of two writes to one key the later counts. An **empty batch** is a barrier:
/// its commit resolves when everything that a read could see before it is durable.
///
/// A write that depends on what is there ([`Batch::put_new`], [`Batch::delete_unreferenced`]) sees
/// everything that was committed before the batch and what the batch has written so far, and nothing
/// comes between: whoever adds a reference and whoever takes the last one away are one after the
/// other. A store that applies batches side by side (`INSERT … ON CONFLICT DO NOTHING`,
/// `DELETE … WHERE NOT EXISTS` in SQL) has to hold a lock on the key for both.
///
/// To begin a run: `Batch::new().guard(run, 0, 0).claim(run, 1).append(run, 0, record)`.
/// To take one over: `Batch::new().claim(run, head.epoch + 1)`.
/// To go on with it: `Batch::new().guard(run, epoch, seq).append(run, seq, record)`.
/// To remove it: [`Batch::prune`] in steps, then [`Batch::forget`] under a guard or a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What must hold for the batch to be applied; at most one per run.
    pub guards: Vec<Guard>,
    /// What is written, in order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// A batch that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that `run` has exactly this epoch and next sequence number.
    pub fn guard(mut self, run: impl Into<String>, epoch: u64, next_seq: u64) -> Self {
        self.guards.push(Guard {
            run: run.into(),
            epoch,
            next_seq,
        });
        self
    }

    /// Appends a record to a run's journal. The batch must guard or claim the run, and `seq` must
    /// be its next sequence number.
    pub fn append(mut self, run: impl Into<String>, seq: u64, record: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Append {
            run: run.into(),
            seq,
            record: record.into(),
        });
        self
    }

    /// Sets a key of any table but [`Table::Journal`].
    pub fn put(mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Put {
            table,
            key: key.into(),
            value: value.into(),
        });
        self
    }

    /// Removes a key, whether or not it is there.
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Delete {
            table,
            key: key.into(),
        });
        self
    }

    /// Sets a key of any table but [`Table::Journal`], unless it is there: what is there is neither
    /// read nor written again.
    pub fn put_new(
        mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Self {
        self.writes.push(Write::PutNew {
            table,
            key: key.into(),
            value: value.into(),
        });
        self
    }

    /// Removes a key of any table but [`Table::Journal`], unless at this place of the batch the same
    /// table has a row whose key begins with `references`. The key must not begin with that
    /// itself: it would never go.
    pub fn delete_unreferenced(
        mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        references: impl Into<Vec<u8>>,
    ) -> Self {
        self.writes.push(Write::DeleteUnreferenced {
            table,
            key: key.into(),
            references: references.into(),
        });
        self
    }

    /// Sets the run's epoch; [`Error::Stale`] unless it is higher than the one before. Appends
    /// after it in the batch need no guard.
    pub fn claim(mut self, run: impl Into<String>, epoch: u64) -> Self {
        self.writes.push(Write::Claim {
            run: run.into(),
            epoch,
        });
        self
    }

    /// Sets the head of a run that the store does not know; [`Error::Stale`] if it does. Appends
    /// after it in the batch need no guard. For moving runs between stores.
    pub fn place(mut self, run: impl Into<String>, head: Head) -> Self {
        self.writes.push(Write::Place {
            run: run.into(),
            head,
        });
        self
    }

    /// Removes the run's epoch and sequence number. The batch must guard or claim the run.
    ///
    /// Its records are to be gone by then, see [`Batch::prune`]; any that are left are reported
    /// by [`crate::JournalStore::verify`].
    pub fn forget(mut self, run: impl Into<String>) -> Self {
        self.writes.push(Write::Forget { run: run.into() });
        self
    }

    /// Removes the records of a run with sequence numbers in `seqs`. The numbers are not used
    /// again. One write per record, so at most [`BATCH_WRITES_MAX`] at once, oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::TooLarge`] for the run's name and the number of records.
    pub fn prune(mut self, run: &str, seqs: std::ops::Range<u64>) -> Result<Self, Error> {
        let count = usize::try_from(seqs.end.saturating_sub(seqs.start)).unwrap_or(usize::MAX);
        if count > BATCH_WRITES_MAX {
            return Err(Error::too_large("a batch", count, BATCH_WRITES_MAX));
        }
        for seq in seqs {
            self = self.delete(Table::Journal, journal_key(run, seq)?);
        }
        Ok(self)
    }

    /// Whether the batch has neither guards nor writes, and so is a barrier.
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty() && self.writes.is_empty()
    }

    /// The bytes of all keys and values.
    pub fn len_bytes(&self) -> usize {
        self.writes.iter().map(Write::len_bytes).sum()
    }

    /// Refuses what can never be applied, whatever the store holds. Every store calls this first.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond a limit of this module. [`Error::Invalid`] for two guards of
    /// one run, for a [`Write::Append`] or [`Write::Forget`] of a run that is neither guarded nor
    /// claimed, for a put to [`Table::Journal`], for an empty name of a run, and for a key that
    /// would keep itself.
    pub fn validate(&self) -> Result<(), Error> {
        let count = self.guards.len() + self.writes.len();
        if count > BATCH_WRITES_MAX {
            return Err(Error::too_large("a batch", count, BATCH_WRITES_MAX));
        }
        let mut held = BTreeSet::new();
        for guard in &self.guards {
            check_run(&guard.run)?;
            if !held.insert(guard.run.as_str()) {
                let run = &guard.run;
                return Err(Error::invalid(format!(
                    "the batch has two guards for run `{run}`; keep one"
                )));
            }
        }
        for write in &self.writes {
            write.validate(&mut held)?;
        }
        let bytes = self.len_bytes();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::too_large("a batch (bytes)", bytes, BATCH_BYTES_MAX));
        }
        Ok(())
    }
}

impl Write {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Append { run, record, .. } => run.len() + record.len(),
            Self::Put { key, value, .. } | Self::PutNew { key, value, .. } => {
                key.len() + value.len()
            }
            Self::Delete { key, .. } => key.len(),
            Self::DeleteUnreferenced {
                key, references, ..
            } => key.len() + references.len(),
            Self::Claim { run, .. } | Self::Place { run, .. } | Self::Forget { run } => run.len(),
        }
    }

    /// `held` are the runs that the batch guards or has claimed so far.
    fn validate<'a>(&'a self, held: &mut BTreeSet<&'a str>) -> Result<(), Error> {
        match self {
            Self::Append { run, seq, record } => {
                check_held(run, held)?;
                if *seq == u64::MAX {
                    return Err(Error::invalid("a sequence number has no successor"));
                }
                check_value(&format!("record {seq} of run `{run}`"), record)
            }
            Self::Put { table, key, value } | Self::PutNew { table, key, value } => {
                check_not_journal(*table)?;
                check_key(*table, key)?;
                check_value(&format!("a value for table {table}"), value)
            }
            Self::Delete { table, key } => check_key(*table, key),
            Self::DeleteUnreferenced {
                table,
                key,
                references,
            } => {
                check_not_journal(*table)?;
                check_key(*table, key)?;
                check_key(*table, references)?;
                if key.starts_with(references) {
                    return Err(Error::invalid(format!(
                        "key `{}` of table {table} begins with the prefix of its references, and would keep \
                         itself; give references another prefix",
                        key.escape_ascii()
                    )));
                }
                Ok(())
            }
            Self::Claim { run, .. } | Self::Place { run, .. } => {
                check_run(run)?;
                held.insert(run);
                Ok(())
            }
            Self::Forget { run } => check_held(run, held),
        }
    }
}

fn check_held(run: &str, held: &BTreeSet<&str>) -> Result<(), Error> {
    check_run(run)?;
    if held.contains(run) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the batch writes to run `{run}` without holding it; add a guard or a claim"
    )))
}

fn check_not_journal(table: Table) -> Result<(), Error> {
    if table == Table::Journal {
        return Err(Error::invalid(
            "the journal cannot be written by key; append the record to its run",
        ));
    }
    Ok(())
}

fn check_key(table: Table, key: &[u8]) -> Result<(), Error> {
    if key.len() > KEY_LEN_MAX {
        let what = format!("a key of table {table} (bytes)");
        return Err(Error::too_large(what, key.len(), KEY_LEN_MAX));
    }
    Ok(())
}

fn check_value(what: &str, value: &[u8]) -> Result<(), Error> {
    if value.len() > VALUE_LEN_MAX {
        let what = format!("{what} (bytes)");
        return Err(Error::too_large(what, value.len(), VALUE_LEN_MAX));
    }
    Ok(())
}
