//! Tasks and lists of tasks.

use std::sync::Arc;

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields, suggest};
use super::tree::Entry;
use crate::workflow::{Block, Export, Input, Kind, Output, Task, Then};

/// Keys that every task may have.
const COMMON: [&str; 7] = [
    "if", "input", "output", "export", "timeout", "then", "metadata",
];

/// The words that say what a task does, with the keys that go with each.
const WORDS: [(&str, &[&str]); 12] = [
    ("call", &["call", "with"]),
    ("do", &["do"]),
    ("emit", &["emit"]),
    ("for", &["for", "while", "do"]),
    ("fork", &["fork"]),
    ("listen", &["listen", "foreach"]),
    ("raise", &["raise"]),
    ("run", &["run"]),
    ("set", &["set"]),
    ("switch", &["switch"]),
    ("try", &["try", "catch"]),
    ("wait", &["wait"]),
];

/// What a task may be followed by.
#[derive(Clone, Copy)]
pub(super) enum Targets<'t> {
    /// The tasks of its block, by name.
    Names(&'t [&'t str]),
    /// None: it is a branch of a fork.
    Branch,
}

/// A task that does this and nothing more.
pub(super) fn plain(name: &str, reference: &str, line: usize, kind: Kind) -> Task {
    Task {
        name: name.to_owned(),
        reference: reference.to_owned(),
        line,
        condition: None,
        input: Input::default(),
        output: Output::default(),
        export: Export::default(),
        timeout: None,
        then: Then::Continue,
        kind,
    }
}

impl<'n> Context<'n> {
    /// A list of tasks that run one after the other.
    pub(super) fn block(&self, at: &At<'n>, scope: &Scope) -> Option<Block> {
        let entries = self.named_items(at, "tasks")?;
        let names: Vec<&str> = entries.iter().map(|(e, _)| e.key.as_str()).collect();
        let targets = Targets::Names(&names);
        // Collected first, so that every task is looked at.
        let all: Vec<_> = entries
            .iter()
            .map(|(e, t)| self.task(e, t, scope, targets))
            .collect();
        let tasks = all
            .into_iter()
            .map(|t| t.map(Arc::new))
            .collect::<Option<_>>()?;
        Some(Block { tasks })
    }

    /// The items of a list of maps with one entry each, their names all different.
    pub(super) fn named_items(&self, at: &At<'n>, what: &str) -> Option<Vec<(&'n Entry, At<'n>)>> {
        let Some(items) = at.items() else {
            return self
                .report
                .wrong_kind(at, &format!("a list of {what}, each `- name: …`"));
        };
        if items.is_empty() {
            let cause = format!("there are no {what} here");
            return self.report.error("CD0104", at, cause, "add at least one");
        }
        let mut named: Vec<(&Entry, At<'n>)> = Vec::new();
        let mut good = true;
        for item in &items {
            match item.entries().as_deref() {
                Some([(entry, value)]) => {
                    good &= self.check_name(item, entry, &named);
                    named.push((*entry, value.clone()));
                }
                Some(entries) => {
                    let cause = format!(
                        "each item has one name; this one has {}: {}",
                        entries.len(),
                        entries
                            .iter()
                            .map(|(e, _)| e.key.as_str())
                            .collect::<Vec<_>>()
                            .join(", ")
                    );
                    let remedy = "begin each with `- name:` and indent what belongs to it further";
                    self.report.error::<()>("CD0113", item, cause, remedy);
                    good = false;
                }
                None => {
                    self.report.wrong_kind::<()>(item, "a map with one name");
                    good = false;
                }
            }
        }
        // With a name missing, `then` could not be checked; but the tasks themselves can.
        if good || !named.is_empty() {
            Some(named)
        } else {
            None
        }
    }

    fn check_name(&self, item: &At<'n>, entry: &Entry, before: &[(&Entry, At<'n>)]) -> bool {
        if let Some((first, _)) = before.iter().find(|(e, _)| e.key == entry.key) {
            let cause = format!(
                "the name `{}` is taken; the first is in line {}",
                entry.key, first.spot.line
            );
            self.report
                .key_error("CD0112", item, entry, cause, "give it another name");
            return false;
        }
        let bad = entry.key.is_empty()
            || entry.key.len() > 128
            || entry.key.contains(char::is_control)
            || ["continue", "exit", "end"].contains(&entry.key.as_str());
        if bad {
            let cause = format!("`{}` cannot be a name", entry.key);
            let remedy = "use 1 to 128 characters, and none of continue, exit, end";
            self.report.key_error("CD0106", item, entry, cause, remedy);
        }
        !bad
    }

    /// One task.
    pub(super) fn task(
        &self,
        entry: &Entry,
        at: &At<'n>,
        scope: &Scope,
        targets: Targets<'_>,
    ) -> Option<Task> {
        let (word, fields) = self.word(at)?;
        let before = scope.vars(Stage::Before);
        let condition = optional(fields.get("if"), |c| self.expr(c, &before));
        let input = self.input(fields.get("input"), &scope.vars(Stage::From));
        let (output, export, kind) = match self.authorization(word, &fields) {
            None => self.what(word, &fields, scope, targets),
            Some(known) => self.with_constant("authorization", &known, || {
                self.what(word, &fields, scope, targets)
            }),
        };
        let timeout = self.timeout(fields.get("timeout"), &scope.vars(Stage::Within));
        let then = match fields.get("then") {
            None => Some(Then::Continue),
            Some(at) => self.then(&at, targets),
        };
        self.check_metadata(word, &fields);
        let task = Task {
            name: entry.key.clone(),
            reference: at.pointer.clone(),
            line: entry.spot.line,
            condition: condition?,
            input: input?,
            output: output?,
            export: export?,
            timeout: timeout?,
            then: then?,
            kind: kind?,
        };
        self.extended(task, word, at, scope)
    }

    /// What a task does and what becomes of its output.
    fn what(
        &self,
        word: &str,
        fields: &Fields<'n>,
        scope: &Scope,
        targets: Targets<'_>,
    ) -> (Option<Output>, Option<Export>, Option<Kind>) {
        let output = self.output(fields.get("output"), &scope.vars(Stage::Output));
        let export = self.export(fields.get("export"), &scope.vars(Stage::Export));
        (output, export, self.kind(word, fields, scope, targets))
    }

    /// What a task does, and its fields.
    fn word(&self, at: &At<'n>) -> Option<(&'static str, Fields<'n>)> {
        let Some(entries) = at.entries() else {
            return self.report.wrong_kind(at, "a map (a task)");
        };
        let has = |key: &str| entries.iter().any(|(e, _)| e.key == key);
        let found: Vec<_> = WORDS
            .iter()
            .filter(|(word, _)| has(word) && !(*word == "do" && has("for")))
            .collect();
        match found.as_slice() {
            [(word, keys)] => {
                let known: Vec<&str> = COMMON.iter().chain(*keys).copied().collect();
                let fields = self
                    .report
                    .fields(at, &format!("a `{word}` task"), &known)?;
                Some((word, fields))
            }
            [] => {
                let words = || WORDS.iter().map(|(w, _)| *w);
                let odd = entries
                    .iter()
                    .find(|(e, _)| !COMMON.contains(&e.key.as_str()));
                if let Some((entry, _)) = odd {
                    let cause = format!("there is no task `{}`", entry.key);
                    let remedy = suggest(&entry.key, words());
                    self.report.key_error("CD0113", at, entry, cause, remedy);
                    return None;
                }
                let remedy = format!("add one of {}", words().collect::<Vec<_>>().join(", "));
                self.report
                    .error("CD0113", at, "this task does nothing", remedy)
            }
            more => {
                let words: Vec<_> = more.iter().map(|(w, _)| *w).collect();
                let cause = format!("a task does one thing; this one has {}", words.join(", "));
                self.report
                    .error("CD0113", at, cause, "make a task of each")
            }
        }
    }

    fn kind(
        &self,
        word: &str,
        fields: &Fields<'n>,
        scope: &Scope,
        targets: Targets<'_>,
    ) -> Option<Kind> {
        let within = scope.vars(Stage::Within);
        match word {
            "call" => self.call(fields, scope),
            "do" => self
                .block(&fields.get("do")?, scope)
                .map(|b| Kind::Do(Arc::new(b))),
            "emit" => self.emit(&fields.get("emit")?, &within),
            "for" => self.for_each(fields, scope),
            "fork" => self.fork(&fields.get("fork")?, scope),
            "raise" => self.raise(&fields.get("raise")?, &within),
            "run" => self.run(&fields.get("run")?, &within),
            "set" => self.set(&fields.get("set")?, &within),
            "switch" => self.switch(&fields.get("switch")?, &within, targets),
            "try" => self.attempt(fields, scope, targets),
            "wait" => self.duration(&fields.get("wait")?, &within).map(Kind::Wait),
            _ => self.report.error(
                "CD0116",
                &fields.get("listen")?,
                "`listen` is not supported: a run does not wait for events",
                "start a run per event from outside, with the event as its input",
            ),
        }
    }

    fn set(&self, at: &At<'n>, vars: &[&str]) -> Option<Kind> {
        if at.entries().is_some_and(|e| e.is_empty()) {
            return self
                .report
                .error("CD0104", at, "`set` sets nothing", "add what to set");
        }
        self.shape(at, vars).map(Kind::Set)
    }

    /// A flow directive.
    pub(super) fn then(&self, at: &At<'n>, targets: Targets<'_>) -> Option<Then> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        match (text, targets) {
            ("continue", _) => Some(Then::Continue),
            ("exit", _) => Some(Then::Exit),
            ("end", _) => Some(Then::End),
            (name, Targets::Names(names)) => names
                .iter()
                .position(|n| *n == name)
                .map(Then::Goto)
                .or_else(|| {
                    let known = names.iter().copied().chain(["continue", "exit", "end"]);
                    let cause = format!("there is no task `{name}` beside this one");
                    self.report.error("CD0111", at, cause, suggest(name, known))
                }),
            (name, Targets::Branch) => self.report.error(
                "CD0111",
                at,
                format!("a branch cannot go on with `{name}`: branches run side by side"),
                "use continue, exit or end; or put a `do` with several tasks into the branch",
            ),
        }
    }
}
