//! The rules of the house, kept by a test.
//!
//! Each rule is a function from what is in the repository to a list of sentences, one for each
//! place that breaks it, each saying what to do. Beside it stands a test that the rule notices
//! when it is broken.

#[path = "house/edges.rs"]
mod edges;
#[path = "house/errors.rs"]
mod errors;
#[path = "house/promises.rs"]
mod promises;
#[path = "house/repository.rs"]
mod repository;
#[path = "house/sources.rs"]
mod sources;

use repository::Repository;

/// Fails with every complaint, one a line.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn crates_depend_on_each_other_only_where_the_architecture_says_so() {
    let repository = Repository::open();
    none(&edges::complaints(&repository.packages("Cargo.toml")));
}

#[test]
fn the_core_has_no_clock_no_randomness_and_no_runtime() {
    let repository = Repository::open();
    none(&edges::impure_core(&repository.packages("Cargo.toml")));
}

#[test]
fn plugins_know_the_sdk_and_nothing_of_the_host() {
    let repository = Repository::open();
    let guests = repository.packages("plugins/Cargo.toml");
    assert!(!guests.is_empty(), "plugins/Cargo.toml has no members");
    none(&edges::host_inside_guests(&repository.root, &guests));
}

#[test]
fn source_files_stay_readable() {
    none(&sources::too_long(&Repository::open().files()));
}

#[test]
fn nothing_is_left_unfinished_or_ignored() {
    none(&sources::unfinished(&Repository::open().files()));
}

#[test]
fn library_code_does_not_unwrap() {
    none(&sources::unwraps(&Repository::open().files()));
}

#[test]
fn no_file_names_somebodys_machine() {
    none(&sources::machine_specific(&Repository::open().files()));
}

#[test]
fn lock_files_name_no_registry_but_the_public_one() {
    none(&sources::foreign_registries(&Repository::open().files()));
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    none(&errors::complaints(&Repository::open().files()));
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    none(&promises::complaints(&Repository::open().files()));
}

#[test]
fn the_documents_that_everybody_looks_for_are_there() {
    let repository = Repository::open();
    let files = repository.files();
    let wanted = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
    ];
    let missing = wanted
        .iter()
        .filter(|name| !files.iter().any(|file| file.path == **name));
    let complaints = missing.map(|name| format!("{name} is missing: write it, in the root"));
    none(&complaints.collect::<Vec<_>>());
}
