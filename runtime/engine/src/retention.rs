//! Removes runs that ended long ago.
//!
//! So many rows are looked at in one go and so many go in one batch, whatever the number of runs
//! that are kept: what a task costs does not grow with the history of others.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::run::Status;
use cofferdam_store::{Error, Head, KeyRange, Table};
use futures::future::join_all;

use crate::rows::{review_key, status_prefix};
use crate::runtime::Inner;
use crate::{Runtime, query, removal};

/// How often the next page of ended runs is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Runs in a page.
const PAGE: usize = 500;

pub(crate) const ENDED: [Status; 3] = [Status::Completed, Status::Faulted, Status::Cancelled];

/// Runs until the runtime shuts down.
pub(crate) async fn sweep(inner: Arc<Inner>, retention: Duration) {
    // Where the last page of each status ended.
    let mut after: [Option<Vec<u8>>; ENDED.len()] = Default::default();
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let before_ms = before_ms(&inner, retention);
        for (status, after) in ENDED.into_iter().zip(&mut after) {
            if let Err(error) = sweep_on(&inner, status, after, before_ms).await {
                crate::runtime::storage_failed(&error);
            }
        }
    }
}

impl Runtime {
    /// Removes the runs that ended so long ago, but for those that left a dead letter or a review;
    /// how many they were. Cancel-safe: what is not removed stays as it is.
    ///
    /// # Errors
    /// [`crate::Error::Store`].
    pub async fn remove_ended(&self, retention: Duration) -> Result<usize, crate::Error> {
        let before_ms = before_ms(&self.inner, retention);
        let mut removed = 0;
        for status in ENDED {
            let mut after = None;
            loop {
                let page = sweep_page(&self.inner, status, after, before_ms).await?;
                removed += page.removed;
                after = page.last;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

pub(crate) fn before_ms(inner: &Inner, retention: Duration) -> u64 {
    let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    inner.clock.now_ms().saturating_sub(retention_ms)
}

/// Goes on from page to page while there is something to remove, so that it keeps up with however
/// many runs end, and else looks at one page.
async fn sweep_on(
    inner: &Arc<Inner>,
    status: Status,
    after: &mut Option<Vec<u8>>,
    before_ms: u64,
) -> Result<(), Error> {
    loop {
        let page = sweep_page(inner, status, after.take(), before_ms).await?;
        *after = page.last;
        if page.removed == 0 || after.is_none() || inner.closing.is_cancelled() {
            return Ok(());
        }
    }
}

struct Page {
    /// Where the next one begins; `None` if this was the last.
    last: Option<Vec<u8>>,
    removed: usize,
}

async fn sweep_page(
    inner: &Arc<Inner>,
    status: Status,
    after: Option<Vec<u8>>,
    before_ms: u64,
) -> Result<Page, Error> {
    let prefix = status_prefix(status);
    let mut range = KeyRange::prefix(prefix.clone());
    if let Some(after) = after {
        range = range.after(&after);
    }
    let rows = inner.store.scan(Table::RunByStatus, range, PAGE)?;
    let mut removals = Vec::new();
    for (key, _) in &rows {
        let run = std::str::from_utf8(&key[prefix.len()..]);
        if let Ok(run) = run
            && let Some(head) = is_over(inner, run, status, before_ms)?
        {
            removals.push(removal::remove(inner, run, status, head));
        }
    }
    // Together, so that they share the store's syncs.
    let removed = removals.len();
    for removal in join_all(removals).await {
        match removal {
            // Somebody goes on with it, and so it has not ended.
            Err(Error::Stale { .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
    }
    let is_full = rows.len() == PAGE;
    let last = rows.into_iter().last().map(|(key, _)| key);
    Ok(Page {
        last: last.filter(|_| is_full),
        removed,
    })
}

/// Where a run is that ended before, and about which nobody has anything left to do; none else.
fn is_over(
    inner: &Inner,
    run: &str,
    status: Status,
    before_ms: u64,
) -> Result<Option<Head>, Error> {
    // First: whoever goes on with it after this moves the head, and nothing is removed then.
    let head = inner.store.head(run)?;
    let row = match query::row(&*inner.store, run) {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(None),
        Err(crate::Error::Store { source }) => return Err(source),
        Err(error) => {
            tracing::warn!(run, %error, "a run that cannot be read is kept");
            return Ok(None);
        }
    };
    let ended = row.status == status && row.ended_ms.is_some_and(|ended_ms| ended_ms < before_ms);
    if !ended
        || inner
            .store
            .get(Table::DeadLetter, run.as_bytes())?
            .is_some()
    {
        return Ok(None);
    }
    let reviews = KeyRange::prefix(review_key(run, ""));
    let is_over = inner.store.scan(Table::Review, reviews, 1)?.is_empty();
    Ok(is_over.then_some(head))
}
