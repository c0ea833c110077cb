//! Wakes runs that wait in the store, no more of them at a time than may be in memory.
//!
//! A thousand runs can wait for one event, fall due at one instant, or be parked on one connection.
//! What wakes them is a row of theirs (a letter, a timer, a parked task), so whoever finds no place
//! yet is woken as others end; nothing is lost with what is remembered here. Those who are woken
//! and those who stand in the queue have places in turn, so that neither keeps the other out.
//!
//! Only what people do with a run (a verb, a decision) does not wait for a place.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_store::{KeyRange, Table};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::events::keys::{self, Owner};
use crate::runner::Message;
use crate::runtime::Inner;

/// How many runs with letters are remembered; the others are looked up in the store, in the order
/// of their ids.
const REMEMBERED_MAX: usize = 10_000;
/// How long it waits after the store has failed.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Runs that have letters and are not in memory.
pub(crate) struct Listeners {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

struct Waiting {
    /// In the order in which their letters came.
    runs: VecDeque<String>,
    known: BTreeSet<String>,
    /// Whether others in the store may have letters as well.
    more: bool,
}

enum Next {
    Run(String),
    /// Look through the store.
    All,
    Nobody,
}

impl Default for Listeners {
    /// Letters may have been there when the store was last closed.
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                runs: VecDeque::new(),
                known: BTreeSet::new(),
                more: true,
            }),
            changed: Notify::new(),
        }
    }
}

impl Listeners {
    fn add(&self, run: String) {
        let mut waiting = self.waiting.lock();
        if waiting.known.contains(&run) {
            return;
        }
        if waiting.runs.len() < REMEMBERED_MAX {
            waiting.known.insert(run.clone());
            waiting.runs.push_back(run);
        } else {
            waiting.more = true;
        }
        drop(waiting);
        self.changed.notify_one();
    }

    fn next(&self) -> Next {
        let mut waiting = self.waiting.lock();
        match waiting.runs.pop_front() {
            Some(run) => {
                waiting.known.remove(&run);
                Next::Run(run)
            }
            None if std::mem::take(&mut waiting.more) => Next::All,
            None => Next::Nobody,
        }
    }
}

impl Inner {
    /// There are letters for this run: it looks into its box, as soon as there is a place for it.
    pub fn has_letters(self: &Arc<Self>, run: String) {
        if self.tell_held(&run, Message::Letters).is_err() {
            self.listeners.add(run);
        }
    }

    /// Tells a run something when there is a place for it, or at once if it is in memory.
    /// Cancel-safe: what is not told yet stays a row.
    pub async fn wake_in_turn(self: &Arc<Self>, run: &str, message: Message) {
        if let Err(message) = self.tell_held(run, message) {
            let place = self.gate.place_for_woken(run).await;
            self.let_in(run, place, Some(message));
        }
    }
}

/// Wakes those who have letters, until the runtime shuts down.
pub(crate) async fn wake_listeners(inner: Arc<Inner>) {
    let waking = async {
        loop {
            match inner.listeners.next() {
                Next::Run(run) => inner.wake_in_turn(&run, Message::Letters).await,
                Next::All => {
                    if let Err(error) = wake_all(&inner).await {
                        crate::runtime::storage_failed(&error);
                        tokio::time::sleep(AGAIN_AFTER).await;
                        inner.listeners.waiting.lock().more = true;
                    }
                }
                Next::Nobody => inner.listeners.changed.notified().await,
            }
        }
    };
    tokio::select! {
        biased;
        () = inner.closing.cancelled() => {}
        () = waking => {}
    }
}

/// Lets every run that has letters look into its box, one after the other.
async fn wake_all(inner: &Arc<Inner>) -> Result<(), cofferdam_store::Error> {
    let prefix = keys::run_letters_prefix();
    let mut range = KeyRange::prefix(prefix.clone());
    loop {
        // One letter for each run: the next look begins behind all others of the same run.
        let rows = inner.store.scan(Table::Subscription, range, 1)?;
        let Some(run) = rows
            .first()
            .and_then(|(key, _)| keys::parse_run_letter(key))
        else {
            return Ok(());
        };
        inner.wake_in_turn(run, Message::Letters).await;
        let run = run.to_owned();
        let task = String::new();
        let mut behind = keys::letter_prefix(&Owner::Task { run, task });
        behind.push(u8::MAX);
        range = KeyRange::prefix(prefix.clone()).after(&behind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_runs_than_are_remembered_are_looked_up_in_the_store() {
        let listeners = Listeners::default();
        assert!(matches!(listeners.next(), Next::All));
        assert!(matches!(listeners.next(), Next::Nobody));
        for n in 0..=REMEMBERED_MAX {
            listeners.add(n.to_string());
            listeners.add("0".into());
        }
        for n in 0..REMEMBERED_MAX {
            let run = n.to_string();
            assert!(matches!(listeners.next(), Next::Run(next) if next == run));
        }
        assert!(matches!(listeners.next(), Next::All));
        assert!(matches!(listeners.next(), Next::Nobody));
    }
}
