//! Removes one run with everything that it left: the only place that does.
//!
//! So many rows go in one batch. The run's own row and its head go with the last: a crash on the way
//! leaves a run that has ended, and whose removal the next sweep goes on with.

use std::sync::Arc;

use cofferdam_core::run::Status;
use cofferdam_store::{Batch, Error, Head, JournalStore, KeyRange, Table};

use crate::events::keys::{self, Owner};
use crate::payloads::{self, By};
use crate::rows::{parked_prefix, parse_parked_connection, review_key, status_key};
use crate::runtime::Inner;

/// Records that are removed in one batch: most runs have fewer, and go at once.
const RECORDS: u64 = 200;
/// Other rows that are removed in one batch, of each kind.
const ROWS: usize = 200;

/// Removes a run that has ended. Under its head, so that it is not removed from under who goes on
/// with it.
///
/// # Errors
/// [`Error::Stale`] if somebody has gone on with it; the store's. What is removed stays so.
pub(crate) async fn remove(
    inner: &Arc<Inner>,
    run: &str,
    status: Status,
    mut head: Head,
) -> Result<(), Error> {
    let store = &*inner.store;
    let first = store.journal(run, 0, 1)?;
    let mut next = first.first().map_or(head.next_seq, |(seq, _)| *seq);
    loop {
        let end = head.next_seq.min(next.saturating_add(RECORDS));
        let mut batch = Batch::new()
            .guard(run, head.epoch, head.next_seq)
            .claim(run, head.epoch + 1)
            .prune(run, next..end)?;
        // Nobody who read the whole journal may go on once a part of it is gone.
        head.epoch += 1;
        next = end;
        let mut is_last = false;
        if end == head.next_seq {
            (batch, is_last) = leftovers(store, run, batch)?;
        }
        if is_last {
            batch = batch
                .delete(Table::DeadLetter, run)
                .delete(Table::RunByStatus, status_key(status, run))
                .delete(Table::Checkpoint, run)
                .delete(Table::Run, run)
                .forget(run);
        }
        store.commit(batch).await?;
        if is_last {
            tracing::debug!(run, "a run that has ended was removed");
            return Ok(());
        }
    }
}

/// Deletes what a run left besides its journal and the rows under its own name; whether that was all.
fn leftovers(store: &dyn JournalStore, run: &str, batch: Batch) -> Result<(Batch, bool), Error> {
    let hashes = payloads::of_run(store, run, ROWS)?;
    let mut is_all = hashes.len() < ROWS;
    let mut batch = payloads::let_go(batch, By::Run(run), &hashes);
    let reviews = KeyRange::prefix(review_key(run, ""));
    let letters = KeyRange::prefix(keys::letter_prefix(&Owner::Task {
        run: run.to_owned(),
        task: String::new(),
    }));
    let mut kinds = vec![(Table::Review, reviews), (Table::Subscription, letters)];
    for prefix in parked(store, run)? {
        kinds.push((Table::Parked, KeyRange::prefix(prefix)));
    }
    for (table, range) in kinds {
        let rows = store.scan(table, range, ROWS)?;
        is_all &= rows.len() < ROWS;
        for (key, bytes) in rows {
            batch = payloads::delete_row(batch, table, key, &bytes);
        }
    }
    Ok((batch, is_all))
}

/// What the keys of the run's parked tasks begin with. They lie by connection: goes from one
/// connection to the next.
fn parked(store: &dyn JournalStore, run: &str) -> Result<Vec<Vec<u8>>, Error> {
    let (mut prefixes, mut range) = (Vec::new(), KeyRange::all());
    loop {
        let rows = store.scan(Table::Parked, range, 1)?;
        let connection = rows
            .first()
            .and_then(|(key, _)| parse_parked_connection(key));
        let Some(connection) = connection else {
            return Ok(prefixes);
        };
        prefixes.push(crate::rows::parked_key(connection, run, ""));
        range = match KeyRange::prefix(parked_prefix(connection)).end {
            Some(end) => KeyRange::from(end),
            None => return Ok(prefixes),
        };
    }
}
