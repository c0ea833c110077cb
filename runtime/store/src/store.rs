//! The trait.

use crate::{Batch, Commit, Error, Head, KeyRange, Table, parse_journal_key};

/// Rows of a table: keys and values, in the order of the keys.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Records of a run: sequence numbers and records, in the order of the numbers.
pub type Records = Vec<(u64, Vec<u8>)>;

/// A place where runs are kept so that they outlive the process and the power supply.
///
/// **Writes.** All writes go through [`commit`](Self::commit): atomic, guarded, durable when
/// acknowledged, and applied in the order in which `commit` was called.
///
/// **Isolation.** A read sees whole batches only, never a part of one, and every batch that was
/// acknowledged before the read began. It may also see a batch that is applied and not yet
/// durable, which a loss of power can still undo. So who *acts outside of the store* on what it
/// has read commits something first, if only an empty batch, and waits for that. Two reads are
/// two points in time.
///
/// **Blocking.** Reads are short and block the thread; on a cold cache they read from the disk.
pub trait JournalStore: Send + Sync + 'static {
    /// Hands a batch over; the returned [`Commit`] resolves when the batch is durable (written
    /// and synced to the disk), or refused as a whole.
    ///
    /// Never blocks. The batch takes its place in the order of commits before this returns.
    /// Dropping the `Commit` does not cancel it. A caller that waits for each commit before the
    /// next one has at most one batch waiting, and that is the back-pressure; the sum over all
    /// callers is bounded too.
    ///
    /// After a crash each batch is there as a whole or not at all; those acknowledged are there,
    /// and if a batch is there, so are all that were applied before it.
    ///
    /// # Errors
    /// Resolves to [`Error::Stale`] if a guard, a claim or a sequence number does not fit,
    /// [`Error::Invalid`] and [`Error::TooLarge`] for a batch that never fits, [`Error::Busy`] if
    /// too much is waiting, [`Error::Closed`]: in all these cases nothing of this batch was
    /// applied, and other batches are not affected. Resolves to [`Error::Io`] if the disk failed:
    /// then the outcome is unknown, and every later commit fails the same way until the store is
    /// opened again, since after a failed sync nothing can be said about what is on the disk.
    fn commit(&self, batch: Batch) -> Commit;

    /// The value of a key; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`], naming table and key; [`Error::Io`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The first `limit` rows of a range, as of one point in time.
    ///
    /// Holds them all in memory and keeps commits waiting while it reads: go through a large
    /// range in pages, with [`KeyRange::after`] the last key. Pages are different points in time.
    ///
    /// # Errors
    /// [`Error::Corrupt`], naming table and key; [`Error::Io`].
    fn scan(&self, table: Table, range: KeyRange, limit: usize) -> Result<Rows, Error>;

    /// Where a run is; the default [`Head`] for a run that the store does not know.
    ///
    /// # Errors
    /// [`Error::Corrupt`], naming the run; [`Error::Io`]; [`Error::Invalid`] and
    /// [`Error::TooLarge`] for what cannot be the name of a run.
    fn head(&self, run: &str) -> Result<Head, Error>;

    /// The first `limit` records of a run from a sequence number on, as of one point in time.
    ///
    /// They follow upon one another without a gap. The first may have a higher number than was
    /// asked for if older ones were pruned.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a gap. Those of [`scan`](Self::scan) and [`head`](Self::head).
    fn journal(&self, run: &str, from_seq: u64, limit: usize) -> Result<Records, Error>;

    /// Visits every row and every head as of one point in time: the tables in the order of their
    /// bytes, each in the order of its keys, then the heads in the order of the runs' names, then
    /// [`Entry::End`], which still belongs to the same point in time.
    ///
    /// In bounded memory. Commits wait until it is through; reads do not wait.
    ///
    /// # Errors
    /// Those of `visit`, which end it. [`Error::Corrupt`], naming table and key; [`Error::Io`];
    /// [`Error::Invalid`] from a store that has no such thing, which is what this does if a store
    /// says nothing else.
    fn read_all(
        &self,
        _visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        Err(Error::invalid("this store cannot be read as a whole"))
    }

    /// Whether all that reads show of a run is on the disk: what was read of it before this was
    /// asked survives a loss of power. Reads nothing and waits for nobody.
    ///
    /// `false` while a commit that touches the run is being written, after one that failed, and
    /// from a store that cannot tell, as which one counts that says nothing else. Whoever gets that
    /// commits something, if only an empty batch.
    fn is_durable(&self, _run: &str) -> bool {
        false
    }

    /// Why no work should be begun now: [`Error::Full`] if the disk has no room. Commits are not
    /// refused for it; they wait until there is room, and lose nothing.
    fn full(&self) -> Option<Error> {
        None
    }

    /// Reads everything and reports what does not fit: rows whose checksum is wrong, gaps in
    /// journals, journals that end before or after their run's head, parts without an owner.
    ///
    /// In bounded memory, beside commits; a run that is written to meanwhile is judged at one
    /// point in time.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Corrupt`] where the damage keeps the rest from being read.
    fn verify(&self) -> Result<Report, Error>;

    /// The bytes that the store takes up on the disk, or in memory if it has no disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn size_on_disk(&self) -> Result<u64, Error>;
}

/// A part of a store; see [`JournalStore::read_all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A row of a table, records of journals included.
    Row {
        /// The table.
        table: Table,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Where a run is.
    Head {
        /// The run.
        run: &'a str,
        /// Where it is.
        head: Head,
    },
    /// There is no more.
    End,
}

/// The records of a run out of the rows of [`Table::Journal`], which must follow upon one another:
/// a run that was rebuilt from a journal with a gap would be another run.
pub(crate) fn records(run: &str, rows: Rows) -> Result<Records, Error> {
    let mut records: Records = Vec::with_capacity(rows.len());
    for (key, record) in rows {
        let corrupt = |detail: String| Error::Corrupt {
            place: format!("the journal of run `{run}`"),
            detail,
        };
        let Some((_, seq)) = parse_journal_key(&key) else {
            return Err(corrupt(format!("key `{}`", key.escape_ascii())));
        };
        if let Some((last, _)) = records.last()
            && seq != last + 1
        {
            return Err(corrupt(format!("record {seq} follows record {last}")));
        }
        records.push((seq, record));
    }
    Ok(records)
}

/// Most problems that a [`Report`] lists; more of the same help nobody.
pub const PROBLEMS_MAX: usize = 100;

/// What [`JournalStore::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows read, records of journals included.
    pub rows: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Runs that have a [`Head`].
    pub runs: u64,
    /// What does not fit; the first [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many problems there are beyond those listed.
    pub problems_left_off: u64,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which table and key, or which run.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl Report {
    /// Whether everything fits.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds a problem, or counts it if there are too many to be listed.
    pub fn problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                place: place.into(),
                what: what.into(),
            });
        } else {
            self.problems_left_off += 1;
        }
    }
}
