//! Error codes and the pages that explain them.

use std::collections::BTreeMap;

use crate::{
    repository::File,
    sources::{is_library, library_code},
};

const PAGES: &str = "docs/errors/";

/// Codes without a page and pages without a code.
pub(crate) fn complaints(files: &[File]) -> Vec<String> {
    let mut used: BTreeMap<&str, &str> = BTreeMap::new();
    for file in files.iter().filter(|file| is_library(file)) {
        for code in codes(library_code(&file.text)) {
            used.entry(code).or_insert(&file.path);
        }
    }
    let pages: Vec<&str> = files.iter().filter_map(|file| page(&file.path)).collect();
    let without_page = used.iter().filter(|(code, _)| !pages.contains(*code)).map(
        |(code, path)| {
            format!(
                "{code} ({path}) has no page: write {PAGES}{code}.md with its causes and remedies"
            )
        },
    );
    let without_code = pages
        .iter()
        .filter(|code| !used.contains_key(*code))
        .map(|code| {
            format!(
                "{PAGES}{code}.md explains a code that nothing in runtime/ uses: delete the page"
            )
        });
    without_page.chain(without_code).collect()
}

/// The code that the file at `path` explains, if it is such a page.
fn page(path: &str) -> Option<&str> {
    let name = path.strip_prefix(PAGES)?.strip_suffix(".md")?;
    codes(name).next().filter(|code| *code == name)
}

/// Every `CD` with just four digits behind it.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("CD").filter_map(|(at, _)| {
        let code = text.get(at..at + 6)?;
        let digits = code[2..].bytes().all(|byte| byte.is_ascii_digit());
        let before = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = text[at + 6..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        (digits && !before && !after).then_some(code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn only_whole_codes_count() {
        let found: Vec<_> = codes("`CD0001` CD12 ABCD0002 CD00031 \"CD0004\"é CDé CD").collect();
        assert_eq!(found, ["CD0001", "CD0004"]);
    }

    #[test]
    fn codes_and_pages_are_matched_both_ways() {
        let source = file("runtime/x/src/error.rs", "\"CD0001\" \"CD0002\"");
        let one = file("docs/errors/CD0001.md", "");
        let index = file("docs/errors/README.md", "");
        let stale = file("docs/errors/CD0003.md", "");
        let told = complaints(&[source, one, index, stale]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("CD0002 (runtime/x/src/error.rs) has no page"));
        assert!(told[1].starts_with("docs/errors/CD0003.md"));
    }
}
