//! Removing ended runs because somebody says so, whatever they left: `runs purge`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::run::Status;
use cofferdam_store::{Head, KeyRange, Table};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use crate::retention::{ENDED, before_ms};
use crate::rows::{RunRow, status_key, status_prefix};
use crate::runtime::Inner;
use crate::{Error, Runtime, query, removal};

/// Runs that one request looks at, unless they are named; and that are removed at a time.
pub const PURGE_MAX: usize = 500;
/// Runs that one request names: more than a command line has room for.
pub const PURGE_NAMES_MAX: usize = 100_000;

/// Which ended runs are meant; all that fit every part that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PurgeFilter {
    /// Only these, at most [`PURGE_NAMES_MAX`]; all runs if none is named.
    pub runs: Vec<String>,
    /// Only runs that ended at least so many milliseconds ago.
    pub ended_before_ms: Option<u64>,
    /// Only runs that ended like this.
    pub status: Option<Status>,
    /// Only runs of this tenant.
    pub tenant: Option<String>,
    /// Removes nothing, and says what would be removed.
    pub dry_run: bool,
}

/// What a request to remove runs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// The runs that were removed, or would be.
    pub runs: Vec<String>,
    /// Where to go on, if it is not known that these were all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl PurgeFilter {
    fn fits(&self, row: &RunRow, ended_before_ms: u64) -> bool {
        row.status.is_final()
            && self.status.is_none_or(|status| row.status == status)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| row.tenant == *tenant)
            && (self.ended_before_ms.is_none()
                || row
                    .ended_ms
                    .is_some_and(|ended_ms| ended_ms <= ended_before_ms))
    }
}

impl Runtime {
    /// Removes runs that have ended, with all that they left: journal, large values that nobody
    /// else refers to, dead letter, reviews. What they published, what other runs took over of them, and
    /// calls that still wait in an outbox stay. At most [`PURGE_MAX`] runs are looked at: as long as the
    /// answer has a `next`, ask again with that as `after`. Runs that are named are looked at together:
    /// they have all ended, or none is removed. What is removed is gone; a crash on the way leaves a run that has ended, and
    /// whose removal goes on when it is asked for again, or by retention.
    ///
    /// # Errors
    /// [`Error::NoRun`]; [`Error::WrongState`] for a run that has not ended; [`Error::Purge`] for too many
    /// names and a status that is no end; [`Error::PurgeStopped`] when the store fails or the runtime is shut
    /// down on the way, with those that are gone and those that are still there; [`Error::Store`].
    pub async fn purge(&self, filter: &PurgeFilter, after: Option<&str>) -> Result<Purged, Error> {
        if filter.status.is_some_and(|status| !status.is_final()) {
            let what = "names a status that is no end; use completed, faulted or cancelled".into();
            return Err(Error::Purge { what });
        }
        let inner = &self.inner;
        let age = Duration::from_millis(filter.ended_before_ms.unwrap_or(0));
        let before_ms = before_ms(inner, age);
        let (found, next) = match filter.runs.as_slice() {
            [] => find(inner, filter, before_ms, after)?,
            _ => (named(inner, filter, before_ms).await?, None),
        };
        let (mut runs, mut kept, mut why) = (Vec::new(), Vec::new(), None);
        for page in found.chunks(PURGE_MAX) {
            if inner.closing.is_cancelled() {
                why.get_or_insert(Error::ShuttingDown);
            }
            if why.is_some() {
                kept.extend(page.iter().map(|found| found.run.clone()));
                continue;
            }
            let removed = if filter.dry_run {
                vec![Ok(()); page.len()]
            } else {
                // Together, so that they share the store's syncs.
                join_all(page.iter().map(|found| found.remove(inner))).await
            };
            for (found, removed) in page.iter().zip(removed) {
                match removed {
                    Ok(()) => runs.push(found.run.clone()),
                    // Somebody goes on with it, or removes it.
                    Err(cofferdam_store::Error::Stale { .. }) => {}
                    Err(error) => {
                        kept.push(found.run.clone());
                        why.get_or_insert(error.into());
                    }
                }
            }
        }
        match why.map(Box::new) {
            None => Ok(Purged { runs, next }),
            Some(why) => Err(Error::PurgeStopped {
                removed: runs,
                kept,
                why,
            }),
        }
    }
}

/// A run that has ended, and where it is.
struct Found {
    run: String,
    status: Status,
    head: Head,
}

impl Found {
    fn new((row, head): (RunRow, Head)) -> Self {
        let (run, status) = (row.run, row.status);
        Self { run, status, head }
    }

    async fn remove(&self, inner: &Arc<Inner>) -> Result<(), cofferdam_store::Error> {
        removal::remove(inner, &self.run, self.status, self.head).await
    }
}

/// Those of the runs that are named which fit.
async fn named(inner: &Inner, filter: &PurgeFilter, before_ms: u64) -> Result<Vec<Found>, Error> {
    let names = &filter.runs;
    if names.len() > PURGE_NAMES_MAX {
        let what = format!(
            "names {} runs; name at most {PURGE_NAMES_MAX} at once",
            names.len()
        );
        return Err(Error::Purge { what });
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for (at, run) in names.iter().enumerate() {
        if !seen.insert(run) {
            continue;
        }
        if at % PURGE_MAX == 0 {
            // Others have something to do, too.
            tokio::task::yield_now().await;
        }
        let (row, head) = read(inner, run)?.ok_or_else(|| Error::NoRun { run: run.clone() })?;
        if !row.status.is_final() {
            return Err(Error::wrong_state(run, row.status, "purged"));
        }
        if filter.fits(&row, before_ms) {
            found.push(Found::new((row, head)));
        }
    }
    Ok(found)
}

/// A page of ended runs, and where the next one begins.
fn find(
    inner: &Inner,
    filter: &PurgeFilter,
    before_ms: u64,
    after: Option<&str>,
) -> Result<(Vec<Found>, Option<String>), Error> {
    let wanted = |status: &Status| filter.status.is_none_or(|wanted| wanted == *status);
    let mut after = after.and_then(|after| after.split_once(' '));
    for status in ENDED.into_iter().filter(wanted) {
        let prefix = status_prefix(status);
        let mut range = KeyRange::prefix(prefix.clone());
        if let Some((at, run)) = after {
            if at != status.as_str() {
                continue;
            }
            range = range.after(&status_key(status, run));
            after = None;
        }
        let rows = inner.store.scan(Table::RunByStatus, range, PURGE_MAX)?;
        let Some((last, _)) = rows.last() else {
            continue;
        };
        let last = String::from_utf8_lossy(&last[prefix.len()..]);
        let next = format!("{} {last}", status.as_str());
        let mut found = Vec::new();
        for (key, _) in &rows {
            let run = String::from_utf8_lossy(&key[prefix.len()..]);
            // A run that cannot be read is not in the way of the others; by its name it is told.
            match read(inner, &run) {
                Ok(row) => {
                    let fits = row.filter(|(row, _)| filter.fits(row, before_ms));
                    found.extend(fits.map(Found::new));
                }
                Err(error @ Error::Store { .. }) => return Err(error),
                Err(error) => tracing::warn!(%run, %error, "a run that cannot be read is kept"),
            }
        }
        return Ok((found, Some(next)));
    }
    Ok((Vec::new(), None))
}

/// A run and where it is; whoever goes on with it after this moves it, and it is not removed then.
fn read(inner: &Inner, run: &str) -> Result<Option<(RunRow, Head)>, Error> {
    let head = inner.store.head(run).map_err(|source| match source {
        cofferdam_store::Error::Invalid { .. } | cofferdam_store::Error::TooLarge { .. } => {
            Error::NoRun {
                run: run.to_owned(),
            }
        }
        source => source.into(),
    })?;
    Ok(query::row(&*inner.store, run)?.map(|row| (row, head)))
}
