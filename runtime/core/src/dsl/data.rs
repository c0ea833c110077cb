//! Expressions, templates, schemas and durations.

use indexmap::IndexMap;

use super::context::Context;
use super::report::At;
use super::tree::Data;
use crate::expr::{Error as ExprError, Expr, Template, UriTemplate, inside_braces};
use crate::schema::Schema;
use crate::workflow::{DurationSpec, Export, Input, Output};

/// No duration is longer, in milliseconds: ten years.
const DURATION_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

impl<'n> Context<'n> {
    pub(super) fn bad_expression<T>(&self, at: &At<'_>, error: &ExprError) -> Option<T> {
        let remedy = match error {
            ExprError::Unknown { what, .. } if what.contains("$secret") => {
                let remedy = "name it in `input.from` or in the `with` of a call: only what a call \
                              sends has the secret put in the place of its placeholder";
                let cause = "a secret cannot be used here";
                return self.report.error("CD0150", at, cause, remedy);
            }
            ExprError::Unknown { .. } => "use what is in scope here; see docs/workflows.md",
            _ => "write a jq expression, in the form `${ … }`",
        };
        self.report.error("CD0107", at, error.to_string(), remedy)
    }

    /// An expression, with or without `${ }`.
    pub(super) fn expr(&self, at: &At<'_>, vars: &[&str]) -> Option<Expr> {
        if let Data::Bool(b) = at.node.data {
            return Expr::compile(if b { "true" } else { "false" }, &[]).ok();
        }
        let text = self.report.text(at)?;
        let source = inside_braces(text).unwrap_or(text);
        let whole = self.with_constants(source);
        match Expr::compile(&whole, vars) {
            Ok(expr) => self.known_secrets(at, source).map(|()| expr),
            Err(error) => self.bad_expression(at, &error),
        }
    }

    /// Data in which whole strings `${ … }` are expressions.
    pub(super) fn template(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        match &at.node.data {
            Data::String(text) if inside_braces(text).is_some() => {
                self.expr(at, vars).map(Template::Expr)
            }
            Data::List(_) => {
                let items: Vec<_> = at.items()?.iter().map(|i| self.template(i, vars)).collect();
                Some(Template::array(items.into_iter().collect::<Option<_>>()?))
            }
            Data::Map(_) => {
                let entries = at.entries()?.into_iter();
                // Collected first, so that every entry is looked at.
                let entries: Vec<_> = entries
                    .map(|(e, v)| Some((e.key.clone(), self.template(&v, vars)?)))
                    .collect();
                let entries: Option<IndexMap<_, _>> = entries.into_iter().collect();
                Some(Template::object(entries?))
            }
            _ => Some(Template::Literal(at.node.to_value())),
        }
    }

    /// Where the language wants an expression or an object: a string is always an expression.
    pub(super) fn shape(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        match &at.node.data {
            Data::String(_) => self.expr(at, vars).map(Template::Expr),
            Data::Map(_) | Data::List(_) => self.template(at, vars),
            _ => self.report.wrong_kind(at, "an expression (text) or a map"),
        }
    }

    /// A URI, a URI template, or an expression.
    pub(super) fn uri(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let text = self.report.text(at)?;
        if inside_braces(text).is_some() {
            return self.expr(at, vars).map(Template::Expr);
        }
        match UriTemplate::parse(text) {
            Ok(Some(uri)) => Some(Template::Uri(uri)),
            Ok(None) if text.is_empty() || text.contains(char::is_whitespace) => {
                let cause = format!("`{text}` is not a URI");
                self.report
                    .error("CD0128", at, cause, "write a URI without spaces")
            }
            Ok(None) => Some(Template::Literal(text.into())),
            Err(e) => {
                let remedy = "write {name} for a property of the task's input, or an expression";
                self.report.error("CD0128", at, e.to_string(), remedy)
            }
        }
    }

    /// `schema: {format, document}`.
    pub(super) fn schema(&self, at: &At<'n>) -> Option<Schema> {
        let fields = self
            .report
            .fields(at, "a schema", &["format", "document", "resource"])?;
        if let Some(format) = fields.get("format") {
            let text = self.report.text(&format)?;
            if text != "json" && !text.starts_with("json:") {
                let cause = format!("schemas of the format `{text}` are not supported");
                return self
                    .report
                    .error("CD0109", &format, cause, "write a JSON Schema");
            }
        }
        if let Some(resource) = fields.get("resource") {
            let schema = self.schema_of_file(&resource)?;
            return self.compiled_schema(&resource, &schema);
        }
        let document = self.report.need(&fields, "document")?;
        self.compiled_schema(&document, &document.node.to_value())
    }

    fn compiled_schema(&self, document: &At<'n>, schema: &serde_json::Value) -> Option<Schema> {
        Schema::compile(schema).map_or_else(
            |e| {
                let cause = format!("this is not a JSON Schema: {e}");
                self.report
                    .error("CD0109", document, cause, "write a JSON Schema (2020-12)")
            },
            Some,
        )
    }

    /// `input: {schema, from}`.
    pub(super) fn input(&self, at: Option<At<'n>>, vars: &[&str]) -> Option<Input> {
        let Some(at) = at else {
            return Some(Input::default());
        };
        let fields = self.report.fields(&at, "input", &["schema", "from"])?;
        let schema = optional(fields.get("schema"), |s| self.schema(s));
        let from = optional(fields.get("from"), |f| self.shape(f, vars));
        Some(Input {
            schema: schema?,
            from: from?,
        })
    }

    /// `output: {as, schema}`.
    pub(super) fn output(&self, at: Option<At<'n>>, vars: &[&str]) -> Option<Output> {
        let Some(at) = at else {
            return Some(Output::default());
        };
        let fields = self.report.fields(&at, "output", &["schema", "as"])?;
        let schema = optional(fields.get("schema"), |s| self.schema(s));
        let shaped = optional(fields.get("as"), |f| self.shape(f, vars));
        Some(Output {
            schema: schema?,
            r#as: shaped?,
        })
    }

    /// `export: {as, schema}`.
    pub(super) fn export(&self, at: Option<At<'n>>, vars: &[&str]) -> Option<Export> {
        let Some(at) = at else {
            return Some(Export::default());
        };
        let fields = self.report.fields(&at, "export", &["schema", "as"])?;
        let schema = optional(fields.get("schema"), |s| self.schema(s));
        let shaped = optional(fields.get("as"), |f| self.shape(f, vars));
        Some(Export {
            schema: schema?,
            r#as: shaped?,
        })
    }

    /// `timeout:`, inline or by name.
    pub(super) fn timeout(&self, at: Option<At<'n>>, vars: &[&str]) -> Optional<DurationSpec> {
        let Some(at) = at else { return Some(None) };
        let at = match at.text() {
            Some(name) => self.named("timeouts", self.timeouts.as_ref(), &at, name)?,
            None => at,
        };
        let fields = self.report.fields(&at, "timeout", &["after"])?;
        self.duration(&self.report.need(&fields, "after")?, vars)
            .map(Some)
    }

    /// A duration that may be computed by the run.
    pub(super) fn duration(&self, at: &At<'n>, vars: &[&str]) -> Option<DurationSpec> {
        let template = self.template(at, vars)?;
        match template.as_literal() {
            Some(_) => self.fixed_ms(at).map(DurationSpec::Fixed),
            None => Some(DurationSpec::Computed(template)),
        }
    }

    /// A duration that is known now, in milliseconds.
    pub(super) fn fixed_ms(&self, at: &At<'n>) -> Option<u64> {
        const UNITS: [&str; 5] = ["days", "hours", "minutes", "seconds", "milliseconds"];
        self.report.constant(at)?;
        match &at.node.data {
            Data::Map(entries) => {
                self.report.fields(at, "a duration", &UNITS)?;
                if entries.iter().any(|e| !UNITS.contains(&e.key.as_str())) {
                    return None;
                }
            }
            Data::String(_) => {}
            _ => {
                return self
                    .report
                    .wrong_kind(at, "a duration: text such as PT30S, or a map");
            }
        }
        let remedy = "write for example PT30S, P1DT12H, or {minutes: 5}";
        match crate::duration::parse(&at.node.to_value()) {
            Ok(ms) if ms <= DURATION_MS_MAX => Some(ms),
            Ok(_) => {
                let cause = format!("{} is longer than ten years", shown(at));
                let remedy = "write at most P3650D";
                self.report.error("CD0108", at, cause, remedy)
            }
            Err(error) => {
                let text = at.text().unwrap_or_default();
                let date = text.split('T').next().unwrap_or_default();
                let cause = if text.starts_with("-P") {
                    format!("`{text}` is negative")
                } else if text.starts_with('P') && date.contains(['Y', 'M']) {
                    format!("`{text}`: years and months have no fixed length")
                } else {
                    error.to_string()
                };
                self.report.error("CD0108", at, cause, remedy)
            }
        }
    }
}

/// A constant as a message repeats it.
pub(super) fn shown(at: &At<'_>) -> String {
    match at.text() {
        Some(text) => format!("`{text}`"),
        None => at.node.to_value().to_string(),
    }
}

/// A part that need not be there: `None` if it is wrong, `Some(None)` if it is not there.
#[allow(
    clippy::option_option,
    reason = "the outer one carries errors, as everywhere here"
)]
pub(super) type Optional<T> = Option<Option<T>>;

/// What a part that need not be there gives: `Some(None)` if it is not there, `None` if it is
/// wrong.
pub(super) fn optional<'n, T>(
    at: Option<At<'n>>,
    compile: impl FnOnce(&At<'n>) -> Option<T>,
) -> Optional<T> {
    match at {
        None => Some(None),
        Some(at) => compile(&at).map(Some),
    }
}
