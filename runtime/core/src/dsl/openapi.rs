//! `call: openapi`: two calls of the `http` connection.
//!
//! The first, an action that only reads, finds the operation in the document and says which request
//! it is; the second makes that request, as `call: http` does. So what repeating the request does is
//! decided by its method, and journalled as for any other request.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::context::{Context, Scope, Stage};
use super::report::{At, Fields};
use super::task::plain;
use super::tree::{self, Data};
use crate::expr::{Expr, Template};
use crate::workflow::{Block, Call, HTTP_CONNECTION, Kind, Policy, Target};

/// The action of an HTTP connector that finds an operation.
const OPERATION: &str = "operation";

impl<'n> Context<'n> {
    /// `call: openapi`.
    pub(super) fn openapi(&self, fields: &Fields<'n>, scope: &Scope) -> Option<Kind> {
        let at = self.report.need(fields, "with")?;
        let with = self.operation(&at, scope);
        let policy = self.policy(fields, scope, HTTP_CONNECTION);
        let (with, policy) = (with?, policy?);
        self.sends(&at, HTTP_CONNECTION, &with);
        let find = Call {
            target: Target::Action {
                connection: HTTP_CONNECTION.to_owned(),
                action: OPERATION.to_owned(),
            },
            with,
            policy: Policy::default(),
        };
        let request = Call {
            target: Target::Http,
            with: Template::Expr(Expr::compile(".", &[]).ok()?),
            policy,
        };
        let line = at.node.spot.line;
        let tasks = [("operation", find), ("request", request)];
        let tasks = tasks
            .map(|(name, call)| Arc::new(plain(name, &fields.at.pointer, line, Kind::Call(call))));
        Some(Kind::Do(Arc::new(Block {
            tasks: tasks.to_vec(),
        })))
    }

    fn operation(&self, at: &At<'n>, scope: &Scope) -> Option<Template> {
        const KEYS: [&str; 6] = [
            "document",
            "operationId",
            "parameters",
            "authentication",
            "output",
            "redirect",
        ];
        let vars = scope.vars(Stage::Sent);
        let fields = self.report.fields(at, "an OpenAPI call", &KEYS)?;
        let mut good = true;
        for key in ["document", "operationId"] {
            good &= self.report.need(&fields, key).is_some();
        }
        let mut parts = IndexMap::new();
        for (entry, value) in at.entries()? {
            let part = match entry.key.as_str() {
                "document" => self.document(&value, &vars),
                "operationId" => self
                    .report
                    .text(&value)
                    .and_then(|_| self.template(&value, &vars)),
                "parameters" => self.arguments(&value, &vars),
                "authentication" => self.authentication(&value, &vars),
                "output" => self.choice(&value, &["raw", "content", "response"], &vars),
                "redirect" => self
                    .report
                    .flag(&value)
                    .map(|b| Template::Literal(Value::Bool(b))),
                _ => None,
            };
            match part {
                Some(part) => drop(parts.insert(entry.key.clone(), part)),
                None => good = false,
            }
        }
        good.then(|| Template::object(parts))
    }

    /// The document: the text of a file beside the workflow, or an address that the connector reads.
    fn document(&self, at: &At<'n>, vars: &[&str]) -> Option<Template> {
        let fields = self
            .report
            .fields(at, "a resource", &["name", "endpoint"])?;
        let endpoint = self.report.need(&fields, "endpoint")?;
        let uri = endpoint
            .node
            .entry("uri")
            .map_or(endpoint.node, |e| &e.value);
        let is_file = matches!(&uri.data, Data::String(text) if text.starts_with("file:"));
        if !is_file {
            let endpoint = self.endpoint(&endpoint, vars)?;
            let parts = [("endpoint".to_owned(), endpoint)];
            return Some(Template::object(parts.into_iter().collect()));
        }
        let text = self.file_of(at, "CD0153")?;
        let content = match tree::parse(text) {
            Ok(root) => root.to_value(),
            Err(defect) => {
                let cause = format!("the document is neither YAML nor JSON: {}", defect.cause);
                return self.report.error("CD0153", at, cause, defect.remedy);
            }
        };
        if content
            .get("openapi")
            .or_else(|| content.get("swagger"))
            .is_none()
        {
            let cause = "the document is no OpenAPI: it says neither `openapi` nor `swagger`";
            return self
                .report
                .error("CD0153", at, cause, "name an OpenAPI document");
        }
        Some(Template::Literal(serde_json::json!({"content": content})))
    }
}
