//! The document itself: head, reusable parts, body.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::context::{Context, Scope, Stage};
use super::extensions::extensions;
use super::report::{At, Fields, Report};
use super::subflow::Library;
use crate::workflow::{Document, OnExhausted, Workflow};

const TOP: [&str; 8] = [
    "document", "input", "use", "do", "timeout", "output", "schedule", "evaluate",
];

/// Compiles the tree of one text.
pub(super) fn compile<'n>(
    root: &At<'n>,
    report: &'n Report,
    library: &'n Library<'n>,
) -> Option<Workflow> {
    let fields = report.fields(root, "a workflow", &TOP)?;
    let head = report
        .need(&fields, "document")
        .and_then(|d| head(report, &d));
    refuse_schedule(report, &fields);
    let evaluate = evaluate(report, &fields);
    let context = reusable(report, library, &fields);
    context.check_reusable();
    let scope = Scope::default();
    let input = context.input(fields.get("input"), &scope.vars(Stage::WorkflowInput));
    let output = context.output(fields.get("output"), &scope.vars(Stage::WorkflowOutput));
    let timeout = context.timeout(fields.get("timeout"), &["workflow", "runtime"]);
    let body = report
        .need(&fields, "do")
        .and_then(|d| context.block(&d, &scope));
    let (document, on_exhausted) = head?;
    evaluate?;
    Some(Workflow {
        document,
        input: input?,
        body: Arc::new(body?),
        output: output?,
        timeout: timeout?,
        on_exhausted,
        secrets: context.secrets.into_inner(),
        definition: root.node.to_value(),
        warnings: report.warnings(),
    })
}

/// Name, namespace and version of a document, read without complaint; for finding it.
pub(super) fn identity(root: &At<'_>) -> Option<String> {
    let document = &root.node.entry("document")?.value;
    let text = |key: &str| match &document.entry(key)?.value.data {
        super::tree::Data::String(text) => Some(text.clone()),
        _ => None,
    };
    Some(format!(
        "{}/{}:{}",
        text("namespace")?,
        text("name")?,
        text("version")?
    ))
}

fn head(report: &Report, at: &At<'_>) -> Option<(Document, Option<OnExhausted>)> {
    const KEYS: [&str; 8] = [
        "dsl",
        "namespace",
        "name",
        "version",
        "title",
        "summary",
        "tags",
        "metadata",
    ];
    let fields = report.fields(at, "document", &KEYS)?;
    let dsl = report
        .need(&fields, "dsl")
        .and_then(|d| dsl_version(report, &d));
    let namespace = report
        .need(&fields, "namespace")
        .and_then(|n| name(report, &n));
    let own_name = report.need(&fields, "name").and_then(|n| name(report, &n));
    let version = report
        .need(&fields, "version")
        .and_then(|v| semver(report, &v));
    let text = |key: &str| match fields.get(key) {
        None => Some(String::new()),
        Some(at) => report.text(&at).map(str::to_owned),
    };
    let (title, summary) = (text("title"), text("summary"));
    for key in ["tags", "metadata"] {
        if let Some(at) = fields.get(key).filter(|at| at.entries().is_none()) {
            report.wrong_kind::<()>(&at, "a map");
        }
    }
    let on_exhausted = super::policy::of_document(report, &fields);
    let document = Document {
        dsl: dsl?,
        namespace: namespace?,
        name: own_name?,
        version: version?,
        title: title?,
        summary: summary?,
    };
    Some((document, on_exhausted?))
}

fn dsl_version(report: &Report, at: &At<'_>) -> Option<String> {
    let text = semver(report, at)?;
    if !text.starts_with("1.0.") {
        let cause = format!("version {text} of the language is not supported");
        return report.error("CD0129", at, cause, "write dsl: '1.0.3'");
    }
    Some(text)
}

fn name(report: &Report, at: &At<'_>) -> Option<String> {
    let text = report.text(at)?;
    let good = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if !good {
        let cause = format!("`{text}` cannot be a name");
        let remedy = "use letters, digits and `-` inside, at most 63 characters";
        return report.error("CD0106", at, cause, remedy);
    }
    Some(text.to_owned())
}

fn semver(report: &Report, at: &At<'_>) -> Option<String> {
    let text = report.text(at)?;
    if semver_parts(text).is_none() {
        let cause = format!("`{text}` is not a semantic version");
        return report.error("CD0106", at, cause, "write three numbers such as 1.0.0");
    }
    Some(text.to_owned())
}

/// A semantic version in the order of precedence; a pre-release comes before its release.
pub(super) fn semver_parts(text: &str) -> Option<([u64; 3], bool, String)> {
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(t, b)| (t, Some(b)));
    let (core, pre) = text
        .split_once('-')
        .map_or((text, None), |(c, p)| (c, Some(p)));
    let label = |s: &str| {
        s.split('.')
            .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    if !build.is_none_or(label) || !pre.is_none_or(label) {
        return None;
    }
    let mut numbers = [0; 3];
    let mut parts = core.split('.');
    for number in &mut numbers {
        let part = parts.next()?;
        let plain =
            part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        *number = plain.then(|| part.parse().ok())??;
    }
    parts
        .next()
        .is_none()
        .then(|| (numbers, pre.is_none(), pre.unwrap_or_default().to_owned()))
}

fn refuse_schedule(report: &Report, fields: &Fields<'_>) {
    if let Some(at) = fields.get("schedule") {
        report.error::<()>(
            "CD0117",
            &at,
            "`schedule` is not supported: a workflow does not start itself",
            "remove it and start the run from outside (cron, an event handler, the HTTP API)",
        );
    }
}

fn evaluate(report: &Report, fields: &Fields<'_>) -> Option<()> {
    let Some(at) = fields.get("evaluate") else {
        return Some(());
    };
    let fields = report.fields(&at, "evaluate", &["language", "mode"])?;
    for (key, only) in [("language", "jq"), ("mode", "strict")] {
        if let Some(at) = fields.get(key) {
            let text = report.text(&at)?;
            if text != only {
                let cause = format!("the {key} `{text}` is not supported");
                return report.error("CD0130", &at, cause, format!("write `{only}`"));
            }
        }
    }
    Some(())
}

fn reusable<'n>(report: &'n Report, library: &'n Library<'n>, fields: &Fields<'n>) -> Context<'n> {
    const KEYS: [&str; 8] = [
        "authentications",
        "errors",
        "extensions",
        "functions",
        "retries",
        "secrets",
        "timeouts",
        "catalogs",
    ];
    let parts = fields
        .get("use")
        .and_then(|at| report.fields(&at, "use", &KEYS));
    let table = |key: &str| {
        let at = parts.as_ref()?.get(key)?;
        if at.entries().is_none() {
            return report.wrong_kind(&at, "a map of names");
        }
        Some(at)
    };
    Context {
        report,
        library,
        errors: table("errors"),
        retries: table("retries"),
        timeouts: table("timeouts"),
        functions: table("functions"),
        authentications: table("authentications"),
        catalogs: table("catalogs"),
        extensions: extensions(report, parts.as_ref().and_then(|p| p.get("extensions"))),
        in_extension: Cell::new(false),
        secrets: RefCell::new(super::secrets::declared(
            report,
            parts.as_ref().and_then(|p| p.get("secrets")),
        )),
        constants: RefCell::default(),
        calling: RefCell::default(),
    }
}

/// A context without any reusable parts.
pub(super) fn bare<'n>(report: &'n Report, library: &'n Library<'n>) -> Context<'n> {
    Context {
        report,
        library,
        errors: None,
        retries: None,
        timeouts: None,
        functions: None,
        authentications: None,
        catalogs: None,
        extensions: Vec::new(),
        in_extension: Cell::new(false),
        secrets: RefCell::default(),
        constants: RefCell::default(),
        calling: RefCell::default(),
    }
}

impl Context<'_> {
    /// Looks at every reusable part, also at those that nothing uses.
    fn check_reusable(&self) {
        let scope = Scope::default();
        let vars = scope.vars(Stage::Within);
        for (_, at) in self.timeouts.iter().filter_map(At::entries).flatten() {
            if at.text().is_some() {
                self.report.wrong_kind::<()>(&at, "a map (a timeout)");
            } else {
                self.timeout(Some(at), &vars);
            }
        }
        for (_, at) in self.errors.iter().filter_map(At::entries).flatten() {
            self.error_definition(&at, &vars);
        }
        for (_, at) in self.retries.iter().filter_map(At::entries).flatten() {
            self.retry_definition(&at, &scope.with(&["error"]));
        }
        for (_, at) in self
            .authentications
            .iter()
            .filter_map(At::entries)
            .flatten()
        {
            self.policy_of(&at, &scope.vars(Stage::Sent));
        }
        for (_, at) in self.catalogs.iter().filter_map(At::entries).flatten() {
            self.report
                .fields(&at, "a catalog", &["endpoint"])
                .and_then(|fields| self.report.need(&fields, "endpoint"));
        }
        for extension in &self.extensions {
            self.check_extension(extension, &scope);
        }
        for (entry, at) in self.functions.iter().filter_map(At::entries).flatten() {
            self.function_body(&entry.key, &at, &scope);
        }
    }
}
