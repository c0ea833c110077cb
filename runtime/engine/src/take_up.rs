//! Takes up what was under way when the store was last closed, so many runs at a time.
//!
//! A run that is taken up is in memory until it has ended or waits for long. With all of them at
//! once, a process that died of what it held would die of it again at each start.

use std::collections::HashMap;
use std::sync::Arc;

use cofferdam_core::run::Status;
use cofferdam_store::{KeyRange, Table};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;
use crate::rows::status_prefix;
use crate::runner::Message;
use crate::runtime::Inner;

/// Runs that are taken up at the same time; those that begin or are woken meanwhile do not count,
/// and are not kept waiting. A run holds some tens of KiB.
pub(crate) const TAKEN_UP_MAX: usize = 1_024;

/// How many runs are looked up in one go.
const PAGE: usize = 1_000;

const UNDER_WAY: [Status; 2] = [Status::Running, Status::Compensating];

/// The places for runs that are taken up.
pub(crate) struct TakeUp {
    places: Arc<Semaphore>,
    taken: Mutex<HashMap<String, OwnedSemaphorePermit>>,
}

impl Default for TakeUp {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(TAKEN_UP_MAX)),
            taken: Mutex::default(),
        }
    }
}

impl TakeUp {
    /// A run is no longer held.
    pub fn let_go(&self, run: &str) {
        self.taken.lock().remove(run);
    }
}

/// Where to go on.
struct Rest {
    status: usize,
    range: KeyRange,
    /// Runs that were looked up and had no place.
    found: Vec<String>,
}

/// Takes up as many as there are places for, and the others as places become free, until the
/// runtime shuts down.
pub(crate) fn take_up_all(inner: &Arc<Inner>) -> Result<(), Error> {
    let mut rest = Rest {
        status: 0,
        range: KeyRange::prefix(status_prefix(UNDER_WAY[0])),
        found: Vec::new(),
    };
    while let Some(run) = next(inner, &mut rest)? {
        match Arc::clone(&inner.take_up.places).try_acquire_owned() {
            Ok(place) => take_up(inner, run, place),
            Err(_) => {
                rest.found.push(run);
                inner.tasks.spawn(take_up_rest(Arc::clone(inner), rest));
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn take_up_rest(inner: Arc<Inner>, mut rest: Rest) {
    loop {
        let place = tokio::select! {
            () = inner.closing.cancelled() => return,
            place = Arc::clone(&inner.take_up.places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        match next(&inner, &mut rest) {
            Ok(Some(run)) => take_up(&inner, run, place),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "runs that were under way cannot be read; they go on when the runtime is opened again");
                return;
            }
        }
    }
}

fn take_up(inner: &Arc<Inner>, run: String, place: OwnedSemaphorePermit) {
    inner.take_up.taken.lock().insert(run.clone(), place);
    inner.wake(&run, Message::Resume);
}

fn next(inner: &Inner, rest: &mut Rest) -> Result<Option<String>, Error> {
    loop {
        if let Some(run) = rest.found.pop() {
            return Ok(Some(run));
        }
        let prefix = status_prefix(UNDER_WAY[rest.status]);
        let rows = inner
            .store
            .scan(Table::RunByStatus, rest.range.clone(), PAGE)?;
        let Some((last, _)) = rows.last() else {
            rest.status += 1;
            let Some(status) = UNDER_WAY.get(rest.status) else {
                return Ok(None);
            };
            rest.range = KeyRange::prefix(status_prefix(*status));
            continue;
        };
        rest.range = KeyRange::prefix(prefix.clone()).after(last);
        let runs = rows.iter().rev();
        let names = runs.filter_map(|(key, _)| std::str::from_utf8(&key[prefix.len()..]).ok());
        rest.found.extend(names.map(str::to_owned));
    }
}
