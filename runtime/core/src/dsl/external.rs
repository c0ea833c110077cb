//! What a workflow takes from files beside it: functions of catalogs, OpenAPI documents, schemas.
//!
//! Nothing is fetched while a workflow is compiled. Whoever loads it asks [`external`] what it
//! names, reads that from local folders, and gives it with the other sources, so that it is pinned
//! with the run like the workflow itself.

use std::sync::Arc;

use serde_json::Value;

use super::context::{Context, Scope, Stage};
use super::data::optional;
use super::report::{At, Fields};
use super::task::plain;
use super::tree::{self, Data, Node};
use crate::workflow::{Block, Input, Kind, Task};

/// What a text names that lies outside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct External {
    /// Functions of catalogs.
    pub functions: Vec<CatalogFunction>,
    /// `file:` addresses of documents and schemas, as written; also their keys among the sources.
    pub files: Vec<String>,
}

/// A function of a catalog: `call: name:version@catalog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFunction {
    /// The whole reference; its key among the sources.
    pub key: String,
    /// The function's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The catalog.
    pub catalog: String,
    /// Where `use.catalogs` says that the catalog is, if it does.
    pub endpoint: Option<String>,
}

impl CatalogFunction {
    /// Where a catalog keeps it, below the catalog's own folder.
    pub fn path(&self) -> String {
        format!("functions/{}/{}/function.yaml", self.name, self.version)
    }
}

/// What a text names that lies outside it; nothing if it is no YAML.
pub fn external(text: &str) -> External {
    let mut found = External::default();
    if let Ok(root) = tree::parse(text) {
        look(&root, &root, &mut found);
    }
    found
}

fn look(root: &Node, node: &Node, found: &mut External) {
    match &node.data {
        Data::List(items) => items.iter().for_each(|item| look(root, item, found)),
        Data::Map(entries) => {
            for entry in entries {
                match entry.key.as_str() {
                    "call" => found.functions.extend(function(root, &entry.value)),
                    "document" | "resource" => {
                        let uri = endpoint(&entry.value).filter(|uri| uri.starts_with("file:"));
                        found.files.extend(uri);
                    }
                    _ => {}
                }
                look(root, &entry.value, found);
            }
        }
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::String(_) => {}
    }
}

/// The address of an external resource: `endpoint`, which is text or `{uri}`.
fn endpoint(resource: &Node) -> Option<String> {
    let endpoint = &resource.entry("endpoint")?.value;
    let uri = endpoint.entry("uri").map_or(endpoint, |e| &e.value);
    match &uri.data {
        Data::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn function(root: &Node, call: &Node) -> Option<CatalogFunction> {
    let Data::String(text) = &call.data else {
        return None;
    };
    let (name, version, catalog) = split(text)?;
    let catalogs = root.entry("use").and_then(|u| u.value.entry("catalogs"));
    let own = catalogs.and_then(|c| c.value.entry(catalog));
    Some(CatalogFunction {
        key: text.clone(),
        name: name.to_owned(),
        version: version.to_owned(),
        catalog: catalog.to_owned(),
        endpoint: own.and_then(|e| endpoint(&e.value)),
    })
}

/// `name:version@catalog`. The parts become parts of a path, so that nothing odd may be in them.
pub(super) fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (function, catalog) = text.split_once('@')?;
    let (name, version) = function.split_once(':')?;
    let fine = super::call::is_word(name)
        && super::call::is_word(catalog)
        && super::document::semver_parts(version).is_some();
    fine.then_some((name, version, catalog))
}

impl<'n> Context<'n> {
    /// `call: name:version@catalog`.
    pub(super) fn cataloged(
        &self,
        fields: &Fields<'n>,
        at: &At<'n>,
        text: &str,
        scope: &Scope,
    ) -> Option<Kind> {
        let Some((_, _, catalog)) = split(text) else {
            let cause = format!("`{text}` names no function of a catalog");
            let remedy = "write name:version@catalog, with a version such as 1.0.0";
            return self.report.error("CD0118", at, cause, remedy);
        };
        if !self.library.has(text) {
            return self.report.error(
                "CD0118",
                at,
                format!("the catalog `{catalog}` has no `{text}` here: nothing is fetched"),
                format!(
                    "put the catalog into a local folder and name it: [workflows.catalogs] \
                     {catalog} = \"FOLDER\"; the function is in FOLDER/functions/NAME/VERSION/function.yaml"
                ),
            );
        }
        let body = self.library.function(self.report, at, text)?;
        self.call_of_function(fields, at, text, body, scope)
    }

    /// A task around a function's, whose input is what `with` makes.
    pub(super) fn call_of_function(
        &self,
        fields: &Fields<'n>,
        at: &At<'n>,
        name: &str,
        body: Task,
        scope: &Scope,
    ) -> Option<Kind> {
        // The input of a task is made before the task begins: `$input` does not exist yet.
        let from = optional(fields.get("with"), |w| {
            self.arguments(w, &scope.vars(Stage::From))
        });
        let block = Block {
            tasks: vec![Arc::new(body)],
        };
        let line = at.node.spot.line;
        let kind = Kind::Do(Arc::new(block));
        let around = Task {
            input: Input {
                schema: None,
                from: from?,
            },
            ..plain(name, &fields.at.pointer, line, kind)
        };
        Some(Kind::Do(Arc::new(Block {
            tasks: vec![Arc::new(around)],
        })))
    }

    /// The schema that `resource` names.
    pub(super) fn schema_of_file(&self, resource: &At<'n>) -> Option<Value> {
        let text = self.file_of(resource, "CD0120")?;
        tree::parse(text).map_or_else(
            |defect| {
                let cause = format!("the schema is neither YAML nor JSON: {}", defect.cause);
                self.report.error("CD0120", resource, cause, defect.remedy)
            },
            |root| Some(root.to_value()),
        )
    }

    /// The text of the file that an external resource names.
    pub(super) fn file_of(&self, resource: &At<'n>, code: &'static str) -> Option<&'n str> {
        let fields = self
            .report
            .fields(resource, "a resource", &["name", "endpoint"])?;
        let at = self.report.need(&fields, "endpoint")?;
        let Some(uri) = endpoint(resource.node).filter(|uri| uri.starts_with("file:")) else {
            return self.report.error(
                code,
                &at,
                "this is not fetched: what a run checks must not depend on another system",
                "put it into a file beside the workflow, and write `endpoint: file:NAME`",
            );
        };
        self.library.resource(&uri).or_else(|| {
            let cause = format!("there is no `{uri}` beside the workflow");
            let remedy =
                "write the path of a file in the workflow's folder: `file:schemas/order.json`";
            self.report.error(code, &at, cause, remedy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_a_text_is_found() {
        let text = "use: {catalogs: {shared: {endpoint: {uri: 'file:catalog'}}}}\n\
             do:\n\
             \x20 - a: {call: 'log:1.0.0@shared'}\n\
             \x20 - b: {call: 'log:1.0.0@default'}\n\
             \x20 - c: {call: openapi, with: {document: {endpoint: 'file:pets.yaml'}}}\n\
             \x20 - d: {input: {schema: {resource: {endpoint: 'file:s.json'}}}, set: {a: 1}}\n\
             \x20 - e: {call: openapi, with: {document: {endpoint: 'https://x.example/'}}}\n";
        let found = external(text);
        let keys: Vec<_> = found.functions.iter().map(|f| f.key.as_str()).collect();
        assert_eq!(keys, ["log:1.0.0@shared", "log:1.0.0@default"]);
        assert_eq!(found.functions[0].endpoint.as_deref(), Some("file:catalog"));
        assert_eq!(found.functions[1].endpoint, None);
        assert_eq!(
            found.functions[0].path(),
            "functions/log/1.0.0/function.yaml"
        );
        assert_eq!(found.files, ["file:pets.yaml", "file:s.json"]);
    }

    #[test]
    fn a_reference_cannot_leave_its_catalog() {
        for bad in [
            "../x:1.0.0@c",
            "a:../../x@c",
            "a:1.0.0@../c",
            "a@c",
            "a:1@c",
            ":1.0.0@c",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
