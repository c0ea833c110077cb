//! What a run leaves to its connections, and how a long step is written in parts.

use cofferdam_core::run::{Deferred, Effect, Event};
use cofferdam_store::Table;

use super::Runner;
use crate::Error;
use crate::outbox::OutboxRow;
use crate::rows::{encode, outbox_key};

impl Runner {
    /// Leaves a call to its connection: the row and the event are written in one batch.
    pub(super) fn defer(
        &mut self,
        ticket: u64,
        task: &str,
        deferred: &Deferred,
        at_ms: u64,
    ) -> Result<(), Error> {
        let row = OutboxRow::new(&self.row, task, deferred, at_ms);
        let slot = self.inner.connections.get(&deferred.connection).cloned();
        let slot = slot.filter(|slot| row.fits(&slot.name) && slot.outbox.reserve());
        let Some(slot) = slot else {
            self.feed(Event::NotDeferred { ticket });
            return Ok(());
        };
        let row = encode(&row)?;
        if !self.feed(Event::Deferred { ticket }) {
            slot.outbox.release();
            return Ok(());
        }
        let key = outbox_key(&slot.name, &self.inner.next_id());
        self.put(Table::Outbox, key, row);
        self.deferred.push(slot.name.clone());
        Ok(())
    }

    /// Whether what is buffered leaves nothing behind that a restart would not ask for again.
    pub(super) fn is_whole(&self) -> bool {
        self.effects.iter().all(|effect| {
            matches!(
                effect,
                Effect::Attempt(_)
                    | Effect::Lookup { .. }
                    | Effect::Recall { .. }
                    | Effect::Defer { .. }
            )
        })
    }
}
