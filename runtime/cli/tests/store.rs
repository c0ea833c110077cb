//! The store's directory: what is foreign or damaged is told with exit code 4 and not touched.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{GREET, Sandbox};

/// Every file below a directory, with its contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            found.insert(path, bytes);
        }
    }
    found
}

#[test]
fn a_directory_of_somebody_elses_is_refused_and_untouched() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("mine/photo.jpg", "not yours");
    let before = contents(&sandbox.path("mine"));
    for args in [
        &["run", "w.yaml"][..],
        &["runs", "list"],
        &["runs", "show", "x"],
        &["runs", "resume"],
        &["deadletters", "list"],
        &["reviews", "list"],
        &["reviews", "decide", "x", "/t", "retry"],
        &["events", "list"],
    ] {
        let done = sandbox.run(&[args, &["--data", "mine"]].concat()).exits(4);
        assert!(
            done.stderr.contains("CD0406") && done.stderr.contains("mine"),
            "{args:?}: {}",
            done.stderr
        );
        assert_eq!(done.stdout, "", "{args:?}");
    }
    assert_eq!(contents(&sandbox.path("mine")), before);
}

#[test]
fn looking_at_a_store_that_is_not_there_makes_none() {
    let sandbox = Sandbox::new();
    for args in [
        &["runs", "list"][..],
        &["runs", "show", "x"],
        &["deadletters", "list"],
        &["reviews", "list"],
        &["events", "list"],
    ] {
        let done = sandbox.run(args).exits(4);
        assert!(
            done.stderr.contains("there is no store at `.cofferdam`"),
            "{}",
            done.stderr
        );
    }
    assert!(!sandbox.path(".cofferdam").exists());
}

#[test]
fn a_damaged_store_is_told_and_doctor_fails() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("i.json", r#"{"name": "Ada"}"#);
    sandbox
        .run(&["run", "w.yaml", "--input", "i.json", "--data", "d"])
        .exits(0);
    let magic = sandbox.path("d/cofferdam.store");
    std::fs::write(
        &magic,
        r#"{"format":"cofferdam-store","version":99,"engine":"sled"}"#,
    )
    .unwrap();
    let before = contents(&sandbox.path("d"));
    let done = sandbox.run(&["runs", "list", "--data", "d"]).exits(4);
    assert!(done.stderr.contains("CD0407"), "{}", done.stderr);
    let done = sandbox
        .run(&["doctor", "--offline", "--data", "d"])
        .exits(1);
    assert!(done.stdout.contains("fail  store d"), "{}", done.stdout);
    std::fs::write(&magic, "garbage").unwrap();
    let done = sandbox.run(&["run", "w.yaml", "--data", "d"]).exits(4);
    assert!(done.stderr.contains("CD040"), "{}", done.stderr);
    let mut after = contents(&sandbox.path("d"));
    after.insert(magic.clone(), before[&magic].clone());
    assert_eq!(after, before);
}

#[test]
fn a_store_that_is_no_directory_is_told() {
    let sandbox = Sandbox::new();
    sandbox.file("w.yaml", GREET);
    sandbox.file("d", "a file");
    let done = sandbox.run(&["run", "w.yaml", "--data", "d"]).exits(4);
    assert!(done.stderr.contains("CD0406"), "{}", done.stderr);
    assert_eq!(
        std::fs::read_to_string(sandbox.path("d")).unwrap(),
        "a file"
    );
}
