//! `run: workflow` with `await: false`: another run, begun once.
//!
//! The row of the other run goes into the same batch as the event that asked for it: both are in
//! the store or neither is. The row holds the input until the run has begun, which it does from the
//! row alone, here or after a restart.

use cofferdam_core::run::Status;
use cofferdam_store::{Batch, Table};
use serde_json::Value;

use crate::rows::{RunRow, encode, status_key};
use crate::runtime::Inner;
use crate::{Error, payloads, queue};

/// What one run asks of another.
pub(crate) struct Wanted {
    /// Its id.
    pub run: String,
    /// The workflow, `namespace/name:version`.
    pub workflow: String,
    /// Its input.
    pub input: Value,
}

/// The writes that begin the run; none if it is there already.
///
/// # Errors
/// The store's; [`Error::Binding`] if a connection that it calls is gone.
pub(crate) fn begin(
    inner: &Inner,
    asked_by: &RunRow,
    wanted: Wanted,
    at_ms: u64,
    batch: Batch,
) -> Result<Batch, Error> {
    if inner.row(&wanted.run)?.is_some() {
        return Ok(batch);
    }
    let parent = inner.definition(&asked_by.definition)?;
    let definition = parent.other(&wanted.workflow, &inner.connections)?;
    let hash = definition.hash().as_bytes();
    let batch = match inner.store.get(Table::Definition, hash)? {
        Some(_) => batch,
        None => batch.put(Table::Definition, hash, definition.pinned()),
    };
    // It waits for its turn like any other: a run could else fill the memory with others.
    let payload = payloads::of_value(&wanted.input)?;
    let row = RunRow {
        pending_payload: payload.as_ref().map(|payload| payload.hash.clone()),
        pending: payload.is_none().then_some(wanted.input),
        status: Status::Queued,
        queued_ms: Some(at_ms),
        queue_seq: inner.gate.next_seq(at_ms),
        tenant: asked_by.tenant.clone(),
        priority: asked_by.priority,
        ..RunRow::new(&wanted.run, &definition, at_ms)
    };
    let key = status_key(row.status, &row.run);
    let by = payloads::By::Run(&row.run);
    let batch = payloads::keep(batch, by, payload.into_iter().collect());
    Ok(queue::waits(batch, &row)
        .put(Table::Run, row.run.as_bytes(), encode(&row)?)
        .put(Table::RunByStatus, key, Vec::new()))
}
