//! `listen`: which events are taken, what is done with each, and what ends it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields};
use super::tree::Data;
use crate::cloud_event;
use crate::expr::{Expr, Template, inside_braces};
use crate::workflow::{
    Correlation, Filter, Kind, Listen, ListenEach, Match, Read, Strategy, Until,
};

/// No strategy has more filters: each is a row for every run that waits.
const FILTERS_MAX: usize = 64;

impl<'n> Context<'n> {
    /// `listen` and `foreach`.
    pub(super) fn listen(&self, fields: &Fields<'n>, scope: &Scope) -> Option<Kind> {
        let at = fields.get("listen")?;
        let settings = self.report.fields(&at, "listen", &["to", "read"])?;
        let vars = scope.vars(Stage::Within);
        let to = self
            .report
            .need(&settings, "to")
            .and_then(|to| self.strategy(&to, &vars));
        let read = self.read(settings.get("read"));
        let foreach = optional(fields.get("foreach"), |f| self.listen_each(f, scope));
        Some(Kind::Listen(Box::new(Listen {
            to: to?,
            read: read?,
            foreach: foreach?,
        })))
    }

    /// `data`, `envelope` or `raw`.
    pub(super) fn read(&self, at: Option<At<'n>>) -> Option<Read> {
        let Some(at) = at else {
            return Some(Read::default());
        };
        match self.report.text(&at)? {
            "data" => Some(Read::Data),
            "envelope" => Some(Read::Envelope),
            "raw" => Some(Read::Raw),
            other => {
                let cause = format!("`{other}` is no way to read an event");
                let remedy = "write data, envelope or raw";
                self.report.error("CD0106", &at, cause, remedy)
            }
        }
    }

    fn listen_each(&self, at: &At<'n>, scope: &Scope) -> Option<ListenEach> {
        const KEYS: [&str; 5] = ["item", "at", "do", "output", "export"];
        let fields = self.report.fields(at, "foreach", &KEYS)?;
        let item = self.variable(fields.get("item"), "item")?;
        let index = self.variable(fields.get("at"), "index")?;
        if item == index {
            let cause = format!("`item` and `at` are both `{item}`");
            let remedy = "give them different names";
            return self.report.error("CD0106", at, cause, remedy);
        }
        let inner = scope.with(&[&item, &index]);
        let body = optional(fields.get("do"), |d| self.block(d, &inner));
        let output = self.output(fields.get("output"), &inner.vars(Stage::Output));
        let export = self.export(fields.get("export"), &inner.vars(Stage::Export));
        Some(ListenEach {
            item,
            at: index,
            body: body?.map(Arc::new),
            output: output?,
            export: export?,
        })
    }

    /// `one`, `all` or `any`, and `until`.
    pub(super) fn strategy(&self, at: &At<'n>, vars: &[&str]) -> Option<Strategy> {
        let fields =
            self.report
                .fields(at, "what is listened to", &["one", "all", "any", "until"])?;
        let found: Vec<_> = ["one", "all", "any"]
            .into_iter()
            .filter_map(|word| Some((word, fields.get(word)?)))
            .collect();
        let [(word, inner)] = found.as_slice() else {
            let cause = "this has to say `one`, `all` or `any`, and only one of them";
            let remedy = "write `one: {with: {type: …}}`, or a list under `all` or `any`";
            return self.report.error("CD0134", at, cause, remedy);
        };
        if let Some(until) = fields.get("until").filter(|_| *word != "any") {
            let cause = format!("`until` belongs to `any`; `{word}` knows when it has enough");
            let remedy = "remove it, or write `any`";
            return self.report.error("CD0134", &until, cause, remedy);
        }
        match *word {
            "one" => self.filter_of_events(inner, vars).map(Strategy::One),
            "all" => self.filters(inner, vars, 1).map(Strategy::All),
            _ => {
                let filters = self.filters(inner, vars, 0);
                let until = match fields.get("until") {
                    None => Some(Until::First),
                    Some(until) => self.until(&until, vars),
                };
                Some(Strategy::Any {
                    filters: filters?,
                    until: until?,
                })
            }
        }
    }

    fn filters(&self, at: &At<'n>, vars: &[&str], min: usize) -> Option<Vec<Filter>> {
        let Some(items) = at.items() else {
            return self.report.wrong_kind(at, "a list of filters");
        };
        if !(min..=FILTERS_MAX).contains(&items.len()) {
            let cause = format!("there are {} filters here", items.len());
            let remedy = format!("write {min} to {FILTERS_MAX} of them");
            return self.report.error("CD0134", at, cause, remedy);
        }
        // Collected first, so that every filter is looked at.
        let all: Vec<_> = items
            .iter()
            .map(|item| self.filter_of_events(item, vars))
            .collect();
        all.into_iter().collect()
    }

    fn until(&self, at: &At<'n>, vars: &[&str]) -> Option<Until> {
        if at.entries().is_some() {
            let strategy = self.strategy(at, vars)?;
            if let Strategy::Any {
                until: Until::Holds(_) | Until::Consumed(_) | Until::Never,
                ..
            } = strategy
            {
                let fields = self.report.fields(at, "until", &["any", "until"])?;
                // `until: false` is how the language says that there is none.
                if !matches!(fields.get("until")?.node.data, Data::Bool(false)) {
                    let cause = "what ends a `listen` cannot itself have an `until`";
                    let remedy = "remove it: the first event that fits ends the task";
                    return self.report.error("CD0134", at, cause, remedy);
                }
                let Strategy::Any { filters, .. } = strategy else {
                    return None;
                };
                let until = Until::First;
                return Some(Until::Consumed(Box::new(Strategy::Any { filters, until })));
            }
            return Some(Until::Consumed(Box::new(strategy)));
        }
        let expr = self.expr(at, vars)?;
        Some(match expr.source() {
            "false" => Until::Never,
            _ => Until::Holds(expr),
        })
    }

    /// `{with, correlate}`.
    fn filter_of_events(&self, at: &At<'n>, vars: &[&str]) -> Option<Filter> {
        let fields = self
            .report
            .fields(at, "an event filter", &["with", "correlate"])?;
        let with = self
            .report
            .need(&fields, "with")
            .and_then(|with| self.with(&with, vars));
        let correlate = match fields.get("correlate") {
            None => Some(IndexMap::new()),
            Some(at) => self.correlate(&at, vars),
        };
        Some(Filter {
            with: with?,
            correlate: correlate?,
        })
    }

    fn with(&self, at: &At<'n>, vars: &[&str]) -> Option<IndexMap<String, Match>> {
        let Some(entries) = at.entries() else {
            return self.report.wrong_kind(at, "a map of attributes");
        };
        if entries.is_empty() {
            let remedy = "name an attribute, such as `type`; `any: []` takes every event";
            return self
                .report
                .error("CD0135", at, "this filter asks for nothing", remedy);
        }
        let mut with = IndexMap::new();
        let mut good = true;
        for (entry, value) in entries {
            if !cloud_event::is_name(&entry.key) && entry.key != "data_base64" {
                let cause = format!("`{}` cannot be the name of an attribute", entry.key);
                let remedy = "attributes have lower-case letters and digits only; what is in the \
                              payload goes under `data`";
                self.report.key_error("CD0135", at, entry, cause, remedy);
                good = false;
                continue;
            }
            match self.match_of(&value, vars) {
                Some(wanted) => {
                    with.insert(entry.key.clone(), wanted);
                }
                None => good = false,
            }
        }
        good.then_some(with)
    }

    fn match_of(&self, at: &At<'n>, vars: &[&str]) -> Option<Match> {
        let template = self.template(at, vars)?;
        match (&template, &at.node.data) {
            (Template::Literal(value), _) => Some(Match::Is(value.clone())),
            (Template::Expr(expr), _) => Some(Match::Holds(expr.clone())),
            (_, Data::Map(_)) => {
                let members = at.entries()?.into_iter();
                let members: Vec<_> = members
                    .map(|(e, v)| Some((e.key.clone(), self.match_of(&v, vars)?)))
                    .collect();
                let members: Option<_> = members.into_iter().collect();
                members.map(Match::Members)
            }
            _ => self.report.error(
                "CD0135",
                at,
                "a list with expressions in it is no filter",
                "compare it in one expression: ${ . == [ … ] }",
            ),
        }
    }

    fn correlate(&self, at: &At<'n>, vars: &[&str]) -> Option<IndexMap<String, Correlation>> {
        let Some(entries) = at.entries() else {
            return self.report.wrong_kind(at, "a map of correlations");
        };
        let all: Vec<_> = entries
            .into_iter()
            .map(|(entry, value)| {
                let fields = self
                    .report
                    .fields(&value, "a correlation", &["from", "expect"])?;
                let from = self.report.need(&fields, "from")?;
                let from: Expr = self.expr(&from, vars)?;
                let expect = optional(fields.get("expect"), |e| match e.text() {
                    Some(text) if inside_braces(text).is_none() => {
                        Some(Template::Literal(text.into()))
                    }
                    _ => self.template(e, vars),
                });
                let expect = expect?;
                Some((entry.key.clone(), Correlation { from, expect }))
            })
            .collect();
        all.into_iter().collect()
    }
}
