//! The examples of the specification, where they are at hand: each compiles or is refused with
//! the code that `docs/openworkflow-examples.md` gives for it.

use std::collections::BTreeMap;
use std::path::Path;

use super::sources;
use crate::dsl::compile;

/// `| file | compiles |` or `| file | CD0101: reason |` rows.
fn listed() -> BTreeMap<String, String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openworkflow-examples.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let file = cells.next()?.trim_matches('`').to_owned();
        let verdict = cells.next()?.split(':').next()?.to_owned();
        Path::new(&file)
            .extension()
            .is_some_and(|e| e == "yaml")
            .then_some((file, verdict))
    });
    rows.collect()
}

/// The other workflow that `run-subflow.yaml` needs.
const OTHER: &str = "document: {dsl: '1.0.3', namespace: test, name: register-customer, version: '0.1.0'}\ndo: [{a: {set: {ok: true}}}]\n";

#[test]
fn each_example_of_the_specification_does_what_the_list_says() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/openworkflow/examples");
    let Ok(files) = std::fs::read_dir(folder) else {
        return;
    };
    let listed = listed();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if file.path().extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(file.path()).unwrap();
        let found = match compile(&sources(&text, &[("test/register-customer:0.1.0", OTHER)])) {
            Ok(_) => "compiles".to_owned(),
            Err(errors) => format!("{}: {}", errors.0[0].code, errors.0[0].cause),
        };
        let expected = listed.get(&name).map_or("not listed", String::as_str);
        if found.split(':').next() != Some(expected) {
            wrong.push(format!("| `{name}` | {found} |  listed: {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.concat());
    assert_eq!(
        seen,
        listed.len(),
        "the list has files that are no examples"
    );
}
