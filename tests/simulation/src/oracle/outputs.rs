//! What a run gives is what its workflow makes of the answers that were given: by its journal, folded
//! anew, and by an account of the workflow's text that knows nothing of the engine's machine.
//!
//! The account allows whatever the text allows, whichever way the run took; what came of a call
//! has to be an answer to that call, told as what it is.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam::{Provenance, RunView, Status};
use cofferdam_core::run::Outcome;
use serde_json::Value;

use super::outbox::{DELIVERY, Deferral};
use super::shadow::Shadow;
use super::{name_of, text};
use crate::services::Services;
use crate::world::State;

/// The tasks of every workflow, by `namespace/name:version`.
#[derive(Debug, Default)]
pub(crate) struct Texts(BTreeMap<String, Value>);

/// Numbers in the answers that a run got.
#[derive(Debug, Default)]
pub(super) struct Answers {
    live: BTreeSet<u64>,
    kept: BTreeSet<u64>,
}

impl Texts {
    /// A workflow that this world has.
    pub fn add(&mut self, text: &str) {
        // What is no JSON is refused by the engine.
        let mut read: Value = serde_json::from_str(text).unwrap_or_default();
        let name = name_of_workflow(&read["document"]);
        self.0.insert(name, read["do"].take());
    }
}

impl Answers {
    /// A connection has answered, sooner or later.
    pub fn were_given(&mut self, output: &Value) {
        self.live.extend(output["n"].as_u64());
    }

    /// An earlier answer was used.
    pub fn were_kept(&mut self, output: &Value) {
        self.kept.extend(output["n"].as_u64());
    }
}

impl State {
    /// What is told of a run that has ended is what is durable of it, and what its text allows.
    pub(super) fn judge_output(&self, shadow: &Shadow, view: &RunView) -> Result<(), String> {
        let run = &view.run;
        let output = match shadow.run.outcome() {
            Some(Outcome::Completed { output }) => Some(output),
            _ => None,
        };
        if view.output.as_ref() != output {
            let told = &view.output;
            return Err(format!(
                "{run} is told to give {told:?} and gives {output:?}"
            ));
        }
        let durable = shadow.run.provenance();
        let is_whole = view.records_from.is_none();
        let mut told = view.provenance.iter();
        let is_so = told.all(|(task, way)| durable.get(task) == Some(way));
        if !is_so || (is_whole && view.provenance.len() != durable.len()) {
            let told = &view.provenance;
            return Err(format!("{run} is told to be {told:?} and is {durable:?}"));
        }
        if view.degraded != shadow.run.is_degraded() {
            return Err(format!("{run} is told to be degraded: {}", view.degraded));
        }
        let (Status::Completed, Some(output)) = (view.status, output) else {
            return Ok(());
        };
        let account = Account {
            view,
            shadow,
            services: &self.services,
            texts: &self.oracle.texts,
        };
        // What an outbox delivers is no workflow of this world.
        if run.starts_with(DELIVERY) {
            let deferral = self.oracle.deferral_of(shadow)?;
            return account.delivered(deferral, output);
        }
        let tasks = account.texts.0.get(&view.workflow);
        let is_input = |value: &Value| *value == view.input;
        if tasks.is_some_and(|tasks| account.block(tasks, output, &is_input)) {
            return Ok(());
        }
        Err(format!("{run} gives {output}, which its workflow does not"))
    }
}

fn name_of_workflow(of: &Value) -> String {
    let part = |key| text(of, key);
    format!("{}/{}:{}", part("namespace"), part("name"), part("version"))
}

/// Whether something may come out where this came in.
type Before<'a> = &'a dyn Fn(&Value) -> bool;

struct Account<'a> {
    view: &'a RunView,
    shadow: &'a Shadow,
    services: &'a Services,
    texts: &'a Texts,
}

impl Account<'_> {
    /// Tasks one after the other.
    fn block(&self, tasks: &Value, output: &Value, before: Before<'_>) -> bool {
        let tasks = tasks.as_array().map(Vec::as_slice).unwrap_or_default();
        self.row(tasks, output, before)
    }

    fn row(&self, tasks: &[Value], output: &Value, before: Before<'_>) -> bool {
        match tasks.split_last() {
            None => before(output),
            Some((last, rest)) => self.task(last, output, &|value| self.row(rest, value, before)),
        }
    }

    fn task(&self, named: &Value, output: &Value, before: Before<'_>) -> bool {
        let Some((name, task)) = named.as_object().and_then(|named| named.iter().next()) else {
            return false;
        };
        let kinds = [
            "call", "wait", "emit", "set", "raise", "do", "fork", "for", "try", "run", "listen",
        ];
        // A loop has `do` as well.
        let is =
            |kind: &&&str| !task[**kind].is_null() && (task["for"].is_null() || **kind == "for");
        match kinds.iter().find(is) {
            Some(&"call") => self.call(name, task, output, before),
            Some(&("wait" | "emit")) => before(output),
            Some(&"set") => is_of(name, &text(output, "by")),
            Some(&"do") => self.block(&task["do"], output, before),
            Some(&"fork") => self.fork(&task["fork"], output, before),
            Some(&"for") => self.each(task, output, before),
            Some(&"try") => {
                let caught = match &task["catch"]["do"] {
                    Value::Null => before(output),
                    tasks => self.block(tasks, output, before),
                };
                caught || self.block(&task["try"], output, before)
            }
            Some(&"run") if task["run"]["await"] == false => before(output),
            Some(&"run") => {
                let tasks = self
                    .texts
                    .0
                    .get(&name_of_workflow(&task["run"]["workflow"]));
                tasks.is_some_and(|tasks| self.block(tasks, output, before))
            }
            Some(&"listen") => {
                let heard = output.as_array();
                let tasks = &task["foreach"]["do"];
                let fits = |given: &Value| tasks.is_null() || self.block(tasks, given, &|_| true);
                heard.is_some_and(|heard| heard.iter().all(fits))
            }
            _ => false,
        }
    }

    fn fork(&self, fork: &Value, output: &Value, before: Before<'_>) -> bool {
        let branches = fork["branches"].as_array().map(Vec::as_slice);
        let branches = branches.unwrap_or_default();
        if fork["compete"] == true {
            return branches
                .iter()
                .any(|branch| self.task(branch, output, before));
        }
        let outputs = output.as_array().filter(|all| all.len() == branches.len());
        let mut pairs = outputs.into_iter().flatten().zip(branches).peekable();
        pairs.peek().is_some() && pairs.all(|(output, branch)| self.task(branch, output, before))
    }

    fn each(&self, task: &Value, output: &Value, before: Before<'_>) -> bool {
        let rounds = task["for"]["in"].as_array().map_or(0, Vec::len);
        let policy = &task["metadata"]["cofferdam"];
        if policy["maxConcurrency"].is_null() {
            return self.rounds(rounds, &task["do"], output, before);
        }
        let tolerates = !policy["toleratedFailurePercent"].is_null();
        let fits = |output: &Value| {
            (tolerates && output.is_null()) || self.block(&task["do"], output, before)
        };
        let outputs = output.as_array().filter(|all| all.len() == rounds);
        outputs.is_some_and(|all| all.iter().all(fits))
    }

    /// The same tasks so often, each time with what came of the time before.
    fn rounds(&self, left: usize, tasks: &Value, output: &Value, before: Before<'_>) -> bool {
        match left {
            0 => before(output),
            _ => self.block(tasks, output, &|value| {
                self.rounds(left - 1, tasks, value, before)
            }),
        }
    }

    fn call(&self, name: &str, task: &Value, output: &Value, before: Before<'_>) -> bool {
        let policy = &task["metadata"]["cofferdam"];
        let passed_over = policy["critical"] == false && before(output);
        let end = format!("/{name}");
        let mut reports = self.view.tasks.iter().filter(|r| r.task.ends_with(&end));
        let report = reports.next().filter(|report| report.taken_from.is_none());
        let report = report.filter(|_| reports.next().is_none());
        let Some(report) = report else {
            // Made more often, or by another run, or forgotten.
            return passed_over || is_made_up(policy, output) || self.is_answer(name, output);
        };
        let Some(way) = &report.provenance else {
            return false;
        };
        let n = output["n"].as_u64().unwrap_or_default();
        let answers = &self.shadow.answers;
        match way {
            Provenance::Live | Provenance::Backup(_) => {
                self.is_answer(name, output) && answers.live.contains(&n)
            }
            Provenance::Stale { .. } => self.is_answer(name, output) && answers.kept.contains(&n),
            Provenance::Manual => is_of(name, &text(output, "id")) && self.is_known(n),
            Provenance::Default | Provenance::Deferred => is_made_up(policy, output),
            Provenance::Skipped => passed_over,
        }
    }

    /// A delivery gives what its connection, or a person, has answered to the call that was left.
    fn delivered(&self, deferral: &Deferral, output: &Value) -> Result<(), String> {
        let n = output["n"].as_u64().unwrap_or_default();
        let mut ways = self.view.provenance.values();
        let is_so = match (ways.next(), ways.next()) {
            (Some(Provenance::Live), None) => {
                let given = self.services.given.get(&n);
                let is_its_own = given.is_some_and(|given| deferral.is_answered_by(given));
                is_its_own && self.shadow.answers.live.contains(&n)
            }
            (Some(Provenance::Manual), None) => self.is_known(n),
            _ => false,
        };
        if is_so && deferral.is_named_by(output) {
            return Ok(());
        }
        let run = &self.view.run;
        Err(format!(
            "{run} gives {output}, and is to deliver {deferral:?}"
        ))
    }

    /// A connection, or a person, has answered this call so.
    fn is_answer(&self, name: &str, output: &Value) -> bool {
        let identity = text(output, "id");
        let n = output["n"].as_u64().unwrap_or_default();
        is_of(name, &identity) && self.is_known(n)
    }

    fn is_known(&self, n: u64) -> bool {
        self.services.given.contains_key(&n) || self.services.approved.contains(&n)
    }
}

/// What takes the place of an answer.
fn is_made_up(policy: &Value, output: &Value) -> bool {
    let fallbacks = policy["fallback"].as_array().map(Vec::as_slice);
    let mut values = fallbacks.unwrap_or_default().iter().map(|f| &f["value"]);
    output["deferred"] == true || values.any(|value| !value.is_null() && value == output)
}

/// Whether this names a call of this task.
fn is_of(name: &str, identity: &str) -> bool {
    name_of(identity) == name
}
