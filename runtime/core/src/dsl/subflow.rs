//! Workflows that run others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::{Context, Scope};
use super::document::{self, semver_parts};
use super::report::{At, Error, Errors, Report, suggest};
use super::task::Targets;
use super::tree::{self, Entry};
use crate::workflow::{Kind, Source, Sources, Task, Workflow};

/// Workflows inside workflows.
const NESTING_MAX: usize = 16;

/// All the texts of one compilation. Each is compiled at most once.
pub(super) struct Library<'s> {
    sources: &'s Sources,
    compiled: RefCell<BTreeMap<String, Option<Arc<Workflow>>>>,
    /// What is being compiled, outermost first.
    open: RefCell<Vec<String>>,
}

impl<'s> Library<'s> {
    pub(super) fn new(sources: &'s Sources) -> Self {
        Self {
            sources,
            compiled: RefCell::default(),
            open: RefCell::default(),
        }
    }

    /// The workflow itself.
    pub(super) fn main(&self) -> Result<Workflow, Errors> {
        let (workflow, errors) = self.text(&self.sources.main, None);
        match workflow {
            Some(workflow) if errors.is_empty() => Ok(workflow),
            _ => Err(Errors(errors)),
        }
    }

    fn text(&self, source: &Source, key: Option<&str>) -> (Option<Workflow>, Vec<Error>) {
        let report = Report::new(&source.origin);
        let root = match tree::parse(&source.text) {
            Ok(root) => root,
            Err(defect) => {
                report.defect(defect);
                return (None, report.into_errors());
            }
        };
        let at = At::root(&root);
        let identity = document::identity(&at);
        if let (Some(key), Some(found)) = (key, &identity)
            && key != found
        {
            let cause = format!("this text was given as `{key}` and says it is `{found}`");
            report.error::<()>("CD0121", &at, cause, "give it under its own name");
        }
        self.open.borrow_mut().push(identity.unwrap_or_default());
        let workflow = document::compile(&at, &report, self);
        self.open.borrow_mut().pop();
        (workflow, report.into_errors())
    }

    /// Whether there is a source with this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.sources.others.contains_key(key)
    }

    /// The text of a source.
    pub(super) fn resource(&self, key: &str) -> Option<&'s str> {
        self.sources
            .others
            .get(key)
            .map(|source| source.text.as_str())
    }

    /// The task that a function of a catalog is. Its parts are found, in messages and errors, at the
    /// call that names it.
    pub(super) fn function(&self, outer: &Report, at: &At<'_>, key: &str) -> Option<Task> {
        let source = self.sources.others.get(key)?;
        if self.open.borrow().iter().any(|open| open == key) {
            let cause = format!("the function `{key}` calls itself");
            return outer.error("CD0122", at, cause, "loop with a `for` task");
        }
        if self.open.borrow().len() >= NESTING_MAX {
            let cause = format!("functions call each other more than {NESTING_MAX} levels deep");
            return outer.error("CD0122", at, cause, "flatten them");
        }
        let report = Report::new(&source.origin);
        let root = match tree::parse(&source.text) {
            Ok(root) => root,
            Err(defect) => {
                report.defect(defect);
                outer.extend(report.into_errors());
                return None;
            }
        };
        let entry = Entry {
            key: key.to_owned(),
            spot: root.spot,
            value: root.clone(),
        };
        let body = At {
            node: &root,
            pointer: at.pointer.clone(),
        };
        self.open.borrow_mut().push(key.to_owned());
        let context = document::bare(&report, self);
        let task = context.task(&entry, &body, &Scope::default(), Targets::Branch);
        drop(context);
        self.open.borrow_mut().pop();
        outer.warn_also(&report.warnings());
        let errors = report.into_errors();
        let task = task.filter(|_| errors.is_empty());
        outer.extend(errors);
        task
    }

    /// The key of the workflow with this name: `latest` is the highest version.
    fn key(&self, family: &str, version: &str) -> Option<String> {
        if version != "latest" {
            let key = format!("{family}:{version}");
            return self.sources.others.contains_key(&key).then_some(key);
        }
        let versions = self.sources.others.keys().filter_map(|key| {
            let version = key.strip_prefix(family)?.strip_prefix(':')?;
            Some((semver_parts(version)?, key))
        });
        versions.max().map(|(_, key)| key.clone())
    }
}

impl<'n> Context<'n> {
    /// `workflow: {namespace, name, version, input}`.
    pub(super) fn subflow(&self, at: &At<'n>, vars: &[&str], detached: bool) -> Option<Kind> {
        let keys = ["namespace", "name", "version", "input"];
        let fields = self.report.fields(at, "workflow", &keys)?;
        let text = |key: &str| {
            let at = self.report.need(&fields, key)?;
            self.report.constant(&at)?;
            self.report.text(&at)
        };
        let (namespace, name) = (text("namespace"), text("name"));
        let version = match fields.get("version") {
            None => Some("latest"),
            Some(_) => text("version"),
        };
        let input = super::data::optional(fields.get("input"), |i| self.shape(i, vars));
        let family = format!("{}/{}", namespace?, name?);
        let workflow = self.other(at, &family, version?)?;
        self.secrets.borrow_mut().include(&workflow.secrets);
        self.report.warn_also(&workflow.warnings);
        Some(Kind::Run {
            workflow,
            input: input?,
            detached,
        })
    }

    fn other(&self, at: &At<'n>, family: &str, version: &str) -> Option<Arc<Workflow>> {
        let wanted = format!("{family}:{version}");
        let library = self.library;
        let main_is = library.open.borrow().contains(&wanted);
        if main_is {
            return self.cycle(at, &wanted);
        }
        let Some(key) = library.key(family, version) else {
            let cause = format!("there is no workflow `{wanted}`");
            let remedy = suggest(&wanted, library.sources.others.keys().map(String::as_str));
            return self.report.error("CD0121", at, cause, remedy);
        };
        if library.open.borrow().contains(&key) {
            return self.cycle(at, &key);
        }
        if library.open.borrow().len() >= NESTING_MAX {
            let cause = format!("workflows run each other more than {NESTING_MAX} levels deep");
            return self.report.error("CD0122", at, cause, "flatten them");
        }
        if let Some(known) = library.compiled.borrow().get(&key) {
            return known.clone();
        }
        let source = library.sources.others.get(&key)?;
        let (workflow, errors) = library.text(source, Some(&key));
        let workflow = workflow.filter(|_| errors.is_empty()).map(Arc::new);
        self.report.extend(errors);
        library.compiled.borrow_mut().insert(key, workflow.clone());
        workflow
    }

    fn cycle<T>(&self, at: &At<'n>, key: &str) -> Option<T> {
        let open = self.library.open.borrow();
        let cause = format!(
            "workflows run each other in a circle: {} → {key}",
            open.join(" → ")
        );
        self.report.error(
            "CD0122",
            at,
            cause,
            "break the circle, or loop with a `for` task",
        )
    }
}
