//! A run's state as data, so that a run that is taken up again need not be folded from its first
//! record.
//!
//! The state points into the workflow: frames to their tasks and blocks, undoings to their tasks. A
//! checkpoint holds none of that. Frames are a tree, and what a frame is to the frame around it says
//! which task or block it is ([`link`]); an undoing says the key of its task. What is found in the
//! workflow is compared with what was written down, so that a checkpoint of another workflow is
//! refused rather than gone on with.
//!
//! Values that are shared in memory are written once and are shared again afterwards: ten thousand
//! iterations have one input.
//!
//! Persisted: names and fields are a format. A field that is added needs a default, and
//! `checkpoint/tests/format-1.json` is read by every later version.

mod link;
mod pool;
mod saved;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Control;
use super::frame::{Key, Scope};
use super::ledger::Ledger;
use super::report::TaskReport;
use super::slim::Slim;
use super::{Bindings, InFlight, Phase, Run};
use crate::workflow::Workflow;
use pool::{Pool, Pooled};
use saved::{SavedFrame, SavedUndo};

/// The format that is written. Another one is refused.
const FORMAT: u32 = 1;

/// Where a run is, as data: what folding its journal up to there gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint<'r> {
    format: u32,
    run: Cow<'r, str>,
    phase: Cow<'r, Phase>,
    begun_ms: u64,
    input: usize,
    values: Vec<Arc<Value>>,
    scopes: Vec<Scope>,
    frames: BTreeMap<Cow<'r, str>, SavedFrame<'r>>,
    dues: Cow<'r, BTreeSet<(u64, Key)>>,
    open: Cow<'r, BTreeMap<u64, Key>>,
    in_flight: Cow<'r, BTreeMap<u64, InFlight>>,
    tickets: u64,
    undos: Vec<SavedUndo<'r>>,
    ledger: Cow<'r, Ledger>,
    reports: Vec<Cow<'r, TaskReport>>,
    degraded: bool,
    emitted: u64,
    control: Cow<'r, Control>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slim: Option<Cow<'r, Slim>>,
}

/// Why a run cannot be gone on with from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version wrote it.
    #[error("it has format {0}, and this version reads format {FORMAT}")]
    Format(u32),
    /// It is of another run.
    #[error("it is of run `{0}`")]
    Run(String),
    /// It does not fit the workflow.
    #[error("`{key}` is not where the workflow has it: {why}")]
    Place {
        /// The task or what is inside of it.
        key: String,
        /// What does not fit.
        why: &'static str,
    },
    /// It refers to a value that it does not have.
    #[error("it lacks a value that it refers to")]
    Lacking,
}

/// What one more task under way, or one more report, adds to a checkpoint, in bytes: about that, since
/// it decides only when it is worth while to write one.
const FRAME_BYTES: usize = 800;
const REPORT_BYTES: usize = 350;
const EFFECT_BYTES: usize = 250;

impl Run {
    /// Where the run is, as data; what it keeps for people only as long as it lives is left out
    /// ([`Run::watch_tasks`], [`Run::recording`]).
    pub fn save(&self) -> Checkpoint<'_> {
        let Self {
            id,
            workflow: _,
            bindings: _,
            phase,
            begun_ms,
            input,
            frames,
            dues,
            open,
            in_flight,
            tickets,
            undos,
            ledger,
            reports,
            degraded,
            emitted,
            changes: _,
            control,
            secrets: _,
            slim,
        } = self;
        let mut pool = Pool::default();
        Checkpoint {
            format: FORMAT,
            run: id.into(),
            phase: Cow::Borrowed(phase),
            begun_ms: *begun_ms,
            input: pool.value(input),
            frames: frames
                .iter()
                .map(|(key, frame)| (key.into(), SavedFrame::of(frame, &mut pool)))
                .collect(),
            dues: Cow::Borrowed(dues),
            open: Cow::Borrowed(open),
            in_flight: Cow::Borrowed(in_flight),
            tickets: *tickets,
            undos: undos
                .iter()
                .map(|undo| SavedUndo::of(undo, &mut pool))
                .collect(),
            ledger: Cow::Borrowed(ledger),
            reports: reports.values().map(Cow::Borrowed).collect(),
            degraded: *degraded,
            emitted: *emitted,
            control: Cow::Borrowed(control),
            slim: slim.as_ref().map(Cow::Borrowed),
            values: pool.values,
            scopes: pool.scopes,
        }
    }

    /// The run as it was, with the workflow and the bindings that it had then.
    ///
    /// # Errors
    /// [`Error`] if the checkpoint is of another run, workflow or version; what was read of it is
    /// gone.
    pub fn restore(
        id: &str,
        workflow: Arc<Workflow>,
        bindings: Arc<Bindings>,
        checkpoint: Checkpoint<'_>,
    ) -> Result<Self, Error> {
        if checkpoint.format != FORMAT {
            return Err(Error::Format(checkpoint.format));
        }
        if checkpoint.run != id {
            return Err(Error::Run(checkpoint.run.into_owned()));
        }
        let pool = Pooled {
            values: checkpoint.values,
            scopes: checkpoint.scopes,
        };
        let mut run = Self::new(id, workflow, bindings);
        // Frames ask it.
        run.ledger = checkpoint.ledger.into_owned();
        // The frame around another one has the shorter key, and so comes first.
        for (key, saved) in checkpoint.frames {
            let frame = link::frame(&run, &key, saved, checkpoint.undos.len(), &pool)?;
            run.frames.insert(key.into_owned(), frame);
        }
        for saved in checkpoint.undos {
            let undo = link::undo(&run.workflow, saved, &pool)?;
            run.undos.push(undo);
        }
        run.input = pool.value(checkpoint.input)?;
        run.phase = checkpoint.phase.into_owned();
        run.begun_ms = checkpoint.begun_ms;
        run.dues = checkpoint.dues.into_owned();
        run.open = checkpoint.open.into_owned();
        run.in_flight = checkpoint.in_flight.into_owned();
        run.tickets = checkpoint.tickets;
        run.reports = by_task(checkpoint.reports);
        run.degraded = checkpoint.degraded;
        run.emitted = checkpoint.emitted;
        run.control = checkpoint.control.into_owned();
        run.slim = checkpoint.slim.map(Cow::into_owned);
        Ok(run)
    }

    /// About how large a checkpoint would be, in bytes, besides the values that it would hold. Cheap.
    pub fn weight_bytes(&self) -> usize {
        let effects = self.ledger.len() + self.undos.len();
        self.frames.len() * FRAME_BYTES + self.reports.len() * REPORT_BYTES + effects * EFFECT_BYTES
    }
}

fn by_task(reports: Vec<Cow<'_, TaskReport>>) -> IndexMap<Key, TaskReport> {
    let own = |report: Cow<'_, TaskReport>| {
        let report = report.into_owned();
        (report.task.clone(), report)
    };
    reports.into_iter().map(own).collect()
}

#[cfg(test)]
pub(super) mod check;
#[cfg(test)]
mod tests;
