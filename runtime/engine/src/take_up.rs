//! Takes up the runs that were under way when the store was last closed, as many at a time as may
//! be in memory.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::run::Status;
use cofferdam_store::{KeyRange, Table};

use crate::rows::status_prefix;
use crate::runtime::Inner;
use crate::{Error, query};

/// How many runs are looked up in one go.
const PAGE: usize = 1_000;
/// How long it waits after the store has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where it has got to.
pub(crate) struct TakeUp {
    /// What is still to be looked through, the next last.
    left: Vec<KeyRange>,
}

impl TakeUp {
    pub fn new() -> Self {
        let under_way = [Status::Compensating, Status::Running];
        let range = |status| KeyRange::prefix(status_prefix(status));
        Self {
            left: under_way.map(range).into(),
        }
    }

    /// Takes up as many as there is room for; true once all are.
    pub fn go_on(&mut self, inner: &Arc<Inner>) -> Result<bool, Error> {
        while let Some(range) = self.left.last_mut() {
            let room = inner.gate.room().min(PAGE);
            if room == 0 {
                return Ok(false);
            }
            let rows = inner.store.scan(Table::RunByStatus, range.clone(), room)?;
            if rows.is_empty() {
                self.left.pop();
                continue;
            }
            for (key, _) in &rows {
                if let Some(run) = run_of(key)
                    && let Some(row) = query::row(&*inner.store, run)?
                {
                    let place = inner.gate.enter(&row.tenant, run);
                    inner.let_in(run, place, None);
                }
                // Not before: one that cannot be read now is tried again.
                *range = range.clone().after(key);
            }
        }
        Ok(true)
    }

    /// The rest, as room comes.
    pub async fn finish(mut self, inner: Arc<Inner>) {
        loop {
            let mut nap = Duration::ZERO;
            match self.go_on(&inner) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "runs cannot be taken up; it is tried again");
                    nap = AGAIN_AFTER;
                }
            }
            tokio::select! {
                biased;
                () = inner.closing.cancelled() => return,
                () = tokio::time::sleep(nap) => {}
            }
            tokio::select! {
                biased;
                () = inner.closing.cancelled() => return,
                // Given back at once: it says that there is room, and whoever is first takes it.
                place = inner.gate.place_for_woken("") => drop(place),
            }
        }
    }
}

/// The run in a key of the index by status.
fn run_of(key: &[u8]) -> Option<&str> {
    let at = key.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&key[at + 1..]).ok()
}
