//! Promises of `SECURITY.md`, and the tests that are said to show them.

use crate::repository::File;

const PAGE: &str = "SECURITY.md";
/// The head of a table of promises.
const HEAD: &str = "| promise | kept by | shown by |";

/// Promises without a test, and tests that are not there.
pub(crate) fn complaints(files: &[File]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let mut complaints = Vec::new();
    let mut promises = false;
    for (index, line) in page.text.lines().enumerate() {
        let place = format!("{PAGE}:{}", index + 1);
        if !line.starts_with('|') {
            promises = false;
        } else if line == HEAD {
            promises = true;
        } else if promises && !line.starts_with("|---") {
            complaints.extend(row(&place, line, files));
        }
    }
    complaints
}

/// What is wrong with one promise: its last cell names files, each followed by its tests.
fn row(place: &str, line: &str, files: &[File]) -> Vec<String> {
    let cell = line.trim_end_matches('|').rsplit(" | ").next();
    let mut file: Option<&File> = None;
    let mut tests = 0;
    let mut complaints = Vec::new();
    for span in cell.unwrap_or_default().split('`').skip(1).step_by(2) {
        if span.contains('/') {
            file = files.iter().find(|file| file.path == span);
            if file.is_none() {
                complaints.push(format!("{place}: there is no file {span}"));
            }
        } else if let Some(file) = file.filter(|file| file.is_rust()) {
            tests += 1;
            if !file.text.contains(&format!("fn {span}(")) {
                complaints.push(format!(
                    "{place}: {} has no test `{span}`; name the one that shows the promise",
                    file.path
                ));
            }
        }
    }
    if tests == 0 {
        complaints.push(format!("{place}: the promise names no test that shows it"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(row: &str) -> Vec<File> {
        let file = |path: &str, text: String| File {
            path: path.to_owned(),
            text,
        };
        vec![
            file(
                PAGE,
                format!("# Security\n\n{HEAD}\n|---|---|---|\n{row}\n"),
            ),
            file("a/tests.rs", "fn it_holds() {}".to_owned()),
        ]
    }

    #[test]
    fn a_promise_whose_test_is_there_is_fine() {
        let row = "| it holds | care | `a/tests.rs` `it_holds` (with `care`) |";
        let found = complaints(&files(row));
        assert_eq!(found.len(), 1, "`care` is no test of that file: {found:?}");
        let row = "| it holds | care | `a/tests.rs` `it_holds` |";
        assert!(complaints(&files(row)).is_empty());
    }

    #[test]
    fn a_promise_whose_test_is_gone_is_told_with_its_line() {
        for (row, told) in [
            (
                "| it holds | care | `a/tests.rs` `it_held` |",
                "no test `it_held`",
            ),
            (
                "| it holds | care | `b/tests.rs` `it_holds` |",
                "no file b/tests.rs",
            ),
            ("| it holds | care | everything |", "names no test"),
        ] {
            let found = complaints(&files(row));
            assert!(found[0].starts_with("SECURITY.md:5: "), "{found:?}");
            assert!(found[0].contains(told), "{found:?}");
        }
    }
}
