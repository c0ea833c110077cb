//! What may stand in a file.

use std::{collections::BTreeSet, path::Path};

use crate::repository::File;

/// A longer file has more than one subject.
const LINES_MAX: usize = 800;

/// Folders of code that other people's programs link or run.
const LIBRARY: [&str; 2] = ["runtime/", "sdk/"];

/// Written in two parts so that this file does not contain them.
const UNFINISHED: [&str; 3] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore"),
];
const UNWRAP: &str = concat!(".unwrap", "()");

/// Folders that exist on one machine, and hosts that a mirror may stand in for.
const MACHINES: [&str; 8] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("registry.", "npmjs.org"),
    concat!("files.", "pythonhosted.org"),
    concat!("proxy.", "golang.org"),
];

/// How cargo writes the public registry, whichever mirror it was read from.
const PUBLIC: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Source files that nobody reads to the end.
pub(crate) fn too_long(files: &[File]) -> Vec<String> {
    let long = |file: &&File| file.is_rust() && file.text.lines().count() > LINES_MAX;
    files
        .iter()
        .filter(long)
        .map(|file| {
            let lines = file.text.lines().count();
            format!(
                "{}: {lines} lines; split it by subject, {LINES_MAX} is the most",
                file.path
            )
        })
        .collect()
}

/// Places that say "later".
pub(crate) fn unfinished(files: &[File]) -> Vec<String> {
    let rust = files.iter().filter(|file| file.is_rust());
    rust.flat_map(|file| {
        find(
            &file.path,
            &file.text,
            &UNFINISHED,
            "finish it or leave it out; fix a test or delete it",
        )
    })
    .collect()
}

/// Places where a library ends the program that uses it.
pub(crate) fn unwraps(files: &[File]) -> Vec<String> {
    let tests = test_modules(files);
    files
        .iter()
        .filter(|file| is_library(file) && !tests.iter().any(|path| file.path.starts_with(path)))
        .flat_map(|file| {
            let remedy = "return an error, or make the case impossible in the types";
            find(&file.path, library_code(&file.text), &[UNWRAP], remedy)
        })
        .collect()
}

/// Paths and hosts that mean something on one machine only.
pub(crate) fn machine_specific(files: &[File]) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| {
            let remedy = "say it relative to the repository, or by the name of the registry";
            find(&file.path, &file.text, &MACHINES, remedy)
        })
        .collect()
}

/// Lock files that were written against a mirror.
pub(crate) fn foreign_registries(files: &[File]) -> Vec<String> {
    let locks = files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.lock"));
    let sources: BTreeSet<_> = locks
        .flat_map(|file| file.text.lines().map(|line| (file.path.as_str(), line)))
        .filter_map(|(path, line)| Some((path, line.strip_prefix("source = ")?.trim_matches('"'))))
        .collect();
    let foreign = sources.iter().filter(|(_, source)| *source != PUBLIC);
    let complaint = |(path, source): &(&str, &str)| {
        format!("{path}: depends on {source}; depend on a published crate instead")
    };
    foreign.map(complaint).collect()
}

/// What is compiled into the library: all before the tests, which stand last in a file (clippy
/// keeps that).
pub(crate) fn library_code(text: &str) -> &str {
    let tests = text
        .match_indices("#[cfg(test)]")
        .map(|(at, _)| at)
        .find(|at| {
            let mut after = text[*at..]
                .lines()
                .skip(1)
                .skip_while(|line| line.starts_with("#["));
            let at_line_start = *at == 0 || text[..*at].ends_with('\n');
            at_line_start
                && after
                    .next()
                    .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        });
    &text[..tests.unwrap_or(text.len())]
}

/// Is this code that others link or run, rather than a test of it?
pub(crate) fn is_library(file: &File) -> bool {
    let in_library = LIBRARY.iter().any(|folder| file.path.starts_with(folder));
    in_library && file.is_rust() && file.path.contains("/src/")
}

/// The files and folders of modules that are only compiled for tests: `#[cfg(test)] mod x;`, or
/// `#[cfg(any(test, feature = "…"))]` for a suite that the tests of other crates run too.
fn test_modules(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| is_library(file)) {
        let mut lines = file.text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if line != "#[cfg(test)]" && !line.starts_with("#[cfg(any(test, feature") {
                continue;
            }
            let mut next = lines.next().unwrap_or_default().trim();
            if let Some(path) = next
                .strip_prefix("#[path = \"")
                .and_then(|p| p.strip_suffix("\"]"))
            {
                let (folder, _) = file.path.rsplit_once('/').unwrap_or_default();
                found.push(format!("{folder}/{path}"));
                next = lines.next().unwrap_or_default().trim();
            }
            let name = next
                .rsplit(' ')
                .next()
                .and_then(|name| name.strip_suffix(';'));
            if let (true, Some(name)) = (next.contains("mod "), name) {
                let folder = module_folder(&file.path);
                found.extend([format!("{folder}{name}.rs"), format!("{folder}{name}/")]);
            }
        }
    }
    found
}

/// Where the modules that the file at `path` declares are.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/"),
        _ => format!("{}/", path.trim_end_matches(".rs")),
    }
}

/// `path:line: pattern; remedy` for every line of `text` with one of `patterns` in it, comments
/// of Rust aside.
fn find(path: &str, text: &str, patterns: &[&str], remedy: &str) -> Vec<String> {
    let rust = Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "rs");
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let comment = rust && line.trim_start().starts_with("//");
        if let (false, Some(pattern)) = (comment, patterns.iter().find(|p| line.contains(*p))) {
            found.push(format!("{path}:{}: `{pattern}`; {remedy}", index + 1));
        }
    }
    found
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
    fn a_file_of_801_lines_is_too_long() {
        assert!(too_long(&[file("a.rs", &"x\n".repeat(800))]).is_empty());
        assert_eq!(too_long(&[file("a.rs", &"x\n".repeat(801))]).len(), 1);
        assert!(too_long(&[file("a.json", &"x\n".repeat(801))]).is_empty());
    }

    #[test]
    fn an_unfinished_function_is_named_with_its_line() {
        let text = format!("fn f() {{\n    {})\n}}\n", UNFINISHED[0]);
        let told = unfinished(&[file("runtime/x/src/lib.rs", &text)]);
        assert!(told[0].starts_with("runtime/x/src/lib.rs:2: "), "{told:?}");
        let ignored = format!("    {}]\n", UNFINISHED[2]);
        assert_eq!(unfinished(&[file("tests/x.rs", &ignored)]).len(), 1);
    }

    #[test]
    fn only_library_code_must_not_unwrap() {
        let unwrap = format!("    x{UNWRAP};\n");
        let place = "runtime/x/src/a.rs";
        assert_eq!(unwraps(&[file(place, &unwrap)]).len(), 1);
        assert!(unwraps(&[file("runtime/x/tests/a.rs", &unwrap)]).is_empty());
        assert!(unwraps(&[file(place, &format!("/// {unwrap}"))]).is_empty());
        let tested = format!("fn f() {{}}\n\n#[cfg(test)]\nmod tests {{\n{unwrap}}}\n");
        assert!(unwraps(&[file(place, &tested)]).is_empty());
        // An item that only tests use does not end the library's code.
        let helper = format!("#[cfg(test)]\nuse x;\n{unwrap}");
        assert_eq!(unwraps(&[file(place, &helper)]).len(), 1);
    }

    #[test]
    fn a_module_for_tests_may_unwrap() {
        let unwrap = format!("    x{UNWRAP};\n");
        let parent = file("sdk/x/src/lib.rs", "#[cfg(test)]\nmod checks;\n");
        assert!(unwraps(&[parent, file("sdk/x/src/checks.rs", &unwrap)]).is_empty());
        let gate = "#[cfg(any(test, feature = \"suite\"))]\npub mod checks;\n";
        let parent = file("sdk/x/src/lib.rs", gate);
        assert!(unwraps(&[parent, file("sdk/x/src/checks.rs", &unwrap)]).is_empty());
        let parent = file("sdk/x/src/a.rs", "#[cfg(test)]\npub(crate) mod checks;\n");
        assert!(unwraps(&[parent, file("sdk/x/src/a/checks.rs", &unwrap)]).is_empty());
    }

    #[test]
    fn a_path_of_somebodys_machine_is_named() {
        let told = machine_specific(&[file("docs/a.md", &format!("see {}me/x\n", MACHINES[1]))]);
        assert!(told[0].starts_with("docs/a.md:1: "), "{told:?}");
    }

    #[test]
    fn a_lock_file_with_a_mirror_or_a_branch_is_named() {
        let lock = |source: &str| file("plugins/Cargo.lock", &format!("source = \"{source}\"\n"));
        assert!(foreign_registries(&[lock(PUBLIC)]).is_empty());
        assert_eq!(
            foreign_registries(&[lock("git+https://example.com/x#1")]).len(),
            1
        );
    }
}
