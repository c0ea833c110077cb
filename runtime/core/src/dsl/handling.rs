//! Tasks about errors: try and raise.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields};
use super::task::Targets;
use crate::expr::Template;
use crate::workflow::{Catch, ErrorSpec, Kind, Retry, Try};

/// The attributes of an error.
const ATTRIBUTES: [&str; 5] = ["type", "status", "instance", "title", "detail"];

impl<'n> Context<'n> {
    /// `try` and `catch`.
    pub(super) fn attempt(
        &self,
        fields: &Fields<'n>,
        scope: &Scope,
        targets: Targets<'_>,
    ) -> Option<Kind> {
        let body = fields.get("try").and_then(|t| self.block(&t, scope));
        let catch = self
            .report
            .need(fields, "catch")
            .and_then(|c| self.catch(&c, scope, targets));
        Some(Kind::Try(Try {
            body: Arc::new(body?),
            catch: catch?,
        }))
    }

    fn catch(&self, at: &At<'n>, scope: &Scope, targets: Targets<'_>) -> Option<Catch> {
        const KEYS: [&str; 7] = ["errors", "as", "when", "exceptWhen", "retry", "do", "then"];
        let fields = self.report.fields(at, "catch", &KEYS)?;
        let then = optional(fields.get("then"), |t| self.then(t, targets));
        let errors = match fields.get("errors") {
            None => Some(IndexMap::new()),
            Some(at) => self.filter(&at),
        };
        let r#as = self.variable(fields.get("as"), "error")?;
        let inner = scope.with(&[&r#as]);
        let vars = inner.vars(Stage::Within);
        let when = optional(fields.get("when"), |w| self.expr(w, &vars));
        let except_when = optional(fields.get("exceptWhen"), |w| self.expr(w, &vars));
        let retry = optional(fields.get("retry"), |r| self.retry(r, &inner));
        let body = optional(fields.get("do"), |d| self.block(d, &inner));
        Some(Catch {
            errors: errors?,
            r#as,
            when: when?,
            except_when: except_when?,
            retry: retry?,
            body: body?.map(Arc::new),
            then: then?,
        })
    }

    /// `errors: {with: {…}}`: constants only.
    fn filter(&self, at: &At<'n>) -> Option<IndexMap<String, Value>> {
        let fields = self.report.fields(at, "errors", &["with"])?;
        let Some(with) = fields.get("with") else {
            return Some(IndexMap::new());
        };
        self.report.fields(&with, "an error filter", &ATTRIBUTES)?;
        let mut filter = IndexMap::new();
        for (entry, value) in with.entries()? {
            self.report.constant(&value)?;
            if entry.key == "status" {
                self.report.count(&value, 100, 599)?;
            } else {
                self.report.text(&value)?;
            }
            filter.insert(entry.key.clone(), value.node.to_value());
        }
        Some(filter)
    }

    /// A retry policy, inline or by name.
    fn retry(&self, at: &At<'n>, scope: &Scope) -> Option<Retry> {
        match at.text() {
            Some(name) => {
                let found = self.named("retries", self.retries.as_ref(), at, name)?;
                self.retry_definition(&found, scope)
            }
            None => self.retry_definition(at, scope),
        }
    }

    /// `raise: {error}`, inline or by name.
    pub(super) fn raise(&self, at: &At<'n>, vars: &[&str]) -> Option<Kind> {
        let fields = self.report.fields(at, "raise", &["error"])?;
        let error = self.report.need(&fields, "error")?;
        let definition = match error.text() {
            Some(name) => self.named("errors", self.errors.as_ref(), &error, name)?,
            None => error,
        };
        self.error_definition(&definition, vars).map(Kind::Raise)
    }

    /// `{type, status, title, detail, instance}`.
    pub(super) fn error_definition(&self, at: &At<'n>, vars: &[&str]) -> Option<ErrorSpec> {
        let fields = self.report.fields(at, "an error", &ATTRIBUTES)?;
        let mut entries = IndexMap::new();
        let mut good = true;
        for required in ["type", "status"] {
            good &= self.report.need(&fields, required).is_some();
        }
        for (entry, value) in at.entries()? {
            let Some(template) = self.template(&value, vars) else {
                good = false;
                continue;
            };
            if template.as_literal().is_some() {
                good &= match entry.key.as_str() {
                    "status" => self.report.count(&value, 100, 599).is_some(),
                    _ => self.report.text(&value).is_some(),
                };
            }
            entries.insert(entry.key.clone(), template);
        }
        good.then(|| ErrorSpec {
            template: Template::object(entries),
        })
    }
}
