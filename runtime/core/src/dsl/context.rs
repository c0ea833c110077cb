//! What is known while a text is compiled.

use std::cell::{Cell, RefCell};

use super::extensions::Extension;
use super::report::{At, Report, suggest};
use super::subflow::Library;
use crate::workflow::Secrets;

/// One text under compilation.
pub(super) struct Context<'n> {
    /// Where errors go.
    pub report: &'n Report,
    /// The other workflows.
    pub library: &'n Library<'n>,
    /// `use.errors`, if any.
    pub errors: Option<At<'n>>,
    /// `use.retries`, if any.
    pub retries: Option<At<'n>>,
    /// `use.timeouts`, if any.
    pub timeouts: Option<At<'n>>,
    /// `use.functions`, if any.
    pub functions: Option<At<'n>>,
    /// `use.authentications`, if any.
    pub authentications: Option<At<'n>>,
    /// `use.catalogs`, if any.
    pub catalogs: Option<At<'n>>,
    /// `use.extensions`.
    pub extensions: Vec<Extension<'n>>,
    /// Whether what is compiled belongs to an extension, and so is not extended itself.
    pub in_extension: Cell<bool>,
    /// `use.secrets`, and where they go.
    pub secrets: RefCell<Secrets>,
    /// Variables that are constants here, with their values as jq.
    pub constants: RefCell<Vec<(&'static str, String)>>,
    /// Functions that are being compiled, outermost first.
    pub calling: RefCell<Vec<String>>,
}

impl<'n> Context<'n> {
    /// The definition with this name under one of the parts of `use`.
    pub(super) fn named(
        &self,
        part: &str,
        table: Option<&At<'n>>,
        at: &At<'_>,
        name: &str,
    ) -> Option<At<'n>> {
        let found = table.and_then(|t| t.node.entry(name).map(|e| t.child(e)));
        found.or_else(|| {
            let known = table.and_then(At::entries).unwrap_or_default();
            let remedy = suggest(name, known.iter().map(|(e, _)| e.key.as_str()));
            let cause = format!("`use.{part}` defines no `{name}`");
            self.report.error("CD0110", at, cause, remedy)
        })
    }
}

/// Where an expression stands: what it may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// `input.from` of the workflow.
    WorkflowInput,
    /// `output.as` of the workflow.
    WorkflowOutput,
    /// `if` of a task.
    Before,
    /// `input.from` of a task.
    From,
    /// The task itself.
    Within,
    /// What a call sends.
    Sent,
    /// `output.as` of a task.
    Output,
    /// `export.as` of a task.
    Export,
    /// `compensate.with`.
    Undo,
}

/// The variables that enclosing tasks bind: items, indexes, caught errors; without `$`.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    /// This scope and these names.
    pub(super) fn with(&self, names: &[&str]) -> Self {
        let mut all = self.0.clone();
        all.extend(names.iter().map(|n| (*n).to_owned()));
        Self(all)
    }

    /// Every name that an expression at this stage may use.
    pub(super) fn vars(&self, stage: Stage) -> Vec<&str> {
        let fixed: &[&str] = match stage {
            Stage::WorkflowInput => &["workflow", "runtime", "secret", "secrets"],
            Stage::WorkflowOutput => &["context", "workflow", "runtime"],
            Stage::Before => &["context", "task", "workflow", "runtime"],
            Stage::From => &[
                "context", "task", "workflow", "runtime", "secret", "secrets",
            ],
            Stage::Sent => &[
                "context", "input", "task", "workflow", "runtime", "secret", "secrets",
            ],
            Stage::Within | Stage::Output => &["context", "input", "task", "workflow", "runtime"],
            Stage::Export => &["context", "input", "output", "task", "workflow", "runtime"],
            Stage::Undo => &["input", "output"],
        };
        let enclosing: &[String] = if stage == Stage::Undo { &[] } else { &self.0 };
        fixed
            .iter()
            .copied()
            .chain(enclosing.iter().map(String::as_str))
            .collect()
    }
}

/// Names that a workflow cannot give to its own variables.
pub(super) const RESERVED: [&str; 10] = [
    "context",
    "input",
    "output",
    "task",
    "workflow",
    "runtime",
    "secret",
    "secrets",
    "authorization",
    "ENV",
];
