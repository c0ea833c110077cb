//! The pages of docs/guide are run: what they show is what the program prints.
//!
//! A block of `console` is a session: lines that begin with `$ ` are commands, run one after the
//! other in a folder of the page's own with a copy of the guide in it; what follows is what the
//! terminal shows, `[..]` stands for anything within a line and a line of `...` for any lines. A
//! command that ends in ` &` (`cofferdam serve &`) stays up until the page ends.

mod guide {
    pub(crate) mod page;
    pub(crate) mod session;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use guide::page::Page;

/// How many pages are run at the same time.
const PAGES_AT_ONCE: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide")
}

fn files(extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("the guide");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

fn pages() -> Vec<Page> {
    let pages = files("md")
        .into_iter()
        .filter(|p| !p.ends_with("README.md"));
    pages.map(|path| Page::read(&path)).collect()
}

#[test]
fn every_page_shows_what_the_program_prints() {
    let (pages, next) = (pages(), AtomicUsize::new(0));
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..PAGES_AT_ONCE {
            scope.spawn(|| {
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(what) = guide::session::play(page, &folder()) {
                        wrong.lock().expect("no panic").push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_page_runs_something() {
    for page in pages() {
        assert!(
            page.commands().next().is_some(),
            "{}: no `console` block with a command",
            page.name
        );
    }
}

#[test]
fn every_workflow_is_shown_and_run_by_a_page() {
    let pages = pages();
    for path in files("yaml") {
        let name = path.file_name().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&path).expect("readable");
        let shown = pages.iter().any(|page| page.text.contains(text.trim_end()));
        assert!(shown, "no page of the guide shows {name} as it is");
        let run = pages.iter().flat_map(Page::commands);
        assert!(
            { run }.any(|command| command.contains(&*name)),
            "no page of the guide runs {name}"
        );
    }
}

#[test]
fn the_readme_of_the_docs_names_every_page() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("readable");
    for page in pages() {
        let link = format!("({}.md)", page.name);
        assert!(readme.contains(&link), "docs/guide/README.md lacks {link}");
    }
}
