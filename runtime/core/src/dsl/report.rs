//! What is wrong with a workflow, and where.

use std::cell::RefCell;
use std::fmt;

use super::tree::{Data, Defect, Entry, Node, Spot};

/// No more errors than these are collected of one compilation.
const ERRORS_MAX: usize = 50;

/// One thing that is wrong with a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// A stable code of the CD01 range; each has a page in `docs/errors/`.
    pub code: &'static str,
    /// The file or other origin of the text.
    pub origin: String,
    /// Line, beginning with 1.
    pub line: usize,
    /// Column in characters, beginning with 1.
    pub column: usize,
    /// JSON pointer into the document.
    pub pointer: String,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            line,
            column,
            code,
            cause,
            remedy,
            ..
        } = self;
        write!(
            f,
            "{origin}:{line}:{column}: {code}: {cause}\nhelp: {remedy}"
        )
    }
}

impl std::error::Error for Error {}

/// Everything that is wrong with a workflow, in the order of the text; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A node and the way to it.
#[derive(Debug, Clone)]
pub(super) struct At<'n> {
    pub node: &'n Node,
    pub pointer: String,
}

impl<'n> At<'n> {
    /// The root of a document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            node,
            pointer: String::new(),
        }
    }

    /// The value of an entry of this map.
    pub(super) fn child(&self, entry: &'n Entry) -> At<'n> {
        let key = entry.key.replace('~', "~0").replace('/', "~1");
        At {
            node: &entry.value,
            pointer: format!("{}/{key}", self.pointer),
        }
    }

    /// The items of this list, if it is one.
    pub(super) fn items(&self) -> Option<Vec<At<'n>>> {
        let Data::List(items) = &self.node.data else {
            return None;
        };
        let at = |(i, node)| At {
            node,
            pointer: format!("{}/{i}", self.pointer),
        };
        Some(items.iter().enumerate().map(at).collect())
    }

    /// The entries of this map with their values, if it is one.
    pub(super) fn entries(&self) -> Option<Vec<(&'n Entry, At<'n>)>> {
        let Data::Map(entries) = &self.node.data else {
            return None;
        };
        Some(entries.iter().map(|e| (e, self.child(e))).collect())
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&'n str> {
        match &self.node.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }
}

/// The entries of a map whose keys were checked.
pub(super) struct Fields<'n> {
    pub at: At<'n>,
}

impl<'n> Fields<'n> {
    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<At<'n>> {
        self.at.node.entry(key).map(|e| self.at.child(e))
    }
}

/// Collects the errors of one text.
#[derive(Debug)]
pub(super) struct Report {
    origin: String,
    errors: RefCell<Vec<Error>>,
    warnings: RefCell<Vec<Error>>,
}

impl Report {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Adds what went wrong in another text.
    pub(super) fn extend(&self, errors: Vec<Error>) {
        let mut own = self.errors.borrow_mut();
        let room = ERRORS_MAX.saturating_sub(own.len());
        own.extend(errors.into_iter().take(room));
    }

    /// The text's file or other origin.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Something that is allowed and should be put right.
    pub(super) fn warn(&self, code: &'static str, at: &At<'_>, cause: &str, remedy: &str) {
        let mut warnings = self.warnings.borrow_mut();
        let warning = Error {
            code,
            origin: self.origin.clone(),
            line: at.node.spot.line,
            column: at.node.spot.column,
            pointer: at.pointer.clone(),
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        };
        if warnings.len() < ERRORS_MAX && !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// Adds what is to be put right in another text.
    pub(super) fn warn_also(&self, others: &[Error]) {
        let mut warnings = self.warnings.borrow_mut();
        let room = ERRORS_MAX.saturating_sub(warnings.len());
        warnings.extend(others.iter().take(room).cloned());
    }

    /// All warnings so far.
    pub(super) fn warnings(&self) -> Vec<Error> {
        self.warnings.borrow().clone()
    }

    /// All errors so far.
    pub(super) fn into_errors(self) -> Vec<Error> {
        let mut errors = self.errors.into_inner();
        // A stable sort: errors of other texts stay behind those of this one.
        errors.sort_by_key(|e| (e.origin != self.origin, e.line, e.column));
        errors.dedup();
        errors
    }

    pub(super) fn defect(&self, defect: Defect) {
        let Defect {
            code,
            spot,
            cause,
            remedy,
        } = defect;
        self.add(code, spot, String::new(), cause, remedy);
    }

    /// An error at a node. Gives `None`, so that `return report.error(…)` ends a function.
    pub(super) fn error<T>(
        &self,
        code: &'static str,
        at: &At<'_>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Option<T> {
        self.add(code, at.node.spot, at.pointer.clone(), cause, remedy);
        None
    }

    /// An error at a key.
    pub(super) fn key_error(
        &self,
        code: &'static str,
        at: &At<'_>,
        entry: &Entry,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(
            code,
            entry.spot,
            format!("{}/{}", at.pointer, entry.key),
            cause,
            remedy,
        );
    }

    fn add(
        &self,
        code: &'static str,
        spot: Spot,
        pointer: String,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() >= ERRORS_MAX {
            return;
        }
        errors.push(Error {
            code,
            origin: self.origin.clone(),
            line: spot.line,
            column: spot.column,
            pointer,
            cause: cause.into(),
            remedy: remedy.into(),
        });
    }

    /// A node of the wrong kind.
    pub(super) fn wrong_kind<T>(&self, at: &At<'_>, wanted: &str) -> Option<T> {
        let name = at.pointer.rsplit('/').next().unwrap_or_default();
        let cause = match name {
            "" => format!("this must be {wanted}, not {}", at.node.kind()),
            _ => format!("`{name}` must be {wanted}, not {}", at.node.kind()),
        };
        let remedy = match &at.node.data {
            Data::Number(_) | Data::Bool(_) if wanted.contains("text") => {
                "put it in quotes".to_owned()
            }
            Data::Null => format!("write {wanted} after the colon, or remove the key"),
            _ => format!("write {wanted}"),
        };
        self.error("CD0105", at, cause, remedy)
    }

    /// The entries of a map that may have these keys and no others. Unknown keys are reported and
    /// do not stop the rest.
    pub(super) fn fields<'n>(&self, at: &At<'n>, what: &str, known: &[&str]) -> Option<Fields<'n>> {
        let Data::Map(entries) = &at.node.data else {
            return self.wrong_kind(at, &format!("a map ({what})"));
        };
        for entry in entries.iter().filter(|e| !known.contains(&e.key.as_str())) {
            let remedy = suggest(&entry.key, known.iter().copied());
            let cause = format!("{what} has no key `{}`", entry.key);
            self.key_error("CD0103", at, entry, cause, remedy);
        }
        Some(Fields { at: at.clone() })
    }

    /// The value of a key that must be there.
    pub(super) fn need<'n>(&self, fields: &Fields<'n>, key: &str) -> Option<At<'n>> {
        fields.get(key).or_else(|| {
            let cause = format!("`{key}` is missing");
            self.error("CD0104", &fields.at, cause, format!("add `{key}`"))
        })
    }

    /// The text of a node that must be text.
    pub(super) fn text<'n>(&self, at: &At<'n>) -> Option<&'n str> {
        at.text().or_else(|| self.wrong_kind(at, "text"))
    }

    /// A boolean that must be one.
    pub(super) fn flag(&self, at: &At<'_>) -> Option<bool> {
        match at.node.data {
            Data::Bool(b) => Some(b),
            _ => self
                .constant(at)
                .and_then(|()| self.wrong_kind(at, "true or false")),
        }
    }

    /// A whole number in a range.
    pub(super) fn count(&self, at: &At<'_>, min: u64, max: u64) -> Option<u64> {
        let Data::Number(number) = &at.node.data else {
            return self
                .constant(at)
                .and_then(|()| self.wrong_kind(at, "a whole number"));
        };
        let found = number.as_u64().filter(|n| (min..=max).contains(n));
        found.or_else(|| {
            let cause = format!("{number} is out of range");
            self.error(
                "CD0106",
                at,
                cause,
                format!("write a whole number from {min} to {max}"),
            )
        })
    }

    /// Refuses an expression where only a constant can stand.
    pub(super) fn constant(&self, at: &At<'_>) -> Option<()> {
        if at
            .text()
            .is_some_and(|t| crate::expr::inside_braces(t).is_some())
        {
            return self.error(
                "CD0124",
                at,
                "an expression cannot stand here: this must be known before the run begins",
                "write the value itself",
            );
        }
        Some(())
    }
}

/// "did you mean" if a known word is close, else the known words.
pub(super) fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|k| (distance(word, k), *k)).min();
    match near {
        Some((d, k))
            if d <= 2.min(word.chars().count() / 2).max(1) || word.eq_ignore_ascii_case(k) =>
        {
            format!("did you mean `{k}`?")
        }
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "nothing of the kind is defined".to_owned(),
    }
}

/// Levenshtein distance, of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    const CHARS_MAX: usize = 64;
    let b: Vec<char> = b.chars().take(CHARS_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(CHARS_MAX).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
