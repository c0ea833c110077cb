//! Tasks that direct others: for, fork, switch, run; and emit.

use std::fmt::Write;
use std::sync::Arc;

use super::context::{Context, RESERVED, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields};
use super::task::Targets;
use super::tree::Data;
use crate::expr::{Expr, inside_braces};
use crate::workflow::{Case, For, Fork, Kind, Then};

impl<'n> Context<'n> {
    /// `for`, `while`, `do`.
    pub(super) fn for_each(&self, fields: &Fields<'n>, scope: &Scope) -> Option<Kind> {
        let at = fields.get("for")?;
        let settings = self.report.fields(&at, "for", &["each", "in", "at"])?;
        let each = self.variable(settings.get("each"), "item");
        let index = self.variable(settings.get("at"), "index");
        let r#in = self
            .report
            .need(&settings, "in")
            .and_then(|i| self.collection(&i, &scope.vars(Stage::Within)));
        let (each, index) = (each?, index?);
        if each == index {
            let cause = format!("`each` and `at` are both `{each}`");
            return self
                .report
                .error("CD0106", &at, cause, "give them different names");
        }
        let inner = scope.with(&[&each, &index]);
        let r#while = optional(fields.get("while"), |w| {
            self.expr(w, &inner.vars(Stage::Within))
        });
        let body = self
            .report
            .need(fields, "do")
            .and_then(|d| self.block(&d, &inner));
        let (concurrency_max, tolerated_failure_ratio) = self.for_policy(fields)?;
        Some(Kind::For(For {
            each,
            at: index,
            r#in: r#in?,
            r#while: r#while?,
            body: Arc::new(body?),
            concurrency_max,
            tolerated_failure_ratio,
        }))
    }

    /// The name of a variable, without `$`.
    pub(super) fn variable(&self, at: Option<At<'n>>, default: &str) -> Option<String> {
        let Some(at) = at else {
            return Some(default.to_owned());
        };
        let text = self.report.text(&at)?;
        let name = text.strip_prefix('$').unwrap_or(text);
        let mut chars = name.chars();
        let good = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good || name.len() > 64 || RESERVED.contains(&name) {
            let cause = format!("`{text}` cannot be the name of a variable");
            let remedy = "use letters, digits and `_`, and no name that the language has";
            return self.report.error("CD0106", &at, cause, remedy);
        }
        Some(name.to_owned())
    }

    /// An expression, or a list written out.
    fn collection(&self, at: &At<'n>, vars: &[&str]) -> Option<Expr> {
        match &at.node.data {
            Data::String(_) => self.expr(at, vars),
            Data::List(_) => {
                // Checked part by part first, for errors at the right place.
                self.template(at, vars)?;
                let mut source = String::new();
                as_jq(at, &mut source);
                Expr::compile(&source, vars).map_or_else(
                    |e| {
                        let remedy = "put a long list into the workflow's input or into a `set`";
                        self.report.error("CD0107", at, e.to_string(), remedy)
                    },
                    Some,
                )
            }
            _ => self.report.wrong_kind(at, "an expression (text) or a list"),
        }
    }

    /// `fork: {branches, compete}`.
    pub(super) fn fork(&self, at: &At<'n>, scope: &Scope) -> Option<Kind> {
        let fields = self.report.fields(at, "fork", &["branches", "compete"])?;
        let compete = optional(fields.get("compete"), |c| self.report.flag(c));
        let named = self.named_items(&self.report.need(&fields, "branches")?, "branches")?;
        let branches = named
            .iter()
            .map(|(e, t)| self.task(e, t, scope, Targets::Branch));
        let branches: Vec<_> = branches.collect();
        let branches = branches
            .into_iter()
            .map(|t| t.map(Arc::new))
            .collect::<Option<_>>()?;
        Some(Kind::Fork(Fork {
            branches,
            compete: compete?.unwrap_or(false),
        }))
    }

    /// The cases of a switch.
    pub(super) fn switch(&self, at: &At<'n>, vars: &[&str], targets: Targets<'_>) -> Option<Kind> {
        let named = self.named_items(at, "cases")?;
        let mut default: Option<usize> = None;
        let mut cases = Vec::new();
        for (entry, case) in &named {
            let Some(fields) = self.report.fields(case, "a case", &["when", "then"]) else {
                cases.push(None);
                continue;
            };
            if fields.get("when").is_none()
                && let Some(line) = default.replace(entry.spot.line)
            {
                let cause = format!("there are two default cases; the first is in line {line}");
                let remedy = "add `when` to one of them";
                self.report.error::<()>("CD0106", case, cause, remedy);
            }
            let when = optional(fields.get("when"), |w| self.expr(w, vars));
            let then: Option<Then> = self
                .report
                .need(&fields, "then")
                .and_then(|t| self.then(&t, targets));
            cases.push(when.zip(then).map(|(when, then)| Case {
                name: entry.key.clone(),
                when,
                then,
            }));
        }
        Some(Kind::Switch(cases.into_iter().collect::<Option<_>>()?))
    }

    /// `emit: {event: {with}}`.
    pub(super) fn emit(&self, at: &At<'n>, vars: &[&str]) -> Option<Kind> {
        let fields = self.report.fields(at, "emit", &["event"])?;
        let event = self.report.need(&fields, "event")?;
        let event = self.report.fields(&event, "event", &["with"])?;
        let with = self.report.need(&event, "with")?;
        if with.entries().is_none() {
            return self
                .report
                .wrong_kind(&with, "a map (the attributes of the event)");
        }
        let template = self.template(&with, vars);
        let attributes = Fields { at: with };
        self.report.need(&attributes, "type")?;
        template.map(Kind::Emit)
    }

    /// `run: {workflow}`.
    pub(super) fn run(&self, at: &At<'n>, vars: &[&str]) -> Option<Kind> {
        const KEYS: [&str; 6] = [
            "await",
            "return",
            "container",
            "script",
            "shell",
            "workflow",
        ];
        let fields = self.report.fields(at, "run", &KEYS)?;
        for word in ["container", "script", "shell"] {
            if let Some(at) = fields.get(word) {
                return self.report.error(
                    "CD0114",
                    &at,
                    format!("`run: {word}` is not supported: a workflow runs nothing on the host"),
                    "put the code into a plugin and call its action",
                );
            }
        }
        let awaits = match fields.get("await") {
            Some(at) => self.report.flag(&at)?,
            None => true,
        };
        if let Some(at) = fields.get("return") {
            let remedy = "remove it; the output of the other workflow is the task's output";
            let cause = "`return` belongs to processes, which are not supported";
            return self.report.error("CD0114", &at, cause, remedy);
        }
        self.subflow(&self.report.need(&fields, "workflow")?, vars, !awaits)
    }
}

/// A list as jq: JSON is jq, and an expression in it stands in parentheses.
fn as_jq(at: &At<'_>, out: &mut String) {
    if let Some(items) = at.items() {
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            as_jq(item, out);
        }
        out.push(']');
    } else if let Some(entries) = at.entries() {
        out.push('{');
        for (i, (entry, value)) in entries.iter().enumerate() {
            out.push_str(if i > 0 { ", " } else { "" });
            // Writing to a string cannot fail.
            let _ = write!(out, "{}: (", serde_json::Value::from(entry.key.as_str()));
            as_jq(value, out);
            out.push(')');
        }
        out.push('}');
    } else if let Some(source) = at.text().and_then(inside_braces) {
        let _ = write!(out, "first(({source}), null)");
    } else {
        let _ = write!(out, "{}", at.node.to_value());
    }
}
