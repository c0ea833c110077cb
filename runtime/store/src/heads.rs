//! Where a batch takes the runs it writes to: the one place that decides about guards.

use std::collections::BTreeMap;

use crate::{Batch, Error, Head, Write};

/// What becomes of the heads of the runs that a batch touches; `None` removes the head.
pub(crate) type Changes = BTreeMap<String, Option<Head>>;

/// Checks the batch's guards, claims and sequence numbers and returns the heads after it.
///
/// `current` answers where a run is before the batch, the default for a run it does not know.
/// The batch has been validated.
///
/// # Errors
/// [`Error::Stale`] if the batch was made for another state of a run; errors of `current`.
pub(crate) fn resolve(
    batch: &Batch,
    mut current: impl FnMut(&str) -> Result<Head, Error>,
) -> Result<Changes, Error> {
    let mut heads: BTreeMap<&str, Head> = BTreeMap::new();
    for guard in &batch.guards {
        let found = current(&guard.run)?;
        if found != guard.head() {
            return Err(stale(&guard.run, guard.head(), found));
        }
        heads.insert(&guard.run, found);
    }
    let mut changes = Changes::new();
    for write in &batch.writes {
        match write {
            Write::Append { run, seq, .. } => {
                let head = at(run, &mut heads, &mut current)?;
                if *seq != head.next_seq {
                    let expected = Head {
                        next_seq: *seq,
                        ..*head
                    };
                    return Err(stale(run, expected, *head));
                }
                head.next_seq = seq + 1;
                changes.insert(run.clone(), Some(*head));
            }
            Write::Claim { run, epoch } => {
                let head = at(run, &mut heads, &mut current)?;
                if *epoch <= head.epoch {
                    // The claim was made by somebody who saw the epoch before its own.
                    let expected = Head {
                        epoch: epoch.saturating_sub(1),
                        ..*head
                    };
                    return Err(stale(run, expected, *head));
                }
                head.epoch = *epoch;
                changes.insert(run.clone(), Some(*head));
            }
            Write::Place { run, head: placed } => {
                let head = at(run, &mut heads, &mut current)?;
                if *head != Head::default() {
                    return Err(stale(run, Head::default(), *head));
                }
                *head = *placed;
                changes.insert(run.clone(), Some(*placed));
            }
            Write::Forget { run } => {
                heads.insert(run, Head::default());
                changes.insert(run.clone(), None);
            }
            Write::Put { .. }
            | Write::PutNew { .. }
            | Write::Delete { .. }
            | Write::DeleteUnreferenced { .. } => {}
        }
    }
    Ok(changes)
}

/// The head of a run as the writes so far have left it.
fn at<'a, 'b>(
    run: &'a str,
    heads: &'b mut BTreeMap<&'a str, Head>,
    current: &mut impl FnMut(&str) -> Result<Head, Error>,
) -> Result<&'b mut Head, Error> {
    use std::collections::btree_map::Entry;
    match heads.entry(run) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => Ok(entry.insert(current(run)?)),
    }
}

fn stale(run: &str, expected: Head, found: Head) -> Error {
    Error::Stale {
        run: run.to_owned(),
        expected,
        found,
    }
}
