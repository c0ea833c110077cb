//! Tests of the compiler.

use std::collections::BTreeMap;

use serde_json::json;

use super::{compile, locate};
use crate::workflow::{Source, Sources, Workflow};

mod bad;
mod examples;
mod good;
mod language;
mod mutations;

const HEAD: &str =
    "document:\n  dsl: '1.0.3'\n  namespace: test\n  name: main\n  version: '1.0.0'\n";

/// Sources with these others, keyed `namespace/name:version`.
fn sources(text: &str, others: &[(&str, &str)]) -> Sources {
    let source = |origin: &str, text: &str| Source {
        origin: origin.into(),
        text: text.into(),
    };
    let others: BTreeMap<_, _> = others
        .iter()
        .map(|(key, text)| ((*key).to_owned(), source(&format!("{key}.yaml"), text)))
        .collect();
    Sources {
        main: source("workflow.yaml", text),
        others,
    }
}

/// A workflow whose document is [`HEAD`].
fn good(rest: &str) -> Workflow {
    compile(&sources(&format!("{HEAD}{rest}"), &[])).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_part_of_a_text_can_be_located() {
    let text =
        "document:\n  name: x\ndo:\n  - charge:\n      call: pay.charge\n      with: {a: 1}\n";
    assert_eq!(locate(text, "/do/0/charge"), Some((4, 5)));
    assert_eq!(locate(text, "/do/0/charge/with/a"), Some((6, 14)));
    assert_eq!(locate(text, "/do/1"), None);
    assert_eq!(locate("{", "/do"), None);
}

#[test]
fn json_is_a_workflow_too() {
    let text = json!({
        "document": {"dsl": "1.0.3", "namespace": "t", "name": "n", "version": "1.0.0"},
        "do": [{"a": {"set": {"x": 1}}}],
    });
    let workflow = compile(&sources(&text.to_string(), &[])).unwrap();
    assert_eq!(workflow.document.name, "n");
}

#[test]
fn an_error_is_shown_with_place_and_remedy() {
    let text = format!("{HEAD}do:\n  - a:\n      sett: {{x: 1}}\n");
    let errors = compile(&sources(&text, &[])).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "workflow.yaml:8:7: CD0113: there is no task `sett`\nhelp: did you mean `set`?"
    );
}

#[test]
fn every_error_is_told_in_the_order_of_the_text() {
    let text = format!(
        "{HEAD}oops: 1\ndo:\n  - a:\n      wait: 5\n  - b:\n      call: x\n  - c:\n      set: ${{ . +\n"
    );
    let errors = compile(&sources(&text, &[])).unwrap_err();
    let found: Vec<_> = errors.0.iter().map(|e| (e.code, e.line)).collect();
    assert_eq!(found.first(), Some(&("CD0103", 6)));
    assert!(found.len() >= 3, "{errors}");
    assert!(found.is_sorted_by_key(|(_, line)| *line), "{errors}");
}
