//! Writing the parts of one store to another, and comparing the two.

use std::path::Path;
use std::sync::mpsc::{RecvError, sync_channel};

use crate::backup::{Part, Summary};
use crate::{Batch, Entry, Error, Head, JournalStore, Table, parse_journal_key};

/// Rows in one batch, and bytes after which it ends: the target holds no more in memory than
/// for a runtime's own commits.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;

/// Parts that one store is ahead of the other while they are compared.
const AHEAD_MAX: usize = 256;

/// Fills an empty store with the parts of another, in the order in which
/// [`JournalStore::read_all`] gives them.
pub(super) struct Filler<'a> {
    store: &'a dyn JournalStore,
    batch: Batch,
    rows: usize,
    /// The run whose records are being written, and its next sequence number.
    run: Option<(String, u64)>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(store: &'a dyn JournalStore) -> Self {
        Self {
            store,
            batch: Batch::new(),
            rows: 0,
            run: None,
        }
    }

    pub(super) fn entry(&mut self, entry: Entry<'_>) -> Result<(), Error> {
        match entry {
            Entry::Row {
                table: Table::Journal,
                key,
                value,
            } => {
                let (run, seq) = parse_journal_key(key).ok_or_else(|| Error::Corrupt {
                    place: format!("table journal, key `{}`", key.escape_ascii()),
                    detail: "it is no record of a run".to_owned(),
                })?;
                self.record(run, seq, value)?;
            }
            Entry::Row { table, key, value } => self.edit(|batch| batch.put(table, key, value)),
            Entry::Head { run, head } => self.head(run, head)?,
            Entry::End => return Ok(()),
        }
        if self.rows >= BATCH_ROWS || self.batch.len_bytes() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.flush()
    }

    /// The run's epoch is set with its head, which comes later.
    fn record(&mut self, run: &str, seq: u64, record: &[u8]) -> Result<(), Error> {
        match &self.run {
            Some((of, next)) if of == run => {
                if seq != *next {
                    return Err(Error::Corrupt {
                        place: format!("the journal of run `{run}`"),
                        detail: format!("record {seq} comes where record {next} should be"),
                    });
                }
            }
            _ => {
                let begins_at = Head {
                    epoch: 0,
                    next_seq: seq,
                };
                self.edit(|batch| batch.place(run, begins_at));
            }
        }
        self.run = Some((run.to_owned(), seq + 1));
        self.edit(|batch| batch.append(run, seq, record));
        Ok(())
    }

    fn head(&mut self, run: &str, head: Head) -> Result<(), Error> {
        // What was written of it so far has to be there to be asked for.
        if self.run.take().is_some() {
            self.flush()?;
        }
        let found = self.store.head(run)?;
        if found == Head::default() {
            self.edit(|batch| batch.place(run, head));
            return Ok(());
        }
        if found.next_seq != head.next_seq {
            return Err(Error::Corrupt {
                place: format!("run `{run}`"),
                detail: format!("its journal ends at {found}, but its head is at {head}"),
            });
        }
        if head.epoch > 0 {
            self.edit(|batch| batch.claim(run, head.epoch));
        }
        Ok(())
    }

    fn edit(&mut self, change: impl FnOnce(Batch) -> Batch) {
        self.batch = change(std::mem::take(&mut self.batch));
        self.rows += 1;
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.rows = 0;
        self.store.commit(std::mem::take(&mut self.batch)).wait()?;
        if let Some((run, next)) = &self.run {
            self.batch = Batch::new().guard(run, 0, *next);
        }
        Ok(())
    }
}

/// Compares a store with what is expected in it, part by part.
///
/// # Errors
/// [`Error::Mismatch`] names the first part that differs.
pub(super) fn compare(
    expected: &mut dyn FnMut() -> Result<Option<Part>, Error>,
    store: &dyn JournalStore,
    path: &Path,
) -> Result<(), Error> {
    let mismatch = |detail: String| {
        Err(Error::Mismatch {
            path: path.to_owned(),
            detail,
        })
    };
    store.read_all(&mut |entry| {
        let expected = expected()?;
        match (expected, owned(entry)) {
            (None, None) => Ok(()),
            (Some(expected), Some(found)) if expected == found => Ok(()),
            (Some(expected), Some(found)) => mismatch(format!(
                "{} is where {} should be, or differs from it",
                found.place(),
                expected.place()
            )),
            (Some(expected), None) => mismatch(format!("{} is missing", expected.place())),
            (None, Some(found)) => mismatch(format!("{} is too much", found.place())),
        }
    })
}

/// Compares two stores part by part, and says what both hold.
///
/// # Errors
/// As for [`compare`].
pub(super) fn compare_stores(
    expected: &dyn JournalStore,
    found: &dyn JournalStore,
    path: &Path,
) -> Result<Summary, Error> {
    let (sender, receiver) = sync_channel(AHEAD_MAX);
    let mut writer = crate::backup::Writer::new(std::io::sink()).map_err(|_| Error::Closed)?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            expected.read_all(&mut |entry| match owned(entry) {
                // The other end goes away when it has found a difference.
                Some(part) => sender.send(part).map_err(|_| Error::Closed),
                None => Ok(()),
            })
        });
        let mut next = || match receiver.recv() {
            Ok(part) => {
                let counted = match &part {
                    Part::Row { table, key, value } => writer.row(*table, key, value),
                    Part::Head { run, head } => writer.head(run, *head),
                    Part::File { .. } | Part::Piece(_) => Ok(()),
                };
                counted.map_err(|_| Error::Closed)?;
                Ok(Some(part))
            }
            Err(RecvError) => Ok(None),
        };
        let compared = compare(&mut next, found, path);
        drop(receiver);
        let read = reading.join().unwrap_or(Err(Error::Closed));
        // What kept the one from being read is why the other seems to hold too much.
        match read {
            Err(error) if error != Error::Closed => Err(error),
            _ => compared,
        }
    })?;
    writer
        .finish()
        .map(|(_, summary)| summary)
        .map_err(|_| Error::Closed)
}

fn owned(entry: Entry<'_>) -> Option<Part> {
    match entry {
        Entry::Row { table, key, value } => Some(Part::Row {
            table,
            key: key.to_vec(),
            value: value.to_vec(),
        }),
        Entry::Head { run, head } => Some(Part::Head {
            run: run.to_owned(),
            head,
        }),
        Entry::End => None,
    }
}
