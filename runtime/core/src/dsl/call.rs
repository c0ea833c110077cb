//! Call tasks: actions of connections, HTTP, functions.

use indexmap::IndexMap;
use serde_json::Value;

use super::context::{Context, Scope, Stage};
use super::report::{At, Fields, suggest};
use super::task::Targets;
use super::tree::{Data, Entry};
use crate::expr::{Expr, Template};
use crate::workflow::{Call, HTTP_CONNECTION, Kind, Target, Task};

/// Calls of the language that have no connector here.
const UNSUPPORTED: [&str; 3] = ["asyncapi", "grpc", "a2a"];

/// What an expression makes of an endpoint is an address. Else data could say how the request is
/// authorized, and use the connection's credentials as it likes.
const ONLY_TEXT: &str = r#"if type == "string" then . else error("an endpoint is text") end"#;

impl<'n> Context<'n> {
    /// `call` and `with`.
    pub(super) fn call(&self, fields: &Fields<'n>, scope: &Scope) -> Option<Kind> {
        let at = fields.get("call")?;
        self.report.constant(&at)?;
        let text = self.report.text(&at)?;
        if UNSUPPORTED.contains(&text) {
            let cause = format!("`call: {text}` is not supported");
            let remedy =
                "use `call: http`, or a plugin for the system and `call: connection.action`";
            return self.report.error("CD0115", &at, cause, remedy);
        }
        if text.contains("://") {
            return self.report.error(
                "CD0118",
                &at,
                "a function is not fetched: what a run does must not depend on another system",
                "put it into a catalog in a local folder and write name:version@catalog, or define \
                 it under `use.functions`",
            );
        }
        if text.contains('@') {
            return self.cataloged(fields, &at, text, scope);
        }
        if text == "openapi" {
            return self.openapi(fields, scope);
        }
        if text == "mcp" {
            return self.mcp(fields, scope);
        }
        if text == "http" {
            let with = self
                .report
                .need(fields, "with")
                .and_then(|w| self.http(&w, scope));
            let policy = self.policy(fields, scope, HTTP_CONNECTION);
            let with = with?;
            self.sends(&at, HTTP_CONNECTION, &with);
            let call = Call {
                target: Target::Http,
                with,
                policy: policy?,
            };
            return Some(Kind::Call(call));
        }
        match split_target(text) {
            Some((connection, action)) => self.action(fields, scope, connection, action),
            None => self.function(fields, &at, text, scope),
        }
    }

    fn action(
        &self,
        fields: &Fields<'n>,
        scope: &Scope,
        connection: &str,
        action: &str,
    ) -> Option<Kind> {
        let with = match fields.get("with") {
            None => Some(Template::Literal(Value::Object(serde_json::Map::new()))),
            Some(at) => self.arguments(&at, &scope.vars(Stage::Sent)),
        };
        if let Some(with) = &with {
            self.sends(&fields.at, connection, with);
        }
        let policy = self.policy(fields, scope, connection);
        let target = Target::Action {
            connection: connection.to_owned(),
            action: action.to_owned(),
        };
        Some(Kind::Call(Call {
            target,
            with: with?,
            policy: policy?,
        }))
    }

    /// What an action takes: a map, or an expression that makes one.
    pub(super) fn arguments(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let is_expression = at
            .text()
            .is_some_and(|t| crate::expr::inside_braces(t).is_some());
        if at.entries().is_none() && !is_expression {
            return self
                .report
                .wrong_kind(at, "a map, or an expression `${ … }` that makes one");
        }
        self.template(at, vars)
    }

    /// `with` of `call: http`.
    fn http(&self, at: &At<'n>, scope: &Scope) -> Option<Template> {
        const KEYS: [&str; 7] = [
            "method", "endpoint", "headers", "body", "query", "output", "redirect",
        ];
        const METHODS: [&str; 7] = ["get", "head", "options", "post", "put", "patch", "delete"];
        let vars = scope.vars(Stage::Sent);
        let fields = self.report.fields(at, "an HTTP call", &KEYS)?;
        let mut parts = IndexMap::new();
        let mut good = true;
        for key in ["method", "endpoint"] {
            good &= self.report.need(&fields, key).is_some();
        }
        for (entry, value) in at.entries()? {
            let part = match entry.key.as_str() {
                // What an expression makes of it is looked at when the call begins: a run that
                // began before that was a rule goes on without it.
                "endpoint" if is_expression(&value) => self.expr(&value, &vars).map(Template::Expr),
                "endpoint" => self.endpoint(&value, &vars),
                "method" => self.choice(&value, &METHODS, &vars),
                "output" => self.choice(&value, &["raw", "content", "response"], &vars),
                "redirect" => self
                    .report
                    .flag(&value)
                    .map(|b| Template::Literal(Value::Bool(b))),
                "headers" | "query" => self.arguments(&value, &vars),
                "body" => self.template(&value, &vars),
                _ => None,
            };
            match part {
                Some(part) => drop(parts.insert(entry.key.clone(), part)),
                None => good = false,
            }
        }
        good.then(|| Template::object(parts))
    }

    /// One of some words, in lower case, or an expression.
    pub(super) fn choice(&self, at: &At<'n>, words: &[&str], vars: &[&str]) -> Option<Template> {
        let text = self.report.text(at)?;
        if crate::expr::inside_braces(text).is_some() {
            return self.expr(at, vars).map(Template::Expr);
        }
        let word = text.to_ascii_lowercase();
        if !words.contains(&word.as_str()) {
            let cause = format!("`{text}` cannot stand here");
            return self
                .report
                .error("CD0106", at, cause, suggest(&word, words.iter().copied()));
        }
        Some(Template::Literal(word.into()))
    }

    /// A URI, or `{uri, authentication}`.
    pub(super) fn endpoint(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        if let Some(source) = at.text().and_then(crate::expr::inside_braces) {
            // Checked as it is first, for errors in its own words.
            self.expr(at, vars)?;
            let guarded = format!("({}) | {ONLY_TEXT}", self.with_constants(source));
            return match Expr::compile(&guarded, vars) {
                Ok(expr) => Some(Template::Expr(expr)),
                Err(error) => self.bad_expression(at, &error),
            };
        }
        if !matches!(at.node.data, Data::Map(_)) {
            return self.uri(at, vars);
        }
        let fields = self
            .report
            .fields(at, "endpoint", &["uri", "authentication"])?;
        let uri = self
            .report
            .need(&fields, "uri")
            .and_then(|u| self.uri(&u, vars));
        let Some(at) = fields.get("authentication") else {
            return uri;
        };
        let authentication = self.authentication(&at, vars);
        let parts = [("uri", uri?), ("authentication", authentication?)];
        let parts = parts.map(|(key, part)| (key.to_owned(), part));
        Some(Template::object(parts.into_iter().collect()))
    }

    /// A call of a function of `use.functions`: a task around it whose input is what `with` makes.
    fn function(
        &self,
        fields: &Fields<'n>,
        at: &At<'n>,
        name: &str,
        scope: &Scope,
    ) -> Option<Kind> {
        let table = self.functions.as_ref();
        let Some(definition) = table.and_then(|t| t.node.entry(name).map(|e| t.child(e))) else {
            let known = table.and_then(At::entries).unwrap_or_default();
            let near = suggest(name, known.iter().map(|(e, _)| e.key.as_str()));
            let cause = format!("`{name}` is neither connection.action, `http`, nor a function");
            let remedy = format!("write `call: connection.action`; functions: {near}");
            return self.report.error("CD0125", at, cause, remedy);
        };
        if let Some(at) = fields
            .get("metadata")
            .and_then(|m| m.node.entry("cofferdam").map(|e| m.child(e)))
        {
            let cause = "a call of a function has no settings of its own";
            let remedy = "put `metadata.cofferdam` on the task that the function is";
            return self.report.error("CD0126", &at, cause, remedy);
        }
        let body = self.function_body(name, &definition, &Scope::default())?;
        self.call_of_function(fields, at, name, body, scope)
    }

    /// The task that a function is.
    pub(super) fn function_body(
        &self,
        name: &str,
        definition: &At<'n>,
        scope: &Scope,
    ) -> Option<Task> {
        if self.calling.borrow().iter().any(|n| n == name) {
            let cause = format!("the function `{name}` calls itself");
            return self
                .report
                .error("CD0122", definition, cause, "loop with a `for` task");
        }
        self.calling.borrow_mut().push(name.to_owned());
        let spot = definition.node.spot;
        let entry = Entry {
            key: name.to_owned(),
            spot,
            value: definition.node.clone(),
        };
        let task = self.task(&entry, definition, scope, Targets::Branch);
        self.calling.borrow_mut().pop();
        task
    }

    /// `connection.action`, or an action alone of this connection.
    pub(super) fn target(&self, at: &At<'n>, own: Option<&str>) -> Option<(String, String)> {
        self.report.constant(at)?;
        let text = self.report.text(at)?;
        if let Some((connection, action)) = split_target(text) {
            return Some((connection.to_owned(), action.to_owned()));
        }
        if let Some(own) = own.filter(|_| is_word(text)) {
            return Some((own.to_owned(), text.to_owned()));
        }
        let cause = format!("`{text}` names no action");
        self.report
            .error("CD0125", at, cause, "write connection.action")
    }
}

fn is_expression(at: &At<'_>) -> bool {
    at.text().and_then(crate::expr::inside_braces).is_some()
}

/// `connection.action`.
fn split_target(text: &str) -> Option<(&str, &str)> {
    let (connection, action) = text.split_once('.')?;
    (is_word(connection) && action.split('.').all(is_word)).then_some((connection, action))
}

/// Whether this can be the name of a connection or an action.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
