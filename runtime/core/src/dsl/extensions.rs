//! `use.extensions`: tasks before and after those that they extend.
//!
//! An extended task becomes a `do` with what comes before it, itself, and what comes after it, made
//! of nothing but tasks of the language, so that a run knows nothing of extensions:
//!
//! - The task gets its own input, whatever the tasks before it make; its output stays its own,
//!   whatever the tasks after it make.
//! - `then: exit` of a task before it leaves all of it: its output is the task's.
//! - `if` and `then` of the task go to the `do`; all else stays with the task.
//! - In an extension `$task` is what is known of the extended task when the text is compiled.

use std::sync::Arc;

use serde_json::{Value, json};

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Report};
use super::task::plain;
use crate::expr::{Expr, Template};
use crate::workflow::{Block, Case, Kind, Output, Task, Then};

const EXTENDS: [&str; 12] = [
    "call",
    "composite",
    "emit",
    "for",
    "listen",
    "raise",
    "run",
    "set",
    "switch",
    "try",
    "wait",
    "all",
];
/// No workflow has more extensions: each wraps every task that it extends.
const EXTENSIONS_MAX: usize = 16;

/// One extension.
#[derive(Debug, Clone)]
pub(super) struct Extension<'n> {
    name: String,
    at: At<'n>,
    extend: &'n str,
}

/// `use.extensions`.
pub(super) fn extensions<'n>(report: &Report, at: Option<At<'n>>) -> Vec<Extension<'n>> {
    let Some(at) = at else { return Vec::new() };
    let Some(items) = at.items() else {
        report.wrong_kind::<()>(&at, "a list of extensions, each `- name: …`");
        return Vec::new();
    };
    if items.len() > EXTENSIONS_MAX {
        let cause = format!(
            "there are {} extensions; {EXTENSIONS_MAX} are allowed",
            items.len()
        );
        report.error::<()>("CD0106", &at, cause, "remove some");
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| extension(report, item))
        .collect()
}

fn extension<'n>(report: &Report, item: &At<'n>) -> Option<Extension<'n>> {
    let entries = item.entries().unwrap_or_default();
    let [(entry, at)] = entries.as_slice() else {
        return report.wrong_kind(item, "a map with one name");
    };
    let fields = report.fields(at, "an extension", &["extend", "when", "before", "after"])?;
    let extend = report.need(&fields, "extend")?;
    let word = report.text(&extend)?;
    if !EXTENDS.contains(&word) {
        let cause = format!("there is no task `{word}` to extend");
        let remedy = super::report::suggest(word, EXTENDS.into_iter());
        return report.error("CD0106", &extend, cause, remedy);
    }
    if word == "switch" {
        let cause = "a `switch` cannot be extended: it chooses the way among the tasks beside it";
        let remedy = "extend the tasks that it leads to";
        return report.error("CD0152", &extend, cause, remedy);
    }
    if fields
        .get("before")
        .or_else(|| fields.get("after"))
        .is_none()
    {
        let cause = "this extension does nothing";
        return report.error("CD0152", at, cause, "add `before` or `after`");
    }
    Some(Extension {
        name: entry.key.clone(),
        at: at.clone(),
        extend: word,
    })
}

impl Extension<'_> {
    fn extends(&self, word: &str) -> bool {
        match self.extend {
            "all" => word != "switch",
            "composite" => word == "do",
            own => own == word,
        }
    }
}

/// The parts of an extension, compiled for one task.
struct Parts {
    when: Option<Expr>,
    before: Option<Block>,
    after: Option<Block>,
}

impl<'n> Context<'n> {
    /// A task with the extensions around it that extend it; the first is outermost.
    pub(super) fn extended(
        &self,
        mut task: Task,
        word: &str,
        at: &At<'n>,
        scope: &Scope,
    ) -> Option<Task> {
        if self.in_extension.get() {
            return Some(task);
        }
        let definition = at.node.to_value();
        for extension in self.extensions.iter().rev().filter(|e| e.extends(word)) {
            let known = known(&task, &definition);
            let parts = self.parts(extension, &known, scope)?;
            task = wrap(task, &extension.name, parts);
        }
        Some(task)
    }

    /// Looks at an extension, also if it extends nothing.
    pub(super) fn check_extension(&self, extension: &Extension<'n>, scope: &Scope) {
        self.parts(extension, &json!({}), scope);
    }

    fn parts(&self, extension: &Extension<'n>, known: &Value, scope: &Scope) -> Option<Parts> {
        self.in_extension.set(true);
        let get = |key: &str| extension.at.node.entry(key).map(|e| extension.at.child(e));
        let parts = self.with_constant("task", known, || {
            let when = optional(get("when"), |at| self.condition(at, scope));
            let before = optional(get("before"), |at| self.block(at, scope));
            let after = optional(get("after"), |at| self.block(at, scope));
            Some(Parts {
                when: when?,
                before: before?,
                after: after?,
            })
        });
        self.in_extension.set(false);
        parts
    }

    /// `when`: what cannot be asked of a task does not hold for it. A condition is written with one
    /// form of task in mind (`.endpoint | startswith(…)`), and must not break the others.
    fn condition(&self, at: &At<'n>, scope: &Scope) -> Option<Expr> {
        let vars = scope.vars(Stage::Before);
        let expr = self.expr(at, &vars)?;
        let careful = format!("try ({}) catch false", expr.source());
        Expr::compile(&careful, &vars).ok()
    }
}

/// `$task` of an extension: the definition, with the name, the reference and itself in it.
fn known(task: &Task, definition: &Value) -> Value {
    let mut known = definition.clone();
    if let Value::Object(map) = &mut known {
        map.insert("name".to_owned(), task.name.as_str().into());
        map.insert("reference".to_owned(), task.reference.as_str().into());
        map.insert("definition".to_owned(), definition.clone());
    }
    known
}

/// Whether a task before the extended one may leave all of it.
fn exits(block: &Block) -> bool {
    block.tasks.iter().any(|task| {
        task.then == Then::Exit
            || match &task.kind {
                Kind::Switch(cases) => cases.iter().any(|case| case.then == Then::Exit),
                Kind::Try(attempt) => attempt.catch.then == Some(Then::Exit),
                _ => false,
            }
    })
}

/// Builds the tasks around one task. Names begin with `~`, so that none is one of its own.
struct Wrapping {
    reference: String,
    line: usize,
    tasks: Vec<Task>,
}

impl Wrapping {
    fn push(&mut self, name: &str, kind: Kind) -> &mut Task {
        let index = self.tasks.len();
        self.tasks
            .push(plain(name, &self.reference, self.line, kind));
        &mut self.tasks[index]
    }

    /// Goes on only if the extension applies. Which task follows if it does not is set later.
    fn when(&mut self, name: &str, when: Option<&Expr>) -> Option<usize> {
        let holds = Case {
            name: "applies".to_owned(),
            when: Some(when?.clone()),
            then: Then::Continue,
        };
        self.push(name, Kind::Switch(vec![holds]));
        Some(self.tasks.len() - 1)
    }

    /// What a task of [`Wrapping::when`] leads to if the extension does not apply.
    fn otherwise(&mut self, at: Option<usize>, then: Then) {
        let Some(task) = at.and_then(|at| self.tasks.get_mut(at)) else {
            return;
        };
        if let Kind::Switch(cases) = &mut task.kind {
            cases.push(Case {
                name: "passes".to_owned(),
                when: None,
                then,
            });
        }
    }
}

fn expr(source: &str) -> Option<Expr> {
    Expr::compile(source, &["input"]).ok()
}

fn shaped(source: &str) -> Output {
    Output {
        r#as: expr(source).map(Template::Expr),
        schema: None,
    }
}

fn wrap(mut task: Task, extension: &str, parts: Parts) -> Task {
    let (condition, then) = (task.condition.take(), task.then);
    task.then = Then::Continue;
    let (name, reference, line) = (task.name.clone(), task.reference.clone(), task.line);
    let mut wrapping = Wrapping {
        reference: reference.clone(),
        line,
        tasks: Vec::new(),
    };
    let mut leave = None;
    if let Some(before) = parts.before {
        let asked = wrapping.when(&format!("~{extension}.when"), parts.when.as_ref());
        leave = run_before(&mut wrapping, extension, before);
        let next = wrapping.tasks.len();
        wrapping.otherwise(asked, Then::Goto(next));
    }
    wrapping.tasks.push(task);
    if let Some(after) = parts.after {
        let asked = wrapping.when(&format!("~{extension}.when.after"), parts.when.as_ref());
        wrapping.otherwise(asked, Then::Exit);
        let done = wrapping.push(&format!("~{extension}.after"), Kind::Do(Arc::new(after)));
        done.output = shaped("$input");
    }
    if let Some(way_out) = leave {
        let last = wrapping.tasks.len() - 1;
        wrapping.tasks[last].then = Then::Exit;
        let index = wrapping.tasks.len();
        let kind = expr(".[\"~exit\"]").map(|e| Kind::Set(Template::Expr(e)));
        if let Some(kind) = kind {
            wrapping.push(&format!("~{extension}.exit"), kind);
        }
        wrapping.otherwise(Some(way_out), Then::Goto(index));
    }
    let tasks = wrapping.tasks.into_iter().map(Arc::new).collect();
    let mut whole = plain(&name, &reference, line, Kind::Do(Arc::new(Block { tasks })));
    whole.condition = condition;
    whole.then = then;
    whole
}

/// The tasks before; the place of the switch that leads out, if they may leave all of it.
fn run_before(wrapping: &mut Wrapping, extension: &str, mut before: Block) -> Option<usize> {
    let name = format!("~{extension}.before");
    if !exits(&before) {
        let done = wrapping.push(&name, Kind::Do(Arc::new(before)));
        done.output = shaped("$input");
        return None;
    }
    // Who comes to the end leaves a mark; who exits leaves an output. Both are put into an object,
    // so that no output can be taken for the mark.
    let mark = Template::Literal(json!({"~": "end"}));
    let end = plain("~end", &wrapping.reference, wrapping.line, Kind::Set(mark));
    before.tasks.push(Arc::new(end));
    let done = wrapping.push(&name, Kind::Do(Arc::new(before)));
    done.output = shaped("if . == {\"~\": \"end\"} then {\"~go\": $input} else {\"~exit\": .} end");
    let goes_on = expr("has(\"~go\")");
    let way_out = wrapping.when(&format!("~{extension}.way"), goes_on.as_ref());
    if let Some(go) = expr(".[\"~go\"]") {
        wrapping.push(&format!("~{extension}.go"), Kind::Set(Template::Expr(go)));
    }
    way_out
}
