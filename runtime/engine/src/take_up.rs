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
                if let Some(run) = run_of(key) {
                    take_up(inner, run)?;
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

fn take_up(inner: &Arc<Inner>, run: &str) -> Result<(), Error> {
    match query::row(&*inner.store, run) {
        Ok(None) => {}
        Ok(Some(row)) => {
            let place = inner.gate.enter(&row.tenant, run);
            inner.let_in(run, place, None);
        }
        // It stops by itself, and tells why; it is not in the way of the others.
        Err(error) if is_damage(&error) => inner.spawn(run.to_owned(), None, None, None),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether it will be the same the next time.
fn is_damage(error: &Error) -> bool {
    use cofferdam_store::Error::Corrupt;
    match error {
        Error::Row { .. } => true,
        Error::Store { source } => matches!(source, Corrupt { .. }),
        _ => false,
    }
}

/// The run in a key of the index by status.
fn run_of(key: &[u8]) -> Option<&str> {
    let at = key.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&key[at + 1..]).ok()
}
