//! A workflow with the connections that it calls: what a run pins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cofferdam_core::descriptor::Effect;
use cofferdam_core::run::Bindings;
use cofferdam_core::workflow::{OnOutage, OnUnknown, Source, Sources, Task, Workflow};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::connections::Connections;
use crate::rows::{decode, encode};

/// A workflow, compiled and checked against the connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Definition {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hash: String,
    pinned: Vec<u8>,
    workflow: Arc<Workflow>,
    bindings: Arc<Bindings>,
}

/// What is kept in the store, keyed by its own hash.
#[derive(Serialize, Deserialize)]
struct Pinned {
    sources: Sources,
    bindings: Bindings,
}

impl Definition {
    /// Compiles a workflow and binds it to connections.
    pub(crate) fn new(sources: &Sources, connections: &Connections) -> Result<Self, Error> {
        let workflow = cofferdam_core::dsl::compile(sources)?;
        let origin = &sources.main.origin;
        let mut bindings = Bindings::default();
        for (task, connection, action) in workflow.calls() {
            bind(
                &mut bindings,
                connections,
                (&connection, &action),
                origin,
                task,
            )?;
        }
        check_lookups(&workflow, &bindings, origin)?;
        check_secrets(&workflow, connections)?;
        crate::fits::check_hedges(&workflow, &bindings, origin)?;
        check_deferrals(&workflow, &bindings, origin)?;
        let pinned = encode(&Pinned {
            sources: sources.clone(),
            bindings: bindings.clone(),
        })?;
        let hash = blake3::hash(&pinned).to_hex().to_string();
        let (workflow, bindings) = (Arc::new(workflow), Arc::new(bindings));
        Ok(Self {
            inner: Arc::new(Inner {
                hash,
                pinned,
                workflow,
                bindings,
            }),
        })
    }

    /// What a run pinned, read back.
    pub(crate) fn from_pinned(hash: &str, bytes: &[u8]) -> Result<Self, Error> {
        let Pinned { sources, bindings } = decode("definition", hash, bytes)?;
        let workflow = Arc::new(cofferdam_core::dsl::compile(&sources)?);
        let inner = Inner {
            hash: hash.to_owned(),
            pinned: bytes.to_vec(),
            workflow,
            bindings: Arc::new(bindings),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A workflow that came with this one, bound to connections as they are.
    pub(crate) fn other(&self, name: &str, connections: &Connections) -> Result<Self, Error> {
        let Pinned { sources, .. } = decode("definition", self.hash(), &self.inner.pinned)?;
        let main = sources.others.get(name).cloned();
        let main = main.ok_or_else(|| Error::Journal {
            run: self.hash().to_owned(),
            seq: 0,
            reason: format!("the workflow `{name}` is not in its definition"),
        })?;
        let others = sources.others;
        Self::new(&Sources { main, others }, connections)
    }

    /// What is allowed in the workflow and should be put right.
    pub fn warnings(&self) -> &[cofferdam_core::dsl::Error] {
        &self.inner.workflow.warnings
    }

    /// `namespace/name:version`.
    pub fn name(&self) -> String {
        let document = &self.inner.workflow.document;
        format!(
            "{}/{}:{}",
            document.namespace, document.name, document.version
        )
    }

    /// Hash of everything that a run pins.
    pub fn hash(&self) -> &str {
        &self.inner.hash
    }

    /// The compiled workflow.
    pub fn workflow(&self) -> Arc<Workflow> {
        Arc::clone(&self.inner.workflow)
    }

    pub(crate) fn bindings(&self) -> Arc<Bindings> {
        Arc::clone(&self.inner.bindings)
    }

    pub(crate) fn pinned(&self) -> Vec<u8> {
        self.inner.pinned.clone()
    }
}

/// Binds one call, and the connections that it may fail over to.
fn bind(
    bindings: &mut Bindings,
    connections: &Connections,
    (connection, action): (&str, &str),
    origin: &str,
    task: &Task,
) -> Result<(), Error> {
    bind_all(bindings, connections, connection, origin, task)?;
    let Some(binding) = bindings.connections.get(connection) else {
        return Ok(());
    };
    if binding.actions.contains_key(action) {
        return Ok(());
    }
    let offered: Vec<&str> = binding.actions.keys().map(String::as_str).collect();
    Err(Error::Binding {
        origin: origin.to_owned(),
        line: task.line,
        problem: format!(
            "task `{}`: connection `{connection}` has no action `{action}`",
            task.name
        ),
        remedy: format!("it offers {}", offered.join(", ")),
    })
}

fn bind_all(
    bindings: &mut Bindings,
    connections: &Connections,
    connection: &str,
    origin: &str,
    task: &Task,
) -> Result<(), Error> {
    let mut wanted = vec![connection.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let Some(slot) = connections.get(&name) else {
            return Err(missing(connections, &name, origin, task));
        };
        let binding = slot.binding();
        wanted.extend(binding.backups.iter().cloned());
        bindings.connections.insert(name, binding);
    }
    Ok(())
}

fn missing(connections: &Connections, name: &str, origin: &str, task: &Task) -> Error {
    let known: Vec<&str> = connections.keys().map(String::as_str).collect();
    let remedy = match name {
        "http" => "allow it with `--allow-http URL`, or configure [connections.http]".to_owned(),
        _ if known.is_empty() => format!("configure [connections.{name}] and pass `--config FILE`"),
        _ => format!(
            "configure [connections.{name}], or use one of {}",
            known.join(", ")
        ),
    };
    Error::Binding {
        origin: origin.to_owned(),
        line: task.line,
        problem: format!("task `{}`: there is no connection `{name}`", task.name),
        remedy,
    }
}

/// `onUnknown: lookup` needs a connector that can answer.
fn check_lookups(workflow: &Workflow, bindings: &Bindings, origin: &str) -> Result<(), Error> {
    for (task, connection, action) in workflow.calls() {
        let cofferdam_core::workflow::Kind::Call(call) = &task.kind else {
            continue;
        };
        let offered = bindings
            .connections
            .get(&connection)
            .and_then(|b| b.actions.get(&action))
            .is_some_and(|a| a.lookup);
        let is_own = matches!(&call.target, cofferdam_core::workflow::Target::Action { connection: c, action: a }
            if *c == connection && *a == action);
        if is_own && call.policy.on_unknown == Some(OnUnknown::Lookup) && !offered {
            return Err(Error::Binding {
                origin: origin.to_owned(),
                line: task.line,
                problem: format!(
                    "task `{}`: `{connection}.{action}` cannot be looked up",
                    task.name
                ),
                remedy: "use `onUnknown: repeat` or `onUnknown: review`".to_owned(),
            });
        }
    }
    Ok(())
}

impl crate::Config {
    /// Reads a workflow's text, those that it may run, and the documents that it names, without
    /// compiling them.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read_workflow(&self, path: impl AsRef<Path>) -> Result<Sources, Error> {
        let mut sources = read_sources(path.as_ref(), self.workflows_dir())?;
        crate::external::read(&mut sources, self.catalogs())?;
        Ok(sources)
    }
}

/// A secret that a call sends must be one of the connection's. A disabled connection's are not read.
fn check_secrets(workflow: &Workflow, connections: &Connections) -> Result<(), Error> {
    for sent in &workflow.secrets.uses {
        let Some(slot) = connections.get(&sent.connection).filter(|s| s.enabled) else {
            continue;
        };
        let (connection, name) = (&sent.connection, &sent.name);
        if !slot.connection().has_secret(name) {
            return Err(Error::Binding {
                origin: sent.origin.clone(),
                line: sent.line,
                problem: format!(
                    "the secret `{name}` is sent through connection `{connection}`, which has none of that name"
                ),
                remedy: format!(
                    "add it: [connections.{connection}.secrets] {name} = {{ env = \"{name}\", audience = [\"HOST\"] }}"
                ),
            });
        }
    }
    Ok(())
}

/// What is delivered later answers nobody, so that a read would be made for nothing.
fn check_deferrals(workflow: &Workflow, bindings: &Bindings, origin: &str) -> Result<(), Error> {
    for (task, connection, action) in workflow.calls() {
        let cofferdam_core::workflow::Kind::Call(call) = &task.kind else {
            continue;
        };
        let is_own = matches!(&call.target, cofferdam_core::workflow::Target::Action { connection: c, action: a }
            if *c == connection && *a == action);
        let defers = matches!(
            call.policy.on_outage,
            Some(OnOutage::QueueAndForward { .. })
        );
        let bound = bindings.connections.get(&connection);
        let reads = bound
            .and_then(|b| b.actions.get(&action))
            .is_some_and(|a| a.effect == Effect::Read);
        if is_own && defers && reads {
            return Err(Error::Binding {
                origin: origin.to_owned(),
                line: task.line,
                problem: format!(
                    "task `{}`: `{connection}.{action}` only reads; delivered later it would answer nobody",
                    task.name
                ),
                remedy: "use `onOutage: park` or `onOutage: fallback`".to_owned(),
            });
        }
    }
    Ok(())
}

/// Reads a workflow and those that it may run: every `.yaml`, `.yml` and `.json` of the folder.
pub(crate) fn read_sources(path: &Path, workflows: Option<&Path>) -> Result<Sources, Error> {
    let main = read(path)?;
    let mut others = BTreeMap::new();
    if !main.text.contains("workflow:") && !main.text.contains("\"workflow\"") {
        return Ok(Sources { main, others });
    }
    let folder = workflows.or(path.parent()).unwrap_or(Path::new("."));
    for path in files(folder)? {
        let source = read(&path)?;
        // Other files of the folder may be anything; those that are workflows have a head.
        if let Some(name) = cofferdam_core::dsl::document_name(&source.text) {
            others.insert(name, source);
        }
    }
    Ok(Sources { main, others })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let broken = |source| Error::Read {
        path: folder.display().to_string(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Source, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.display().to_string(),
        source,
    })?;
    Ok(Source {
        origin: path.display().to_string(),
        text,
    })
}
